from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from loop.config import Data, Evaluation, Gate, Split
from loop.data.groups import design_effect, groups_of
from loop.data.split import folds, resolve
from loop.training.gate import judge
from loop.training.metrics import METRICS, Predictions, estimate, estimate_difference

QUICK = Evaluation(resamples=400)


def data(**named: object) -> Data:
    return Data.model_validate({"source": "none", "target": "y", **named})


def customers(n: int, size: int) -> pd.DataFrame:
    return pd.DataFrame({"customer": np.arange(n) // size, "row": np.arange(n), "x": np.arange(n) / 7, "y": 0})


def test_rows_of_one_customer_one_id_or_one_stretch_of_time_belong_together() -> None:
    rows = customers(60, 3)
    by_customer = groups_of(rows, data(group=["customer"], id=["row"]), ["x"])
    assert by_customer is not None
    assert (np.bincount(by_customer) == 3).all()
    assert np.array_equal(by_customer, groups_of(rows, data(id=["customer"]), ["x"]))
    assert groups_of(rows, data(id=["row"]), ["x"]) is None
    gone = rows.assign(customer=rows["customer"].where(rows["customer"] > 0))  # three rows of nobody knows whom
    assert groups_of(gone, data(group=["customer"]), ["x"]).max() + 1 == 19 + 3
    hours = rows.assign(time=pd.Timestamp(2026, 1, 1) + pd.to_timedelta(rows["row"][::-1].to_numpy(), "h"))
    stretches = groups_of(hours, data(id=["row"], time="time"), ["x"])
    assert np.array_equal(stretches, np.arange(60)[::-1] // 2)
    many = customers(10_000, 1).assign(time=hours["time"][0])
    assert groups_of(many, data(time="time"), ["x"]).max() + 1 == 100


def test_copies_belong_together_unless_a_few_contents_make_the_table() -> None:
    rows = customers(200, 2)
    assert np.array_equal(groups_of(rows, data(), ["customer"]), rows["customer"])
    assert groups_of(rows, data(), ["customer", "x"]) is None
    survey = rows.assign(answer=rows["row"] % 4)
    assert groups_of(survey, data(), ["answer"]) is None


def test_a_group_of_equal_values_counts_as_one_row_and_independent_ones_as_what_they_are() -> None:
    groups = np.arange(3000) // 10
    random = np.random.default_rng(0)
    assert design_effect(random.random(300)[groups], groups) == pytest.approx(10)
    assert design_effect(random.random(3000), groups) == pytest.approx(1, abs=0.15)
    assert design_effect(np.ones(3000), groups) == 10
    assert design_effect(random.random(3000), None) == 1


@pytest.mark.parametrize("name", sorted(METRICS["binary"]))
def test_an_interval_of_copies_is_that_of_single_rows(name: str) -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 150)
    one = Predictions("binary", truth, np.clip(0.3 * truth + 0.7 * random.random(150), 0, 1))
    copied = Predictions("binary", truth.repeat(8), one.scores.repeat(8), groups=np.arange(1200) // 8)
    (alone,), (together,) = (estimate(side, [name], QUICK).values() for side in (one, copied))
    assert together.effective == pytest.approx(150)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    (naive,) = estimate(replace(copied, groups=None), [name], QUICK).values()
    assert naive.high - naive.low < 0.6 * (together.high - together.low)


@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "f1", "log_loss"])
def test_slopes_and_resamples_agree_on_groups(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    groups = np.arange(30_000) // 10
    truth = random.integers(0, 2, 3000)[groups]
    noise = (random.random(3000)[groups] + random.random(30_000)) / 2
    models = [
        Predictions("binary", truth, np.clip(0.2 + 0.3 * truth + part * (noise - 0.5), 0.01, 0.99), groups=groups)
        for part in (0.9, 1.0)
    ]
    found = estimate_difference(name, *models, Evaluation(resamples=200))
    monkeypatch.setattr("loop.training.metrics.LARGE", 10**9)
    drawn = estimate_difference(name, *models, Evaluation(resamples=2000))
    assert found.high - found.low == pytest.approx(drawn.high - drawn.low, rel=0.1)


def test_a_group_stays_on_one_side_and_in_one_fold() -> None:
    rows = customers(2000, 10)
    rule = resolve(rows, data(group=["customer"], id=["row"]), Split())
    for part in (rule.held_out(rows), folds(rows, rule, 5)):
        assert (pd.Series(part).groupby(rows["customer"]).nunique() == 1).all()
    assert rule.held_out(rows).mean() == pytest.approx(0.25, abs=0.08)


def test_too_few_groups_or_events_carry_no_judgement() -> None:
    random = np.random.default_rng(3)
    truth = (np.arange(1000) < 5).astype(int)
    few = Predictions("binary", truth, 0.3 * truth + 0.5 * random.random(1000))
    found = judge(few, None, (0.99, 0.01), Gate(), QUICK)
    assert found.decision == "hold"
    assert "only 5 holdout rows of class 1; roc_auc is judged on 10 of each class (gate.min_events)" in found.reasons[0]
    assert judge(few, None, (0.99, 0.01), Gate(min_events=5), QUICK).conditions
    assert judge(few, None, (0.99, 0.01), Gate(metric="accuracy"), QUICK).conditions
    half = replace(few, truth=np.arange(1000) % 2, groups=np.arange(1000) // 50)
    assert (
        "only 20 groups of rows in the holdout; 30 are needed"
        in judge(half, None, (0.5, 0.5), Gate(), QUICK).reasons[0]
    )
    loss, bounded = (judge(few, None, (0.99, 0.01), Gate(metric=name), QUICK) for name in ("log_loss", "accuracy"))
    assert "log_loss has no upper bound: up to 0.3% of all rows may be worse" in " ".join(loss.reasons)
    assert "no upper bound" not in " ".join(bounded.reasons)
    forty = judge(replace(half, groups=np.arange(1000) // 25), None, (0.5, 0.5), Gate(), QUICK)
    assert "worth" in forty.reasons[0]
    assert forty.conditions[0].effective is not None
