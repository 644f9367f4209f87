"""Say what a column is and what identifies a row, the same for CSV, Parquet, JSON and SQL."""

import calendar
import hashlib
import json
import math
import numbers
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from loop.config import Data, Kind, Task, UserError, known
from loop.data.categories import category_of
from loop.data.commas import number_notes

Hashes = npt.NDArray[np.uint64]

MISSING_WORDS = frozenset(
    [
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    ]
)
"""Words that mean a missing value among numbers, truth values and times (pandas' list); elsewhere they are values."""

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("integer", "floating", "integer-na", "mixed-integer-float", "decimal"), "numeric"),
    **dict.fromkeys(("datetime64", "datetime", "date"), "datetime"),
    "boolean": "boolean",
}
TRUTH = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
"""What a text says that stands for a truth value."""
_MAX_CLASSES = 20  # whole numbers with more distinct values are counts or amounts, hardly ever labels
_EXACT = 2.0**53  # float64 holds every whole number below; larger ones hash as their digits
_NUMBER = re.compile(r"\s*[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_COMMA = r"\s*-?\d+,\d+\s*"
_DATE = re.compile(r"(?:(\d{4})[-/](\d\d?)[-/](\d\d?)|(\d\d?)[./-](\d\d?|[A-Za-z]{3})[./-](\d{4}))(?:[T ](.+))?")
_ID = re.compile(r"(.*[^a-z])?(id|uuid|guid|key|index)|.*(ID|Id)|unnamed: \d+", re.DOTALL)
ISO = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
"""How a time is spelt, as a whole: ISO 8601, without its rarer forms."""
LAST_YEAR = 9999
"""Of Python's own times; pandas' go on."""

_MONTHS = {name.lower(): place for place, name in enumerate(calendar.month_abbr)}
_MISSING = np.uint64(0x9E3779B97F4A7C15)
_TIME = np.uint64(0xD1B54A32D192ED03)


def missing_words(options: Mapping[str, Any], name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words that `data.options` make a missing value of in a column, and those among numbers and times."""
    given = options.get("na_values", ())
    given = given.get(name, ()) if isinstance(given, dict) else given
    listed = given if isinstance(given, list | tuple) else [given]
    always = frozenset(spelt for word in listed for spelt in (str(word), *_other_spellings(word)))
    if options.get("keep_default_na") is True:
        always |= MISSING_WORDS
    return always, always if options.get("keep_default_na") is False else always | MISSING_WORDS


def _other_spellings(word: Any) -> tuple[str, ...]:
    """Return how else a number is spelt, as pandas takes it: -999 is -999.0 too."""
    is_number = isinstance(word, int | float) and not isinstance(word, bool) and math.isfinite(word)
    return (repr(float(word)), as_text(word)) if is_number else ()


def infer_task(target: pd.Series, task: Task | None, kind: Kind | None = None) -> Task:
    """Say what a target asks for; a given task wins if the target fits it, else UserError.

    Two values are binary; numbers with fractions or more than 20 values are regression; the rest multiclass, also
    numbers that are categories by their given kind.
    """
    if kind not in (None, "numeric", "categorical"):
        raise UserError(f"data.kinds.{target.name}: a target is numeric or categorical, not {kind}; correct it")
    numeric = (kind or infer_kind(target, 0)) == "numeric"
    values = as_kind(target, "numeric" if numeric else "categorical")
    if len(strange := target[values.isna() & as_kind(target, "categorical").notna()]):
        raise UserError(
            f"target '{target.name}' needs a number in every row, {len(strange)} of {len(target)} are none, "
            f"e.g. {quoted(strange.iloc[0])}; repair them{f' or take data.kinds.{target.name} out' if kind else ''}"
        )
    _check_not_nearly_numbers(target, kind)
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


def _check_not_nearly_numbers(target: pd.Series, kind: Kind | None) -> None:
    """Refuse strings of which nearly all are numbers, too many to be classes: somebody meant an amount."""
    counts = spelling_counts(target)
    if kind is not None or infer_kind(target, 0) == "numeric" or len(counts) <= _MAX_CLASSES:
        return
    texts = pd.Series(counts.index, dtype=object)
    comma = texts.str.fullmatch(_COMMA).to_numpy()
    number = comma | as_kind(texts, "numeric").notna().to_numpy()
    if counts[number].sum() < 0.9 * counts.sum():
        return
    if notes := number_notes({str(target.name): list(counts.index)}, {}) if comma.any() else []:
        raise UserError(f"target {notes[0].sentence}")
    count = int(counts[~number].sum())
    odd = f", {count} of {len(target)} are none, e.g. {quoted(texts[~number].iloc[0])}" if count else ", not spelt so"
    fix = f"repair them, or set data.kinds.{target.name}: categorical if they are classes"
    raise UserError(f"target '{target.name}' looks like numbers{odd}; {fix}")


def infer_kinds(
    rows: pd.DataFrame, data: Data, max_categories: int, settled: Mapping[str, Kind] | None = None
) -> dict[str, Kind]:
    """Return the kind of every feature column; target, id, time and drop are no features.

    `data.kinds` wins, then what an earlier contract settled; whether strings are few enough to be categories is
    looked at anew.
    Strings with at most `max_categories` values are categorical, else text; a column with no value at all
    counts as categorical unless its dtype says more. A name in `data` that no column has is a UserError.
    """
    if twice := rows.columns[rows.columns.duplicated()].tolist():
        raise UserError(f"column '{twice[0]}' stands twice in the table; give each column its own name")
    named = {"id": data.id, "group": data.group, "time": [data.time], "drop": data.drop, "kinds": data.kinds}
    for key, names in named.items():
        for name in names:
            if name is not None:
                column(rows, name, f"data.{key}")
    others = {data.target, data.time, *data.keys, *data.drop}
    typed = {name: kind for name, kind in (settled or {}).items() if kind not in ("categorical", "text")}
    return {
        name: data.kinds.get(name) or typed.get(name) or infer_kind(rows[name], max_categories)
        for name in rows.columns
        if name not in others
    }


def infer_kind(values: pd.Series, max_categories: int) -> Kind:
    """Return what one column holds, missing values aside."""
    if kind := _KINDS.get(types.infer_dtype(values, skipna=True)):
        return kind
    return "categorical" if len(_distinct(values)[1]) <= max_categories else "text"


def is_called_an_id(values: pd.Series) -> bool:
    """Say whether a column is called an id and is one: whole numbers or strings, each once."""
    named = _ID.fullmatch(str(values.name)) or _ID.fullmatch(str(values.name).lower())
    return bool(named) and types.infer_dtype(values) in ("integer", "string") and values.is_unique


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
    `categories` which is meant; missing is NaN or NaT.
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
        coerced = [TRUTH.get(as_text(value).strip().lower(), np.nan) for value in distinct]
    else:
        coerced = [category_of(as_text(value), categories) for value in distinct]
    dtype = "float64" if kind in ("numeric", "boolean") else "object"
    return _like(values, np.array([*coerced, np.nan], dtype)[codes], dtype)  # missing has code -1, the last


def spelling_counts(values: pd.Series, categories: Collection[str] = ()) -> pd.Series:
    """Count the values present by their one spelling, or the category that it means, the most frequent first."""
    codes, distinct = _distinct(values)  # they are spelt once each, not in every row
    counts = pd.Series(np.bincount(codes[codes >= 0], minlength=len(distinct)), dtype=np.int64)
    spelt = pd.Index([category_of(as_text(value), categories) for value in distinct], dtype=object)
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


def row_hashes(rows: pd.DataFrame, columns: Sequence[str], *, first: bool = False) -> Hashes:
    """Hash who a row is by these columns, value by value: shape (rows,), stable over runs, machines and formats.

    A value hashes by what its spelling may mean, whatever the other values of its column make of it, so that no guess
    moves a row: 7, "7", "007" and "7,0" are one, True and "true" too, NA and a gap, and a day however it is written,
    also where nobody can tell it from the month. Times count to the microsecond, fractions to 12 digits. The order of
    rows or columns, the index and the dtype do not count. Rows that only share their hash share their side, no more:
    `exact_hashes` tells them apart. `first` is how the first release hashed days.
    """
    return _combined(rows, columns, partial(_identities, first=first))


def exact_hashes(rows: pd.DataFrame, columns: Sequence[str]) -> Hashes:
    """Hash each row's values in these columns to the last bit and character; 1, 1.0 and True are the same."""
    return _combined(rows, columns, _exact)


def fingerprint(rows: pd.DataFrame) -> str:
    """Return the SHA-256 of a table's column names, what kind of values they hold, row order and values.

    A table has the same in every format that it is read from; strings of digits are another table than numbers.
    """
    names, rows = list(map(str, rows.columns)), rows.set_axis(list(map(str, rows.columns)), axis=1)
    digest = hashlib.sha256(json.dumps([names, [_holds(rows[name]) for name in names], len(rows)]).encode())
    digest.update(exact_hashes(rows, names).astype("<u8").tobytes())
    return digest.hexdigest()


def _holds(values: pd.Series) -> str:
    if values.isna().all():
        return "nothing"
    return "times" if types.is_datetime64_any_dtype(values) else "numbers" if _is_number(values) else "texts"


def _combined(rows: pd.DataFrame, columns: Sequence[str], cells: Callable[[pd.Series], Hashes]) -> Hashes:
    total = np.zeros(len(rows), np.uint64)
    for name in columns:
        total += _mix(cells(column(rows, name, "the row hash")) + _plain_hashes([str(name)]))
    return _mix(total)


def mix(hashes: Hashes, salt: int) -> Hashes:
    """Derive an independent hash from each hash (splitmix64; Steele, Lea, Flood 2014)."""
    return _mix(hashes ^ _mix(np.array([salt], np.uint64) + _MISSING))


def _mix(hashes: Hashes) -> Hashes:
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def _identities(values: pd.Series, *, first: bool) -> Hashes:
    """Hash the cells of a column by what each may mean by itself."""
    if types.is_datetime64_any_dtype(values):
        times = _as_times(values)
        return _time_hashes(times if first else _unordered(times))
    if not _is_number(values):
        codes, distinct = _distinct(values)
        return np.append(_text_identities([as_text(value) for value in distinct], first), _MISSING)[codes]
    floats = values.to_numpy(np.float64, na_value=np.nan)
    return _with_large(_number_hashes(floats), floats, values)


def _exact(values: pd.Series) -> Hashes:
    """Hash the cells of a column as they are."""
    if types.is_datetime64_any_dtype(values):
        return _time_hashes(_as_times(values))
    if not _is_number(values):
        codes, distinct = _distinct(values)
        return np.append(_plain_hashes([as_text(value) for value in distinct]), _MISSING)[codes]
    floats = values.to_numpy(np.float64, na_value=np.nan)
    hashes = np.where(np.isnan(floats), _MISSING, _mix((floats + 0.0).view(np.uint64)))
    return _with_large(hashes, floats, values)


def _with_large(hashes: Hashes, floats: npt.NDArray[np.float64], values: pd.Series) -> Hashes:
    """Hash numbers that float64 does not tell apart by their digits."""
    large = np.abs(floats) >= _EXACT
    if large.any():
        hashes[large] = _plain_hashes([as_text(value) for value in values[large]])
    return hashes


def _number_hashes(floats: npt.NDArray[np.float64]) -> Hashes:
    bits = (floats + 0.0).view(np.uint64)  # adding zero makes -0.0 plain
    rounded = (bits + np.uint64(2**11)) & ~np.uint64(2**12 - 1)
    hashes = _mix(np.where(floats == np.floor(floats), bits, rounded))
    return np.where(np.isnan(floats), _MISSING, hashes)


def _time_hashes(times: npt.NDArray[np.datetime64]) -> Hashes:
    return np.where(np.isnat(times), _MISSING, _mix(times.view(np.uint64) ^ _TIME))


def _unordered(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.datetime64]:
    """Exchange day and month where the day is the smaller, so that 3 April and 4 March are one."""
    day, month = times.astype("M8[D]"), times.astype("M8[M]")
    in_month, in_year = (day - month.astype("M8[D]")).astype(np.int64), month.astype(np.int64) % 12
    swapped = (times.astype("M8[Y]").astype("M8[M]") + in_month).astype("M8[D]") + in_year + (times - day)
    return np.where((in_month < in_year) & ~np.isnat(times), swapped, times).astype("M8[us]")


def _plain_hashes(texts: list[str]) -> Hashes:
    hashes: Hashes = pd.util.hash_array(np.array(texts, object), categorize=False)
    return hashes


def _text_identities(texts: list[str], first: bool) -> Hashes:
    """Hash texts; one that spells a number, a truth value, a time or a gap hashes as that, blanks around it aside."""
    stripped = [text.strip() for text in texts]
    found = [text if value is word else value for text, word in zip(texts, stripped, strict=True)
             for value in [_spelt_number(word)]]  # fmt: skip
    hashes = _plain_hashes([value if isinstance(value, str) else "" for value in found])
    floats = np.array([math.nan if isinstance(value, str) else value for value in found], np.float64)
    hashes = np.where(np.isnan(floats), hashes, _number_hashes(floats))
    dated = np.array([text[:1].isdigit() and len(text) >= 8 for text in stripped], bool) & np.isnan(floats)
    if dated.any():
        spelt = [_iso(text, first) for text, may_be in zip(texts, dated, strict=True) if may_be]
        times = _as_times(pd.Series(spelt, dtype=object))
        times = times if first else _unordered(times)
        hashes[dated] = np.where(np.isnat(times), hashes[dated], _time_hashes(times))
    hashes[[text in MISSING_WORDS for text in stripped]] = _MISSING
    return hashes


def _spelt_number(text: str) -> float | str:
    """Return the number that a text may mean; one that float64 cannot hold as its digits, another text as it is."""
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    if not _NUMBER.fullmatch(text):
        return text
    plain = text.replace(",", ".")
    number = float(plain)
    if abs(number) < _EXACT:
        return number
    if re.fullmatch(r"\s*[+-]?\d+\s*", plain):
        return str(int(plain)) if len(plain) < 4000 else text
    return as_text(number) if math.isfinite(number) else text


def _iso(text: str, first: bool) -> str | None:
    """Spell a date in ISO 8601, the smaller of day and month as the month where their order is not known."""
    match = _DATE.fullmatch(text.strip())
    if match is None:
        return None
    year, month, day, one, other, last, clock = match.groups()
    if year is None:
        if first and "." not in text[:3]:
            return None  # it was a text then, or its order was guessed
        one = int(one)
        two = int(other) if other.isdigit() else _MONTHS.get(other.lower(), 0)
        year, (month, day) = last, (sorted((one, two)) if not first else (two, one))
    return f"{year}-{int(month):02}-{int(day):02}" + (f"T{clock}" if clock else "")


def _as_float(value: Any) -> float:
    """Return a number, NaN for what is none: a text has to spell one in plain digits, without a comma."""
    if isinstance(value, str) and ("," in value or not _NUMBER.fullmatch(value)):
        return math.nan
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
        texts = (as_text(value).strip() for value in distinct)
        spelt = pd.Series([*(text if re.fullmatch(ISO, text) else None for text in texts), None], dtype=object)
        parsed = pd.to_datetime(spelt, format="ISO8601", errors="coerce", utc=True)
        times = pd.DatetimeIndex(parsed)[codes]
    naive = (times if times.tz is None else times.tz_convert("UTC").tz_localize(None)).as_unit("us")
    return np.where(naive.year > LAST_YEAR, np.datetime64("NaT"), naive.to_numpy())


def _like(values: pd.Series, coerced: npt.NDArray[Any], dtype: str) -> pd.Series:
    return pd.Series(coerced, index=values.index, name=values.name, dtype=dtype)


def _is_number(values: pd.Series) -> bool:
    return types.is_numeric_dtype(values) and not types.is_complex_dtype(values)


def _distinct(values: pd.Series) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.object_]]:
    """Return each value's code (-1 when missing, as '' is) and the distinct values; lists and dicts count as text."""
    if values.dtype == object and types.infer_dtype(values, skipna=True) == "string":
        values = values.astype("str")  # of objects pandas compares strings up to a NUL only
    try:
        codes, distinct = pd.factorize(values)
    except TypeError:
        codes, distinct = pd.factorize(values.map(str, na_action="ignore"))
    distinct = pd.Index(distinct).astype(object).to_numpy()
    empty = np.flatnonzero([isinstance(value, str) and value == "" for value in distinct])
    return np.where(np.isin(codes, empty), -1, codes) if len(empty) else codes, distinct
