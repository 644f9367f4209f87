"""Find the model that was promoted, with all that its server needs."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import UserError, command
from loop.registry import champions
from loop.registry.champions import Promotion
from loop.registry.materializers import ModelBundle, Table
from loop.training.bundle import Bundle
from loop.training.metrics import Scorecard


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
    entry, found = champions.champion(name), champions.load_champion(name)
    if entry is None or found is None:
        raise UserError(f"'{name}' has no champion to deploy; train one first: {command('--pipeline training')}")
    scorecard, holdout_rows = champions.evidence(name, entry.version)
    return found[1], entry, scorecard, holdout_rows
