"""Settle what the texts of a column are, once and over all files of a source: numbers, truth values, times or strings.

Text formats tell no types, and whoever guesses them anew at each reading moves rows and scores. So a column of texts is
numeric, boolean or a time only if every value present is spelt as only such a value is; codes (`007`, `1.10`, `1E5`)
stay strings. Where a contract knows the column already, its texts are parsed by that and nothing is inferred.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from loop.config import Kind
from loop.data.notes import Known, Note
from loop.data.table import ISO, LAST_YEAR, MISSING_WORDS, as_kind, as_text

EXACT = 2**53
"""float64 holds every whole number below."""

CODES = 50
"""Decimals with so few spellings, of which one has a zero at the end (1.10, 1.9), are taken for codes."""

_PLAIN = r"-?(?:0|[1-9]\d*)(?:\.\d*)?|-?\.\d+"
_SCIENTIFIC = r"-?\d+(?:\.\d+)?[eE][+-]\d+|-?\d\.\d+E\d+"  # as C, Python, R and Excel write them, and as Java does
CANONICAL = rf"^(?:{_PLAIN}|{_SCIENTIFIC})$"
LENIENT = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
"""What a column that is known to be numeric may hold."""
_ENDLESS = re.compile(r"[+-]?(?:inf(?:inity)?|\d+(?:\.\d+)?e\+?\d{3,})", re.I)  # also what overflows: 1e400
_ZERO_LED, _WHOLE, _TRAILING, _LONG = r"^[+-]?0\d", r"^[+-]?\d+$", r"\.\d+0$", r"^[+-]?\d{16,}$"

_STARTS_AS_TIME = re.compile(r"\s*\d+[./-]")
# Dots put the day first everywhere; of / and - both orders are tried, and the values must show which is meant.
_DAYS = ["%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y"]
_FORMATS = [day + clock for day in _DAYS for clock in ("", " %H:%M", " %H:%M:%S")]


TEXT_KINDS: tuple[Kind, ...] = ("numeric", "boolean", "datetime")
"""What texts of a format without types may turn out to be."""


class Numbers(NamedTuple):
    """Say how `data.options` spells numbers and missing values."""

    decimal: str = "."
    thousands: str | None = None
    anywhere: frozenset[str] = frozenset()
    """Words that are a missing value in any column."""
    words: frozenset[str] = MISSING_WORDS
    """Those that are one among numbers, truth values and times."""
    true: frozenset[str] = frozenset({"true"})
    false: frozenset[str] = frozenset({"false"})
    day_first: bool | None = None
    """Whether 03/04/2024 is in April; if left out, other values of the column must show it."""


PLAIN = Numbers()


class Texts:
    """Gather the texts of one column, a piece after the other, and say in the end what they are."""

    def __init__(
        self,
        name: str,
        known: Known | None,
        numbers: Numbers,
        may_be: Iterable[Kind] = TEXT_KINDS,
        *,
        role: Literal["id", "target"] | None = None,
    ) -> None:
        """Take what is known of the column; what is not may only turn out to be one of `may_be`.

        An id is never a fraction, and a target that looks like a number never a code.
        """
        self.name, self.known, self._numbers, self._role = name, known, numbers, role
        self.words: Counter[str] = Counter()
        self.format: str | None = None
        self.notes: list[Note] = []
        self._may_be = frozenset(may_be if known is None else {known.kind}.intersection(may_be))
        self._texts: list[pa.Array] = []
        self._parts: list[pa.Array] = []
        self._lost = False  # only a later piece showed that these are no numbers: the earlier ones are no texts now
        self._decimals: set[int] = set()
        self._trailing: str | None = None
        self._whole = True
        self._beyond = False  # whole numbers of more than 64 bits: digits, if all are whole
        self._endless = self._finite = False
        self._codes = 0
        self._shortened: str | None = None
        self._digits = False  # beside fractions, more than a float holds

    def add(self, texts: pa.Array) -> None:
        """Take the next piece, strings in which a missing value is null."""
        texts, found = self._without_words(texts)
        numeric = "numeric" in self._may_be
        if numeric and (part := self._parsed(texts)) is not None:
            self._parts.append(part)
            self.words.update(found)
            return
        if numeric:
            self._lost, self._parts, self._may_be = bool(self._parts), [], self._may_be - {"numeric"}
            self.words.clear()
        self.words.update(found)
        if not self._lost:
            self._texts.append(texts)

    def again(self) -> "Texts":
        """Return what gathers the same column as texts."""
        return Texts(self.name, self.known, self._numbers, self._may_be - {"numeric"}, role=self._role)

    def finish(self) -> pd.Series | None:
        """Return the column with the type of what it is; None if it has to be read `again`, as texts."""
        if self._parts:
            return self._as_numbers()
        if self._lost:
            return None
        texts = pa.chunked_array(self._texts or [pa.array([], pa.string())], pa.string())
        if "boolean" in self._may_be and self._is_truth(texts):
            return self._as_truth(texts)
        numeric = self.known is not None and self.known.kind == "numeric"
        said_to_be_strings = self.known is not None and not self.known.settled and not numeric
        if self._numbers[:2] != (".", None) and not said_to_be_strings:
            # By an option, which is no guess, so a number is spelt alike whatever stands beside it.
            texts = _plain_numbers(texts, self._numbers, marked=numeric)
        values = pd.Series(texts.to_pandas(), name=self.name).astype("str")
        if self._numbers.true | self._numbers.false != PLAIN.true | PLAIN.false or self._may_be == {"boolean"}:
            values = self._spelt_truth(values)
        return self._as_times(values) if "datetime" in self._may_be else values

    def _without_words(self, texts: pa.Array) -> tuple[pa.Array, list[str]]:
        """Return a piece without the words that are a missing value anywhere, and those that it had."""
        if not self._numbers.anywhere:
            return texts, []
        is_word = pc.is_in(texts, pa.array(sorted(self._numbers.anywhere)))
        return pc.if_else(is_word, None, texts), pc.filter(texts, is_word).to_pylist()

    def _parsed(self, texts: pa.Array) -> pa.Array | None:
        """Return the numbers of a piece: int64 if all are whole, else float64; None if one is no number."""
        wanted = CANONICAL if self.known is None else LENIENT
        plain = texts if self._numbers[:2] == (".", None) else _plain_numbers(texts, self._numbers)
        fits = pc.match_substring_regex(plain, wanted)
        if not pc.all(fits, min_count=0).as_py():
            plain = pc.utf8_trim_whitespace(plain)
            fits = pc.fill_null(pc.match_substring_regex(plain, wanted), True)
            if not pc.all(fits, min_count=0).as_py():
                if (cleared := self._cleared(plain, fits)) is None:
                    return None
                plain = cleared
        self._finite = self._finite or bool(pc.any(fits).as_py())
        if self.known is not None:
            self._note_codes(plain)
            plain = pc.utf8_ltrim(plain, "+")
        if self._role == "id" and not self._shortened:
            found = pc.filter(plain, pc.match_substring(plain, "e", ignore_case=True))
            self._shortened = found[0].as_py() if len(found) else None
        point = pc.find_substring(plain, ".")
        if pc.max(point).as_py() in (-1, None) and pc.all(pc.match_substring_regex(plain, _WHOLE), min_count=0).as_py():
            try:
                return pc.cast(plain, pa.int64())
            except pa.ArrowInvalid:
                self._beyond = True
        else:
            self._whole = False
        if self.known is None and self._numbers.decimal == ".":
            self._look_at_decimals(plain, point)
        try:
            floats = pc.cast(plain, pa.float64())
        except pa.ArrowInvalid:  # Arrow knows no 1e-400
            floats = pa.array([None if text is None else float(text) for text in plain.to_pylist()], pa.float64())
        self._digits = self._digits or (
            _is_large(floats) and bool(pc.any(pc.match_substring_regex(plain, _LONG), min_count=0).as_py())
        )
        return floats

    def _cleared(self, plain: pa.Array, fits: pa.Array) -> pa.Array | None:
        """Return a piece without the words for missing values, and infinity spelt as such; None if others are left."""
        odd = pc.filter(plain, pc.invert(fits)).to_pylist()
        endless = {word: "-inf" if word[0] == "-" else "inf" for word in odd if _ENDLESS.fullmatch(word)}
        if any(word not in endless and word not in self._numbers.words for word in odd):
            return None
        self._endless = self._endless or bool(endless)
        self.words.update(word for word in odd if word not in endless)
        return pc.replace_with_mask(plain, pc.invert(fits), pa.array([endless.get(word) for word in odd], pa.string()))

    def _look_at_decimals(self, plain: pa.Array, point: pa.Array) -> None:
        """Remember how many decimals there are, and whether one of several is a zero at the end."""
        fractions = pc.filter(pc.subtract(pc.subtract(pc.utf8_length(plain), point), 1), pc.not_equal(point, -1))
        self._decimals |= set(pc.min_max(fractions).as_py().values()) - {None}
        if len(fractions) < len(plain) - plain.null_count:
            self._decimals.add(0)
        if not self._trailing:
            ended = pc.filter(plain, pc.ends_with(plain, "0"))
            ended = pc.filter(ended, pc.match_substring_regex(ended, _TRAILING))
            self._trailing = ended[0].as_py() if len(ended) else None

    def _note_codes(self, plain: pa.Array) -> None:
        odd = pc.filter(plain, pc.match_substring_regex(plain, _ZERO_LED))
        if not len(odd) or self.known is None or not self.known.settled:
            return
        self._codes += len(odd)
        shown = ", ".join(repr(text) for text in pc.unique(odd).to_pylist()[:3])
        sentence = (
            f"'{self.name}' was numeric in training and is spelt as codes now, e.g. {shown}; "
            f"set data.kinds.{self.name}: categorical if they are"
        )
        self.notes = [Note(rule="changed_kind", column=self.name, count=self._codes, sentence=sentence)]

    def _as_numbers(self) -> pd.Series | None:
        """Return int64, Int64 where whole numbers miss a value and need it, or float64; None if these are codes."""
        if (self._endless and not self._finite) or (self._whole and self._beyond and self.known is None):
            return None  # infinities alone are no numbers, and digits beyond 64 bits are a code
        whole = all(pa.types.is_int64(part.type) for part in self._parts)
        exact = self._parts if self._role == "id" else [part for part in self._parts if pa.types.is_int64(part.type)]
        if not whole and self._role != "target" and (self._digits or self._beyond or any(map(_is_large, exact))):
            return None  # floats would lose digits, and whoever has them beside whole numbers alone would be another
        parts = self._parts if whole else [pc.cast(part, pa.float64(), safe=False) for part in self._parts]
        numbers, self._parts = pa.chunked_array(parts), []
        if self._trailing and self._may_be_codes(numbers):
            return None
        if self._shortened:
            sentence = (
                f"id '{self.name}' is spelt as '{self._shortened}', as Excel shortens long numbers, so that several "
                "may have become one; take it from where it came from"
            )
            self.notes.append(Note(rule="doubtful_reading", column=self.name, count=len(numbers), sentence=sentence))
        if self._role == "id" and not whole:
            return as_id(pd.Series(numbers.to_numpy(), name=self.name)) if not self._trailing else None
        if whole:
            return whole_numbers(
                pd.Series(pd.arrays.IntegerArray(*_parts(numbers)), name=self.name), is_id=self._role == "id"
            )
        floats = numbers.to_numpy().astype(np.float64, copy=False)
        return pd.Series(floats, name=self.name, copy=False)

    def _may_be_codes(self, numbers: pa.ChunkedArray) -> bool:
        """Say whether zeros at the end make codes of decimals, as of versions: there are few; else note the doubt."""
        if self._role != "target" and pc.count_distinct(numbers).as_py() <= CODES:
            return True
        if len(self._decimals) > 1:
            sentence = (
                f"'{self.name}' is numeric, and some of its numbers end in a zero that others lack, e.g. "
                f"'{self._trailing}'; set data.kinds.{self.name}: categorical if they are codes"
            )
            self.notes.append(Note(rule="doubtful_reading", column=self.name, count=len(numbers), sentence=sentence))
        return False

    def _is_truth(self, texts: pa.ChunkedArray) -> bool:
        spelt = {text for text in pc.unique(texts).to_pylist() if text is not None}
        present = {text.strip().lower() for text in spelt - self._numbers.words} if len(spelt) < CODES else set()
        return (bool(present) or self.known is not None) and present <= self._numbers.true | self._numbers.false

    def _as_truth(self, texts: pa.ChunkedArray) -> pd.Series:
        values = pd.Series(texts.to_pandas(), dtype=object)
        self._count_words(values)
        truth = values.where(~values.isin(self._numbers.words)).map(
            lambda text: text.strip().lower() in self._numbers.true, na_action="ignore"
        )
        return pd.Series(truth.astype("boolean" if truth.isna().any() else "bool"), name=self.name)

    def _spelt_truth(self, values: pd.Series) -> pd.Series:
        """Spell truth values alike, where the options name their words or the column is known to hold some."""
        said = {text: text.strip().lower() for text in values.dropna().unique()}
        truth = {text: "true" for text, word in said.items() if word in self._numbers.true}
        return values.replace(truth | {text: "false" for text, word in said.items() if word in self._numbers.false})

    def _as_times(self, values: pd.Series) -> pd.Series:
        """Return times if the texts are that and may be, else the texts; a contract's format is not guessed again."""
        if self.known is None and not may_be_times(values, self._numbers.words):
            return values
        cleared = values.where(~values.str.strip().isin(self._numbers.words)).str.strip()
        if self.known is not None and (self.known.settled or self.known.format):
            self.format = self.known.format
            times = known_times(cleared, self.format)
            if bool((times.isna() & cleared.notna()).any()):
                return times.map(lambda time: time.isoformat(), na_action="ignore").astype("str").fillna(values)
        else:
            found = read_times(cleared, self._numbers.day_first)
            if len(found) != 1:
                self.notes += _order_in_doubt(cleared) if found else []
                return values
            times, self.format = found[0]
        self._count_words(values)
        self.notes += _zones(cleared)
        return times

    def _count_words(self, values: pd.Series) -> None:
        self.words.update(word for word in values.str.strip() if word in self._numbers.words)


