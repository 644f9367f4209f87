"""Measure predictions: every metric of a task, with the interval it may lie in.

Intervals are percentiles of the Bayesian bootstrap (Rubin 1981, Ann. Statist. 9:130): each resample gives
every row an exponential weight, so no class ever drops out. Alone they are too optimistic on small or almost
perfect holdouts, since no resample holds the bad row that has not turned up yet. So each bound also counts
rows not seen yet: the least favourable one seen in each class, its decision made unfavourable, under a gamma
weight. For a share of rows that is the exact bound of Clopper & Pearson (1934); for other metrics it borrows
from Gaffke's bound of a mean (in Learned-Miller & Thomas 2019, arXiv:1905.06208) and holds by measurement.

At a nominal 5 %, `python -m benchmarks.gate` found the one-sided bounds of paired differences to miss in 0 to
5 % of the draws for every metric, within Monte-Carlo error. Without the unseen rows it was 13 % (AUC 0.97, 60
rows) and 38 % (accuracy 0.97, 60 rows); for that AUC, BCa and t-expanded percentiles (Hesterberg 2015) missed
in 11 to 13 %. Squared losses have heavier tails and need half a row more than a share: RMSE and R² with t5
errors on 60 rows then miss in 4.4 and 4.5 instead of 5.7 %, Brier 0.03 on 60 rows in 2.6 instead of 6.4 %.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from config import Evaluation, Task, UserError, known
from core.paged import Paged

Floats = npt.NDArray[np.float64]

CHUNK = 4_000_000
"""Weights held at once: 32 MB, and at most five arrays of that size live together."""


@dataclass(frozen=True)
class Predictions:
    """Hold what a model said about n labelled rows."""

    task: Task
    truth: npt.NDArray[Any]
    """(n,): 0/1 with 1 the positive class, codes 0..k-1, or numbers."""
    scores: Floats
    """(n,): probability of the positive class, or predicted numbers; (n, k) probabilities for multiclass."""
    threshold: float | None = None
    """A binary score from here on is a positive decision; 0.5 when None."""
    labels: tuple[str, ...] = ()
    costs: tuple[float, float] = (1.0, 1.0)
    """Of one false positive and one false negative."""

    @property
    def cut(self) -> float:
        """Return the threshold in use."""
        return 0.5 if self.threshold is None else self.threshold

    @property
    def decisions(self) -> npt.NDArray[Any]:
        """Return the predicted class codes, or numbers for regression, (n,)."""
        if self.task == "binary":
            return (self.scores >= self.cut).astype(int)
        return self.scores.argmax(axis=1) if self.task == "multiclass" else self.scores

    def take(self, mask: npt.NDArray[Any]) -> "Predictions":
        """Return the rows of a mask or an index."""
        return replace(self, truth=self.truth[mask], scores=self.scores[mask])


class Estimate(BaseModel):
    """Say what a metric is on n rows and between which bounds it lies at a two-sided confidence."""

    # An undefined metric is NaN; JSON null would not load again.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    value: float
    low: float
    high: float
    n: int
    confidence: float


class Scorecard(Paged):
    """Hold the estimates of one model on one holdout, by metric."""

    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class Metric:
    """Say how a metric is computed, (B, n) weights to (B,) values, and how many unseen rows it counts."""

    values: Callable[[Predictions, Floats], Floats]
    greater_is_better: bool = True
    unseen: float = 1.0
    """Rows in total, or in each class where `by_class`. One is exact for shares; where it is more,
    benchmarks/gate.py showed that one errs too often."""
    by_class: bool = False


def metric_names(task: Task) -> tuple[str, ...]:
    """Return the metrics of a task."""
    return tuple(METRICS[task])


def default_metric(task: Task) -> str:
    """Return the metric that models are compared by when none is named."""
    return {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[task]


def greater_is_better(name: str) -> bool:
    """Return the direction of a metric; it is the same in every task."""
    return next(table[name].greater_is_better for table in METRICS.values() if name in table)


def check_metric(name: str, task: Task, where: str) -> str:
    """Return the name, or raise a UserError that lists the metrics of the task."""
    if name not in METRICS[task]:
        raise UserError(f"{where}: no metric '{name}' for a {task} target; {known(task, metric_names(task), name)}")
    return name


def evaluate(name: str, predictions: Predictions, weights: Floats) -> Floats:
    """Return a metric under each row of non-negative weights, (B, n) to (B,); NaN where it is undefined."""
    values = METRICS[predictions.task][name].values
    step = max(1, CHUNK // max(1, weights.shape[1]))
    parts = [values(predictions, weights[i : i + step]) for i in range(0, len(weights), step)]
    return np.concatenate(parts) if parts else np.empty(0)


def measure(name: str, predictions: Predictions) -> float:
    """Return a metric on the rows as they are."""
    return float(evaluate(name, predictions, np.ones((1, len(predictions.truth))))[0])


def estimate(predictions: Predictions, names: Iterable[str], evaluation: Evaluation) -> dict[str, Estimate]:
    """Return the metrics with their two-sided intervals, all from the same resamples."""
    names = tuple(names)
    wrong = _wrongness(predictions)
    worst, best = _worst_rows(predictions, wrong), _worst_rows(predictions, -wrong)
    pessimist, optimist = _extend(predictions, worst, False), _extend(predictions, best, True)
    found = {}
    for name, (low, high) in zip(names, _resample(names, (pessimist, optimist), evaluation), strict=True):
        ends = (low, high) if greater_is_better(name) else (high, low)
        found[name] = _interval(measure(name, predictions), *ends, len(predictions.truth), evaluation)
    return found


def estimate_difference(
    metric: str, challenger: Predictions, champion: Predictions, evaluation: Evaluation
) -> Estimate:
    """Return how much better the challenger is on the same rows, whatever the metric's direction."""
    lead = _wrongness(challenger) - _wrongness(champion)
    worst, best = _worst_rows(challenger, lead), _worst_rows(challenger, -lead)
    fixed = bool(np.all(champion.scores == champion.scores[:1]))  # a constant says the same of any row
    cases = (
        _extend(challenger, worst, False),
        _extend(champion, worst, None if fixed else True),
        _extend(challenger, best, True),
        _extend(champion, best, None if fixed else False),
    )
    sign = 1.0 if greater_is_better(metric) else -1.0
    drawn = sign * _resample((metric,), cases, evaluation)[0]
    value = sign * (measure(metric, challenger) - measure(metric, champion))
    return _interval(value, drawn[0] - drawn[1], drawn[2] - drawn[3], len(challenger.truth), evaluation)


