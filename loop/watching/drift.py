"""Tell whether the inputs a model gets still look as those it learned from, with a stated false alarm rate.

A column has drifted when two things hold. Its counts per reference bin differ from the contract's beyond chance: a
two-sample chi-square test (bins of fewer than 5 expected rows are pooled; of two bins left with so few, Fisher's exact
test decides), under Benjamini & Hochberg (1995, JRSS B 57:289) over the columns. And they differ by enough to matter:
the population stability index, less what sampling alone gives it (Yurdakul 2018), reaches a floor. Shares of missing
values are compared in the same way. Categories that the reference lacks are one bin, which expects as many rows as it
has of categories that came once (Good 1953, Biometrika 40:237), since there is always one more. What single columns
cannot show, a classifier may: it is trained to tell window from reference, and its cross-validated ROC AUC must exceed
a floor by its whole interval (Lopez-Paz & Oquab 2017).

Each of the three families of tests gets its share of the false alarm rate; `python -m benchmarks.drift` measures what
becomes of it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Kind, Monitoring, Section
from loop.data.contract import Column, counts_of
from loop.data.groups import Groups, groups_worth
from loop.data.table import as_kind, exact_hashes, row_hashes
from loop.training.metrics import Predictions, measure

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FAMILIES = 6
"""Of checks that may alarm: columns, missing values, the classifier, coverage by labels, label and concept drift."""

CLASSIFIER_ROWS = 5000
"""Rows of each side that the classifier sees, drawn with a fixed seed; fewer, but not below 500, where that would be
more than `CLASSIFIER_CELLS`: a table of thousands of columns would take minutes."""

CLASSIFIER_CELLS = 1_500_000

FEWEST_GROUPS = 10
"""Of rows of a side that belong together: of fewer a fold may hold all."""

_FEW = 5  # expected rows below which a bin's chi-square is not to be trusted (Cochran 1954)
_FEWEST = 500  # as many as a window needs at least, unless told otherwise
_Z = 3.09  # one-sided 0.1 %
_FOLDS = 5


class ColumnDrift(Section):
    """Say how one column of a window differs from the reference."""

    name: str
    kind: Kind
    rows: int
    """Values present in the window."""
    test: str | None
    """None where there is nothing to test: times move on by themselves, and one bin cannot shift."""
    p: float | None
    psi: float | None
    """Population stability index without what sampling gives it; below 0 it is noise."""
    drifted: bool = False
    usual: float | None = None
    """Mean PSI of earlier windows, each beside the others, where they were asked whether this one is like them."""
    missing: float
    missing_before: float
    missing_p: float
    missing_drifted: bool = False
    shares: tuple[float, ...] = ()
    """Per reference bin or category; values of no category are the last."""

    @property
    def sentence(self) -> str:
        """Say what moved."""
        said = []
        if self.missing_drifted:
            said.append(f"{self.missing:.0%} of '{self.name}' is missing, it was {self.missing_before:.0%}")
        if self.drifted:
            said.append(f"'{self.name}' moved (PSI {self.psi:.2f}, {p_value(self.p or 0)})")
        return "; ".join(said) or f"'{self.name}' is as it was"


class Separation(Section):
    """Say how well a classifier tells the window from the reference; 0.5 is not at all."""

    auc: float
    low: float
    """Three standard errors below. Folds share their rows, so where nothing separates it errs in 1 %, not 0.1 %: the
    floor is what keeps the level."""
    rows: int
    """Of both sides together."""
    drifted: bool
    columns: tuple[str, ...]
    """The columns it saw."""


def p_value(p: float) -> str:
    """Write a p-value; what is smaller than the tests' own precision is not told apart."""
    return f"p {p:.1g}" if p >= 1e-16 else "p < 1e-16"


def column_drifts(rows: pd.DataFrame, reference: Sequence[Column], n: int, settings: Monitoring) -> list[ColumnDrift]:
    """Compare each reference column that the window has with its statistics, learned from `n` rows."""
    found = [_compare(rows[column.name], column, n) for column in reference if column.name in rows.columns]
    return decided(found, settings)


