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

A holdout of 20,000 rows or more is not resampled where its rows count evenly: a metric's slopes by the weights of its
rows (infinitesimal jackknife, Jaeckel 1972) give mean, spread and skewness of those draws, unseen rows included, and
Cornish & Fisher's expansion (1938) their quantile. That is the limit of more and more resamples, to within 3 % of
the width on 2,500 rows already; `python -m benchmarks.gate --large` measures misses. Where few rows decide (the
draws are skewed by more than 0.1, as under some 400 errors) the rows are resampled as in a small one.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from loop.config import Evaluation, Gate, Task, UserError, known
from loop.data.groups import Groups, design_effect
from loop.paged import Paged
from loop.training.own import Own
from loop.training.owner import owned

Floats = npt.NDArray[np.float64]
Total = Callable[[npt.NDArray[Any] | None], Floats]
"""Return the weighted sum of a quantity of each row, under each row of weights; of the weights alone for None."""

LARGE = 20_000
"""Rows from which intervals are computed from slopes, where these are even enough."""
_SKEW = 0.1  # of the draws; beyond, few rows decide: under 400 errors, say, or a tail so heavy that one row counts
_NUDGE = 1e-6  # of a sum, to either side: the slope's own error is then 1e-9

FEW_EVENTS = 10
"""Rows of a class from which intervals of metrics by ranks hold."""

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
    groups: Groups | None = None
    """(n,): rows of one group depend on one another and are drawn together; None where each stands alone."""

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
        groups = None if self.groups is None else np.unique(self.groups[mask], return_inverse=True)[1]
        return replace(self, truth=self.truth[mask], scores=self.scores[mask], groups=groups)


class Estimate(BaseModel):
    """Say what a metric is on n rows and between which bounds it lies at a two-sided confidence."""

    # An undefined metric is NaN; JSON null would not load again.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    value: float
    low: float
    high: float
    n: int
    confidence: float
    effective: float | None = None
    """Independent rows that the n rows are worth; None where each stands alone."""

    @property
    def size(self) -> str:
        """Say how many rows it is of, and what they are worth."""
        return f"n = {self.n:,}" + ("" if self.effective is None else f", worth {self.effective:,.0f} independent rows")


class Scorecard(Paged):
    """Hold the estimates of one model on one holdout, by metric."""

    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class Metric:
    """Say how a metric is computed from sums over rows, and how many unseen rows it counts."""

    compute: Callable[[Predictions, Any], Floats]
    """Of predictions and `Total`, (B,)."""
    greater_is_better: bool = True
    unseen: float = 1.0
    """Rows in total, or in each class where `by_class`. One is exact for shares; where it is more,
    benchmarks/gate.py showed that one errs too often."""
    by_class: bool = False
    bounded: bool = True
    """Whether one row can make it only so much worse."""

    def values(self, predictions: Predictions, weights: Floats) -> Floats:
        """Return the metric under each row of weights, (B, n) to (B,)."""

        def total(of: npt.NDArray[Any] | None) -> Floats:
            return np.asarray(weights.sum(axis=1) if of is None else weights @ of.astype(float))

        return self.compute(predictions, total)

    def slopes(self, predictions: Predictions, weights: Floats) -> tuple[float, Floats]:
        """Return the metric under weights (n,), and how it grows with each, (n,)."""
        sums: list[tuple[float, float]] = []

        def note(of: npt.NDArray[Any] | None) -> Floats:
            values = np.ones(len(weights)) if of is None else of.astype(float)
            sums.append((float(weights @ values), float(weights @ np.abs(values))))
            return np.array([sums[-1][0]])

        value = float(self.compute(predictions, note)[0])
        middle, sizes = np.array(sums).T
        steps = _NUDGE * np.where(sizes > 0, sizes, 1.0)
        nudged = iter(middle[:, None] + np.hstack([np.diag(steps), -np.diag(steps)]))
        with np.errstate(invalid="ignore"):  # where a sum is 0 there may be nothing below; no slope comes of that
            up, down = np.split(self.compute(predictions, lambda of: next(nudged)), 2)
        gradient, slopes = iter((up - down) / (2 * steps)), np.zeros(len(weights))

        def add(of: npt.NDArray[Any] | None) -> Floats:
            nonlocal slopes
            slopes += next(gradient) * (1.0 if of is None else of)
            return np.ones(1)

        self.compute(predictions, add)
        return value, slopes


class WeighedMetric(Metric):
    """Say how a metric is computed whose `compute` takes the weights themselves; its slopes are not known."""

    def values(self, predictions: Predictions, weights: Floats) -> Floats:
        """Return the metric under each row of weights, (B, n) to (B,)."""
        return self.compute(predictions, weights)


