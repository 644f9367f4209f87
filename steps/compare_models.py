"""Judge the new model against the champion and the minimum bounds."""

from typing import Annotated

import pandas as pd
from zenml import step

import registry
from config import Evaluation, Gate, Serving
from core.bundle import Bundle
from core.gate import Verdict, judge_models
from core.report import verdict_page
from core.stand_in import StandIn
from serving.check import hold_undeployable
from steps.materializers import Report


@step(output_materializers=Report)
def compare_models(
    model: Bundle,
    champion: Bundle | StandIn | None,
    champion_version: int | None,
    holdout_rows: pd.DataFrame,
    gate: Gate,
    evaluation: Evaluation,
    serving: Serving,
) -> Annotated[Verdict, "verdict"]:
    """Let both models predict the same rows, none of which either has seen, and return the verdict.

    One that could not be deployed is not promoted.
    """
    if champion is not None and champion_version is not None:
        champion = registry.as_rival(champion, champion_version, model.card.contract)
    verdict = judge_models(model, champion, champion_version, holdout_rows, gate, evaluation)
    verdict = hold_undeployable(verdict, model, holdout_rows, serving)
    return verdict.with_page(verdict_page(model.card.recipe.name, verdict))
