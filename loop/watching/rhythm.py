"""Judge what differs in a window by how much windows differ by themselves, where rows depend on each other.

Days have a rhythm, customers come back, machines drift and return: rows drawn one by one are then no measure of chance.
Windows of as many rows are taken from earlier traffic of the version, spread over four weeks, and the same statistic of
each beside the others. If the counts of a window are roughly normal, whatever depends on what within it, a distance is
a sum of squares whose scale and degrees of freedom its mean and variance tell (Satterthwaite 1946; Rao & Scott 1984),
so this window's distance from the reference, over the mean of theirs, has an F distribution where nothing has changed.

What lasts must not hide behind itself. So traffic counts up to the newest window that did not alarm, where that is
enough, or else from there on; and an alarm stays where all the traffic that counts differs from the reference, or what
came since. What comes and goes over several windows would make their mean look surer than it is, so that is held
against means of blocks of windows, about as many blocks as a block has windows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Monitoring
from loop.data.contract import Column
from loop.watching.concept import ConceptDrift, LabelDrift
from loop.watching.drift import (
    FAMILIES,
    ColumnDrift,
    Counts,
    Separation,
    column_counts,
    decided,
    homogeneity,
    pooled,
    reference_counts,
    separation,
    stability_index,
)

WINDOWS = 60
"""Earlier windows that are looked at; of more they are drawn with a fixed seed, so that none keeps step with a day."""
SPAN = timedelta(weeks=4)
"""They come from so long before, where more than the newest would fit: slower rhythms are drift."""
NEEDED = 20
"""Fewer say too little; until there are so many, rows are taken to be independent of each other."""
FITTED = 10
"""So many of them the classifier sees, spread over them all: each costs as much as the window itself."""

Drift = TypeVar("Drift", LabelDrift, ConceptDrift)


@dataclass(frozen=True)
class Past:
    """Earlier traffic of a version, cut into windows of as many rows as the one that is judged."""

    windows: tuple[pd.DataFrame, ...]
    """The newest last."""
    together: tuple[pd.DataFrame, ...]
    """Those that an alarm that lasts would show in all: those since the newest quiet one, or else the same."""

    def of(self, side: Callable[[pd.DataFrame], pd.DataFrame]) -> "Past":
        """Return the same, of each window those rows that `side` takes."""
        return Past(tuple(map(side, self.windows)), tuple(map(side, self.together)))

    @property
    def sentence(self) -> str:
        """Say what a window was held against."""
        start = self.windows[0]["prediction_time"].iloc[0].strftime("%Y-%m-%d %H:%M")
        return f"{len(self.windows)} earlier windows of {len(self.windows[0]):,} rows, from {start} on"


@dataclass(frozen=True)
class Earlier:
    """Give the traffic before a window, which is read only when an alarm asks for it."""

    read: Callable[[], pd.DataFrame] = pd.DataFrame
    """Returns rows as `loop.log.records.read_predictions` does, of one version, before the window."""
    quiet: datetime | None = None
    """End of the newest window of the version that did not alarm, or what came before the first; None if it is this."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Return the rows before the window, by time."""
        return self.read()

    def cut(self, n: int) -> Past | None:
        """Return windows of n rows; None where there are too few."""
        windows = _windows(self.rows, n)
        if len(windows) < NEEDED:
            return None
        if self.quiet is None:
            return Past(windows, windows)
        since = self.rows["prediction_time"] > self.quiet
        before, after = _windows(self.rows[~since], n), _windows(self.rows[since], n)
        usual = next((side for side in (before, after) if len(side) >= NEEDED // 2), windows)
        return Past(usual, after or usual)


def _windows(rows: pd.DataFrame, n: int) -> tuple[pd.DataFrame, ...]:
    ends = np.arange(len(rows), n - 1, -n)
    if len(ends) > WINDOWS:
        ends = np.random.default_rng(0).choice(ends, WINDOWS, replace=False)
    return tuple(rows.iloc[end - n : end] for end in np.sort(ends))


def held_columns(
    drifts: Sequence[ColumnDrift],
    rows: pd.DataFrame,
    reference: Sequence[Column],
    n: int,
    past: Past,
    settings: Monitoring,
) -> list[ColumnDrift]:
    """Return the drifts of columns anew, where those count that earlier windows do not show by themselves."""
    columns = {column.name: column for column in reference}
    found = []
    for drift in drifts:
        p = drift.missing_p if drift.p is None else min(drift.p, drift.missing_p)
        doubtful = p <= settings.false_alarm_rate
        found.append(_held(drift, rows, columns[drift.name], n, past, settings) if doubtful else drift)
    return decided(found, settings)


def held_separation(
    apart: Separation,
    rows: pd.DataFrame,
    reference_rows: pd.DataFrame,
    columns: Sequence[Column],
    past: Past,
    settings: Monitoring,
    identity: Sequence[str] = (),
) -> Separation:
    """Let the classifier try earlier windows too; this one must stand out, or all of them together."""
    places = np.linspace(0, len(past.windows) - 1, FITTED).astype(int)
    earlier = [separation(past.windows[place], reference_rows, columns, settings, identity) for place in places]
    known = [_logit(each.auc) for each in earlier if each is not None]
    if len(known) < 2 or exceedance(_logit(apart.auc), known) <= settings.false_alarm_rate / FAMILIES:
        return apart
    every = pd.concat([*past.together, rows])
    sample = every.iloc[np.linspace(0, len(every) - 1, len(rows)).astype(int)].reset_index(drop=True)
    lasting = separation(sample, reference_rows, columns, settings, identity)
    return apart.model_copy(update={"drifted": lasting is not None and lasting.drifted})


def held_labels(now: Drift, earlier: Sequence[Drift], together: Drift, windows: int, settings: Monitoring) -> Drift:
    """Return whether labels, or their ranks, have drifted beyond what earlier windows did, or so many together."""
    from scipy.special import fdtrc

    level, changes = settings.false_alarm_rate / FAMILIES, [_change(each) for each in earlier]
    blocks = [float(np.mean(block)) for block in _blocks(changes)]
    p, lasting = (
        float(fdtrc(1, len(alike) - 1, count * _change(each) ** 2 / max(float(np.var(alike, ddof=1)), 1e-12)))
        for each, alike, count in ((now, changes, 1), (together, blocks, windows * len(blocks) / len(changes)))
    )
    p = max(now.p, min(p, lasting) if together.drifted else p)
    return now.model_copy(update={"p": p, "drifted": p <= level})


def exceedance(value: float, earlier: Sequence[float]) -> float:
    """Return the p-value of a value above those of earlier windows, by Student's distribution of the next one."""
    from scipy.stats import t

    k, spread = len(earlier), float(np.std(earlier, ddof=1))
    return float(t.sf((value - np.mean(earlier)) / max(spread * (1 + 1 / k) ** 0.5, 1e-12), k - 1))


def _held(
    drift: ColumnDrift, rows: pd.DataFrame, column: Column, n: int, past: Past, settings: Monitoring
) -> ColumnDrift:
    gaps, counts = column_counts(rows[column.name], column)
    gaps_before, before = reference_counts(column, n, len(counts))
    earlier = [column_counts(window[column.name], column) for window in past.windows]
    lasting = [(gaps, counts), *(column_counts(window[column.name], column) for window in past.together)]
    all_gaps, all_counts = (np.sum(side, axis=0) for side in zip(*lasting, strict=True))
    windows_gaps, windows_counts = zip(*earlier, strict=True)
    missing_p = _Spread(windows_gaps).p(gaps, gaps_before)
    if abs(all_gaps[0] / all_gaps.sum() - column.missing) >= settings.min_missing:
        missing_p = min(missing_p, _lasting_p(windows_gaps, all_gaps, gaps_before, len(lasting)))
    found: dict[str, float] = {"missing_p": max(drift.missing_p, missing_p)}
    if drift.p is not None:
        shares = _Spread(windows_counts)
        p, together = shares.p(counts, before), homogeneity(all_counts, before)
        if together is not None and together[2] >= settings.min_psi:
            p = min(p, _lasting_p(windows_counts, all_counts, before, len(lasting)))
        found |= {"p": max(drift.p, p), "usual": shares.mean}
    return drift.model_copy(update=found)


def _lasting_p(earlier: Sequence[Counts], together: Counts, reference: Counts, windows: int) -> float:
    """Return the p-value of the distance of so many windows together, by that of blocks of earlier ones."""
    blocks = [np.sum(block, axis=0) for block in _blocks(earlier)]
    return _Spread(blocks).p(together, reference, windows * len(blocks) / len(earlier))


def _blocks(windows: Sequence[Any]) -> list[npt.NDArray[Any]]:
    """Cut what windows showed, one after the other, into about as many blocks as each has windows."""
    return np.array_split(np.array(windows), int(len(windows) ** 0.5))


class _Spread:
    """How far windows lie from each other: the mean of their distances, and its degrees of freedom."""

    def __init__(self, windows: Sequence[Counts]) -> None:
        total = np.sum(windows, axis=0)
        found = [_distance(window, total - window) for window in windows]
        distances, bins = np.array([distance for distance, _ in found]), max(bins for _, bins in found)
        self.mean, variance = float(distances.mean()), float(distances.var(ddof=1))
        # Rows that are independent of each other have as many as bins but one: none can have more.
        self.freedom = min(2 * self.mean**2 / max(variance, 1e-300), max(bins - 1, 1))
        self.windows = len(windows)

    def p(self, now: Counts, reference: Counts, windows: float = 1) -> float:
        """Return the p-value of the distance of counts that are worth so many windows."""
        if not self.mean:  # windows that never differ
            return 0.0
        from scipy.special import fdtrc

        ratio = windows * _distance(now, reference)[0] / self.mean
        # Their mean alone would have more degrees of freedom, but the shape is learned from the same windows.
        return float(fdtrc(self.freedom, 2 * (self.windows - 1), ratio))


def _distance(window: Counts, reference: Counts) -> tuple[float, int]:
    """Return the population stability index of counts as it is, and the bins that were not pooled."""
    window, reference = pooled(window, reference)
    few = len(window) < 2 or not window.sum() or not reference.sum()
    return (0.0 if few else stability_index(window, reference)), len(window)


def _change(drift: LabelDrift | ConceptDrift) -> float:
    if isinstance(drift, ConceptDrift):
        return drift.fallen
    return drift.change if drift.in_errors else float(np.log(drift.change))


def _logit(auc: float) -> float:
    kept = min(max(auc, 1e-6), 1 - 1e-6)
    return float(np.log(kept / (1 - kept)))
