"""Tell from labels whether a model is still right, and what has changed if it is not.

A classifier's scores, calibrated on the holdout (Platt 1999), promise how many labels of each class a window holds and
how well the scores rank them. Label drift (Saerens et al. 2002) is a class that is more or less frequent than promised,
at the same inputs. Concept drift is ranking that falls short of what is promised once the frequencies are put right.
What is promised, and how far chance moves it, comes from labels drawn from the scores. Of numbers the residuals are
compared: their mean, and then their spread.

Rows of one score have other labels where inputs have moved and the model misses what moved. So the holdout is weighted
to look like the window (`likeness`), and where too few of its rows do, nothing is promised. That holds as far as the
columns show what has moved, and by measurement: `python -m benchmarks.drift --only moved`. Rows of one group
(`loop.data.groups`) count as what they are worth: how far what came strays from what is promised is summed by group.

Label and concept drift are two families of `watching.drift`; each has its share of the false alarm rate and a floor.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Evaluation, Monitoring, Section
from loop.data.contract import Column, deciles
from loop.data.groups import design_effect, groups_worth
from loop.data.table import as_kind
from loop.training.metrics import Predictions, estimate, evaluate, events, measure, metric_names
from loop.watching.drift import FAMILIES, FEWEST_GROUPS, alike, classifier_rows, discoveries, encoded, folds_of

Floats = npt.NDArray[np.float64]

DRAWS, DRAWN_ROWS = 300, 20_000
"""Labels are drawn so often, for so many rows at most."""
ALIKE_ROWS = 200
"""Rows of the holdout, in effect, that must be like the window's, or half of a small one: else nothing is promised."""
SEGMENT_ROWS, SEGMENTS = 50, 5
"""Labelled rows of a segment on each side, and segments shown."""

_TINY = 1e-6  # scores are kept so far from 0 and 1
_GUARD_RESAMPLES = 200  # of an interval that nobody reads
_BENT_ROWS = 150  # times the square of the number of columns of scores, which is how many coefficients there are


class LabelDrift(Section):
    """Say how the frequency of a class, or the mean of numbers, differs from what the inputs promise."""

    label: str
    """The class that differs most; the target's name for numbers."""
    value: float
    promised: float
    change: float
    """Factor on the odds, or the shift of the mean in root mean squared errors."""
    in_errors: bool = False
    p: float
    drifted: bool

    @property
    def changed(self) -> str:
        """Return the change with its unit."""
        if self.in_errors:
            return f"the mean has moved by {self.change:+.2f} root mean squared errors"
        return f"{self.change:.2f} times the odds that the inputs promise"


class ConceptDrift(Section):
    """Say how the ranking of the labels, or the error of numbers, differs from what is promised."""

    metric: str
    value: float
    promised: float
    p: float
    drifted: bool

    @property
    def fallen(self) -> float:
        """Return how far it is beyond what is promised, on a scale whose spread does not depend on the promise."""
        if self.metric == "rmse":
            return math.log(max(self.value, _TINY) / max(self.promised, _TINY))
        return math.asin(math.sqrt(self.promised)) - math.asin(math.sqrt(self.value))


class ReliabilityBin(Section):
    """Compare what scores of one size promised with what came."""

    rows: int
    score: float
    observed: float
    low: float
    high: float
    """95 % interval of what was observed."""


class Segment(Section):
    """Say where the loss (log loss or squared error) has grown."""

    column: str
    values: str
    rows: int
    loss: float
    loss_before: float
    p: float


