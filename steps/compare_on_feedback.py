"""Judge a model that has learned from served traffic, on old and new rows apart."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Evaluation, Gate, Serving
from loop.deploying.check import hold_undeployable
from loop.registry import champions
from loop.registry.champions import Earlier
from loop.training.bundle import Bundle
from loop.training.gate import Verdict, judge_models
from loop.training.stand_in import StandIn
from loop.watching.feedback import History, compare_sides, hold_to_old_rows


@step
def compare_on_feedback(
    model: Bundle,
    champion: Bundle | StandIn,
    champion_version: int,
    holdout_rows: pd.DataFrame,
    old_holdout_rows: pd.DataFrame,
    history: History,
    gate: Gate,
    evaluation: Evaluation,
    serving: Serving,
    earlier: Earlier,
    recall: Verdict | None,
) -> Annotated[Verdict, "judgement"]:
    """Let both models predict the holdout, which neither has seen, and say how each does on old and on new rows.

    One that could not be deployed is not promoted, nor one that is worse on old rows where new ones may have been
    labelled selectively. One that was recalled was judged then, on the new rows.
    """
    champion = champions.as_rival(champion, champion_version, model.card.contract)
    name, verdict = model.card.recipe.name, recall
    if verdict is None:
        looks = champions.looks(name, earlier, model.fingerprint)
        best = champions.best(name, earlier, model.card.contract)
        verdict = judge_models(model, champion, champion_version, holdout_rows, gate, evaluation, looks, best)
        if history.doubt:
            trusted = champions.trusted_rows(name, champion_version, champion, old_holdout_rows)
            verdict = hold_to_old_rows(verdict, model, champion, trusted, gate, evaluation, looks)
    verdict = hold_undeployable(verdict, model, holdout_rows, serving)
    groups = compare_sides(model, champion, holdout_rows, old_holdout_rows, history, gate, evaluation)
    judged = "old and new rows" if history.keep and recall is None else "new rows alone"
    reasons = (*verdict.reasons, f"judged on {judged}, since the rows of before are {history.sentence}")
    reasons = (*reasons, *(group.sentence for group in groups))
    return verdict.model_copy(update={"groups": groups, "reasons": reasons})
