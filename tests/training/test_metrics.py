import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from benchmarks.gate import Case, draw
from loop.config import Evaluation, UserError
from loop.training.metrics import (
    METRICS,
    Estimate,
    Predictions,
    check_metric,
    constant_predictions,
    default_metric,
    estimate,
    estimate_difference,
    evaluate,
    greater_is_better,
    measure,
    metric_names,
)

QUICK = Evaluation(resamples=400)

BINARY = {
    "roc_auc": lambda p, w: sk.roc_auc_score(p.truth, p.scores, sample_weight=w),
    "average_precision": lambda p, w: sk.average_precision_score(p.truth, p.scores, sample_weight=w),
    "log_loss": lambda p, w: sk.log_loss(p.truth, p.scores, sample_weight=w, labels=[0, 1]),
    "brier": lambda p, w: sk.brier_score_loss(p.truth, p.scores, sample_weight=w),
    "accuracy": lambda p, w: sk.accuracy_score(p.truth, p.decisions, sample_weight=w),
    "balanced_accuracy": lambda p, w: sk.balanced_accuracy_score(p.truth, p.decisions, sample_weight=w),
    "precision": lambda p, w: sk.precision_score(p.truth, p.decisions, sample_weight=w, zero_division=0),
    "recall": lambda p, w: sk.recall_score(p.truth, p.decisions, sample_weight=w),
    "f1": lambda p, w: sk.f1_score(p.truth, p.decisions, sample_weight=w),
    "cost": lambda p, w: np.average(np.where(p.decisions > p.truth, 2.0, 5.0) * (p.decisions != p.truth), weights=w),
}
MULTICLASS = {
    "accuracy": BINARY["accuracy"],
    "balanced_accuracy": BINARY["balanced_accuracy"],
    "macro_f1": lambda p, w: sk.f1_score(p.truth, p.decisions, sample_weight=w, average="macro"),
    "log_loss": lambda p, w: sk.log_loss(p.truth, p.scores, sample_weight=w, labels=[0, 1, 2]),
    "roc_auc_ovr": lambda p, w: np.mean(
        [sk.roc_auc_score(p.truth == k, p.scores[:, k], sample_weight=w) for k in range(3)]
    ),
}
REGRESSION = {
    "r2": lambda p, w: sk.r2_score(p.truth, p.scores, sample_weight=w),
    "rmse": lambda p, w: sk.root_mean_squared_error(p.truth, p.scores, sample_weight=w),
    "mae": lambda p, w: sk.mean_absolute_error(p.truth, p.scores, sample_weight=w),
}
REFERENCE = {"binary": BINARY, "multiclass": MULTICLASS, "regression": REGRESSION}


def some_predictions(task, n, rng):
    """Draw predictions with many tied scores."""
    if task == "regression":
        truth = rng.integers(-5, 6, n).astype(float)
        return Predictions(task, truth, truth + rng.integers(-2, 3, n))
    if task == "binary":
        truth = rng.integers(0, 2, n)
        return Predictions(task, truth, rng.integers(0, 6, n) / 5, threshold=0.4, costs=(2.0, 5.0))
    scores = rng.integers(1, 5, (n, 3)).astype(float)
    return Predictions(task, rng.integers(0, 3, n), scores / scores.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("task", REFERENCE)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(20, 60), fractional=st.booleans())