def likeness(
    rows: pd.DataFrame,
    scores: Floats,
    holdout_rows: pd.DataFrame,
    holdout: Predictions,
    columns: Sequence[Column],
    identity: Sequence[str] = (),
) -> Floats:
    """Return weights (holdout rows,) of mean 1 under which the holdout looks like rows with these scores.

    They are the ratio of both densities, from a classifier that tells the sides apart (Sugiyama et al. 2007; Bickel et
    al. 2009, JMLR 10:2137): small trees, judged on rows they have not seen, nor others of their identity, where there
    are enough. How far these and the scores are to be believed is what a logistic regression on both says, so that
    sides that do not differ weigh evenly.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    shown = [column for column in columns if column.kind != "datetime" and column.name in rows]
    size, random = classifier_rows(len(shown) + 1), np.random.default_rng(0)
    keep = np.sort(random.permutation(len(rows))[:size])
    said = [_features(side, holdout.task) for side in (holdout.scores, scores[keep])]
    side, values = np.repeat([0, 1], [len(part) for part in said]), np.concatenate(said)
    if shown:
        codes = [encoded(part, shown) for part in (holdout_rows, rows.iloc[keep])]
        values = np.hstack([values, np.concatenate(codes)])
    group = alike((holdout_rows, rows.iloc[keep]), values, side, identity)
    if min(groups_worth(group[side == 0]), groups_worth(group[side == 1])) < FEWEST_GROUPS:
        group = np.arange(len(side))
    apart = np.empty(len(side))
    for known, rest in folds_of(group, 3).split(values, side):
        known = random.permutation(known)[: 2 * size]
        guess = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=4, early_stopping=False, random_state=0)
        apart[rest] = guess.fit(values[known], side[known]).decision_function(values[rest])
    evidence = StandardScaler().fit_transform(np.column_stack([apart, np.concatenate(said)]))
    ratio = LogisticRegression(max_iter=1000).fit(evidence, side).decision_function(evidence[side == 0])
    weights = np.exp(np.maximum(ratio - ratio.max(), -30))
    return np.asarray(weights / weights.mean())


def effective_rows(weights: Floats) -> int:
    """Return how many rows of equal weight would say as much (Kish 1965)."""
    return round(float(weights.sum() ** 2 / (weights**2).sum()))


def calibrated(scores: Floats, holdout: Predictions) -> Floats:
    """Return class probabilities (n, k) for scores, corrected by the holdout."""
    return calibration(holdout)(scores)


def calibration(holdout: Predictions, weights: Floats | None = None) -> Callable[[Floats], Floats]:
    """Return what turns scores into class probabilities (n, k): a logistic regression on the weighted holdout.

    The line that it fits (Platt 1999) may bend at the quartiles of each class's scores: where most scores are exactly
    0, or the model misses what matters, no line fits. A holdout of one class corrects nothing.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(holdout.truth)) < 2:
        return lambda scores: scores if scores.ndim == 2 else np.column_stack([1 - scores, scores])
    bends = _bends(holdout, _even(holdout, weights))
    line = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    known = _bent(_logits(holdout.scores), bends)
    line.fit(known, holdout.truth.astype(int), logisticregression__sample_weight=weights)

    def chances(scores: Floats) -> Floats:
        found = np.zeros((len(scores), _classes(holdout)))
        found[:, line.classes_] = line.predict_proba(_bent(_logits(scores), bends))
        return found

    return chances


def estimated_performance(scores: Floats, holdout: Predictions, weights: Floats | None = None) -> dict[str, float]:
    """Return the metrics to be expected where calibrated scores are right, so if there is no concept drift.

    Each row counts once for each class, by its probability (Guillory et al. 2021; no numbers for regression). A metric
    is left out that the holdout, calibrated on two thirds of it at a time, does not give back within the 95 % interval
    that it has there.
    """
    if holdout.task == "regression":
        return {}
    scores = scores[_drawn(len(scores))]
    expected = _expected(scores, calibration(holdout, weights)(scores), holdout)
    known = estimate(holdout, expected, Evaluation(resamples=_GUARD_RESAMPLES))
    again = _expected(holdout.scores, _cross_fitted(holdout), holdout)
    return {name: value for name, value in expected.items() if known[name].low <= again[name] <= known[name].high}


