"""Give a column of a format that has types one of seven plain ones, which survive Parquet."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from numbers import Real
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from loop.config import UserError
from loop.data.categories import category_of, is_ambiguous
from loop.data.notes import Known, Note
from loop.data.spelling import PLAIN, Numbers, Texts, as_id, may_be_times, texts_of, whole_numbers
from loop.data.table import as_text, quoted

_STRINGS = ("categorical", "text")
_NESTED = (dict, list, tuple, np.ndarray)
_CALLED: dict[Any, str] = {
    (bool, np.bool_): "truth values", (Real, Decimal): "numbers", date: "times", _NESTED: "nested values",
}  # fmt: skip


class Settled(NamedTuple):
    """One column, settled, and what that showed."""

    values: pd.Series
    format: str | None = None
    words: Mapping[str, int] = MappingProxyType({})
    notes: tuple[Note, ...] = ()


def settle(values: pd.Series, known: Known | None = None, numbers: Numbers = PLAIN, *, is_id: bool = False) -> Settled:
    """Return a column as what it is, or is known to be where all of its values fit.

    Strings become times if all of them can be read as that in one way only; strings of digits stay strings, since a
    format with types would have had numbers for them.
    """
    values, gaps = _without_words(values, known, numbers)
    column, words = _without(plain(values), numbers.anywhere)
    words = {**gaps, **words}
    if isinstance(column.dtype, pd.StringDtype):
        _check_texts(column)
    if is_id and column.dtype.kind == "f":
        column = as_id(column)
    wants_strings = known is not None and known.kind in _STRINGS
    if isinstance(column.dtype, pd.StringDtype):
        if wants_strings or (known is None and not may_be_times(column, numbers.words)):
            return Settled(column, words=words, notes=_several_kinds(values, known))
        settled = _from_texts(column, known, numbers)
        settled = settled._replace(words={**words, **settled.words})
        if known is None and isinstance(settled.values.dtype, pd.StringDtype):
            settled = settled._replace(notes=(*settled.notes, *_several_kinds(values, known)))
        if known is None or known.kind != "numeric" or not known.settled or not _were_strings(values):
            return settled
        return settled._replace(notes=(*settled.notes, *_strings_now(settled.values)))
    if known is None or column.isna().all():
        return Settled(column, words=words)
    if wants_strings and not is_id:
        return _as_strings(column, known)._replace(words=words)
    return Settled(_fitted(column, known.kind), words=words)


def _without_words(values: pd.Series, known: Known | None, numbers: Numbers) -> tuple[pd.Series, dict[str, int]]:
    """Return numbers, truth values or times without strings that stand for a missing one, and how often each did."""
    if not _is_mixed(values) or (known is not None and known.kind in _STRINGS):
        return values, {}
    texts = {value for value in values if isinstance(value, str)}
    gaps = {"", *(numbers.words if texts <= {"", *numbers.words} else numbers.anywhere)}
    if texts.isdisjoint(gaps):
        return values, {}
    is_gap = values.map(lambda value: isinstance(value, str) and value in gaps)
    return values.where(~is_gap, None), dict(Counter(word for word in values[is_gap] if word))


def _is_mixed(values: pd.Series) -> bool:
    return values.dtype == object and pd.api.types.infer_dtype(values, skipna=True).startswith("mixed")


def _without(column: pd.Series, missing: frozenset[str]) -> tuple[pd.Series, dict[str, int]]:
    """Return the column with gaps where a value is spelt as a missing one, and how often each of these was there."""
    if not missing:
        return column, {}
    counts = column.value_counts()
    words = {value: int(count) for value, count in counts.items() if as_text(value) in missing}
    if not words:
        return column, {}
    left = column.astype(object).where(~column.isin(list(words)), None)
    return plain(left), {as_text(value): count for value, count in words.items()}


def plain(values: pd.Series) -> pd.Series:
    """Return the column as int, float, bool, datetime64[us] in UTC without a zone, or str.

    Where values miss: `boolean`, and whole numbers as float64, or Int64 where that would lose digits. Whole numbers
    beyond 64 bits are strings, a categorical dtype is one of strings whatever it holds, a time span is in seconds.
    """
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        if values.dtype in (np.float16, np.float32):
            return _as_written(values)
        return values.astype("float64") if values.dtype.kind == "f" else values
    if isinstance(values.dtype, np.dtype) and values.dtype.kind == "M":
        return pd.Series(values.dt.as_unit("us"))
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return pd.Series(values.dt.tz_convert("UTC").dt.tz_localize(None).dt.as_unit("us"))
    if isinstance(values.dtype, pd.CategoricalDtype):
        spelt = {category: as_text(category) for category in values.cat.categories}  # once each, not in every row
        return _strings(values.astype(object).map(spelt, na_action="ignore"))
    if isinstance(values.dtype, pd.StringDtype):
        return _strings(values)
    if pd.api.types.is_integer_dtype(values.dtype):
        return whole_numbers(values)
    if pd.api.types.is_float_dtype(values.dtype):
        return values.astype("float64")
    values = values.astype(object).where(values.notna(), None)
    holds = pd.api.types.infer_dtype(values, skipna=True)
    if holds.startswith("mixed") and all(_called_one(value) == "numbers" for value in values.dropna()):
        if any(isinstance(value, int) and int(float(value)) != value for value in values):
            return _strings(values.map(as_text, na_action="ignore"))  # digits that a float would lose
        holds = "floating"
    if holds in ("floating", "empty"):
        return values.astype("float64")
    if holds in ("integer", "decimal"):
        return _exact(values)
    if holds == "boolean":
        return values.astype("boolean" if values.isna().any() else "bool")
    if holds in ("datetime", "datetime64", "date"):
        return pd.to_datetime(values, utc=True).dt.tz_localize(None).dt.as_unit("us")
    if holds in ("timedelta", "timedelta64"):
        return pd.to_timedelta(values).dt.total_seconds()
    return _strings(values.map(_text, na_action="ignore"))


def plain_objects(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns of Python objects have a plain type each; no string becomes a time."""
    return pd.concat([plain(table[name]) if table[name].dtype == object else table[name] for name in table], axis=1)


