"""A retraining is judged also where the champion is gone: by what it said of the old rows, and of new ones it knew."""

from dataclasses import replace

import pandas as pd
import pytest
from zenml.utils.source_utils import set_custom_source_root

from loop.config import ROOT, load
from loop.data.contract import learn_contract
from loop.data.sources import read_rows
from loop.data.split import resolve
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.training.stand_in import StandIn
from loop.watching.feedback import History

set_custom_source_root(str(ROOT))  # as loop/places/apply.py does before a step is imported

from loop.registry.champions import Earlier  # noqa: E402
from steps.compare_on_feedback import compare_on_feedback  # noqa: E402

CONFIG = load(ROOT / "configs/breast_cancer.yaml", ["evaluation.resamples=200"])
ROWS = read_rows(CONFIG.data)
RULE = resolve(ROWS, CONFIG.data, CONFIG.split)
TRAIN, HOLDOUT = (ROWS[side].reset_index(drop=True) for side in (~RULE.held_out(ROWS), RULE.held_out(ROWS)))


def trained(strength: float) -> Bundle:
    recipe = CONFIG.recipe.model_copy(update={"model": CONFIG.model.model_copy(update={"params": {"C": strength}})})
    return train(TRAIN, learn_contract(TRAIN, CONFIG.data, CONFIG.contract), RULE, recipe)


@pytest.mark.parametrize("keep", [True, False])
def test_old_and_new_rows_are_compared_as_far_as_they_are_on_record(keep: bool) -> None:
    champion, challenger = trained(0.001), trained(0.1)
    old, new = HOLDOUT[:80], HOLDOUT[80:]
    known = pd.concat([old, new[:40]], ignore_index=True)
    record = replace(StandIn.of(champion, known, champion.scores(known)), fault="it is gone")
    holdout = pd.concat([old, new], ignore_index=True) if keep else new.reset_index(drop=True)
    history = History(keep=keep, old_rows=80, new_rows=len(new), reason="a test")
    settings = (history, CONFIG.gate, CONFIG.evaluation, CONFIG.serving, Earlier(), None)
    verdict = compare_on_feedback.entrypoint(challenger, record, 1, holdout, old, *settings)
    assert verdict.rows == (120 if keep else 40)
    assert {group.name: group.rows for group in verdict.groups} == {"old rows": 80, "new rows": 40}
    whole = known if keep else known[80:].reset_index(drop=True)
    beside = compare_on_feedback.entrypoint(challenger, champion, 1, whole, old, *settings)
    assert (verdict.decision, verdict.conditions) == (beside.decision, beside.conditions)
    assert verdict.groups == beside.groups


def test_without_a_record_it_is_judged_like_a_first_model() -> None:
    lost = replace(StandIn.without_record(None), fault="it is gone")
    history = History(keep=True, old_rows=80, new_rows=len(HOLDOUT) - 80, reason="a test")
    settings = (history, CONFIG.gate, CONFIG.evaluation, CONFIG.serving, Earlier(), None)
    verdict = compare_on_feedback.entrypoint(trained(0.1), lost, 1, HOLDOUT, HOLDOUT[:80], *settings)
    assert (verdict.decision, verdict.rows, verdict.groups) == ("promote", len(HOLDOUT), ())
    assert verdict.reasons[0].endswith("judged like a first model")


@pytest.mark.parametrize("doubt", ["", "labels came for 10% of those decided 0"])
def test_where_labels_may_be_selective_the_old_rows_are_one_more_condition(doubt: str) -> None:
    champion, challenger = trained(0.001), trained(0.1)
    record = replace(StandIn.of(champion, HOLDOUT, champion.scores(HOLDOUT)), fault="it is gone")
    history = History(keep=True, old_rows=80, new_rows=len(HOLDOUT) - 80, reason="a test", doubt=doubt)
    settings = (history, CONFIG.gate, CONFIG.evaluation, CONFIG.serving, Earlier(), None)
    verdict = compare_on_feedback.entrypoint(challenger, record, 1, HOLDOUT, HOLDOUT[:80], *settings)
    found = {condition.name: condition.n for condition in verdict.conditions}
    assert found.get("not_worse_on_old_rows") == (80 if doubt else None)
    assert found["not_worse_than_champion"] == len(HOLDOUT)