def test_every_metric_equals_scikit_learn_under_weights(task, seed, n, fractional):
    rng = np.random.default_rng(seed)
    predictions = some_predictions(task, n, rng)
    weights = rng.exponential(size=(2, n)) if fractional else rng.integers(0, 3, (2, n)).astype(float)
    assert set(REFERENCE[task]) == set(metric_names(task))
    for row in weights:
        seen = np.unique(predictions.truth[row > 0])
        if len(seen) < (3 if task == "multiclass" else 2):
            continue  # scikit-learn warns, or averages over fewer classes
        for name, reference in REFERENCE[task].items():
            value = evaluate(name, predictions, row[None])[0]
            assert value == pytest.approx(reference(predictions, row), abs=1e-9), name


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "balanced_accuracy", "recall"])
def test_a_resample_without_positives_is_undefined(name):
    predictions = Predictions("binary", np.array([0, 0, 1]), np.array([0.1, 0.7, 0.8]))
    values = evaluate(name, predictions, np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    assert np.isnan(values).tolist() == [True, False]


def test_r2_of_a_constant_truth_is_undefined():
    predictions = Predictions("regression", np.array([0.1, 0.1, 7.0]), np.array([0.2, 0.0, 7.0]))
    assert np.isnan(evaluate("r2", predictions, np.array([[2.0, 3.0, 0.0]]))).all()


def test_an_undefined_metric_survives_a_round_trip():
    one_class = Predictions("binary", np.zeros(5), np.linspace(0, 1, 5))
    found = estimate(one_class, ("roc_auc", "accuracy"), QUICK)
    again = Estimate.model_validate_json(found["roc_auc"].model_dump_json())
    assert np.isnan([again.value, again.low, again.high]).all()
    assert found["accuracy"].value == 0.4


@pytest.mark.parametrize("task", REFERENCE)
def test_intervals_hold_their_value_and_do_not_depend_on_company(task):
    predictions = some_predictions(task, 80, np.random.default_rng(0))
    everything = estimate(predictions, metric_names(task), QUICK)
    for name, found in everything.items():
        assert found.low < found.value < found.high
        assert found.value == measure(name, predictions)
        assert estimate(predictions, [name], QUICK)[name] == found


@pytest.mark.parametrize("task", REFERENCE)
def test_slopes_are_what_a_metric_gains_by_a_row(task):
    predictions, rng = some_predictions(task, 60, np.random.default_rng(0)), np.random.default_rng(1)
    weights = rng.exponential(size=60)
    for name, metric in METRICS[task].items():
        value, slopes = metric.slopes(predictions, weights)
        step = 1e-5 * np.eye(60)
        up, down = (evaluate(name, predictions, weights + sign * step) for sign in (1, -1))
        assert value == pytest.approx(evaluate(name, predictions, weights[None])[0]), name
        assert slopes == pytest.approx((up - down) / 2e-5, abs=1e-7), name


@pytest.mark.parametrize(
    "case",
    [
        Case("average_precision", 0.8, 2500),
        Case("macro_f1", 0.8, 2500, shares=(0.3, 0.3, 0.4)),
        Case("rmse", 0.5, 2500),
    ],
    ids=lambda c: c.task + c.metric,
)
def test_a_large_holdout_has_the_intervals_that_many_resamples_give(case, monkeypatch):
    models, found = draw(case, 0.0, np.random.default_rng(0)), {}
    # Quantiles of 8,000 resamples are known to 1 % of the interval, give or take as much.
    evaluation, names = Evaluation(resamples=8000, confidence=0.9), metric_names(case.task)
    monkeypatch.setattr("loop.training.metrics._SKEW", 0.3)
    for large in (1000, 10**9):
        monkeypatch.setattr("loop.training.metrics.LARGE", large)
        found[large] = estimate(models[0], names, evaluation)
        found[large]["difference"] = estimate_difference(case.metric, *models, evaluation)
    for name, resampled in found[10**9].items():
        computed = found[1000][name]
        assert computed != resampled, "computed by drawing too"
        width = resampled.high - resampled.low
        assert computed.low == pytest.approx(resampled.low, abs=0.03 * width), name
        assert computed.high == pytest.approx(resampled.high, abs=0.03 * width), name


@pytest.mark.parametrize("few", ["errors", "positives", "outliers"])
def test_a_large_holdout_is_resampled_where_few_rows_decide(few, monkeypatch):
    rng, n = np.random.default_rng(0), 2000
    truth = rng.random(n) < (0.01 if few == "positives" else 0.5)
    scores = np.clip(truth * 0.6 + 0.4 * rng.random(n) - (few == "positives") * 0.2 * rng.random(n), 0, 1)
    if few == "errors":
        scores[:10] = 1 - truth[:10]
    name = {"errors": "accuracy", "positives": "recall", "outliers": "rmse"}[few]
    made = Predictions("binary", truth.astype(int), scores)
    if few == "outliers":
        made = Predictions("regression", scores, scores + rng.standard_t(2, n))
    resampled = estimate(made, [name], QUICK)
    monkeypatch.setattr("loop.training.metrics.LARGE", 1000)
    assert estimate(made, [name], QUICK) == resampled


@pytest.mark.parametrize(("name", "sign"), [("rmse", -1), ("r2", 1)])
def test_a_positive_difference_is_a_better_challenger(name, sign):
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=200), rng.normal(size=200)
    better = Predictions("regression", truth, truth + 0.3 * noise)
    worse = Predictions("regression", truth, truth + 0.5 * noise)
    forward = estimate_difference(name, better, worse, QUICK)
    backward = estimate_difference(name, worse, better, QUICK)
    assert forward.value == pytest.approx(sign * (measure(name, better) - measure(name, worse)))
    assert 0 < forward.low < forward.value == -backward.value
    assert forward.low == pytest.approx(-backward.high, rel=0.05)