def decided(drifts: Sequence[ColumnDrift], settings: Monitoring) -> list[ColumnDrift]:
    """Say of each column by its p-values and floors whether it has drifted, and whether its missing values have."""
    level = settings.false_alarm_rate / FAMILIES
    real = discoveries([drift.p for drift in drifts], level)
    gaps = discoveries([drift.missing_p for drift in drifts], level)
    return [
        drift.model_copy(
            update={
                "drifted": is_real and drift.psi is not None and drift.psi >= settings.min_psi,
                "missing_drifted": is_gap and abs(drift.missing - drift.missing_before) >= settings.min_missing,
            }
        )
        for drift, is_real, is_gap in zip(drifts, real, gaps, strict=True)
    ]


def homogeneity(window: Counts, reference: Counts) -> tuple[str, float, float] | None:
    """Return test, p-value and corrected PSI of two rows of counts over the same bins; None where one bin is left."""
    window, reference = pooled(np.asarray(window), np.asarray(reference))
    n, m, bins = int(window.sum()), int(reference.sum()), len(window)
    if bins < 2 or not n or not m:
        return None
    psi = stability_index(window, reference) - (bins - 1) * (1 / n + 1 / m)
    if bins == 2 and _expected(window, reference).min() < _FEW:
        from scipy.stats import fisher_exact

        return "Fisher", float(fisher_exact([window, reference])[1]), psi
    from scipy.stats import chi2

    statistic = n * m * float(((window / n - reference / m) ** 2 / (window + reference)).sum())
    return "chi-square", float(chi2.sf(statistic, bins - 1)), psi


def stability_index(window: Counts, reference: Counts) -> float:
    """Return the population stability index of two rows of counts, with what sampling alone gives it."""
    sides = [(side + 0.5) / (side.sum() + len(side) / 2) for side in (window, reference)]
    return float(((sides[0] - sides[1]) * np.log(sides[0] / sides[1])).sum())


def discoveries(p_values: Sequence[float | None], level: float) -> list[bool]:
    """Return which p-values count at a false discovery rate; None is no test and never counts."""
    tested = [p for p in p_values if p is not None]
    if not tested:
        return [False] * len(p_values)
    ordered = np.sort(tested)
    passing = np.flatnonzero(ordered <= level * np.arange(1, len(tested) + 1) / len(tested))
    limit = ordered[passing[-1]] if len(passing) else -1.0
    return [p is not None and bool(p <= limit) for p in p_values]


def separation(
    rows: pd.DataFrame,
    reference_rows: pd.DataFrame,
    columns: Sequence[Column],
    settings: Monitoring,
    identity: Sequence[str] = (),
) -> Separation | None:
    """Let a classifier try to tell the window from reference rows by these columns; times would give it away.

    Rows of one identity share a fold, so that nothing is told by knowing them again, and count as one where it is said
    how sure the result is; so do copies of a row that one side alone holds. Too few different ones give None.
    """
    shown = [column for column in columns if column.kind != "datetime"]
    if not shown or not len(reference_rows) or not len(rows):
        return None
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import cross_val_predict

    size = classifier_rows(len(shown))
    sides = [side.sample(size, random_state=0) if len(side) > size else side for side in (reference_rows, rows)]
    values = np.concatenate([encoded(side, shown) for side in sides])
    truth = np.repeat([0, 1], [len(side) for side in sides])
    group = alike(sides, values, truth, identity)
    before, now = (groups_worth(group[truth == side]) for side in (0, 1))
    if min(before, now) < FEWEST_GROUPS:
        return None
    guess = HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=0)
    folds = folds_of(group, _FOLDS)
    scores = cross_val_predict(guess, values, truth, cv=folds, method="predict_proba")[:, 1]
    auc = measure("roc_auc", Predictions("binary", truth, scores))
    # The fitted classifiers of the folds differ, so the spread is taken as if nothing separated: at its largest.
    spread = float(np.sqrt((1 / before + 1 / now + 1 / before / now) / 12))
    low = auc - _Z * spread
    return Separation(
        auc=auc,
        low=low,
        rows=len(truth),
        drifted=low > settings.min_auc,
        columns=tuple(column.name for column in shown),
    )


def column_counts(values: pd.Series, reference: Column) -> tuple[Counts, Counts]:
    """Count the values missing and present, and those present by reference bin; categories that it lacks are one."""
    present, counts = counts_of(values, reference)
    if reference.kind == "categorical":
        absent = np.flatnonzero(np.equal(reference.shares, 0))  # known from rows before those that it describes
        counts[-1] += counts[absent].sum()
        counts[absent] = 0
    return np.array([len(values) - present, present]), counts


