"""Judge a model that has learned from served traffic, on old and new rows apart."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Evaluation, Gate
from core.bundle import Bundle
from core.feedback import History
from core.gate import Verdict, compare_group, judge
from core.report import verdict_page
from steps.materializers import Report


@step(output_materializers=Report)
def compare_on_feedback(
    model: Bundle,
    champion: Bundle,
    champion_version: int,
    holdout_rows: pd.DataFrame,
    old_holdout_rows: pd.DataFrame,
    history: History,
    gate: Gate,
    evaluation: Evaluation,
) -> Annotated[Verdict, "verdict"]:
    """Let both models predict the holdout, which neither has seen, and say how each does on old and on new rows."""
    rows = holdout_rows[champion.card.split.held_out(holdout_rows)]
    verdict = judge(
        model.predictions(rows),
        champion.predictions(rows),
        model.card.prior,
        gate,
        evaluation,
        champion_version=champion_version,
        same_model=champion.fingerprint == model.fingerprint,
    )
    new_rows = holdout_rows.iloc[len(old_holdout_rows) :] if history.keep else holdout_rows
    groups = [
        compare_group(name, model.predictions(part), champion.predictions(part), gate, evaluation)
        for name, side in (("old rows", old_holdout_rows), ("new rows", new_rows))
        if len(part := side[champion.card.split.held_out(side)])
    ]
    judged = "old and new rows" if history.keep else "new rows alone"
    reasons = (*verdict.reasons, f"judged on {judged}, since the rows of before are {history.sentence}")
    reasons = (*reasons, *(group.sentence for group in groups))
    verdict = verdict.model_copy(update={"groups": tuple(groups), "reasons": reasons})
    return verdict.with_page(verdict_page(model.card.recipe.name, verdict))