@dataclass(frozen=True, kw_only=True)
class RankMetric(WeighedMetric):
    """Say how a metric is computed from the order of scores."""

    derive: Callable[[Predictions, Floats], tuple[float, Floats]]
    """As `slopes`."""

    def slopes(self, predictions: Predictions, weights: Floats) -> tuple[float, Floats]:
        """Return the metric under weights (n,), and how it grows with each, (n,)."""
        return self.derive(predictions, weights)


@cache
def metrics_of(task: Task) -> dict[str, Metric]:
    """Return the metrics of a task by name, the owner's last."""
    own: dict[str, Own] = {}
    for name, each in owned("metrics", "METRICS").items():
        if not isinstance(each, Own):
            raise UserError(f"model/metrics.py: '{name}' needs to be Own(…), it is a {type(each).__name__}")
        each.check(name)
        if task in each.tasks:
            own[name] = each
    if twice := own.keys() & METRICS[task].keys():
        raise UserError(f"model/metrics.py: '{min(twice)}' is a metric already; give yours another name")
    return METRICS[task] | {
        name: WeighedMetric(each.values, each.greater_is_better, by_class=task != "regression", bounded=each.bounded)
        for name, each in own.items()
    }


def metric_names(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics of a task."""
    return tuple(metrics_of(task))


def default_metric(task: Task) -> str:
    """Return the metric that models are compared by when none is named."""
    return {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[task]


def greater_is_better(name: str) -> bool:
    """Return the direction of a metric; it is the same in every task."""
    return next(table[name].greater_is_better for table in map(metrics_of, METRICS) if name in table)


def unseen_share(name: str, n: float, task: Task) -> float | None:
    """Return how large a share of all rows may be worse than any of n, at 95 %; None for a metric that is bounded.

    Of an unbounded metric no rows bound what such rows add (Bahadur & Savage 1956). The share is the rule of three.
    """
    return None if metrics_of(task)[name].bounded else min(3 / n, 1.0)


def by_class(name: str, task: Task) -> bool:
    """Say whether a metric looks at each class by itself, or at ranks, so that the rarest class decides its spread."""
    metric = metrics_of(task)[name]
    return metric.by_class or isinstance(metric, RankMetric)


def events(predictions: Predictions) -> dict[int, int]:
    """Return how many rows each class has that is present, by its code; where rows belong together, how many groups."""
    groups, codes = predictions.groups, predictions.truth.astype(int)
    return {
        int(code): int(inside.sum()) if groups is None else len(np.unique(groups[inside]))
        for code in np.unique(codes)
        for inside in [codes == code]
    }


def narrow(predictions: Predictions) -> tuple[str, ...]:
    """Say which intervals are too narrow on these rows, by measurement: `python -m benchmarks.gate --intervals`."""
    if predictions.task == "regression":
        return (
            "Squared errors have no upper bound: where a few outweigh all others, as with t3 tails, 95 % intervals of "
            "rmse and r2 hold in 85 to 90 %; those of mae do.",
        )
    labels = predictions.labels or ("0", "1")
    return tuple(
        f"Class {labels[code]} has {count} rows here: with 5, 95 % intervals of metrics by ranks hold in 86 %."
        for code, count in events(predictions).items()
        if count < FEW_EVENTS
    )


def unit(name: str, predictions: Predictions) -> str:
    """Say what a metric is counted in; nothing where it is a share or a score of its own."""
    if name == "cost":
        false_positive, false_negative = predictions.costs
        return f"a row, {false_positive:g} for a false positive, {false_negative:g} for a false negative"
    return {"rmse": "in the target's unit", "mae": "in the target's unit", "log_loss": "in nats"}.get(name, "")


def check_metric(name: str, task: Task, where: str) -> str:
    """Return the name, or raise a UserError that lists the metrics of the task."""
    if name not in metrics_of(task):
        raise UserError(f"{where}: no metric '{name}' for a {task} target; {known(task, metric_names(task), name)}")
    return name


def check_gate(gate: Gate) -> None:
    """Refuse names of metrics that no task has, before the rows have told the task."""
    names = {name for task in METRICS for name in metrics_of(task)}
    for name in (gate.metric, *gate.minimum):
        if name is not None and name not in names:
            raise UserError(f"gate: no metric '{name}'; {known('it', names, name, len(names))}")


def evaluate(name: str, predictions: Predictions, weights: Floats) -> Floats:
    """Return a metric under each row of non-negative weights, (B, n) to (B,); NaN where it is undefined."""
    values = metrics_of(predictions.task)[name].values
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
    effect = design_effect(wrong, predictions.groups)
    worst, best = _worst_rows(predictions, wrong), _worst_rows(predictions, -wrong)
    pessimist, optimist = _extend(predictions, worst, False), _extend(predictions, best, True)
    ends = {}
    for name in names:
        low, high = (pessimist, optimist) if greater_is_better(name) else (optimist, pessimist)
        if smooth := _smooth_ends(name, [(1.0, low)], [(1.0, high)], effect, evaluation):
            ends[name] = smooth
    uneven = [name for name in names if name not in ends]
    for name, (low, high) in zip(uneven, _resample(uneven, (pessimist, optimist), effect, evaluation), strict=True):
        tail = _tail(name, predictions, evaluation)
        ends[name] = _quantiles(*((low, high) if greater_is_better(name) else (high, low)), tail)
    return {name: _interval(measure(name, predictions), ends[name], predictions, effect, evaluation) for name in names}


def estimate_difference(
    metric: str, challenger: Predictions, champion: Predictions, evaluation: Evaluation
) -> Estimate:
    """Return how much better the challenger is on the same rows, whatever the metric's direction."""
    lead = _wrongness(challenger) - _wrongness(champion)
    effect = design_effect(lead, challenger.groups)
    worst, best = _worst_rows(challenger, lead), _worst_rows(challenger, -lead)
    fixed = bool(np.all(champion.scores == champion.scores[:1]))  # a constant says the same of any row
    cases = (
        _extend(challenger, worst, False),
        _extend(champion, worst, None if fixed else True),
        _extend(challenger, best, True),
        _extend(champion, best, None if fixed else False),
    )
    sign = 1.0 if greater_is_better(metric) else -1.0
    low, high = ([(sign, one), (-sign, other)] for one, other in (cases[:2], cases[2:]))
    ends = _smooth_ends(metric, low, high, effect, evaluation)
    if ends is None:
        drawn = sign * _resample((metric,), cases, effect, evaluation)[0]
        ends = _quantiles(drawn[0] - drawn[1], drawn[2] - drawn[3], _tail(metric, challenger, evaluation))
    value = sign * (measure(metric, challenger) - measure(metric, champion))
    return _interval(value, ends, challenger, effect, evaluation)


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


def _resample(names: Sequence[str], cases: Sequence[Predictions], effect: float, evaluation: Evaluation) -> Floats:
    """Return resampled metrics, (metrics, cases, B); each case ends with its rows not seen yet.

    Rows of one group share a weight; a row not seen yet counts as much as `effect` rows, as one independent row does.
    """
    rng = np.random.default_rng(evaluation.seed)
    table, total, unseen = metrics_of(cases[0].task), len(cases[0].truth), len(_strata(cases[0]))
    groups = cases[0].groups
    units = total if groups is None else int(groups.max()) + 1 + unseen
    if groups is not None:
        groups = np.append(groups, np.arange(units - unseen, units))
    drawn = np.empty((len(names), len(cases), evaluation.resamples))
    step = max(1, CHUNK // total)
    for start in range(0, evaluation.resamples, step):
        part = slice(start, min(start + step, evaluation.resamples))
        weights = rng.standard_exponential((part.stop - start, units))
        weights = weights if groups is None else weights[:, groups]
        seed = rng.integers(2**63)  # one for all metrics: no bound depends on which others were asked for
        for i, name in enumerate(names):
            shape = table[name].unseen / (1 if table[name].by_class else unseen)
            weights[:, -unseen:] = effect * np.random.default_rng(seed).gamma(shape, size=(len(weights), unseen))
            for j, case in enumerate(cases):
                drawn[i, j, part] = table[name].values(case, weights)
    return drawn


def _smooth_ends(
    name: str,
    low: Sequence[tuple[float, Predictions]],
    high: Sequence[tuple[float, Predictions]],
    effect: float,
    evaluation: Evaluation,
) -> tuple[float, float] | None:
    """Return the outer quantiles of a metric, summed over signed cases, without drawing; None where few rows decide."""
    if len(low[0][1].truth) < LARGE or type(metrics_of(low[0][1].task)[name]) is WeighedMetric:
        return None
    tail = (1 - evaluation.confidence) / 2
    lowest, highest = (_smooth_quantile(name, *side) for side in ((low, effect, tail), (high, effect, 1 - tail)))
    return None if lowest is None or highest is None else (lowest, highest)


def _smooth_quantile(
    name: str, cases: Sequence[tuple[float, Predictions]], effect: float, share: float
) -> float | None:
    """Return where this share of the draws lies: their mean, spread and skewness follow from the slopes."""
    metric, unseen = metrics_of(cases[0][1].task)[name], len(_strata(cases[0][1]))
    shape = metric.unseen / (1 if metric.by_class else unseen)
    weights = np.ones(len(cases[0][1].truth))
    weights[-unseen:] = shape * effect
    derived = [(sign, metric.slopes(case, weights)) for sign, case in cases]
    slopes = np.sum([sign * slope for sign, (_, slope) in derived], axis=0)
    groups = cases[0][1].groups
    seen = slopes[:-unseen] if groups is None else np.bincount(groups, slopes[:-unseen])
    moves = np.append(seen, slopes[-unseen:] * effect)
    weights = np.append(np.ones(len(seen)), np.full(unseen, shape))
    variance = float(weights @ moves**2)  # that of a gamma weight is its mean, of which its third moment is twice
    if not variance > 0:
        return None
    skew = 2 * float(weights @ moves**3) / variance**1.5
    if abs(skew) > _SKEW:
        return None
    z = NormalDist().inv_cdf(share)
    value = sum(sign * value for sign, (value, _) in derived)
    return float(value + np.sqrt(variance) * (z + skew * (z * z - 1) / 6))


def _tail(name: str, predictions: Predictions, evaluation: Evaluation) -> float:
    """Return the share of draws beyond each end: fewer where ranks of few rows decide, as Student's t has it.

    The expanded percentiles of Hesterberg (2015, Amer. Statist. 69:371), by the rows or groups of the rarest class.
    """
    tail = (1 - evaluation.confidence) / 2
    if not isinstance(metrics_of(predictions.task)[name], RankMetric):
        return tail
    fewest = min(events(predictions).values())
    if fewest < 2:
        return tail
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf(tail, fewest - 1) * math.sqrt(fewest / (fewest - 1))))


