"""Learn from training rows what a model may expect of its columns and its target: the data contract.

The contract is JSON and travels with the model: training checks rows with it, the service types its API from
it, and monitoring measures drift from its reference statistics, so nobody needs the training rows again.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Contract, Data, Kind, Section, Task, UserError
from loop.data.notes import Known, Reading
from loop.data.table import as_kind, as_text, column, infer_kinds, infer_task, quoted, spelling_counts

Reason = Literal["id", "group", "time", "dropped", "text", "constant", "empty", "new", "gone"]
"""Why a column is no feature; `new`: nobody has accepted it yet, `gone`: an earlier version had it."""

_SQUARABLE = 1e150  # sums of squares of larger numbers overflow
_DECILES = np.arange(1, 10) / 10
_BOOLEAN = {"true": ("True", "1"), "1": ("True",), "false": ("False", "0"), "0": ("False",)}


class Column(Section):
    """Say what a column held in training, and how its values were spread."""

    name: str
    kind: Kind
    format: str | None = None
    """How the times of a datetime column are spelt, as `strptime` has it, where that is not ISO 8601."""
    missing_words: tuple[str, ...] = ()
    """Words, such as NA, that stood for a missing value in this column."""
    nullable: bool
    missing: float
    """Share of missing values among the reference rows, as all statistics below."""
    integer: bool = False
    """A numeric column that held whole numbers only."""
    minimum: float | str | None = None
    """Smallest value; of a datetime column as ISO 8601."""
    maximum: float | str | None = None
    categories: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    """Inner edges of the reference bins, the distinct deciles below the maximum; a bin has its upper edge."""
    shares: tuple[float, ...] = ()
    """Share of the values present, per bin (one more than edges) or per category; none is 0."""
    mean: float | None = None
    std: float | None = None
    """Standard deviation of the rows themselves (divided by n)."""

    def bounds(self, slack: float) -> tuple[Any, Any]:
        """Widen the learned range by `slack` times its width on each side; what was never negative stays so."""
        if self.kind == "datetime":
            first, last = pd.Timestamp(str(self.minimum)), pd.Timestamp(str(self.maximum))
            earliest, latest = (pd.Timestamp(end).as_unit("us") for end in (datetime.min, datetime.max))
            span = slack * (last.as_unit("us") - first.as_unit("us"))
            return max(first - span, earliest), min(last + span, latest)
        low, high = float(self.minimum or 0), float(self.maximum or 0)
        widened = low - slack * (high - low)
        return (max(widened, 0.0) if low >= 0 else widened), high + slack * (high - low)

    def limits(self, slack: float) -> tuple[Any, Any]:
        """Return between what a value is within the contract: the bounds, but times move on and have no upper one."""
        low, high = self.bounds(slack)
        return low, pd.Timestamp(datetime.max).as_unit("us") if self.kind == "datetime" else high


class Other(Section):
    """Say what a column holds that is no feature: an id, the time, a text, a constant."""

    name: str
    kind: Kind
    """Of an id `numeric` means whole numbers, else it is `text`: an id is never a fraction."""
    format: str | None = None
    """As of a `Column`."""


class DataContract(Section):
    """Say what a model was trained on: its columns, its target and their reference statistics."""

    version: Literal[1, 2] = 1
    """Version of this format; 1 knows no `others`."""
    target: str
    task: Task
    classes: tuple[str, ...] = ()
    """Labels as text in the order of their codes; binary: negative, positive. None for regression."""
    positive: str | None = None
    target_kind: Kind | None = None
    """What the labels are read as, whatever the task makes of them."""
    target_statistics: Column
    columns: tuple[Column, ...]
    """The features, in the order of training."""
    left_out: dict[str, Reason]
    """Columns that are no features, and why."""
    others: tuple[Other, ...] = ()
    """What those of them hold that may come with a request and come back to be learned from."""
    rows: int
    """Training rows."""
    reference_rows: int | None = None
    """The newest of them, whose statistics stand for what the model meets; all where left out."""
    id: tuple[str, ...] = ()
    time: str | None = None

    @property
    def features(self) -> dict[str, Kind]:
        """Return the kind of each feature, as `loop.data.table.as_features` wants it."""
        return {column.name: column.kind for column in self.columns}

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Return the categories of each categorical feature."""
        return {column.name: column.categories for column in self.columns if column.categories}

    @property
    def names(self) -> set[str]:
        """Return every column it says something of, the target too; of what is new or gone it does not."""
        left_out = (name for name, reason in self.left_out.items() if reason not in ("new", "gone"))
        return {self.target, *self.features, *left_out}

    def without(self, columns: Collection[str]) -> "DataContract":
        """Return the same, as if it knew nothing of these columns."""
        return self.model_copy(
            update={
                "columns": tuple(column for column in self.columns if column.name not in columns),
                "others": tuple(other for other in self.others if other.name not in columns),
            }
        )

    @property
    def known(self) -> dict[str, Known]:
        """Return what each column is read as, so that nothing is inferred of it again."""
        known = {other.name: Known(other.kind, other.format) for other in self.others}
        for feature in self.columns:
            known[feature.name] = Known(feature.kind, feature.format, frozenset(feature.categories))
        return known | ({} if self.target_kind is None else {self.target: Known(self.target_kind)})


