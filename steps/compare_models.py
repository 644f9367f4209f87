"""Judge the new model against the champion and the minimum bounds."""

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
        champion = champions.as_rival(champion, champion_version, model.card.contract)
    name = model.card.recipe.name
    looks = champions.looks(name, earlier, model.fingerprint)
    best = champions.best(name, earlier, model.card.contract)
    verdict = judge_models(model, champion, champion_version, holdout_rows, gate, evaluation, looks, best)
    return hold_undeployable(verdict, model, holdout_rows, serving)
