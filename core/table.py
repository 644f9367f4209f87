"""Say what a column is and what identifies a row, the same for CSV, Parquet, JSON and SQL."""

import hashlib
import json
import math
import numbers
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from config import Data, Kind, Task, UserError, known
from core.categories import category_of

Hashes = npt.NDArray[np.uint64]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("integer", "floating", "integer-na", "mixed-integer-float", "decimal"), "numeric"),
    **dict.fromkeys(("datetime64", "datetime", "date"), "datetime"),
    "boolean": "boolean",
}
_TRUTH = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
_MAX_CLASSES = 20  # whole numbers with more distinct values are counts or amounts, hardly ever labels
_EXACT = 2.0**53  # float64 holds every whole number below; larger ones hash as their digits
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_TIME = np.uint64(0xD1B54A32D192ED03)


def infer_task(target: pd.Series, task: Task | None) -> Task:
    """Say what a target asks for; a given task wins if the target fits it, else UserError.

    Two values are binary; numbers with fractions or more than 20 values are regression; the rest multiclass.
    """
    numeric = infer_kind(target, 0) == "numeric"
    values = as_kind(target, "numeric" if numeric else "categorical")
    if missing := int(values.isna().sum()):
        raise UserError(
            f"target '{target.name}' needs a value in every row, {missing} of {len(values)} have none; "
            "remove those rows from the source or repair it"
        )
    distinct = values.nunique()
    if distinct < 2:
        raise UserError(
            f"target '{target.name}' needs at least two different values, it holds {distinct}; "
            "name another column in data.target or read more rows"
        )
    amount = numeric and (distinct > _MAX_CLASSES or bool((values % 1 != 0).any()))
    inferred: Task = "binary" if distinct == 2 else "regression" if amount else "multiclass"
    fits = {"binary": distinct == 2, "multiclass": distinct > 2, "regression": numeric}
    if task is not None and not fits[task]:
        needs = {"binary": "two values", "multiclass": "three values or more", "regression": "numbers"}[task]
        came = "values that are not numbers" if task == "regression" else f"{distinct} values"
        raise UserError(
            f"data.task '{task}' needs a target with {needs}, '{target.name}' holds {came}; "
            f"use '{inferred}' or leave data.task out"
        )
    return task or inferred


def infer_kinds(rows: pd.DataFrame, data: Data, max_categories: int) -> dict[str, Kind]:
    """Return the kind of every feature column; `data.kinds` wins, target, id, time and drop are no features.

    Strings with at most `max_categories` values are categorical, else text; a column with no value at all
    counts as categorical unless its dtype says more. A name in `data` that no column has is a UserError.
    """
    if twice := rows.columns[rows.columns.duplicated()].tolist():
        raise UserError(f"column '{twice[0]}' stands twice in the table; give each column its own name")
    for key, named in (("id", data.id), ("time", [data.time]), ("drop", data.drop), ("kinds", data.kinds)):
        for name in named:
            if name is not None:
                column(rows, name, f"data.{key}")
    others = {data.target, data.time, *data.id, *data.drop}
    return {
        name: data.kinds.get(name) or infer_kind(rows[name], max_categories)
        for name in rows.columns
        if name not in others
    }


def infer_kind(values: pd.Series, max_categories: int) -> Kind:
    """Return what one column holds, missing values aside."""
    if kind := _KINDS.get(types.infer_dtype(values, skipna=True)):
        return kind
    return "categorical" if len(_distinct(values)[1]) <= max_categories else "text"


def column(rows: pd.DataFrame, name: str, wanted_by: str) -> pd.Series:
    """Return a column, or raise a UserError that says who wanted it and what was probably meant."""
    if name not in rows.columns:
        there = known("the table", map(str, rows.columns), name)
        raise UserError(f"{wanted_by} needs column '{name}'; {there}")
    return rows[name]


