"""A champion that cannot be loaded is held to what it said of the holdout."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tables import mixed, recipe, trained

from loop.config import Data, Evaluation, Gate, Split
from loop.training.gate import Verdict, judge_models
from loop.training.stand_in import StandIn
from loop.watching.feedback import hold_to_old_rows

QUICK = Evaluation(resamples=200)
FAULT = "needs scikit-learn 1.9.1, here is 1.9.2"


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_the_verdict_is_the_one_beside_the_model_itself(target):
    champion, holdout = trained(mixed(), recipe(target))
    challenger, _ = trained(mixed(), recipe(target, params={"min_samples_leaf": 5}))
    record = StandIn.of(champion, holdout, champion.scores(holdout))
    read = replace(StandIn.read(record.files()), fault=FAULT)
    assert read.files()["scores.parquet"] == record.files()["scores.parquet"]
    shuffled = holdout.sample(frac=1, random_state=0)
    real, recorded = (judge_models(challenger, rival, 4, shuffled, Gate(), QUICK) for rival in (champion, read))
    assert recorded.conditions == real.conditions
    assert (recorded.decision, recorded.rows, recorded.champion_version) == (real.decision, len(holdout), 4)
    said = (
        f"champion v4 cannot be loaded ({FAULT}): compared with its recorded predictions on {len(holdout)} common rows"
    )
    assert said in recorded.reasons


def test_only_rows_on_record_count_and_a_row_that_has_changed_is_another():
    champion, holdout = trained(mixed(), recipe())
    record = StandIn.of(champion, holdout, champion.scores(holdout))
    assert (record.unseen(mixed()) == champion.card.split.held_out(mixed())).all()
    assert not record.unseen(mixed(seed=1)).any()
    older = holdout.assign(alter=holdout["alter"] + 1)  # the same ids, but the score was of another age
    assert (record.unseen(older) == holdout["alter"].isna()).all()
    twice = StandIn.of(champion, holdout.loc[[0, 0, 1]], champion.scores(holdout.loc[[0, 0, 1]]))
    np.testing.assert_array_equal(twice.predictions(holdout[:2]).scores, champion.scores(holdout[:2]))


def test_what_the_champion_learned_from_by_another_split_is_left_out_and_said_so():
    champion, holdout = trained(mixed(), recipe())
    challenger, others = trained(mixed().assign(nummer=lambda rows: rows["nummer"] + 10_000), recipe())
    rows = others.assign(nummer=others["nummer"] - 10_000)
    verdict = judge_models(challenger, champion, 4, rows, Gate(min_rows=30), QUICK)
    assert 0 < verdict.rows < len(rows)
    said = f"judged on {verdict.rows} of {len(rows)} holdout rows: champion v4 learned from the others, or may"
    assert any(reason.startswith(said) for reason in verdict.reasons)
    assert not any("learned from" in s for s in judge_models(challenger, champion, 4, holdout, Gate(), QUICK).reasons)


def test_a_champion_of_few_contents_is_judged_by_its_own_split_alone():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 1000), random.integers(0, 4, 1000)
    rows = pd.DataFrame({"a": a, "b": b, "ja": random.random(1000) < (a + b) / 7})
    alike = recipe().model_copy(update={"data": Data(source="made", target="ja")})
    champion, holdout = trained(rows, alike)
    challenger, _ = trained(rows, alike.model_copy(update={"model": recipe(params={"max_depth": 1}).model}))
    verdict = judge_models(challenger, champion, 4, holdout, Gate(), QUICK)
    assert (verdict.rows, len(verdict.conditions)) == (len(holdout), 2)
    challenger, holdout = trained(rows, alike.model_copy(update={"split": Split(seed=1)}))
    held = judge_models(challenger, champion, 4, holdout, Gate(), QUICK)
    assert (held.decision, held.rows) == ("hold", 0)
    assert held.reasons[0].startswith("there is no holdout row that no model has seen")
    assert held.reasons[1].endswith("undo that, or train under another name")
    passed = Verdict(decision="promote", reasons=("passed",), rows=100)
    held = hold_to_old_rows(passed, challenger, champion, holdout, Gate(), QUICK)
    assert (held.decision, held.reasons[1]) == ("hold", "passed")
    assert "none is known to be new to both models" in held.reasons[0]


def test_too_few_common_rows_hold_and_the_advice_has_them_compared():
    champion, holdout = trained(mixed(), recipe())
    record = replace(StandIn.of(champion, holdout[:20], champion.scores(holdout[:20])), fault=FAULT)
    held = judge_models(champion, record, 4, holdout, Gate(), QUICK)
    assert held.decision == "hold"
    (reason,) = held.reasons
    assert f"on record for 20 of these {len(holdout)} rows only" in reason
    advised = int(reason.rpartition("gate.min_rows: ")[2])
    other, _ = trained(mixed(), recipe(params={"min_samples_leaf": 5}))
    compared = judge_models(other, record, 4, holdout, Gate(min_rows=advised, min_events=1), QUICK)
    assert compared.rows == 20
    assert "not_worse_than_champion" in {condition.name for condition in compared.conditions}


@pytest.mark.parametrize("known", [True, False])
def test_without_any_record_the_challenger_is_judged_like_a_first_model_and_loudly(known):
    champion, holdout = trained(mixed(), recipe())
    challenger, _ = trained(mixed(), recipe(params={"min_samples_leaf": 5}))
    lost = replace(StandIn.without_record(champion.card if known else None), fault=FAULT)
    assert StandIn.read(lost.files()).card == lost.card
    found = judge_models(challenger, lost, 4, holdout, Gate(), QUICK)
    first = judge_models(challenger, None, None, holdout, Gate(), QUICK)
    assert (found.decision, found.conditions) == (first.decision, first.conditions)
    assert found.champion_version == 4
    assert found.reasons[0].startswith(f"champion v4 cannot be loaded ({FAULT}) and no prediction of these rows is")
    assert found.reasons[0].endswith("judged like a first model")


def test_the_same_model_is_known_by_its_card():
    champion, holdout = trained(mixed(), recipe())
    record = replace(StandIn.of(champion, holdout, champion.scores(holdout)), fault="it is gone")
    held = judge_models(champion, record, 4, holdout, Gate(), QUICK)
    assert held.reasons[0] == "it is the same model as champion v4"
    assert "it is gone" in held.reasons[1]