def learn_contract(
    train_rows: pd.DataFrame,
    data: Data,
    contract: Contract,
    reference_rows: int | None = None,
    *,
    reading: Reading | None = None,
    settled: Mapping[str, Known] | None = None,
) -> DataContract:
    """Learn the contract; constant, empty and text columns are no features, and no feature is a UserError.

    The last `reference_rows`, or all, stand for what the model will meet: one that was trained on two worlds is watched
    against the newer one. Types, ranges and categories are those of all rows. `reading` says how the values were spelt,
    `settled` what an earlier contract says of the columns. What is new to it is left out.
    """
    reading = reading or Reading()
    data = data.without(reading.new)
    target = column(train_rows, data.target, "data.target")
    task = infer_task(target, data.task, data.kinds.get(data.target))
    left_out: dict[str, Reason] = dict.fromkeys(data.drop, "dropped")
    left_out.update(dict.fromkeys(reading.new, "new"))
    left_out.update(dict.fromkeys(data.group, "group"))
    left_out.update(dict.fromkeys(data.id, "id"))
    if data.time is not None:
        left_out[data.time] = "time"
    columns = []
    kind: Kind
    settled = settled or {}
    earlier = {name: known.kind for name, known in settled.items()}
    kinds = infer_kinds(train_rows, data, contract.max_categories, earlier)
    for name, kind in kinds.items():
        values = as_kind(train_rows[name], kind)
        if reason := _useless(values, kind):
            left_out[name] = reason
        else:
            layout = reading.formats.get(name) or (settled[name].format if name in settled else None)
            spelt = {"format": layout, "missing_words": tuple(reading.missing_words.get(name, ()))}
            columns.append(_learn_column(values, kind, last=reference_rows).model_copy(update=spelt))
    if not columns:
        why = ", ".join(f"{name} ({reason})" for name, reason in left_out.items()) or "nothing"
        said = [note.sentence for note in reading.notes if note.column in left_out]
        raise UserError("; ".join(["a model needs a column to learn from, none is left", f"left out: {why}", *said]))
    others = {name: _kind_of_other(train_rows[name], reason, kinds.get(name)) for name, reason in left_out.items()}
    left_out.update(dict.fromkeys(reading.gone, "gone"))
    classes, positive = _classes(target, task, data.positive)
    kind = "numeric" if task == "regression" else "categorical"
    return DataContract(
        version=2,
        target=data.target,
        task=task,
        classes=classes,
        positive=positive,
        target_kind=_target_kind(target),
        target_statistics=_learn_column(as_kind(target, kind), kind, classes),
        columns=tuple(columns),
        left_out=left_out,
        others=tuple(
            Other(name=name, kind=kind, format=reading.formats.get(name)) for name, kind in others.items() if kind
        ),
        rows=len(train_rows),
        reference_rows=reference_rows,
        id=data.id,
        time=data.time,
    )


def _kind_of_other(values: pd.Series, reason: Reason, kind: Kind | None) -> Kind | None:
    """Say what a column that is no feature holds, as far as it tells anything."""
    if reason in ("dropped", "empty") or values.isna().all():
        return None
    if reason in ("id", "group"):
        return "numeric" if pd.api.types.is_integer_dtype(values) else "text"
    return "datetime" if reason == "time" else kind


def _target_kind(target: pd.Series) -> Kind:
    if pd.api.types.is_bool_dtype(target):
        return "boolean"
    return "numeric" if pd.api.types.is_numeric_dtype(target) else "categorical"