def constant_predictions(predictions: Predictions, prior: Sequence[float]) -> Predictions:
    """Return what a model says that knows only the training class shares, or the training mean.

    `prior` holds the shares in label order, or the one mean. A binary decision is the cheaper one.
    """
    n, (false_positive, false_negative) = len(predictions.truth), predictions.costs
    if predictions.task == "multiclass":
        return replace(predictions, scores=np.tile(np.asarray(prior, dtype=float), (n, 1)))
    total = false_positive + false_negative
    cut = false_positive / total if total > 0 else 0.5
    return replace(predictions, scores=np.full(n, float(prior[-1])), threshold=cut)


def _resample(names: Sequence[str], cases: Sequence[Predictions], evaluation: Evaluation) -> Floats:
    """Return resampled metrics, (metrics, cases, B); each case ends with its rows not seen yet."""
    rng = np.random.default_rng(evaluation.seed)
    table, total, unseen = METRICS[cases[0].task], len(cases[0].truth), len(_strata(cases[0]))
    drawn = np.empty((len(names), len(cases), evaluation.resamples))
    step = max(1, CHUNK // total)
    for start in range(0, evaluation.resamples, step):
        part = slice(start, min(start + step, evaluation.resamples))
        weights = rng.standard_exponential((part.stop - start, total))
        seed = rng.integers(2**63)  # one for all metrics: no bound depends on which others were asked for
        for i, name in enumerate(names):
            shape = table[name].unseen / (1 if table[name].by_class else unseen)
            weights[:, -unseen:] = np.random.default_rng(seed).gamma(shape, size=(len(weights), unseen))
            for j, case in enumerate(cases):
                drawn[i, j, part] = table[name].values(case, weights)
    return drawn


def _interval(value: float, low: Floats, high: Floats, n: int, evaluation: Evaluation) -> Estimate:
    """Take the outer quantiles of the pessimistic and the optimistic draws."""
    tail = (1 - evaluation.confidence) / 2
    return Estimate(
        value=value,
        low=float(np.minimum(np.quantile(low, tail), value)),
        high=float(np.maximum(np.quantile(high, 1 - tail), value)),
        n=n,
        confidence=evaluation.confidence,
    )


def _strata(predictions: Predictions) -> list[npt.NDArray[np.intp]]:
    """Return the rows of each class that is present; all rows at once for regression."""
    if predictions.task == "regression":
        return [np.arange(len(predictions.truth))]
    return [np.flatnonzero(predictions.truth == code) for code in np.unique(predictions.truth)]


def _wrongness(predictions: Predictions) -> Floats:
    """Return how wrong each row is, (n,): a wrong decision outweighs any distance of the score."""
    truth, scores = predictions.truth, predictions.scores
    if predictions.task == "regression":
        return np.asarray(np.abs(truth - scores))
    if predictions.task == "binary":
        distance = np.abs(truth - scores)
    else:
        distance = 1 - scores[np.arange(len(truth)), truth.astype(int)]
    return np.asarray((predictions.decisions != truth) + distance)


def _worst_rows(predictions: Predictions, wrongness: Floats) -> npt.NDArray[np.intp]:
    """Return the row of greatest wrongness in each class."""
    return np.array([rows[wrongness[rows].argmax()] for rows in _strata(predictions)])


def _extend(predictions: Predictions, rows: npt.NDArray[np.intp], right: bool | None) -> Predictions:
    """Append copies of rows; move their scores just so far that the decisions are right, or wrong."""
    truth, scores = predictions.truth[rows], predictions.scores[rows].copy()
    if right is None:
        pass
    elif predictions.task == "binary":
        above, below = predictions.cut, np.nextafter(predictions.cut, -np.inf)
        scores = np.where((truth == 1) == right, np.maximum(scores, above), np.minimum(scores, below))
    elif predictions.task == "multiclass":
        for row, code in zip(scores, truth.astype(int), strict=True):
            first, second = np.argsort(-row, kind="stable")[:2]
            if (first == code) != right:
                other = first if right else second
                row[[code, other]] = row[[other, code]]
    return replace(
        predictions,
        truth=np.concatenate([predictions.truth, truth]),
        scores=np.concatenate([predictions.scores, scores]),
    )


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide; 0/0 is NaN."""
    ratio: Floats = np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
    return ratio


def _mean(of: npt.NDArray[Any], weights: Floats) -> Floats:
    return _ratio(weights @ of.astype(float), weights.sum(axis=1))


def _share(of: npt.NDArray[Any], among: npt.NDArray[Any], weights: Floats) -> Floats:
    return _ratio(weights @ (of & among).astype(float), weights @ among.astype(float))


def _accuracy(p: Predictions, weights: Floats) -> Floats:
    return _mean(p.decisions == p.truth, weights)


def _balanced_accuracy(p: Predictions, weights: Floats) -> Floats:
    return _over_classes(p, lambda code: _share(p.decisions == code, p.truth == code, weights))


def _recall(p: Predictions, weights: Floats) -> Floats:
    return _share(p.decisions == 1, p.truth == 1, weights)


def _precision(p: Predictions, weights: Floats) -> Floats:
    # A model that never says positive has precision 0, as in scikit-learn, so that a floor can fail it.
    return np.nan_to_num(_share(p.truth == 1, p.decisions == 1, weights))


def _f1(p: Predictions, weights: Floats, code: int = 1) -> Floats:
    said, true = p.decisions == code, p.truth == code
    return _ratio(2 * (weights @ (said & true).astype(float)), weights @ said.astype(float) + weights @ true)


def _macro_f1(p: Predictions, weights: Floats) -> Floats:
    codes = np.union1d(p.truth, p.decisions)
    return np.asarray(np.mean([_f1(p, weights, code) for code in codes], axis=0))


def _cost(p: Predictions, weights: Floats) -> Floats:
    false_positive, false_negative = p.costs
    missed = (p.decisions < p.truth) * false_negative
    return _mean((p.decisions > p.truth) * false_positive + missed, weights)


def _brier(p: Predictions, weights: Floats) -> Floats:
    return _mean((p.scores - p.truth) ** 2, weights)


def _log_loss(p: Predictions, weights: Floats) -> Floats:
    if p.task == "binary":
        of_truth = np.where(p.truth == 1, p.scores, 1 - p.scores)
    else:
        of_truth = p.scores[np.arange(len(p.truth)), p.truth.astype(int)]
    smallest = np.finfo(float).eps
    return _mean(-np.log(np.clip(of_truth, smallest, 1 - smallest)), weights)


def _roc_auc(p: Predictions, weights: Floats) -> Floats:
    return _area(p.truth == 1, p.scores, weights)


def _roc_auc_ovr(p: Predictions, weights: Floats) -> Floats:
    return _over_classes(p, lambda code: _area(p.truth == code, p.scores[:, code], weights))


def _area(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> Floats:
    """Return the weighted share of pairs in which the positive scores higher; a tie counts half."""
    order = np.argsort(scores, kind="stable")
    ups, downs = order[positive[order]], order[~positive[order]]
    below = np.zeros((len(weights), len(downs) + 1))
    np.cumsum(weights.take(downs, axis=1), axis=1, out=below[:, 1:])
    of_ups, won = weights.take(ups, axis=1), np.zeros(len(weights))
    for side in ("left", "right"):
        rank = np.searchsorted(scores[downs], scores[ups], side=side)
        won += np.einsum("bi,bi->b", of_ups, below.take(rank, axis=1)) / 2
    return _ratio(won, of_ups.sum(axis=1) * below[:, -1])


def _average_precision(p: Predictions, weights: Floats) -> Floats:
    order = np.argsort(-p.scores, kind="stable")
    fall, hits = -p.scores[order], np.flatnonzero(p.truth[order] == 1)
    gained = weights.take(order[hits], axis=1)
    # Tied rows enter together: each positive counts what stands at the last row of its score.
    last, last_hit = (np.searchsorted(of, fall[hits], side="right") - 1 for of in (fall, fall[hits]))
    found = np.cumsum(gained, axis=1).take(last_hit, axis=1)
    reached = np.cumsum(weights.take(order, axis=1), axis=1).take(last, axis=1)
    precision = np.nan_to_num(_ratio(found, reached))
    return _ratio(np.einsum("bi,bi->b", gained, precision), gained.sum(axis=1))


def _over_classes(p: Predictions, of: Callable[[int], Floats]) -> Floats:
    """Average over the classes present; NaN where only one is."""
    codes = np.unique(p.truth).astype(int)
    values: Floats = np.mean([of(code) for code in codes], axis=0)
    return values if len(codes) > 1 else values * np.nan


def _rmse(p: Predictions, weights: Floats) -> Floats:
    return np.asarray(np.sqrt(_mean((p.truth - p.scores) ** 2, weights)))


def _mae(p: Predictions, weights: Floats) -> Floats:
    return _mean(np.abs(p.truth - p.scores), weights)


def _r2(p: Predictions, weights: Floats) -> Floats:
    centred = p.truth - p.truth.mean()
    spread = _mean(centred**2, weights) - _mean(centred, weights) ** 2
    spread[spread <= 1e-12 * np.max(centred**2)] = 0  # what is left of a constant truth is rounding
    return 1 - _ratio(_mean((p.truth - p.scores) ** 2, weights), spread)


METRICS: dict[Task, dict[str, Metric]] = {
    "binary": {
        "roc_auc": Metric(_roc_auc, unseen=1.25, by_class=True),
        "average_precision": Metric(_average_precision),
        "log_loss": Metric(_log_loss, greater_is_better=False),
        "brier": Metric(_brier, greater_is_better=False, unseen=1.5),
        "accuracy": Metric(_accuracy),
        "balanced_accuracy": Metric(_balanced_accuracy, by_class=True),
        "precision": Metric(_precision, by_class=True),
        "recall": Metric(_recall, by_class=True),
        "f1": Metric(_f1, by_class=True),
        "cost": Metric(_cost, greater_is_better=False),
    },
    "multiclass": {
        "accuracy": Metric(_accuracy),
        "balanced_accuracy": Metric(_balanced_accuracy, by_class=True),
        "macro_f1": Metric(_macro_f1, by_class=True),
        "log_loss": Metric(_log_loss, greater_is_better=False),
        "roc_auc_ovr": Metric(_roc_auc_ovr, unseen=1.25, by_class=True),
    },
    "regression": {
        "r2": Metric(_r2, unseen=1.5),
        "rmse": Metric(_rmse, greater_is_better=False, unseen=1.5),
        "mae": Metric(_mae, greater_is_better=False),
    },
}
