"""Tell from labels whether a model is still right, and what has changed if it is not.

A classifier's scores, calibrated on the holdout (Platt 1999), promise how many labels of each class a window holds and
how well the scores rank them. Label drift (Saerens et al. 2002) is a class that is more or less frequent than promised,
at the same inputs. Concept drift is ranking that falls short of what is promised once the frequencies are put right:
so neither other inputs nor another mix of classes is taken for it. What is promised, and how far chance moves it, comes
from labels drawn from the scores. Of numbers the residuals are compared: their mean, and then their spread.

Label and concept drift are two families of `core.drift`; each has its share of the false alarm rate and a floor.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from config import Monitoring, Section
from core.contract import Column, deciles
from core.drift import FAMILIES, discoveries
from core.metrics import Predictions, evaluate, measure, metric_names
from core.table import as_kind

Floats = npt.NDArray[np.float64]

DRAWS, DRAWN_ROWS = 300, 20_000
"""Labels are drawn so often, for so many rows at most."""
SEGMENT_ROWS, SEGMENTS = 50, 5
"""Labelled rows of a segment on each side, and segments shown."""

_TINY = 1e-6  # scores are kept so far from 0 and 1


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


def calibrated(scores: Floats, holdout: Predictions) -> Floats:
    """Return class probabilities (n, k) for scores, corrected by a logistic regression on the holdout.

    A holdout of one class corrects nothing.
    """
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(holdout.truth)) < 2:
        return scores if scores.ndim == 2 else np.column_stack([1 - scores, scores])
    model = LogisticRegression(max_iter=1000).fit(_logits(holdout.scores), holdout.truth.astype(int))
    found = np.zeros((len(scores), _classes(holdout)))
    found[:, model.classes_] = model.predict_proba(_logits(scores))
    return found


def estimated_performance(scores: Floats, holdout: Predictions) -> dict[str, float]:
    """Return the metrics to be expected where calibrated scores are right, so if there is no concept drift.

    Each row counts once for each class, by its probability (Guillory et al. 2021; no numbers for regression).
    """
    if holdout.task == "regression":
        return {}
    scores = scores[_drawn(len(scores))]
    chances = calibrated(scores, holdout)
    k = chances.shape[1]
    every = replace(holdout, truth=np.repeat(np.arange(k), len(scores)), scores=np.concatenate([scores] * k))
    weights = chances.T.reshape(1, -1)
    return {name: float(evaluate(name, every, weights)[0]) for name in metric_names(holdout.task)}


def label_drift(
    labelled: Predictions, holdout: Predictions, prior: Sequence[float], target: str, settings: Monitoring
) -> LabelDrift:
    """Compare the labels with those that the inputs promise; `prior` is the training shares or mean."""
    level = settings.false_alarm_rate / FAMILIES
    if labelled.task == "regression":
        now, before = (side.truth - side.scores for side in (labelled, holdout))
        error = float(np.sqrt(np.mean(before**2)))
        spread = math.sqrt(now.var(ddof=1) / len(now) + before.var(ddof=1) / len(before))
        moved = float(now.mean() - before.mean())
        p, change = _two_sided(moved / max(spread, 1e-300)), moved / max(error, 1e-300)
        seen = (float(labelled.truth.mean()) - prior[0]) / max(error, 1e-300)
        drifted = p <= level and min(change * np.sign(change), seen * np.sign(change)) >= settings.min_shift
        value = float(labelled.truth.mean())
        return LabelDrift(
            label=target, value=value, promised=value - moved, change=change, in_errors=True, p=p, drifted=drifted
        )
    chances, known = calibrated(labelled.scores, holdout), calibrated(holdout.scores, holdout)
    found, n = [], len(labelled.truth)
    codes = [1] if labelled.task == "binary" else range(_classes(holdout))
    for code in codes:
        share, promised = float((labelled.truth == code).mean()), float(chances[:, code].mean())
        p = min(_two_counts(n * share, chances[:, code], known[:, code]) * len(codes), 1.0)
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


def concept_drift(labelled: Predictions, holdout: Predictions, settings: Monitoring) -> ConceptDrift | None:
    """Compare how well the scores rank the labels with what they promise; None where one class came, or is promised."""
    level = settings.false_alarm_rate / FAMILIES
    if labelled.task == "regression":
        now, before = (side.truth - side.scores for side in (labelled, holdout))
        error, error_before = (float(side.std()) for side in (now, before))
        # Deviations are tested, since of squares a heavy tail decides (Brown & Forsythe 1974, JASA 69:364).
        sides = [np.abs(side - np.median(side)) for side in (now, before)]
        means = [max(float(side.mean()), 1e-300) for side in sides]
        spread = math.hypot(
            *(side.std() / mean / math.sqrt(len(side)) for side, mean in zip(sides, means, strict=True))
        )
        p = _one_sided(math.log(means[0] / means[1]) / max(spread, 1e-300))
        drifted = p <= level and error >= (1 + settings.min_drop) * error_before
        return ConceptDrift(metric="rmse", value=error, promised=error_before, p=p, drifted=bool(drifted))
    labelled = labelled.take(_drawn(len(labelled.truth)))
    metric = "roc_auc" if labelled.task == "binary" else "roc_auc_ovr"
    value = measure(metric, labelled)
    if math.isnan(value):
        return None
    shares = np.bincount(labelled.truth.astype(int), minlength=_classes(holdout)) / len(labelled.truth)
    promised, spread = _promise(labelled, _with_shares(calibrated(labelled.scores, holdout), shares))
    _, spread_before = _promise(holdout, calibrated(holdout.scores, holdout))
    if math.isnan(spread + spread_before):
        return None
    fallen = math.asin(math.sqrt(promised)) - math.asin(math.sqrt(value))
    p = _one_sided(fallen / max(math.hypot(spread, spread_before), 1e-300))
    drifted = p <= level and promised - value >= settings.min_drop
    return ConceptDrift(metric=metric, value=value, promised=promised, p=p, drifted=drifted)


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


def _promise(predictions: Predictions, chances: Floats) -> tuple[float, float]:
    """Return the mean ROC AUC over labels drawn from the chances, and the spread of the arcsine of its root.

    On that scale the spread does not depend on the mean (Anscombe 1948): else a promise that is too high by chance
    comes with a spread that is too small.
    """
    from scipy.stats import rankdata

    keep = _drawn(len(chances))
    chances, scores = chances[keep], predictions.scores[keep]
    ranks = rankdata(scores.reshape(len(scores), -1), axis=0)
    codes = [1] if predictions.task == "binary" else list(range(chances.shape[1]))
    random, edges = np.random.default_rng(0), chances.cumsum(axis=1)[:, :-1]
    values = np.array(
        [_area(ranks, codes, (random.random((len(scores), 1)) > edges).sum(axis=1)) for _ in range(DRAWS)]
    )
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return math.nan, math.nan
    return float(values.mean()), float(np.arcsin(np.sqrt(values)).std(ddof=1))


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


def _two_counts(came: float, chances: Floats, known: Floats) -> float:
    """Return the two-sided p-value of a count, promised by chances that the holdout's count has set right.

    A sum of rare events is a Poisson variable, of others one that is moved so that its variance is right (Röllin 2007,
    Ann. Appl. Probab. 17:1596). Of two such counts the exact test is binomial (Przyborowski & Wilenski 1940).
    """
    from scipy.stats import beta

    if chances.mean() > 0.5:  # it is the rarer side whose count is skewed
        came, chances, known = len(chances) - came, 1 - chances, 1 - known
    noise, noise_before = (max(float((side * (1 - side)).sum()), _TINY) for side in (chances, known))
    count = max(came - float((chances**2).sum()), 0.0)
    share = noise / (noise + noise_before)
    above = float(beta.cdf(share, count, noise_before + 1)) if count else 1.0
    below = float(beta.sf(share, count + 1, noise_before))
    return min(2 * above, 2 * below, 1.0)


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def _one_sided(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))