def as_features(
    rows: pd.DataFrame, columns: Mapping[str, Kind], categories: Mapping[str, Collection[str]] = MappingProxyType({})
) -> pd.DataFrame:
    """Return exactly these columns in this order, each as its kind (see `as_kind`); leave `rows` as they are.

    `categories` are those a model knows, by column; none while they are learned.

    Training, evaluation, service and batch all pass here, so a value means the same everywhere. A missing
    column is a UserError, never a column of missing values.
    """
    if "text" in columns.values():
        raise ValueError("text columns are not features")
    features = {
        name: as_kind(column(rows, name, "the model"), kind, categories.get(name, ())) for name, kind in columns.items()
    }
    return pd.DataFrame(features, index=rows.index, columns=pd.Index(list(columns), dtype=object))


def as_kind(values: pd.Series, kind: Kind, categories: Collection[str] = ()) -> pd.Series:
    """Return a column coerced value by value; what is not of the kind (also infinity) becomes missing.

    Numeric and boolean become float64, datetime becomes datetime64[us] in UTC without a zone (strings as
    ISO 8601), categorical and text become str objects, where 3 and 3.0 are both "3", or that one of the
    `categories` which is meant; missing is NaN or NaT, and so is an empty text.
    """
    if kind == "datetime":
        return _like(values, _as_times(values), "datetime64[us]")
    if kind == "numeric" and _is_number(values):
        floats = values.to_numpy(np.float64, na_value=np.nan)
        return _like(values, np.where(np.isfinite(floats), floats, np.nan), "float64")
    codes, distinct = _distinct(values)
    if kind == "numeric":
        coerced: list[Any] = [_as_float(value) for value in distinct]
    elif kind == "boolean":
        coerced = [_TRUTH.get(as_text(value).lower(), np.nan) for value in distinct]
    else:  # one object a spelling, so that a model's pickle does not depend on the reader's objects
        spelt = (category_of(as_text(value), categories) for value in distinct)
        coerced = [sys.intern(text) if text else np.nan for text in spelt]
    dtype = "float64" if kind in ("numeric", "boolean") else "object"
    return _like(values, np.array([*coerced, np.nan], dtype)[codes], dtype)  # missing has code -1, the last


def spelling_counts(values: pd.Series) -> pd.Series:
    """Count the values present by their one spelling, that of a categorical column, the most frequent first."""
    codes, distinct = _distinct(values)  # they are spelt once each, not in every row
    counts = pd.Series(np.bincount(codes[codes >= 0], minlength=len(distinct)), dtype=np.int64)
    spelt = pd.Index([as_text(value) for value in distinct], dtype=object)
    return counts.groupby(spelt, sort=False).sum().sort_values(ascending=False, kind="stable")


def as_text(value: Any) -> str:
    """Return the one spelling of a value: 3, 3.0 and Decimal("3.00") are "3", times are ISO 8601."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    is_number = isinstance(value, numbers.Real | Decimal)
    if is_number and math.isfinite(value) and abs(value) < 2**64 and value == int(value):
        return str(int(value))
    if is_number:
        return repr(float(value))
    return value.isoformat() if isinstance(value, date) else str(value)


def quoted(value: Any) -> str:
    """Quote one value from the data, short enough for a sentence."""
    text = as_text(value)
    return repr(text if len(text) <= 40 else text[:39] + "…") if isinstance(value, str) else text[:40]


def row_hashes(rows: pd.DataFrame, columns: Sequence[str]) -> Hashes:
    """Hash each row's values in these columns: shape (rows,), stable over runs, machines and formats.

    The hash depends on the values and the column names only: not on the order of rows or columns, the
    index, or how a value is stored (int, float, nullable or digits in a string; str, object or category;
    datetime of any unit or ISO 8601 text; None, NaN or NaT). Times count to the microsecond; fractions to
    12 digits, since pandas' default CSV reader returns every third float64 one bit off.
    """
    total = np.zeros(len(rows), np.uint64)
    for name in columns:
        total += _mix(_cell_hashes(column(rows, name, "the row hash")) + _text_hashes([str(name)]))
    return _mix(total)


def fingerprint(rows: pd.DataFrame) -> str:
    """Return the SHA-256 of a table's column names, row order and values, however they are stored."""
    names = list(map(str, rows.columns))
    digest = hashlib.sha256(json.dumps([names, len(rows)]).encode())
    digest.update(row_hashes(rows.set_axis(names, axis=1), names).astype("<u8").tobytes())
    return digest.hexdigest()


