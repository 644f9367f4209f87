"""Split rows into train and holdout so that a row never changes side.

The guarantee: under one rule a row's side depends on the row alone. Rows may come, go or be reordered, and be
read from another format: every row stays where it was, rows of one identity stay together (also when their
labels disagree), and a larger holdout only moves rows from train to holdout. A new rule is a new split, so
keep the resolved rule with the model: its time cutoff and its columns were found in the rows of that day.

Without an id, rows of the same contents are one row that stands there again, and share a side; or, where few contents
hold most rows, as in a survey, many that happen to be alike. Then the k-th copy of the same contents and label is a row
of its own, so that the holdout is a sample of the table. Which copy is the k-th does not matter, since they are the
same, label included: order does not count, and rows that come only add numbers. Numbers hold within a whole table, not
within a part of it. Where rows go, others take their numbers, and a champion may be judged on some of the many copies
it has learned from. That favours the champion, so it lets no challenger pass.
"""

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Data, Section, Share, Split, Task, UserError
from loop.data.notes import Reading
from loop.data.table import Hashes, as_kind, as_text, column, mix, row_hashes

_FOLD = 1 << 62  # sides take their salts from seeds, folds from here on: the two never agree by design
FEW_CONTENTS = 0.5
"""Share of rows that repeat another's identity from which a split shares out contents rather than rows: then neither
side is a sample of the table, and served rows are comparable with a side only if they would be on it."""

COPIES = 10
"""Rows of the same contents, at most, that are taken for copies of one row; if half of all have more, for rows that
are alike."""

_TICK = timedelta(microseconds=1)
_UNITS = [timedelta(**{unit: 1}) for unit in ("days", "hours", "minutes", "seconds", "milliseconds")]


