"""Find the model that is in charge now, and those before it that still count."""

from typing import Annotated

from zenml import step

from loop.registry import champions
from loop.registry.champions import Earlier
from loop.registry.materializers import ModelBundle, Record  # noqa: F401  (register themselves for bundles and records)
from loop.training.bundle import Bundle
from loop.training.stand_in import StandIn


@step(enable_cache=False)
def fetch_champion(
    name: str,
) -> tuple[
    Annotated[Bundle | StandIn | None, "champion"],
    Annotated[int | None, "champion_version"],
    Annotated[Earlier, "earlier"],
]:
    """Return the champion and its version, or nothing before the first promotion, and what earlier models left.

    A champion that cannot be loaded is what is on record of it.
    """
    version, champion = champions.find_rival(name) or (None, None)
    return champion, version, champions.earlier(name)
