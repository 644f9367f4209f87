"""Bring an earlier champion back where its world has come back."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Config
from loop.data.split import SplitRule
from loop.registry import champions
from loop.registry.champions import Earlier
from loop.registry.materializers import ModelBundle, Report  # noqa: F401  (register themselves for bundles and verdicts)
from loop.training.bundle import Bundle
from loop.training.gate import Verdict, judge_models
from loop.training.stand_in import StandIn
from loop.watching.feedback import History, new_rows
from loop.watching.policy import Decision
from loop.watching.recall import choose_champion


@step(enable_cache=False)
def recall_champion(
    champion: Bundle | StandIn,
    champion_version: int,
    earlier: Earlier,
    retraining_decision: Decision,
    train_rows: pd.DataFrame,
    holdout_rows: pd.DataFrame,
    old_holdout_rows: pd.DataFrame,
    history: History,
    split_rule: SplitRule,
    config: Config,
) -> tuple[Annotated[Bundle | None, "recalled"], Annotated[Verdict | None, "recall"]]:
    """Return an earlier champion that the gate promotes on the rows since the drift began, and its verdict, or nothing.

    Which one is tried is chosen on new rows of the training side; it is judged on those of the holdout. None is where
    the new rows may have been labelled selectively.
    """
    name, version = config.name, None
    asked = config.retraining.recall == "auto" and retraining_decision.since is not None and not history.doubt
    if asked and isinstance(champion, Bundle):
        known = champions.past_champions(name, earlier)
        newest = train_rows.tail(history.new_rows)
        version = choose_champion(champion, known, newest, config.gate, config.evaluation)
    if version is None or not isinstance(champion, Bundle):
        return None, None
    model, rows = known[version][0], new_rows(holdout_rows, old_holdout_rows, history)
    rival = champions.as_rival(champion, champion_version, model.card.contract)
    looks = champions.looks(name, earlier, model.fingerprint)
    unseen = model.unseen(rows, split_rule) & rival.unseen(rows, split_rule)
    rows = rows[unseen].reset_index(drop=True)
    verdict = judge_models(model, rival, champion_version, rows, config.gate, config.evaluation, looks)
    if verdict.decision != "promote":
        return None, None
    why = "on the labels since the drift began it is ahead of the champion and as good as it once was"
    return model, verdict.because(f"v{version} is brought back, and nothing was trained: {why}")