def _as_written(values: pd.Series) -> pd.Series:
    """Return short floats as the doubles that their digits spell, as every text format has them."""
    texts = pc.cast(pa.array(values.to_numpy(), from_pandas=True), pa.string())
    return pd.Series(pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False), values.index, name=values.name)


def _strings(values: pd.Series) -> pd.Series:
    texts = values.astype("str")
    empty = texts == ""
    return texts.mask(empty) if empty.any() else texts


def _exact(values: pd.Series) -> pd.Series:
    """Return whole numbers exactly, as strings beyond 64 bits, and decimal fractions as floats."""
    if not all(value is None or (math.isfinite(value) and value == int(value)) for value in values):
        return values.astype("float64")
    whole = [None if value is None else int(value) for value in values]
    if all(value is None or -(2**63) <= value < 2**63 for value in whole):
        return whole_numbers(pd.Series(pd.array(whole, dtype="Int64"), values.index, name=values.name))
    return pd.Series([None if value is None else str(value) for value in whole], values.index, "str", values.name)


def _text(value: Any) -> str:
    """Spell a value of a column of several kinds, or of none that we know."""
    if isinstance(value, bytes):  # as older programs write strings into Parquet, and databases keep them
        text = value.decode("utf-8", "replace")
        return value.hex() if "\ufffd" in text or "\0" in text else text
    if isinstance(value, _NESTED):
        return json.dumps(value, default=_json, ensure_ascii=False)
    return value if isinstance(value, str) else as_text(value) if np.isscalar(value) else str(value)