def label_drift(
    labelled: Predictions,
    holdout: Predictions,
    prior: Sequence[float],
    target: str,
    settings: Monitoring,
    weights: Floats | None = None,
) -> LabelDrift:
    """Compare the labels with those that the inputs promise; `prior` is the training shares or mean.

    The weights are those of `likeness`; without them the inputs are taken to be as they were.
    """
    level = settings.false_alarm_rate / FAMILIES
    if labelled.task == "regression":
        now, before = (side.truth - side.scores for side in (labelled, holdout))
        error = float(np.sqrt(np.average(before**2, weights=weights)))
        moved, spread, _ = _beyond(now, labelled, before, holdout, weights)
        p = _by_groups(_two_sided(moved / max(spread, 1e-300)), labelled, holdout)
        change = moved / max(error, 1e-300)
        seen = (float(labelled.truth.mean()) - prior[0]) / max(error, 1e-300)
        drifted = p <= level and min(change * np.sign(change), seen * np.sign(change)) >= settings.min_shift
        value = float(labelled.truth.mean())
        return LabelDrift(
            label=target, value=value, promised=value - moved, change=change, in_errors=True, p=p, drifted=drifted
        )
    calibrate = calibration(holdout, weights)
    chances, known = calibrate(labelled.scores), calibrate(_like(holdout, weights).scores)
    before = calibrate(holdout.scores)
    found, n = [], len(labelled.truth)
    codes = [1] if labelled.task == "binary" else range(_classes(holdout))
    for code in codes:
        share, promised = float((labelled.truth == code).mean()), float(chances[:, code].mean())
        effects = _label_effect(labelled, code, chances), _label_effect(holdout, code, before, weights)
        p = _two_counts(n * share, chances[:, code], known[:, code], effects)
        p = min(_by_groups(p, labelled, holdout) * len(codes), 1.0)
        change = _shift(chances[:, code], share)
        # A class is more frequent than in training by less than the factor on its odds where scores are sure of it.
        floor = math.copysign(math.log(settings.min_odds), change)
        least = _odds(float(_shifted(chances[:, code], floor).mean()), n) - _odds(promised, n)
        seen = _odds(share, n) - _odds(prior[code], n)
        drifted = p <= level and abs(change) >= abs(floor) and seen * np.sign(floor) >= abs(least)
        found.append(
            LabelDrift(
                label=labelled.labels[code] if labelled.labels else str(code),
                value=share,
                promised=promised,
                change=math.exp(change),
                p=p,
                drifted=bool(drifted),
            )
        )
    return min(found, key=lambda drift: (not drift.drifted, drift.p))


def concept_drift(
    labelled: Predictions, holdout: Predictions, settings: Monitoring, weights: Floats | None = None
) -> ConceptDrift | None:
    """Compare how well the scores rank the labels with what they promise; None where one class came, or is promised.

    The weights are those of `likeness`; without them the inputs are taken to be as they were.
    """
    level = settings.false_alarm_rate / FAMILIES
    if labelled.task == "regression":
        now, before = (side.truth - side.scores for side in (labelled, holdout))
        # Deviations are tested, since of squares a heavy tail decides (Brown & Forsythe 1974, JASA 69:364).
        middle = np.quantile(before, 0.5, weights=weights, method="inverted_cdf")
        deviations = np.abs(now - np.median(now)), np.abs(before - middle)
        grown, spread, mean = _beyond(deviations[0], labelled, deviations[1], holdout, weights)
        promised = max(float(deviations[0].mean()) - grown, 1e-300)
        p = _by_groups(_one_sided(grown / max(spread, 1e-300)), labelled, holdout)
        centre = np.average(before, weights=weights)
        error, error_before = float(now.std()), math.sqrt(np.average((before - centre) ** 2, weights=weights))
        error_before *= promised / max(mean, 1e-300)
        drifted = p <= level and error >= (1 + settings.min_drop) * error_before
        return ConceptDrift(metric="rmse", value=error, promised=error_before, p=p, drifted=bool(drifted))
    labelled = labelled.take(_drawn(len(labelled.truth)))
    metric = "roc_auc" if labelled.task == "binary" else "roc_auc_ovr"
    value = measure(metric, labelled)
    if math.isnan(value):
        return None
    shares = np.bincount(labelled.truth.astype(int), minlength=_classes(holdout)) / len(labelled.truth)
    calibrate, like = calibration(holdout, weights), _like(holdout, weights)
    promised, spread = _promise(labelled, _with_shares(calibrate(labelled.scores), shares))
    _, spread_before = _promise(like, calibrate(like.scores))
    if math.isnan(spread + spread_before):
        return None
    concept = ConceptDrift(metric=metric, value=value, promised=promised, p=1.0, drifted=False)
    p = _by_groups(_one_sided(concept.fallen / max(math.hypot(spread, spread_before), 1e-300)), labelled, holdout)
    drifted = p <= level and promised - value >= settings.min_drop
    return concept.model_copy(update={"p": p, "drifted": drifted})