def _quantiles(low: Floats, high: Floats, tail: float) -> tuple[float, float]:
    """Return the outer quantiles of the pessimistic and the optimistic draws."""
    return float(np.quantile(low, tail)), float(np.quantile(high, 1 - tail))


def _interval(
    value: float, ends: tuple[float, float], predictions: Predictions, effect: float, evaluation: Evaluation
) -> Estimate:
    n = len(predictions.truth)
    return Estimate(
        value=value,
        low=float(np.minimum(ends[0], value)),
        high=float(np.maximum(ends[1], value)),
        n=n,
        confidence=evaluation.confidence,
        effective=None if predictions.groups is None else n / effect,
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


def _mean(of: npt.NDArray[Any], total: Total) -> Floats:
    return _ratio(total(of), total(None))


def _share(of: npt.NDArray[Any], among: npt.NDArray[Any], total: Total) -> Floats:
    return _ratio(total(of & among), total(among))


def _accuracy(p: Predictions, total: Total) -> Floats:
    return _mean(p.decisions == p.truth, total)


def _balanced_accuracy(p: Predictions, total: Total) -> Floats:
    return _over_classes(p, lambda code: _share(p.decisions == code, p.truth == code, total))


def _recall(p: Predictions, total: Total) -> Floats:
    return _share(p.decisions == 1, p.truth == 1, total)


def _precision(p: Predictions, total: Total) -> Floats:
    # A model that never says positive has precision 0, as in scikit-learn, so that a floor can fail it.
    return np.nan_to_num(_share(p.truth == 1, p.decisions == 1, total))


def _f1(p: Predictions, total: Total, code: int = 1) -> Floats:
    said, true = p.decisions == code, p.truth == code
    return _ratio(2 * total(said & true), total(said) + total(true))


def _macro_f1(p: Predictions, total: Total) -> Floats:
    codes = np.union1d(p.truth, p.decisions)
    return np.asarray(np.mean([_f1(p, total, code) for code in codes], axis=0))


def _cost(p: Predictions, total: Total) -> Floats:
    false_positive, false_negative = p.costs
    missed = (p.decisions < p.truth) * false_negative
    return _mean((p.decisions > p.truth) * false_positive + missed, total)


def _brier(p: Predictions, total: Total) -> Floats:
    return _mean((p.scores - p.truth) ** 2, total)


def _log_loss(p: Predictions, total: Total) -> Floats:
    if p.task == "binary":
        of_truth = np.where(p.truth == 1, p.scores, 1 - p.scores)
    else:
        of_truth = p.scores[np.arange(len(p.truth)), p.truth.astype(int)]
    smallest = np.finfo(float).eps
    return _mean(-np.log(np.clip(of_truth, smallest, 1 - smallest)), total)


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


def _roc_auc_slopes(p: Predictions, weights: Floats) -> tuple[float, Floats]:
    return _area_slopes(p.truth == 1, p.scores, weights)


def _roc_auc_ovr_slopes(p: Predictions, weights: Floats) -> tuple[float, Floats]:
    codes = np.unique(p.truth).astype(int)
    values, slopes = zip(*(_area_slopes(p.truth == code, p.scores[:, code], weights) for code in codes), strict=True)
    return float(np.mean(values)), np.mean(slopes, axis=0)


def _area_slopes(positive: npt.NDArray[np.bool_], scores: Floats, weights: Floats) -> tuple[float, Floats]:
    """Return the area and its slopes, the structural components of DeLong et al. (1988, Biometrics 44:837)."""
    ups, downs = scores[positive], scores[~positive]
    of_ups, of_downs = weights[positive], weights[~positive]
    slopes = np.full(len(scores), np.nan)
    if not (len(ups) and len(downs)):
        return np.nan, slopes
    won = _share_below(ups, downs, of_downs)
    value = float(of_ups @ won / of_ups.sum())
    slopes[positive] = (won - value) / of_ups.sum()
    slopes[~positive] = (1 - _share_below(downs, ups, of_ups) - value) / of_downs.sum()
    return value, slopes


def _share_below(scores: Floats, others: Floats, weights: Floats) -> Floats:
    """Return what share of the others' weight lies below each score; ties count half."""
    order = np.argsort(others)
    heap = np.concatenate([[0.0], np.cumsum(weights[order])])
    ends = [heap[np.searchsorted(others[order], scores, side)] for side in ("left", "right")]
    return np.asarray((ends[0] + ends[1]) / 2 / heap[-1])


def _average_precision_slopes(p: Predictions, weights: Floats) -> tuple[float, Floats]:
    order = np.argsort(-p.scores, kind="stable")
    fall, weight, hit = -p.scores[order], weights[order], p.truth[order] == 1
    first, last = np.searchsorted(fall, fall, "left"), np.searchsorted(fall, fall, "right") - 1
    gained = weight * hit
    found, reached = np.cumsum(gained)[last], np.cumsum(weight)[last]
    precision, positives = found / reached, gained.sum()
    if not positives > 0:
        return np.nan, weights * np.nan
    value = float(gained @ precision / positives)
    # A row counts in the precision of every positive that is not above it.
    in_found, in_reached = (
        np.cumsum(part[::-1])[::-1][first] for part in (gained / reached, gained * found / reached**2)
    )
    slopes = np.empty(len(weights))
    slopes[order] = (hit * (precision - value + in_found) - in_reached) / positives
    return value, slopes


def _over_classes(p: Predictions, of: Callable[[int], Floats]) -> Floats:
    """Average over the classes present; NaN where only one is."""
    codes = np.unique(p.truth).astype(int)
    values: Floats = np.mean([of(code) for code in codes], axis=0)
    return values if len(codes) > 1 else values * np.nan


def _rmse(p: Predictions, total: Total) -> Floats:
    return np.asarray(np.sqrt(_mean((p.truth - p.scores) ** 2, total)))


def _mae(p: Predictions, total: Total) -> Floats:
    return _mean(np.abs(p.truth - p.scores), total)


def _r2(p: Predictions, total: Total) -> Floats:
    centred = p.truth - p.truth.mean()
    spread = _mean(centred**2, total) - _mean(centred, total) ** 2
    spread[spread <= 1e-12 * np.max(centred**2)] = 0  # what is left of a constant truth is rounding
    return 1 - _ratio(_mean((p.truth - p.scores) ** 2, total), spread)


METRICS: dict[Task, dict[str, Metric]] = {
    "binary": {
        "roc_auc": RankMetric(compute=_roc_auc, unseen=1.25, by_class=True, derive=_roc_auc_slopes),
        "average_precision": RankMetric(compute=_average_precision, derive=_average_precision_slopes),
        "log_loss": Metric(_log_loss, greater_is_better=False, bounded=False),
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
        "log_loss": Metric(_log_loss, greater_is_better=False, bounded=False),
        "roc_auc_ovr": RankMetric(compute=_roc_auc_ovr, unseen=1.25, by_class=True, derive=_roc_auc_ovr_slopes),
    },
    "regression": {
        "r2": Metric(_r2, unseen=1.5, bounded=False),
        "rmse": Metric(_rmse, greater_is_better=False, unseen=1.5, bounded=False),
        "mae": Metric(_mae, greater_is_better=False, bounded=False),
    },
}