def known_times(texts: pd.Series, layout: str | None) -> pd.Series:
    """Return strings as datetime64[us], each by itself: in a known format or ISO 8601; what is neither is NaT."""
    times = pd.Series(as_kind(texts, "datetime"))
    if layout is not None:
        spelt = pd.to_datetime(texts, format=layout, errors="coerce", utc=True).dt.tz_localize(None)
        times = times.fillna(spelt.dt.as_unit("us"))
    return times


def read_times(texts: pd.Series, day_first: bool | None = None) -> Sequence[tuple[pd.Series, str | None]]:
    """Return strings as datetime64[us] and their format, None for ISO 8601, once for each reading that is possible.

    Every one must be a time, all in one format. With `day_first` given, day and month have that order.
    """
    if not may_be_times(texts):
        return []
    start = texts.dropna().head(1)
    if re.fullmatch(ISO, start.iloc[0]):
        fits = texts.dropna().str.fullmatch(ISO).all()
        times = _parsed(texts, "ISO8601") if fits else None
        return [] if times is None else [(times, None)]
    wrong = () if day_first is None else ("%m/", "%m-") if day_first else ("%d/", "%d-%m")
    layouts = [layout for layout in _FORMATS if not layout.startswith(wrong) and _parsed(start, layout) is not None]
    found = [(times, layout) for layout in layouts if (times := _parsed(texts, layout)) is not None]
    return found[:1] if all(times.equals(found[0][0]) for times, _ in found) else found