def reliability(labelled: Predictions) -> tuple[ReliabilityBin, ...]:
    """Compare scores with outcomes by tenths of the scores: P(positive), the top class's probability, or numbers."""
    said, came = labelled.scores, labelled.truth.astype(float)
    if labelled.task == "multiclass":
        said, came = labelled.scores.max(axis=1), (labelled.decisions == labelled.truth).astype(float)
    bins = np.searchsorted(deciles(said, said.max()), said, side="left")
    return tuple(_bin(said[bins == number], came[bins == number], labelled.task) for number in np.unique(bins))


def worse_segments(
    rows: pd.DataFrame,
    labelled: Predictions,
    holdout_rows: pd.DataFrame,
    holdout: Predictions,
    columns: Sequence[Column],
    settings: Monitoring,
) -> tuple[Segment, ...]:
    """Return the segments whose loss has grown since the holdout, at a false discovery rate, the worst first."""
    now, before = _losses(labelled), _losses(holdout)
    found = []
    for column in columns:
        for values, inside, inside_before in _segments(rows, holdout_rows, column):
            here, there = now[inside], before[inside_before]
            if min(len(here), len(there)) >= SEGMENT_ROWS:
                spread = math.sqrt(here.var(ddof=1) / len(here) + there.var(ddof=1) / len(there))
                grown = float(here.mean() - there.mean())
                found.append(
                    Segment(
                        column=column.name,
                        values=values,
                        rows=len(here),
                        loss=float(here.mean()),
                        loss_before=float(there.mean()),
                        p=_one_sided(grown / max(spread, 1e-300)),
                    )
                )
    real = discoveries([segment.p for segment in found], settings.false_alarm_rate)
    worse = [segment for segment, is_real in zip(found, real, strict=True) if is_real]
    return tuple(sorted(worse, key=lambda segment: segment.loss_before - segment.loss)[:SEGMENTS])


def _expected(scores: Floats, chances: Floats, holdout: Predictions) -> dict[str, float]:
    """Return the metrics of rows that count once for each class, by its chance (n, k)."""
    k = chances.shape[1]
    every = replace(holdout, truth=np.repeat(np.arange(k), len(scores)), scores=np.concatenate([scores] * k))
    return {name: float(evaluate(name, every, chances.T.reshape(1, -1))[0]) for name in metric_names(holdout.task)}


def _cross_fitted(holdout: Predictions) -> Floats:
    """Return the chances (n, k) of holdout rows by what the other two thirds say."""
    fold = np.empty(len(holdout.truth), int)
    order = np.random.default_rng(0).permutation(len(fold))
    fold[order[np.argsort(holdout.truth[order], kind="stable")]] = np.arange(len(fold)) % 3
    chances = np.empty((len(fold), _classes(holdout)))
    for number in range(3):
        chances[fold == number] = calibration(holdout.take(fold != number))(holdout.scores[fold == number])
    return chances


