"""Judge the new model against the champion and the minimum bounds."""

from typing import Annotated

import pandas as pd
from zenml import step

import registry
from config import Evaluation, Gate, Serving
from core.bundle import Bundle
from core.gate import Verdict, judge_models
from core.stand_in import StandIn
from registry import Earlier
from serving.check import hold_undeployable


@step
def compare_models(
    model: Bundle,
    champion: Bundle | StandIn | None,
    champion_version: int | None,
    holdout_rows: pd.DataFrame,
    gate: Gate,
    evaluation: Evaluation,
    serving: Serving,
    earlier: Earlier,
) -> Annotated[Verdict, "judgement"]:
    """Let both models predict the same rows, none of which either has seen, and return the judgement.

    One that could not be deployed is not promoted.
    """
    if champion is not None and champion_version is not None:
        champion = registry.as_rival(champion, champion_version, model.card.contract)
    name = model.card.recipe.name
    looks = registry.looks(name, earlier, model.fingerprint)
    best = registry.best(name, earlier, model.card.contract)
    verdict = judge_models(model, champion, champion_version, holdout_rows, gate, evaluation, looks, best)
    return hold_undeployable(verdict, model, holdout_rows, serving)
