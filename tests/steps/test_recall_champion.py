"""An earlier champion is brought back by the gate, on the labels since the drift began, or not at all."""

from datetime import datetime
from typing import Any

import pandas as pd
import pytest
from zenml.utils.source_utils import set_custom_source_root

from loop.config import ROOT, Config, load
from loop.data.contract import learn_contract
from loop.data.sources import read_rows
from loop.data.split import resolve
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.training.metrics import estimate
from loop.watching.feedback import History
from loop.watching.policy import Decision

set_custom_source_root(str(ROOT))  # as loop/places/apply.py does before a step is imported

from loop.registry import champions  # noqa: E402
from steps.compare_on_feedback import compare_on_feedback  # noqa: E402
from steps.recall_champion import recall_champion  # noqa: E402

CONFIG = load(ROOT / "configs/breast_cancer.yaml", ["evaluation.resamples=200", "gate.minimum={}"])
ROWS = read_rows(CONFIG.data)
RULE = resolve(ROWS, CONFIG.data, CONFIG.split)
TRAIN, HOLDOUT = (ROWS[side].reset_index(drop=True) for side in (~RULE.held_out(ROWS), RULE.held_out(ROWS)))
HISTORY = History(keep=False, old_rows=0, new_rows=len(TRAIN), reason="a test")


def learned(rows: pd.DataFrame) -> Bundle:
    return train(rows, learn_contract(rows, CONFIG.data, CONFIG.contract), RULE, CONFIG.recipe)


FIRST = learned(TRAIN)
TURNED = learned(TRAIN.assign(**{CONFIG.data.target: TRAIN[CONFIG.data.target].to_numpy()[::-1]}))
"""A model of another world, in which the labels have nothing to do with the rows."""


def recalled(monkeypatch: pytest.MonkeyPatch, config: Config = CONFIG, *, drifting: bool = True) -> Any:
    """Let the model of this world be a champion of before, and that of another one be the champion."""
    before = {1: (FIRST, estimate(FIRST.predictions(HOLDOUT), ["roc_auc"], CONFIG.evaluation))}
    monkeypatch.setattr(champions, "past_champions", lambda name, earlier: before)
    decision = Decision.model_construct(since=datetime(2026, 1, 1) if drifting else None)
    earlier = champions.Earlier(champions=(1,))
    sides = (TRAIN, HOLDOUT, HOLDOUT.head(0), HISTORY, RULE)
    return recall_champion.entrypoint(TURNED, 2, earlier, decision, *sides, config)


def test_the_champion_of_this_world_comes_back_and_its_verdict_is_the_one_that_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, verdict = recalled(monkeypatch)
    assert model is FIRST
    assert (verdict.decision, verdict.champion_version, verdict.rows) == ("promote", 2, len(HOLDOUT))
    assert verdict.reasons[0].startswith("v1 is brought back, and nothing was trained: ")
    settings = (HISTORY, CONFIG.gate, CONFIG.evaluation, CONFIG.serving, champions.Earlier(), verdict)
    judged = compare_on_feedback.entrypoint(model, TURNED, 2, HOLDOUT, HOLDOUT.head(0), *settings)
    assert (judged.decision, judged.conditions) == ("promote", verdict.conditions)
    assert "judged on new rows alone" in " ".join(judged.reasons)


def test_none_comes_back_where_no_drift_began_or_the_config_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recalled(monkeypatch, drifting=False) == (None, None)
    off = CONFIG.model_copy(update={"retraining": CONFIG.retraining.model_copy(update={"recall": "off"})})
    assert recalled(monkeypatch, off) == (None, None)


def test_one_that_the_gate_holds_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = CONFIG.model_copy(update={"gate": CONFIG.gate.model_copy(update={"minimum": {"roc_auc": 0.9999}})})
    assert recalled(monkeypatch, strict) == (None, None)