def encode_target(series: pd.Series, contract: DataContract) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Return class codes (binary: 1 is the positive class) or numbers, shape (rows,).

    Labels compare as text, where 1, 1.0, "1" and True are the same unless the classes tell them apart. A
    missing or unknown label is a UserError.
    """
    encoded = label_codes(series, contract)
    if (bad := encoded.isna()).any():
        wanted = f"one of {', '.join(contract.classes)}" if contract.classes else "a number"
        raise UserError(
            f"target '{contract.target}' needs {wanted} in every row, {int(bad.sum())} of {len(series)} hold "
            f"something else, e.g. {quoted(series[bad].iloc[0])}; repair or remove those rows"
        )
    return encoded.to_numpy(np.float64 if contract.task == "regression" else np.int64)


def label_codes(series: pd.Series, contract: DataContract) -> pd.Series:
    """Return class codes or numbers as `encode_target` does; a missing or unknown label is missing."""
    if contract.task == "regression":
        return as_kind(series, "numeric")
    texts = as_kind(series, "categorical")
    return texts.map({text: class_code(text, contract.classes) for text in texts.dropna().unique()})


def class_code(text: str, classes: Sequence[str]) -> int | None:
    """Return the place of a label among the classes, spelt as it is, as a number or as a truth value."""
    try:
        plain = as_text(float(text))
    except ValueError:
        plain = text
    spellings = (text, plain, *_BOOLEAN.get(plain.lower(), ()))
    return next((classes.index(spelling) for spelling in spellings if spelling in classes), None)


def shares_of(values: pd.Series, reference: Column) -> npt.NDArray[np.float64]:
    """Return the share of the values present that falls into each reference bin or category.

    Shape as `reference.shares`; unseen categories are in none, so the sum may fall short of 1. No value at
    all gives zeros, a datetime column an empty array.
    """
    present, counts = counts_of(values, reference)
    known = counts[: len(reference.categories)] if reference.kind == "categorical" else counts
    return np.asarray(known / max(present, 1), np.float64)


def counts_of(values: pd.Series, reference: Column) -> tuple[int, npt.NDArray[np.int64]]:
    """Count the values present, and those in each reference bin; a category it lacks goes into one more.

    A datetime column has no bins.
    """
    if reference.kind == "categorical":
        found = spelling_counts(values, reference.categories)
        known = found.reindex(list(reference.categories), fill_value=0).to_numpy(np.int64)
        present = int(found.sum())
        return present, np.append(known, present - known.sum())
    coerced = as_kind(values, reference.kind)
    if reference.kind == "datetime":
        return int(coerced.notna().sum()), np.zeros(0, np.int64)
    counts = histogram(coerced.to_numpy(np.float64), reference.edges)
    return int(counts.sum()), counts


def histogram(values: npt.NDArray[np.float64], edges: Sequence[float]) -> npt.NDArray[np.int64]:
    """Count numbers into bins that have their upper edges; NaN is in none."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    counts[-1] -= np.isnan(values).sum()  # it sorts behind every number
    return counts


def deciles(values: npt.NDArray[np.float64], top: float) -> tuple[float, ...]:
    """Return the distinct inner deciles of numbers that lie below the top one."""
    edges = np.unique(np.quantile(values, _DECILES, method="inverted_cdf"))
    return tuple(map(float, edges[edges < top]))


def _useless(values: pd.Series, kind: Kind) -> Reason | None:
    """Say why a column can teach nothing; one value with gaps still can, by the gaps."""
    if values.isna().all():
        return "empty"
    if values.nunique(dropna=False) == 1:
        return "constant"
    return "text" if kind == "text" else None


def _learn_column(values: pd.Series, kind: Kind, classes: Sequence[str] = (), last: int | None = None) -> Column:
    """Learn from values already coerced; `classes` gives a target's labels their order."""
    present = values.dropna()
    typical = values if last is None or values.tail(last).isna().all() else values.tail(last)
    learned: dict[str, Any] = {
        "name": values.name,
        "kind": kind,
        "nullable": len(present) < len(values),
        "missing": float(typical.isna().mean()),
    }
    if kind == "categorical":
        learned["categories"] = tuple(classes or sorted(present.unique()))
    elif kind == "datetime":
        learned |= {"minimum": present.min().isoformat(), "maximum": present.max().isoformat()}
    else:
        low, high = float(present.min()), float(present.max())
        scale = max(1.0, abs(low), abs(high)) if max(abs(low), abs(high)) > _SQUARABLE else 1.0
        learned |= {
            "integer": kind == "numeric" and bool((present % 1 == 0).all()),
            "minimum": low,
            "maximum": high,
            "edges": deciles(typical.dropna().to_numpy(), high),
            "mean": scale * float((typical / scale).mean()),
            "std": scale * float((typical / scale).std(ddof=0)),
        }
    return Column(**learned, shares=tuple(map(float, shares_of(typical, Column(**learned)))))


def _classes(target: pd.Series, task: Task, positive: Any) -> tuple[tuple[str, ...], str | None]:
    if task != "binary" and positive is not None:
        raise UserError(f"data.positive needs a binary target, '{target.name}' is {task}; leave it out")
    if task == "regression":
        return (), None
    labels = [str(label) for label in as_kind(target, "categorical").unique()]
    try:
        labels.sort(key=float)
    except ValueError:
        labels.sort()
    if task == "multiclass":
        return tuple(labels), None
    code = 1 if positive is None else class_code(as_text(positive), labels)
    if code is None:
        raise UserError(f"data.positive needs one of the classes {', '.join(labels)}, it is {quoted(positive)}")
    return (labels[1 - code], labels[code]), labels[code]