@pytest.mark.parametrize(("right", "n"), [(60, 60), (57, 60), (160, 170)])
def test_bounds_of_a_share_are_clopper_and_pearson(right, n):
    truth = np.arange(n) % 2
    scores = np.where(np.arange(n) < right, truth, 1 - truth).astype(float)
    found = estimate(Predictions("binary", truth, scores), ["accuracy"], Evaluation(resamples=20_000))["accuracy"]
    assert found.low == pytest.approx(beta.ppf(0.025, right, n - right + 1), abs=0.004)
    if right < n:
        assert found.high == pytest.approx(beta.ppf(0.975, right + 1, n - right), abs=0.004)


@pytest.mark.parametrize(
    "case",
    [Case("roc_auc", 0.8, 170), Case("accuracy", 0.8, 170), Case("r2", 0.6, 170)],
    ids=lambda c: c.metric,
)
def test_a_two_sided_interval_covers_at_about_its_level(case):
    rng = np.random.default_rng(5)
    evaluation, runs = Evaluation(confidence=0.9, resamples=200), 250
    drawn = [draw(case, 0.0, rng)[0] for _ in range(runs)]
    found = [estimate(predictions, [case.metric], evaluation)[case.metric] for predictions in drawn]
    covered = sum(one.low <= case.level <= one.high for one in found)
    assert covered >= binom.ppf(0.001, runs, evaluation.confidence)
    assert covered < runs  # an interval that always covers says nothing


def test_a_perfect_small_holdout_does_not_prove_a_perfect_model():
    truth = np.arange(60) % 2
    found = estimate(Predictions("binary", truth, truth * 0.8 + 0.1), ["accuracy", "recall", "f1"], QUICK)
    for one in found.values():
        assert one.value == 1
        assert one.high == pytest.approx(1)
        assert one.low < 0.95


def test_large_holdouts_are_resampled_in_bounded_memory(monkeypatch):
    predictions = some_predictions("binary", 50, np.random.default_rng(0))
    whole = estimate(predictions, ["roc_auc"], QUICK)["roc_auc"]
    monkeypatch.setattr("loop.training.metrics.CHUNK", 500)
    parts = estimate(predictions, ["roc_auc"], QUICK)["roc_auc"]
    assert parts.low == pytest.approx(whole.low, abs=0.03)


def test_a_constant_knows_only_the_shares():
    binary = some_predictions("binary", 40, np.random.default_rng(0))
    constant = constant_predictions(binary, (0.6, 0.4))
    assert measure("roc_auc", constant) == 0.5
    assert constant.decisions.all()  # a miss costs 5, a false alarm 2
    multiclass = constant_predictions(some_predictions("multiclass", 40, np.random.default_rng(0)), (0.2, 0.5, 0.3))
    assert set(multiclass.decisions) == {1}
    regression = constant_predictions(some_predictions("regression", 40, np.random.default_rng(0)), (1.5,))
    assert set(regression.scores) == {1.5}


def test_every_task_has_a_default_and_each_metric_one_direction():
    for task, table in METRICS.items():
        assert default_metric(task) in table
        assert all(greater_is_better(name) == metric.greater_is_better for name, metric in table.items())


def test_an_unknown_metric_is_named_with_its_near_match():
    with pytest.raises(UserError, match=r"gate\.metric: no metric 'roc_acu' .* did you mean 'roc_auc'"):
        check_metric("roc_acu", "binary", "gate.metric")


def test_takes_rows_by_mask():
    predictions = some_predictions("multiclass", 10, np.random.default_rng(0))
    taken = predictions.take(np.arange(10) < 4)
    assert taken.truth.shape == (4,)
    assert taken.scores.shape == (4, 3)
