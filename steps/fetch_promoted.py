"""Find the model that was promoted, with all that its server needs."""

from typing import Annotated

import pandas as pd
from zenml import step

import registry
from config import UserError, command
from core.bundle import Bundle
from core.metrics import Scorecard
from registry import Promotion
from steps.materializers import ModelBundle, Table


@step(enable_cache=False, output_materializers={"promoted_model": ModelBundle, "check_rows": Table})
def fetch_promoted(
    name: str,
) -> tuple[
    Annotated[Bundle, "promoted_model"],
    Annotated[Promotion, "promotion"],
    Annotated[Scorecard, "promoted_scorecard"],
    Annotated[pd.DataFrame, "check_rows"],
]:
    """Return the champion, the entry that made it so, its scorecard, and holdout rows to check a server with."""
    entry, found = registry.champion(name), registry.load_champion(name)
    if entry is None or found is None:
        raise UserError(f"'{name}' has no champion to deploy; train one first: {command('--pipeline training')}")
    scorecard, holdout_rows = registry.evidence(name, entry.version)
    return found[1], entry, scorecard, holdout_rows