def _like(holdout: Predictions, weights: Floats | None) -> Predictions:
    """Return as many rows of a weighted holdout as say as much, each so often as its weight asks for."""
    if weights is None:
        return holdout
    size, heap = effective_rows(weights), np.cumsum(weights)
    return holdout.take(np.searchsorted(heap, (np.arange(size) + 0.5) / size * heap[-1]))


def _beyond(
    now: Floats, labelled: Predictions, before: Floats, holdout: Predictions, weights: Floats | None
) -> tuple[float, float, float]:
    """Return how far the mean of values is above what the weighted holdout says of such scores, and its spread.

    What it says is a line through its own values, with bends as in `calibration`; the third number is their mean.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weights, scores, scores_before = _even(holdout, weights), labelled.scores, holdout.scores
    bends = [np.unique(np.quantile(scores_before, (0.25, 0.5, 0.75), weights=weights, method="inverted_cdf"))]
    line = make_pipeline(StandardScaler(), Ridge())
    line.fit(_bent(scores_before[:, None], bends), before, ridge__sample_weight=weights)
    left, left_before = (
        now - line.predict(_bent(scores[:, None], bends)),
        before - line.predict(_bent(scores_before[:, None], bends)),
    )
    noise = float(left.var(ddof=1)) / len(left) * design_effect(left, labelled.groups)
    noise_before = np.average(left_before**2, weights=weights) / effective_rows(weights)
    noise_before *= design_effect(weights * left_before, holdout.groups)
    return float(left.mean()), math.sqrt(noise + noise_before), float(np.average(before, weights=weights))


def _bends(holdout: Predictions, weights: Floats) -> list[Floats]:
    """Return for each column of the logits where its line bends: at the quartiles, in the class and outside of it."""
    logits, bends = _logits(holdout.scores), []
    enough = effective_rows(weights) >= _BENT_ROWS * logits.shape[1] ** 2
    for place, column in enumerate(logits.T):
        inside = holdout.truth == (1 if holdout.task == "binary" else place)
        quartiles = [
            np.quantile(column[rows], (0.25, 0.5, 0.75), weights=weights[rows], method="inverted_cdf")
            for rows in (inside, ~inside)
            if rows.any() and enough
        ]
        bends.append(np.unique(quartiles))
    return bends


def _bent(logits: Floats, bends: Sequence[Floats]) -> Floats:
    """Return the logits beside what of each lies above each of its bends."""
    above = [np.maximum(column[:, None] - at, 0) for column, at in zip(logits.T, bends, strict=True)]
    return np.hstack([logits, *above])


def _features(scores: Floats, task: str) -> Floats:
    """Return scores as columns: logits (n, 1) or (n, k), or numbers as they are."""
    return scores[:, None] if task == "regression" else _logits(scores)


def _promise(predictions: Predictions, chances: Floats) -> tuple[float, float]:
    """Return the mean ROC AUC over labels drawn from the chances, and the spread of the arcsine of its root.

    On that scale the spread does not depend on the mean (Anscombe 1948): else a promise that is too high by chance
    comes with a spread that is too small. Labels are drawn one by one; what came tells how much wider groups make it.
    """
    from scipy.stats import rankdata

    keep = _drawn(len(chances))
    predictions, chances = predictions.take(keep), chances[keep]
    scores = predictions.scores
    ranks = rankdata(scores.reshape(len(scores), -1), axis=0)
    codes = [1] if predictions.task == "binary" else list(range(chances.shape[1]))
    random, edges = np.random.default_rng(0), chances.cumsum(axis=1)[:, :-1]
    values = np.array(
        [_area(ranks, codes, (random.random((len(scores), 1)) > edges).sum(axis=1)) for _ in range(DRAWS)]
    )
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return math.nan, math.nan
    wider = design_effect(_influence(predictions, chances, codes), predictions.groups)
    return float(values.mean()), float(np.arcsin(np.sqrt(values)).std(ddof=1)) * math.sqrt(wider)


def _influence(predictions: Predictions, chances: Floats, codes: Sequence[int]) -> Floats:
    """Return by how much each label moves the ROC AUC from what its chance promises, (n,) (DeLong et al. 1988)."""
    found = np.zeros(len(chances))
    for code, said in zip(codes, predictions.scores.reshape(len(chances), -1).T, strict=True):
        inside, places = chances[:, code], np.unique(said, return_inverse=True)[1]
        ups, downs = (np.bincount(places, weights=side) for side in (inside, 1 - inside))
        if not ups.sum() or not downs.sum():
            continue
        below, above = (downs.cumsum() - downs / 2) / downs.sum(), 1 - (ups.cumsum() - ups / 2) / ups.sum()
        area = float(ups @ below) / ups.sum()
        moves = (below - area) / ups.sum() - (above - area) / downs.sum()
        found += ((predictions.truth == code) - inside) * moves[places]
    return found


def _area(ranks: Floats, codes: Sequence[int], labels: npt.NDArray[np.int_]) -> float:
    """Return the mean ROC AUC of the classes present, one against the rest, from the ranks of their scores (n, k)."""
    found, n = [], len(labels)
    for code, of_code in zip(codes, ranks.T, strict=True):
        inside = labels == code
        if 0 < (ups := int(inside.sum())) < n:
            found.append((float(of_code[inside].sum()) - ups * (ups + 1) / 2) / (ups * (n - ups)))
    return float(np.mean(found)) if found else math.nan


def _with_shares(chances: Floats, shares: Floats) -> Floats:
    """Scale class probabilities so that their means are the shares (Deming & Stephan 1940)."""
    factors = np.ones(len(shares))
    for _ in range(200):
        scaled = chances * factors
        scaled /= scaled.sum(axis=1, keepdims=True)
        means = scaled.mean(axis=0)
        if np.abs(means - shares).max() < 1e-9:
            break
        factors *= np.where(means > 0, shares / np.maximum(means, 1e-300), 0)
    return np.asarray(scaled)


def _losses(predictions: Predictions) -> Floats:
    """Return log loss or squared error of each row, (n,)."""
    if predictions.task == "regression":
        return np.asarray((predictions.truth - predictions.scores) ** 2)
    truth = predictions.truth.astype(int)
    if predictions.task == "binary":
        chances = np.where(truth == 1, predictions.scores, 1 - predictions.scores)
    else:
        chances = predictions.scores[np.arange(len(truth)), truth]
    return np.asarray(-np.log(np.clip(chances, _TINY, 1)))


def _segments(
    rows: pd.DataFrame, before: pd.DataFrame, column: Column
) -> Iterator[tuple[str, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield values of a column and which rows on each side hold them: categories, or up to four ranges."""
    if column.kind == "datetime" or column.name not in rows:
        return
    now, then = (as_kind(side[column.name], column.kind, column.categories) for side in (rows, before))
    if column.kind == "categorical":
        for category in column.categories:
            yield category, (now == category).to_numpy(), (then == category).to_numpy()
    else:
        edges = [-math.inf, *column.edges[1::3], math.inf]
        for low, high in itertools.pairwise(edges):
            inside, inside_before = (((side > low) & (side <= high)).to_numpy() for side in (now, then))
            yield _range(low, high), inside, inside_before
    yield "(missing)", now.isna().to_numpy(), then.isna().to_numpy()