def mix(hashes: Hashes, salt: int) -> Hashes:
    """Derive an independent hash from each hash (splitmix64; Steele, Lea, Flood 2014)."""
    return _mix(hashes ^ _mix(np.array([salt], np.uint64) + _MISSING))


def _mix(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _cell_hashes(values: pd.Series) -> Hashes:
    if types.is_datetime64_any_dtype(values):
        return _time_hashes(_as_times(values))
    if not _is_number(values):
        codes, distinct = _distinct(values)
        return np.append(_text_hashes([as_text(value) for value in distinct]), _MISSING)[codes]
    floats = values.to_numpy(np.float64, na_value=np.nan)
    hashes = _number_hashes(floats)
    large = np.abs(floats) >= _EXACT
    if large.any():
        hashes[large] = _text_hashes([as_text(value) for value in values[large]])
    return hashes


def _number_hashes(floats: npt.NDArray[np.float64]) -> Hashes:
    bits = (floats + 0.0).view(np.uint64)  # adding zero makes -0.0 plain
    rounded = (bits + np.uint64(2**11)) & ~np.uint64(2**12 - 1)
    hashes = _mix(np.where(floats == np.floor(floats), bits, rounded))
    return np.where(np.isnan(floats), _MISSING, hashes)


def _time_hashes(times: npt.NDArray[np.datetime64]) -> Hashes:
    return np.where(np.isnat(times), _MISSING, _mix(times.view(np.uint64) ^ _TIME))


def _text_hashes(texts: list[str]) -> Hashes:
    """Hash texts; one that spells a number or an ISO 8601 time as CSV would hashes as that."""
    hashes: Hashes = pd.util.hash_array(np.array(texts, object), categorize=False)
    floats = np.array([_spelt_number(text) for text in texts], np.float64)
    hashes = np.where(np.isnan(floats), hashes, _number_hashes(floats))
    dated = np.array([len(text) >= 10 and text[4] == text[7] == "-" for text in texts], bool)
    if dated.any():
        times = _as_times(pd.Series(texts, dtype=object)[dated])
        hashes[dated] = np.where(np.isnat(times), hashes[dated], _time_hashes(times))
    return hashes


def _spelt_number(text: str) -> float:
    """Return the number a text spells exactly as `as_text` would, else NaN: "7" is 7, "007" is a name."""
    if text in ("True", "False"):
        return float(text == "True")
    number = _as_float(text) if text[:1] in "-0123456789" else math.nan
    return number if abs(number) < _EXACT and as_text(number) == text else math.nan


def _as_float(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _as_times(values: pd.Series) -> npt.NDArray[np.datetime64]:
    if types.is_datetime64_any_dtype(values):
        times = pd.DatetimeIndex(values)
    else:
        codes, distinct = _distinct(values)
        texts = [as_text(value) for value in distinct]
        spelt = pd.Series([*texts, None], dtype=object)
        parsed = pd.to_datetime(spelt, format="ISO8601", errors="coerce", utc=True)
        times = pd.DatetimeIndex(parsed)[codes]
    naive = times if times.tz is None else times.tz_convert("UTC").tz_localize(None)
    return naive.as_unit("us").to_numpy()


def _like(values: pd.Series, coerced: npt.NDArray[Any], dtype: str) -> pd.Series:
    return pd.Series(coerced, index=values.index, name=values.name, dtype=dtype)


def _is_number(values: pd.Series) -> bool:
    return types.is_numeric_dtype(values) and not types.is_complex_dtype(values)


def _distinct(values: pd.Series) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.object_]]:
    """Return each value's code (-1 when missing) and the distinct values; lists and dicts count as text."""
    try:
        codes, distinct = pd.factorize(values)
    except TypeError:
        codes, distinct = pd.factorize(values.map(str, na_action="ignore"))
    return codes, pd.Index(distinct).astype(object).to_numpy()