def _order_in_doubt(texts: pd.Series) -> list[Note]:
    example = next(text for text in texts.dropna() if text[:2] != text[3:5])
    sentence = (
        f"'{texts.name}' has no date that tells the day from the month, e.g. '{example}', so they are strings; "
        "set data.options.dayfirst: true or false (and data.kinds: datetime, where a champion has learned strings)"
    )
    return [Note(rule="doubtful_reading", column=str(texts.name), count=int(texts.notna().sum()), sentence=sentence)]


def _parsed(texts: pd.Series, layout: str) -> pd.Series | None:
    try:
        times = pd.to_datetime(texts, format=layout, utc=True).dt.tz_localize(None).dt.as_unit("us")
    except ValueError:
        return None
    return None if (times.dt.year > LAST_YEAR).any() else times


def _zones(texts: pd.Series) -> list[Note]:
    """Note times of which only some have a zone: the others are taken for UTC, which nobody may have meant."""
    zoned = texts.str.fullmatch(rf"{ISO}") & texts.str.match(r".{10}.*(Z|[+-]\d\d(:?\d\d)?)$")
    count, present = int(zoned.fillna(False).sum()), int(texts.notna().sum())
    if count in (0, present):
        return []
    name = str(texts.name)
    sentence = f"'{name}' has a time zone in {count:,} of {present:,} values; the others are read as UTC"
    return [Note(rule="doubtful_reading", column=name, count=present - count, sentence=sentence)]


