"""Find the model that is in charge now, and those before it that still count."""

from typing import Annotated

from zenml import step

import registry
from core.bundle import Bundle
from core.stand_in import StandIn
from registry import Earlier
from steps.materializers import ModelBundle, Record  # noqa: F401  (register themselves for bundles and records)


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
    version, champion = registry.find_rival(name) or (None, None)
    return champion, version, registry.earlier(name)
