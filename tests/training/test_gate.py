from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.gate import FEW, SKEWED, THREE, Case, draw, judgements, three_standard_errors
from loop.config import METRICS as BUILT_IN
from loop.config import ROOT, Evaluation, Gate, UserError, load
from loop.training.gate import Verdict, compare_group, judge
from loop.training.metrics import METRICS, Predictions, check_gate, measure

QUICK = Evaluation(resamples=200)
CASE = Case("roc_auc", 0.85, 400)


def verdict(lead, *, gate=None, seed=0, **options):
    challenger, champion = draw(CASE, lead, np.random.default_rng(seed))
    return judge(challenger, champion, (0.5, 0.5), gate or Gate(), QUICK, champion_version=4, **options)


# One case a family, where it errs most; `python -m benchmarks.gate` has every metric.
HARD = [
    Case("roc_auc", 0.98, 60),
    Case("average_precision", 0.80, 170),
    Case("accuracy", 0.97, 60, correlation=0.9),
    Case("recall", 0.80, 170, shares=FEW),
    Case("precision", 0.90, 170),
    Case("cost", 0.30, 170, shares=FEW, costs=(1, 10)),
    Case("log_loss", 0.10, 60),
    Case("brier", 0.03, 60),
    Case("macro_f1", 0.80, 170, shares=THREE),
    Case("rmse", 0.5, 60, freedom=5),
    Case("mae", 0.3, 60, freedom=5),
    Case("r2", 0.8, 60, freedom=5),
    Case("accuracy", 0.85, 600, size=10, common=0.5, labels="group"),
    Case("roc_auc", 0.85, 600, size=10, common=0.5, labels="group"),
    Case("brier", 0.15, 900, serial=0.9),
]


@pytest.mark.parametrize("case", HARD, ids=lambda case: f"{case.task}-{case.metric}-{case.n}-{case.size}")
def test_a_challenger_worse_than_the_margin_is_rarely_promoted_and_a_better_one_mostly(case):
    gate, rng, runs = Gate(), np.random.default_rng(7), 100
    wrong = judgements(case, -gate.margin, runs, rng, gate, QUICK)
    assert wrong.not_worse <= binom.ppf(0.999, runs, 1 - QUICK.confidence)
    assert wrong.naive > 0.35 * runs  # the draws are hard: the point estimate alone errs nearly every other time
    right = judgements(case, three_standard_errors(case, rng, draws=60), 30, rng, gate, QUICK)
    assert right.promoted >= binom.ppf(0.001, 30, 0.8)


def test_the_simulated_truth_is_the_metric_of_a_large_draw():
    for case in (
        Case("roc_auc", 0.9, 100_000),
        Case("macro_f1", 0.8, 100_000, shares=SKEWED),
        Case("mae", 0.5, 100_000, freedom=5),
    ):
        for predictions, level in zip(draw(case, 0.05, np.random.default_rng(0)), (0, 1), strict=True):
            wanted = case.level - level * (0.05 if case.metric != "mae" else -0.05)
            assert measure(case.metric, predictions) == pytest.approx(wanted, abs=0.006)


def test_promotes_a_better_challenger_and_says_why():
    found = verdict(0.08, gate=Gate(minimum={"roc_auc": 0.7, "log_loss": 0.69}))
    assert found.decision == "promote"
    assert {c.name for c in found.conditions} == {
        "minimum_roc_auc",
        "minimum_log_loss",
        "beats_constant",
        "not_worse_than_champion",
    }
    assert "champion v4" in found.reasons[0]
    assert "n = 400" in found.reasons[0]
    assert Verdict.model_validate_json(found.model_dump_json()) == found


def test_rejects_a_worse_challenger_with_the_failed_condition_first():
    found = verdict(-0.1)
    assert found.decision == "reject"
    assert found.reasons[0].startswith("failed: roc_auc against champion v4")


def test_holds_what_the_rows_cannot_tell():
    found = verdict(0.0, gate=Gate(margin=0.0))
    assert found.decision == "hold"
    assert found.reasons[0].startswith("inconclusive")


def test_rejects_a_challenger_no_better_than_a_constant():
    rng = np.random.default_rng(0)
    backwards = Predictions("binary", np.arange(200) % 2, 0.5 + (0.5 - np.arange(200) % 2) * rng.random(200))
    found = judge(backwards, None, (0.5, 0.5), Gate(), QUICK)
    assert found.decision == "reject"
    assert "against a constant" in found.reasons[0]


def test_champion_and_challenger_are_judged_at_the_challengers_costs():
    truth = np.arange(200) % 2
    challenger = Predictions("binary", truth, np.where(np.arange(200) % 100 == 1, 0.1, truth), costs=(1.0, 10.0))
    champion = replace(challenger, scores=np.where(np.arange(200) % 4 == 1, 0.1, truth), costs=(1.0, 1.0))
    found = judge(challenger, champion, (0.5, 0.5), Gate(metric="cost", margin=0), QUICK, champion_version=6)
    (condition,) = (c for c in found.conditions if c.name == "not_worse_than_champion")
    assert condition.value == pytest.approx(10 * (50 - 2) / 200)  # a miss costs 10, whoever misses
    assert found.decision == "promote"
    assert condition.unit == "a row, 1 for a false positive, 10 for a false negative"
    assert f"cost ({condition.unit}) against champion v6" in condition.sentence
    parts = compare_group("all", challenger, champion, Gate(metric="cost"), QUICK)
    assert (parts.challenger.value, parts.champion.value) == pytest.approx((0.1, 2.5))