def whole_numbers(values: pd.Series, *, is_id: bool = False) -> pd.Series:
    """Return nullable whole numbers as int64; with gaps as float64, or as they are where that would lose digits."""
    if not values.isna().any():
        return values.astype("uint64" if (values > 2**63 - 1).any() else "int64")
    large = bool((values.dropna().abs() >= EXACT).any())
    return values if is_id or large else values.astype("float64")


def as_id(values: pd.Series) -> pd.Series:
    """Return floats that identify rows as the whole numbers they are, or else as texts: an id is never a fraction."""
    present = values.dropna()
    if bool((present % 1 == 0).all() and (present.abs() < EXACT).all()):
        return whole_numbers(values.astype("Int64"), is_id=True)
    return values.map(as_text, na_action="ignore").astype("str")


def _parts(numbers: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    mask = pc.is_null(numbers).to_numpy()
    return pc.fill_null(numbers, 0).to_numpy().copy(), mask


def _plain_numbers(texts: Any, numbers: Numbers, *, marked: bool = True) -> Any:
    """Spell the numbers among texts with a decimal point and nothing between thousands.

    With another decimal mark a point is none: what has one is `marked`, so that nobody takes it for a number.
    """
    decimal, group = re.escape(numbers.decimal), re.escape(numbers.thousands or "")
    whole = rf"\d{{1,3}}(?:{group}\d{{3}})+|\d+" if group else r"\d+"
    fits = pc.match_substring_regex(texts, rf"^\s*[+-]?(?:{whole})(?:{decimal}\d*)?(?:[eE][+-]?\d+)?\s*$")
    plain = pc.replace_substring(texts, numbers.thousands, "") if numbers.thousands else texts
    plain = pc.replace_substring(plain, numbers.decimal, ".")
    if numbers.decimal == "." or not marked:
        return pc.if_else(fits, plain, texts)
    dotted = pc.match_substring_regex(texts, r"^\s*[+-]?\d*\.\d+\s*$")
    others = pc.if_else(dotted, pc.binary_join_element_wise(texts, "with a point", " "), texts)
    return pc.if_else(fits, plain, others)


def _is_large(part: pa.Array) -> bool:
    spread = pc.min_max(part).as_py()
    return any(value is not None and abs(value) >= EXACT for value in spread.values())


def texts_of(values: pd.Series) -> pa.Array:
    """Return strings as Arrow has them; what misses is null."""
    texts = pa.array(values.array, from_pandas=True)
    return pc.cast(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts, pa.string())


def may_be_times(values: pd.Series, words: frozenset[str] = MISSING_WORDS) -> bool:
    """Say whether the first string that is there starts as a time does."""
    first = next((text for text in values if isinstance(text, str) and text not in words), "")
    return _STARTS_AS_TIME.match(first) is not None