class SplitRule(Section):
    """Say which side a row is on, from the row alone."""

    version: Literal[1, 2] = 1
    """How days are hashed: 1, as the first release did, where day and month have their order."""
    identity: tuple[str, ...]
    """Columns whose values decide a row's side: `data.group`, `data.id`, or all but the target and the dropped ones."""
    anonymous: tuple[str, ...] = ()
    """Columns that decide it for rows whose identity is missing, where some are: all others but target and dropped."""
    holdout: Share
    seed: int
    label: str | None = None
    """The target, where rows of the same contents are rows of their own: by their label, and by their number."""
    time: str | None = None
    """The column a split by time goes by."""
    cutoff: datetime | None = None
    """Rows from this moment on (UTC, without a zone) are held out, and the hash decides nothing."""
    until: datetime | None = None
    """From this moment on the hash decides again: rows that came back from service are too new to be all held out."""

    def held_out(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows are held out, shape (rows,); a row without a time is a UserError."""
        uniform = (self._hashes(rows) >> np.uint64(11)) / 2.0**53
        chosen = np.asarray(uniform < self.holdout)
        if self.time is None or self.cutoff is None:
            return chosen
        times = _times(rows, self.time)
        late = (times >= self.cutoff).to_numpy()
        return late if self.until is None else np.where(times >= self.until, chosen, late)

    def for_feedback(self, rows: pd.DataFrame) -> "SplitRule":
        """Return the rule that keeps each of these rows on its side and splits later ones by their hash."""
        if self.time is None:
            return self
        return self.model_copy(update={"until": _times(rows, self.time).max().to_pydatetime() + _TICK})

    def unseen(self, rows: pd.DataFrame, by: "SplitRule") -> npt.NDArray[np.bool_]:
        """Return which rows of a rule's holdout are held out by this one too, shape (rows,).

        Rows that have numbers are, or none is known to be: all by the same rule, also where that holds out fewer.
        """
        if self.label is None:
            return self.held_out(rows)
        same = self.model_copy(update={"holdout": by.holdout}) == by and by.holdout <= self.holdout
        return np.full(len(rows), same)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that tell rows apart."""
        return (*self.identity, *self.anonymous)

    def who(self, rows: pd.DataFrame) -> Hashes:
        """Return what tells rows apart, shape (rows,): one that says not who it is, such as a guest, by its values."""
        hashes = row_hashes(rows, self.identity, first=self.version == 1)
        if self.anonymous:
            nobody = rows[list(self.identity)].isna().any(axis=1).to_numpy()
            hashes[nobody] = row_hashes(rows[nobody], self.anonymous)
        return hashes

    def _hashes(self, rows: pd.DataFrame, salt: int = 0) -> Hashes:
        hashes = self.who(rows)
        if self.label is not None:
            alike = mix(hashes, 0) + row_hashes(rows, [self.label])
            hashes = mix(alike, 0) + pd.Series(alike).groupby(alike).cumcount().to_numpy().astype(np.uint64)
        return mix(hashes, self.seed + salt)


def resolve(rows: pd.DataFrame, data: Data, split: Split, reading: Reading | None = None) -> SplitRule:
    """Fix the rule for a table: its identity columns and, for a split by time, the moment of the cut.

    The moment is `split.cutoff`, or else the time that leaves the share `split.holdout` after it, rounded
    down to the largest unit (day, hour, … microsecond) below a thousandth of the whole span. `reading` says what is
    new to a champion, and by what that tells rows apart.
    """
    reading = reading or Reading()
    others = {data.target, *data.drop, *reading.new}
    identity = data.group or data.id or reading.identity or tuple(name for name in rows.columns if name not in others)
    if not identity:
        raise UserError(f"a row needs a column besides the target '{data.target}' to be split by; add one")
    for name in identity:
        column(rows, name, "data.group" if data.group else "data.id")
    rule = SplitRule(version=2, identity=identity, holdout=split.holdout, seed=split.seed)
    if data.keys and rows[list(identity)].isna().any(axis=None):
        contents = tuple(sorted((name for name in rows.columns if name not in {*others, *identity}), key=str))
        rule = rule.model_copy(update={"anonymous": contents})
    if split.by == "hash":
        if data.keys or not (reading.alike or few_contents(rows, identity)):
            return rule
        return rule.model_copy(update={"identity": tuple(sorted(identity, key=str)), "label": data.target})
    if data.time is None:
        raise UserError("split.by 'time' needs data.time to name a column")
    times = _times(rows, data.time)
    cutoff = _naive(split.cutoff) if split.cutoff else _moment(times, 1 - split.holdout)
    return rule.model_copy(update={"time": data.time, "cutoff": cutoff})


def folds(rows: pd.DataFrame, rule: SplitRule, k: int) -> npt.NDArray[np.int64]:
    """Return each row's cross-validation fold, 0 to k - 1, shape (rows,); rows of one identity share it.

    The fold comes from other bits of the row's hash than the side, so it says nothing about the side.
    """
    return np.asarray(rule._hashes(rows, _FOLD) % np.uint64(k)).astype(np.int64)


def few_contents(rows: pd.DataFrame, identity: Sequence[str]) -> bool:
    """Say whether most rows share their contents with so many others that they are no copies of each other."""
    counts = np.unique(row_hashes(rows, identity), return_counts=True)[1]
    return bool(counts[counts > COPIES].sum() > FEW_CONTENTS * len(rows))


def repeats(rows: pd.DataFrame, identity: Sequence[str]) -> int:
    """Return how many rows have the identity of another row before them."""
    return len(rows) - len(np.unique(row_hashes(rows, identity)))


def check_sides(target: pd.Series, held_out: npt.NDArray[np.bool_], task: Task) -> None:
    """Refuse an empty side and, for classes, a class that stands on one side only."""
    fix = "read more rows, change split.holdout or try another split.seed (by time: another split.cutoff)"
    sides = {"train": ~held_out, "holdout": held_out}
    for side, mask in sides.items():
        if not mask.any():
            raise UserError(f"the {side} side of the split needs rows, 0 of {len(held_out)} fall there; {fix}")
    if task == "regression":
        return
    counts: dict[str, dict[Hashable, int]] = {
        side: as_kind(target[mask], "categorical").value_counts().to_dict() for side, mask in sides.items()
    }
    for label in sorted({as_text(value) for value in target.dropna().unique()}):
        train, holdout = (counts[side].get(label, 0) for side in sides)
        if not (train and holdout):
            raise UserError(
                f"class '{label}' of target '{target.name}' needs rows on both sides of the split, it has "
                f"{train} in train and {holdout} in holdout; {fix}"
            )


def _times(rows: pd.DataFrame, name: str) -> pd.Series:
    times = as_kind(column(rows, name, "the split by time"), "datetime")
    if missing := int(times.isna().sum()):
        raise UserError(
            f"a split by time needs a time (ISO 8601) in every row, column '{name}' has none in {missing} of "
            f"{len(times)}; repair them, remove those rows, say what comes first by data.options.dayfirst, or use "
            "split.by: hash"
        )
    return times


def _moment(times: pd.Series, share: float) -> datetime:
    if times.empty:
        raise UserError("a split by time needs rows, the table has none")
    moment = pd.Timestamp(times.sort_values().iloc[min(int(len(times) * share), len(times) - 1)])
    span = times.max() - times.min()
    unit = next((unit for unit in _UNITS if unit * 1000 <= span), timedelta(microseconds=1))
    return moment.floor(unit).to_pydatetime()


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
