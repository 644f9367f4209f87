"""Find the model that is in charge now."""

from typing import Annotated

from zenml import step

import registry
from core.bundle import Bundle
from steps.materializers import ModelBundle  # noqa: F401  (registers itself for bundles)


@step(enable_cache=False)
def fetch_champion(
    name: str,
) -> tuple[Annotated[Bundle | None, "champion"], Annotated[int | None, "champion_version"]]:
    """Return the champion's bundle and version, or nothing before the first promotion."""
    version, bundle = registry.load_champion(name) or (None, None)
    return bundle, version