def _json(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else _text(value)


def _check_texts(column: pd.Series) -> None:
    """Refuse NUL, at which too many programs end a string: what differs after it would be one value."""
    odd = pc.filter(texts := texts_of(column), pc.match_substring(texts, "\0"))
    if count := len(odd) - odd.null_count:
        example = odd.drop_null()[0].as_py()[:40]
        raise UserError(f"'{column.name}' has {count:,} values with a NUL, e.g. {example!r}; remove it from the source")


def _called_one(value: Any) -> str:
    return next((called for kinds, called in _CALLED.items() if isinstance(value, kinds)), "strings")


def _several_kinds(values: pd.Series, known: Known | None) -> tuple[Note, ...]:
    """Note that a column which is read as strings holds other values too, unless the config says what it is."""
    if not _is_mixed(values) or (known is not None and not known.settled):
        return ()
    examples = {_called_one(value): value for value in values.dropna().iloc[::-1]}
    name, kinds = str(values.name), sorted(examples)
    shown = ", ".join(quoted(_text(examples[kind])) for kind in kinds)
    if kinds == ["strings"]:  # as UUIDs are, which Python has a type for
        return ()
    fix = f"set data.kinds.{name} to what they are, or mend the source"
    if "nested values" in kinds:
        fix = "give their parts columns of their own, or name it in data.drop"
    sentence = f"'{name}' holds {' and '.join(kinds)}, all read as strings, e.g. {shown}; {fix}"
    return (Note(rule="doubtful_reading", column=name, count=int(values.notna().sum()), sentence=sentence),)


def _from_texts(column: pd.Series, known: Known | None, numbers: Numbers) -> Settled:
    gathered = Texts(str(column.name), known, numbers, ["datetime"] if known is None else [known.kind])
    gathered.add(texts_of(column))
    found = gathered.finish()
    if found is None:
        gathered = gathered.again()
        gathered.add(texts_of(column))
        found = gathered.finish()
    assert found is not None  # noqa: S101  (only numbers are read again)
    return Settled(found.set_axis(column.index), gathered.format, dict(gathered.words), tuple(gathered.notes))


def _were_strings(values: pd.Series) -> bool:
    """Say whether a column held strings alone, in a format that has numbers too."""
    return not pd.api.types.is_object_dtype(values.dtype) or all(isinstance(value, str) for value in values.dropna())


def _strings_now(numbers: pd.Series) -> list[Note]:
    """Note numbers that have become strings: codes, perhaps."""
    present = numbers.dropna()
    if present.empty or not pd.api.types.is_numeric_dtype(numbers):
        return []  # what is none of a number is found by itself
    name = str(numbers.name)
    sentence = (
        f"'{name}' held numbers in training and holds strings now, e.g. '{as_text(present.iloc[0])}'; set "
        f"data.kinds.{name}: categorical if they are codes, or numeric if they are numbers"
    )
    return [Note(rule="changed_kind", column=name, count=len(present), sentence=sentence)]


def _as_strings(column: pd.Series, known: Known) -> Settled:
    """Spell numbers, truth values or times of a column that holds strings; note where these are none it knows."""
    spelt = column.astype(object).where(column.notna(), None).map(as_text, na_action="ignore")
    texts = spelt.map(lambda text: category_of(text, known.categories), na_action="ignore").astype("str")
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    strange = [
        text
        for text in texts.dropna().unique()
        if category_of(text, known.categories) not in known.categories
        or (is_number and is_ambiguous(float(text), known.categories))
    ]
    notes = []
    if known.settled and known.categories and strange:
        count, had = int(texts.isin(strange).sum()), ", ".join(repr(text) for text in sorted(known.categories)[:3])
        sentence = (
            f"'{column.name}' held strings in training, such as {had}, and holds {_called(column)} now, e.g. "
            f"{', '.join(strange[:3])}; send it as strings, or set data.kinds.{column.name} if it has changed for good"
        )
        notes = [Note(rule="changed_kind", column=str(column.name), count=count, sentence=sentence)]
    return Settled(texts, notes=tuple(notes))


def _called(column: pd.Series) -> str:
    return {"b": "truth values", "M": "times"}.get(column.dtype.kind, "numbers")


def _fitted(column: pd.Series, kind: str) -> pd.Series:
    """Return 0 and 1 as truth values where a column is known to hold such; among numbers truth values are none."""
    if kind == "numeric" and pd.api.types.is_bool_dtype(column):
        return column.astype(object).map(as_text, na_action="ignore").astype("str")
    if kind == "boolean" and column.dtype.kind in "iuf" and column.dropna().isin([0, 1]).all():
        return column.astype("boolean" if column.isna().any() else "bool")
    return column