def reference_counts(reference: Column, n: int, bins: int) -> tuple[Counts, Counts]:
    """Return the same of the n rows that the reference was learned from.

    Rows of categories that came once stand for those of categories that did not come.
    """
    gone, counts = round(n * reference.missing), np.zeros(bins, np.int64)
    counts[: len(reference.shares)] = np.round(np.array(reference.shares) * (n - gone))
    if reference.kind == "categorical":
        once = counts == 1
        counts[once], counts[-1] = 0, once.sum()
    return np.array([gone, n - gone]), counts


def _compare(values: pd.Series, reference: Column, n: int) -> ColumnDrift:
    gaps, counts = column_counts(values, reference)
    gone, present = map(int, gaps)
    gaps_before, before = reference_counts(reference, n, len(counts))
    missing = homogeneity(gaps, gaps_before)
    test, p, psi = homogeneity(counts, before) or (None, None, None)
    return ColumnDrift(
        name=reference.name,
        kind=reference.kind,
        rows=present,
        test=test,
        p=p,
        psi=psi,
        missing=gone / max(len(values), 1),
        missing_before=reference.missing,
        missing_p=1.0 if missing is None else missing[1],
        shares=tuple(map(float, counts / max(present, 1))),
    )


def pooled(window: Counts, reference: Counts) -> tuple[Counts, Counts]:
    """Pool the bins in which the smaller side expects too few rows, the rarest first."""
    seen = window + reference > 0
    window, reference = window[seen], reference[seen]
    order = np.argsort(_expected(window, reference), kind="stable")
    expected = np.cumsum(_expected(window, reference)[order])
    few = min(int((_expected(window, reference) < _FEW).sum()), len(order) - 1)  # one bin could not be tested
    while 0 < few < len(order) - 1 and expected[few - 1] < _FEW:
        few += 1
    if few < 2:
        return window, reference
    rare, kept = order[:few], np.sort(order[few:])
    return tuple(np.append(side[kept], side[rare].sum()) for side in (window, reference))  # type: ignore[return-value]


def _expected(window: Counts, reference: Counts) -> Floats:
    """Return the rows that each bin of the smaller side would have if the sides did not differ."""
    total = window + reference
    return np.asarray(total * min(window.sum(), reference.sum()) / max(total.sum(), 1))


def classifier_rows(columns: int) -> int:
    """Return how many rows of a side a classifier of so many columns sees."""
    return min(CLASSIFIER_ROWS, max(CLASSIFIER_CELLS // columns, _FEWEST))


def folds_of(group: Groups, folds: int) -> Any:
    """Return a splitter into so many folds, those of one group in one; by class where each row stands alone."""
    from sklearn.model_selection import PredefinedSplit, StratifiedKFold

    if group.max() + 1 == len(group):
        return StratifiedKFold(folds, shuffle=True, random_state=0)
    return PredefinedSplit(np.random.default_rng(0).permutation(group.max() + 1)[group] % folds)


def alike(
    sides: Sequence[pd.DataFrame], values: npt.NDArray[Any], truth: npt.NDArray[Any], identity: Sequence[str]
) -> Groups:
    """Number the rows so that those share a number which must share a fold, 0 to the number of groups - 1, (rows,).

    They are those of one identity, where every row has it, else those of the same values. Values that both sides hold
    give nothing away: they are what there is to compare in a table of few different rows.
    """
    if identity and all({*identity} <= {*side.columns} and side[[*identity]].notna().all(axis=None) for side in sides):
        hashes = np.concatenate([row_hashes(side, identity) for side in sides])
        return np.unique(hashes, return_inverse=True)[1]
    contents = pd.DataFrame(values).rename(columns=str)
    found = np.unique(exact_hashes(contents, list(contents.columns)), return_inverse=True)[1]
    on_both = np.isin(found, np.intersect1d(found[truth == 0], found[truth == 1]))
    return np.unique(np.where(on_both, len(found) + np.arange(len(found)), found), return_inverse=True)[1]


def encoded(rows: pd.DataFrame, columns: Sequence[Column]) -> npt.NDArray[Any]:
    """Return the columns as numbers, (rows, columns): categories by their place, unseen ones share the last."""
    found = []
    for column in columns:
        values = as_kind(rows[column.name], column.kind, column.categories)
        if column.kind == "categorical":
            places = pd.Index(column.categories).get_indexer(pd.Index(values)).astype(float)
            places[places < 0] = len(column.categories)
            found.append(np.where(values.notna(), places, np.nan))
        else:
            found.append(values.to_numpy(np.float64))
    return np.column_stack(found)