def test_what_is_not_told_from_a_constant_is_held_also_beside_a_worse_champion():
    truth = np.arange(60) % 2
    challenger = Predictions("binary", truth, np.where(np.arange(60) < 35, truth, 1 - truth) * 0.8 + 0.1)
    champion = replace(challenger, scores=1.0 - truth)
    found = judge(challenger, champion, (0.5, 0.5), Gate(metric="accuracy"), QUICK, champion_version=4)
    assert {c.name: c.outcome for c in found.conditions} == {
        "beats_constant": "inconclusive",
        "not_worse_than_champion": "passed",
    }
    assert found.decision == "hold"
    assert found.reasons[0].startswith("inconclusive: accuracy against a constant")


def test_a_first_model_needs_only_the_minimum_bounds():
    challenger, _ = draw(CASE, 0.0, np.random.default_rng(0))
    found = judge(challenger, None, (0.5, 0.5), Gate(minimum={"roc_auc": 0.7}), QUICK)
    assert found.decision == "promote"
    assert found.reasons[0].startswith("first model: no champion")
    assert [c.name for c in found.conditions] == ["minimum_roc_auc", "beats_constant"]


def test_holds_the_same_model():
    found = verdict(0.1, same_model=True)
    assert (found.decision, found.reasons) == ("hold", ("it is the same model as champion v4",))


@pytest.mark.parametrize("rows", [0, 29])
def test_holds_on_too_few_rows(rows):
    challenger, champion = draw(replace(CASE, n=rows), 0.3, np.random.default_rng(0))
    found = judge(challenger, champion, (0.5, 0.5), Gate(), QUICK)
    assert found.decision == "hold"
    assert f"only {rows} holdout rows" in found.reasons[0]
    assert "30" in found.reasons[0]


def test_holds_when_a_class_is_absent():
    one_class = Predictions("binary", np.zeros(50), np.linspace(0, 1, 50), labels=("no", "yes"))
    found = judge(one_class, None, (0.9, 0.1), Gate(), QUICK)
    assert found.decision == "hold"
    assert "no holdout row of class yes" in found.reasons[0]


def test_holds_a_constant_target():
    flat = Predictions("regression", np.ones(50), np.linspace(0, 1, 50))
    assert judge(flat, None, (1.0,), Gate(), QUICK).decision == "hold"


def test_holds_when_the_champion_names_other_classes():
    challenger, champion = draw(CASE, 0.3, np.random.default_rng(0))
    other = replace(champion, truth=1 - champion.truth)
    assert "cannot be compared" in judge(challenger, other, (0.5, 0.5), Gate(), QUICK).reasons[0]


@pytest.mark.parametrize(("ceiling", "decision"), [(0.6, "promote"), (0.5, "hold"), (0.4, "reject")])
def test_a_minimum_is_a_ceiling_where_lower_is_better(ceiling, decision):
    truth = np.random.default_rng(1).normal(size=300)
    errors = np.random.default_rng(2).normal(size=300)
    challenger = Predictions("regression", truth, truth + 0.5 * errors / np.sqrt(np.mean(errors**2)))
    found = judge(challenger, None, (0.0,), Gate(metric="rmse", minimum={"rmse": ceiling}), QUICK)
    assert found.decision == decision


def test_judges_several_classes():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, 400)
    good, bad = ((np.eye(3)[truth] * weight + rng.random((400, 3))) / (weight + 1.5) for weight in (1.0, 0.1))
    found = judge(
        Predictions("multiclass", truth, good),
        Predictions("multiclass", truth, bad),
        (0.3, 0.3, 0.4),
        Gate(),
        QUICK,
    )
    assert found.decision == "promote"
    assert (
        judge(
            Predictions("multiclass", truth, bad),
            Predictions("multiclass", truth, good),
            (0.3, 0.3, 0.4),
            Gate(),
            QUICK,
        ).decision
        == "reject"
    )


@pytest.mark.parametrize(
    ("gate", "key"), [(Gate(metric="macro_f1"), "metric"), (Gate(minimum={"macro_f1": 0.5}), "minimum")]
)
def test_a_metric_of_another_task_is_a_user_error(gate, key):
    with pytest.raises(UserError, match=rf"gate\.{key}: no metric 'macro_f1' for a binary target.* log_loss"):
        verdict(0.0, gate=gate)


def test_config_and_metrics_name_the_same_metrics():
    assert {*BUILT_IN} == {name for table in METRICS.values() for name in table}


def test_an_unknown_metric_is_told_all_there_are():
    with pytest.raises(UserError, match="no metric 'profit'; it has") as refused:
        check_gate(load(ROOT / "configs/breast_cancer.yaml", ["gate.metric=profit"]).gate)
    assert all(f" {name}" in str(refused.value) for name in BUILT_IN)


def test_the_same_rows_give_the_same_verdict():
    assert verdict(0.01) == verdict(0.01)


def test_groups_of_which_one_has_most_rows_are_not_judged():
    challenger, champion = draw(Case("roc_auc", 0.85, 1000), 0.05, np.random.default_rng(0))
    uneven, even = np.repeat(np.arange(40), [805, *[5] * 39]), np.arange(1000) % 40
    for groups, decision in ((uneven, "hold"), (even, "promote")):
        sides = (replace(side, groups=groups) for side in (challenger, champion))
        found = judge(*sides, (0.5, 0.5), Gate(), QUICK, champion_version=4)
        assert found.decision == decision, found.reasons
    uneven_sides = (replace(side, groups=uneven) for side in (challenger, champion))
    assert (
        "one group has most of the holdout rows"
        in judge(*uneven_sides, (0.5, 0.5), Gate(), QUICK, champion_version=4).reasons[0]
    )
