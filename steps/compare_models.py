"""Judge the new model against the champion and the minimum bounds."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Evaluation, Gate
from core.bundle import Bundle
from core.gate import Verdict, judge
from core.report import verdict_page
from steps.materializers import Report


@step(output_materializers=Report)
def compare_models(
    model: Bundle,
    champion: Bundle | None,
    champion_version: int | None,
    holdout_rows: pd.DataFrame,
    gate: Gate,
    evaluation: Evaluation,
) -> Annotated[Verdict, "verdict"]:
    """Let both models predict the same rows, none of which either has seen, and return the verdict."""
    rows = holdout_rows
    if champion is not None:
        rows = holdout_rows[champion.card.split.held_out(holdout_rows)]
    verdict = judge(
        model.predictions(rows),
        None if champion is None else champion.predictions(rows),
        model.card.prior,
        gate,
        evaluation,
        champion_version=champion_version,
        same_model=champion is not None and champion.fingerprint == model.fingerprint,
    )
    return verdict.with_page(verdict_page(model.card.recipe.name, verdict))