def _range(low: float, high: float) -> str:
    if math.isinf(low):
        return f"up to {high:.4g}"
    return f"above {low:.4g}" if math.isinf(high) else f"{low:.4g} to {high:.4g}"


def _bin(said: Floats, came: Floats, task: str) -> ReliabilityBin:
    n, mean = len(said), float(came.mean())
    if task == "regression":
        half = 1.96 * float(came.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
        low, high = mean - half, mean + half
    else:  # Wilson 1927
        centre, scale = (mean + 1.96**2 / (2 * n)), 1 + 1.96**2 / n
        half = 1.96 * math.sqrt(mean * (1 - mean) / n + 1.96**2 / (4 * n * n))
        low, high = (centre - half) / scale, (centre + half) / scale
    return ReliabilityBin(rows=n, score=float(said.mean()), observed=mean, low=low, high=high)


def _drawn(rows: int) -> npt.NDArray[np.intp]:
    """Return the places of all rows, or of a fixed sample."""
    if rows <= DRAWN_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, DRAWN_ROWS, replace=False))


def _logits(scores: Floats) -> Floats:
    """Return what a logistic regression takes: log odds (n, 1) or log probabilities (n, k)."""
    kept = np.clip(scores, _TINY, 1 - _TINY)
    return np.asarray(np.log(kept / (1 - kept))[:, None] if scores.ndim == 1 else np.log(kept))


def _even(holdout: Predictions, weights: Floats | None) -> Floats:
    return np.ones(len(holdout.truth)) if weights is None else weights


def _classes(predictions: Predictions) -> int:
    return 2 if predictions.task == "binary" else predictions.scores.shape[1]


def _odds(share: float, n: int) -> float:
    """Return log odds, kept finite as if half a row more were on each side."""
    kept = (share * n + 0.5) / (n + 1)
    return math.log(kept / (1 - kept))


def _shift(chances: Floats, share: float) -> float:
    """Return the logarithm of the factor on the odds of every row that makes the mean chance the share."""
    from scipy.optimize import brentq

    n = len(chances)
    wanted = (share * n + 0.5) / (n + 1)
    return float(brentq(lambda shift: float(_shifted(chances, shift).mean()) - wanted, -30, 30))


def _shifted(chances: Floats, shift: float) -> Floats:
    kept = np.clip(chances, _TINY, 1 - _TINY)
    return np.asarray(kept / (kept + (1 - kept) * math.exp(-shift)))


def _label_effect(predictions: Predictions, code: int, chances: Floats, weights: Floats | None = None) -> float:
    """Return by how much groups widen the variance of a class's weighted count beside its chances."""
    left = (predictions.truth == code) - chances[:, code]
    return design_effect(_even(predictions, weights) * left, predictions.groups)


def _by_groups(p: float, *sides: Predictions) -> float:
    """Return a p-value as Student's t has it, where groups of rows tell the spread; of a class there may be few."""
    known = [
        groups_worth(side.groups) if side.task == "regression" else min(events(side).values())
        for side in sides
        if side.groups is not None
    ]
    if not known:
        return p
    if (groups := min(known)) < 2:
        return 1.0
    from scipy.stats import norm, t

    return float(2 * t.sf(norm.isf(p / 2) * math.sqrt(1 - 1 / groups), groups - 1))


def _two_counts(came: float, chances: Floats, known: Floats, effects: tuple[float, float]) -> float:
    """Return the two-sided p-value of a count, promised by chances that the holdout's count has set right.

    A sum of rare events is a Poisson variable, of others one that is moved so that its variance is right (Röllin 2007,
    Ann. Appl. Probab. 17:1596). Of two such counts the exact test is binomial (Przyborowski & Wilenski 1940). Both are
    divided by their design effects, as rows of one group are worth fewer (Rao & Scott 1992, Biometrics 48:577).
    """
    from scipy.stats import beta

    if chances.mean() > 0.5:  # it is the rarer side whose count is skewed
        came, chances, known = len(chances) - came, 1 - chances, 1 - known
    sides = zip((chances, known), effects, strict=True)
    noise, noise_before = (max(float((side * (1 - side)).sum()) / effect, _TINY) for side, effect in sides)
    count = max(came - float((chances**2).sum()), 0.0) / effects[0]
    share = noise / (noise + noise_before)
    above = float(beta.cdf(share, count, noise_before + 1)) if count else 1.0
    below = float(beta.sf(share, count + 1, noise_before))
    return min(2 * above, 2 * below, 1.0)


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _one_sided(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))
