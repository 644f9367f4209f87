"""Say what one value of a request may be: its type for msgspec, other spellings of it, and the words for a refusal."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import pandas as pd

from loop.config import Kind, Serving
from loop.data.categories import category_of, is_ambiguous
from loop.data.contract import Column, Other
from loop.data.table import ISO, TRUTH, as_text, missing_words, quoted
from loop.log.records import Rule

Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # a longer one is no number to anybody else
Scalar = str | Whole | float | bool | None
# JavaScript cannot hold 64 bits, so such an id comes as a string. The few that are left out, next to the largest of 64
# bits, are seen at the second look.
DIGITS = r"^(0|-?([1-9][0-9]{0,17}|[1-8][0-9]{18}|9[01][0-9]{17}))$(?!\n)"
UNFIT = (msgspec.ValidationError, ValueError)
"""What says that a value does not fit."""
_ISO = re.compile(ISO)
_EXACT = 2.0**53


class _Times(type):
    """Let msgspec take any datetime for a Moment."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Moment(metaclass=_Times):
    """Name the type of a datetime column to msgspec; each column has a subclass with bounds and format of its own."""

    low, high = datetime.min, datetime.max
    format: str | None = None

    @classmethod
    def parse(cls, text: str) -> datetime:
        """Read the column's format or ISO 8601 as naive UTC; a ValueError says it is none, or out of bounds."""
        moment = cls._spelt(text)
        if moment.tzinfo is not None:
            try:
                moment = moment.astimezone(UTC).replace(tzinfo=None)
            except OverflowError:  # before the year 1 or after 9999
                raise ValueError("out of range") from None
        if not cls.low <= moment <= cls.high:
            raise ValueError("out of range")
        return moment

    @classmethod
    def _spelt(cls, text: str) -> datetime:
        if cls.format is not None:
            try:
                return datetime.strptime(text, cls.format)
            except ValueError:
                pass
        if _ISO.fullmatch(text) is None:
            raise ValueError("not a time")
        return datetime.fromisoformat(text)


@dataclass(frozen=True, kw_only=True)
class Field:
    """What a service knows of one column of a request."""

    name: str
    kind: Kind | None
    """None: any scalar."""
    type: Any
    """What msgspec lets in at once."""
    needs: str
    """The same in words."""
    nullable: bool
    anywhere: Any = None
    """The type of a feature without the bounds of training; None: it is no feature."""
    whole: bool = False
    """A number that is an id."""
    words: frozenset[str] = frozenset()
    """Texts that stand for a missing value, as an empty one does."""
    cell_words: frozenset[str] = frozenset()
    """Those that do so in a CSV, as in training."""
    truth: Mapping[str, float]
    """What words say of a truth value in a CSV."""
    categories: frozenset[str] = frozenset()
    decimal: str = "."
    """What stands before the fraction of a number in a CSV."""
    thousands: str | None = None
    """What may stand between thousands there."""
    expects: Callable[[Any], bool] | None = None
    """Says of an accepted value whether training knew such; None where the type says it."""

    @property
    def gaps(self) -> frozenset[float]:
        """Return the numbers that stand for a missing value, such as -999."""
        return frozenset(number for word in self.words for number in floats([word]) or ())

    def meant(self, value: Any) -> Any:
        """Return what a JSON value means, as the type has it; what means nothing comes back as it is."""
        if _is_scalar(value) and (value == "" or as_text(value) in self.words):
            return None
        if self.kind == "categorical" and _is_scalar(value):
            if type(value) in (int, float) and is_ambiguous(value, self.categories):
                return value
            category = category_of(as_text(value), self.categories)
            return category if category in self.categories else value
        if self.whole and isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,18}", value):
            return int(value)
        if self.whole and isinstance(value, float) and abs(value) < 2**53 and value.is_integer():
            return int(value)
        return value

    def read(self, cell: str) -> Any:
        """Return what a cell of a CSV means, as `meant`."""
        if cell == "" or cell in self.cell_words:
            return None
        if self.kind == "boolean":
            said = self.truth.get(cell.strip().lower())
            return cell if said is None else bool(said)
        if self.kind == "numeric" and not self.whole:
            return self._number(cell)
        return self.meant(cell)

    def read_all(self, cells: Sequence[str]) -> list[Any]:
        """Return what the cells of a column mean: numbers at once where they are plain, other values once each."""
        if self.kind != "numeric":
            means = {cell: self.read(cell) for cell in set(cells)}
            return [means[cell] for cell in cells]
        is_plain = not self.whole and self.decimal == "." and not self.thousands and self.cell_words.isdisjoint(cells)
        plain = floats(cells) if is_plain else None
        return [self.read(cell) for cell in cells] if plain is None else plain

    def take(self, value: Any) -> Any:
        """Return a meant value as the type has it, else raise one of UNFIT."""
        return _take(value, self.type)

    def rule(self, value: Any) -> Rule:
        """Return the rule of the contract that a value breaks which does not fit."""
        if self.anywhere is None:
            return "wrong_type"
        if value is None:
            return "new_nulls"
        try:
            _take(value, self.anywhere)
        except UNFIT:
            return "wrong_type"
        return "unseen_category" if self.kind == "categorical" else "out_of_range"

    def spellings(self) -> list[Any]:
        """Return the values besides the type's own that `meant` takes for a gap or for a category."""
        gaps = ["", *sorted(self.words)] if self.nullable and self.kind is not None else []
        if self.kind != "categorical":
            return gaps
        tried = [True, False, "True", "False", "true", "false", "TRUE", "FALSE"]
        for text in sorted(self.categories):
            with suppress(ValueError, OverflowError):
                number = float(text)
                tried += [int(number), str(int(number)), f"{int(number)}.0"] if number.is_integer() else [number]
        return gaps + [
            value for value in tried if value not in self.categories and self.meant(value) in self.categories
        ]

    def _number(self, cell: str) -> Any:
        text = cell
        if self.thousands and re.fullmatch(rf"\s*[+-]?\d{{1,3}}({re.escape(self.thousands)}\d{{3}})+(\D\d*)?\s*", cell):
            text = cell.replace(self.thousands, "")
        if self.decimal != ".":
            text = "" if "." in text else text.replace(self.decimal, ".")
        numbers = floats([text])
        return cell if numbers is None else numbers[0]


def feature(column: Column, serving: Serving, slack: float, options: Mapping[str, Any]) -> Field:
    """Return what a feature of the contract needs, where `slack` widens its range and `options` read the table."""
    anywhere, typed = missing_words(options, column.name)
    words = anywhere.union(column.missing_words)
    categories = frozenset(column.categories) - {""}
    kind, needs, expects = _loose(column, words), _words(column), None
    if column.kind == "categorical":
        if serving.unseen_category == "refuse":
            kind, needs = _known(column), listed(column.categories)
        else:
            expects = partial(_is_one_of, categories)
    elif column.kind != "boolean":
        low, high = column.limits(slack)
        if serving.out_of_range == "refuse":
            kind = _moment(column.format, low, high) if column.kind == "datetime" else _within_bounds(low, high)
            needs += f" from {low.isoformat()} on" if column.kind == "datetime" else f" from {low:.6g} to {high:.6g}"
        else:
            expects = partial(_lies_within, low, high)
    return Field(
        name=column.name,
        kind=column.kind,
        type=kind | None if column.nullable else kind,
        needs=f"{needs} or null" if column.nullable else needs,
        nullable=column.nullable,
        anywhere=_loose(column, words),
        words=words,
        cell_words=words | typed if column.nullable and column.kind != "categorical" else words,
        truth=_truth(options),
        categories=categories,
        decimal=str(options.get("decimal") or "."),
        thousands=options.get("thousands"),
        expects=expects,
    )


def companion(name: str, other: Other | None, is_id: bool, options: Mapping[str, Any]) -> Field:
    """Return what a column needs that is no feature and may come along; any scalar where nothing is known of it."""
    anywhere, typed = missing_words(options, name)
    if other is None or other.kind == "categorical":
        return Field(
            name=name, kind=None, type=Scalar, needs="one value", nullable=True, words=anywhere, cell_words=anywhere,
            truth=TRUTH,
        )  # fmt: skip
    whole = is_id and other.kind == "numeric"
    kind, needs = _loose(other, frozenset()), _words(other)
    if whole:
        kind, needs = Whole | Annotated[str, msgspec.Meta(pattern=DIGITS)], "a whole number"
    elif is_id and other.kind == "text":  # the number 901 is no code '000901'
        kind, needs = str, "a string"
    return Field(
        name=name,
        kind=other.kind,
        type=kind | None,
        needs=f"{needs} or null",
        nullable=True,
        whole=whole,
        words=anywhere,
        cell_words=anywhere if other.kind == "text" else anywhere | typed,
        truth=_truth(options),
        decimal=str(options.get("decimal") or "."),
    )


def _truth(options: Mapping[str, Any]) -> Mapping[str, float]:
    said = {"true_values": 1.0, "false_values": 0.0}
    return TRUTH | {str(word).lower(): value for key, value in said.items() for word in options.get(key) or ()}


def parse(kind: type[Any], value: Any) -> Any:
    """Decode what msgspec does not know: a time."""
    if isinstance(value, str) and issubclass(kind, Moment):
        return kind.parse(value)
    raise ValueError("not a time")


def shown(value: Any) -> str:
    """Show a client its own value, in JSON's words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return quoted(value)


def listed(texts: Sequence[str]) -> str:
    """Say that one of these is needed; a line break in one breaks no sentence."""
    few = (text if text.isprintable() else repr(text)[1:-1] for text in texts[:12])
    shown = ", ".join(text if len(text) <= 40 else text[:39] + "…" for text in few)
    return f"one of {shown}" + (" …" if len(texts) > 12 else "")


def _take(value: Any, kind: Any) -> Any:
    """Return a value as a type has it; NaN and half a character are of none."""
    if isinstance(value, str):
        value.encode()  # half a character is a UnicodeEncodeError
    found = msgspec.convert(value, kind, dec_hook=parse)
    if isinstance(found, float) and not math.isfinite(found):
        raise ValueError("not a number")
    return found


def floats(texts: Sequence[str]) -> list[float] | None:
    """Return the numbers that texts spell; None if one spells none, or one that is a number to Python alone."""
    joined = "".join(texts)
    try:
        numbers = list(map(float, texts)) if joined.isascii() and "_" not in joined else None
    except ValueError:
        return None
    return numbers if numbers is not None and all(map(math.isfinite, numbers)) else None


def _is_scalar(value: Any) -> bool:
    """Say whether a value is a text, a truth value, or a number that is one to everybody else."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | bool) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _loose(column: Column | Other, words: frozenset[str]) -> Any:
    """Return the type of a column's kind, without the bounds of training."""
    if column.kind == "datetime":
        return _moment(column.format)
    plain: dict[Kind, Any] = {"boolean": bool, "numeric": float, "text": _text_but(words) | Whole}
    return plain.get(column.kind) or _text_but(words) | Whole | float


def _words(column: Column | Other) -> str:
    if column.kind == "datetime":
        return f"a time ({column.format} or ISO 8601)" if column.format else "a time (ISO 8601)"
    words: dict[Kind, str] = {
        "boolean": "true or false",
        "numeric": "a number",
        "categorical": "a string",
        "text": "a string or a whole number",
    }
    return words[column.kind]


def _known(column: Column) -> Any:
    """Return the type of a known category; a whole number is another spelling of one: 3 is "3", as in training."""
    texts = [text for text in column.categories if text]
    whole = (int(text) for text in texts if re.fullmatch(r"0|-?[1-9]\d{0,17}", text))
    return Literal[(*texts, *(number for number in whole if not is_ambiguous(number, texts)))]


def _text_but(words: frozenset[str]) -> Any:
    """Return the type of a text that stands for no missing value."""
    pattern = rf"^(?!({'|'.join(map(re.escape, sorted(words)))})$(?!\n))" if words else None
    return Annotated[str, msgspec.Meta(min_length=1, pattern=pattern)]


def _within_bounds(low: float, high: float) -> Any:
    return Annotated[float, msgspec.Meta(ge=low, le=high)]


def _moment(layout: str | None, low: datetime = datetime.min, high: datetime = datetime.max) -> Any:
    return type("Moment", (Moment,), {"low": low, "high": high, "format": layout})


def _lies_within(low: Any, high: Any, value: Any) -> bool:
    return bool(low <= value <= high)


def _is_one_of(categories: frozenset[str], value: Any) -> bool:
    return category_of(as_text(value), categories) in categories


def as_requests(rows: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows as clients send them that have the source's: the columns by name."""
    return [
        dict(zip(columns, row, strict=True)) for row in zip(*(as_json(rows[name]) for name in columns), strict=True)
    ]


def as_json(column: pd.Series) -> list[Any]:
    """Return a column's values as JSON has them: times in ISO 8601, whole numbers whole, null where one is missing."""
    values = column.to_numpy().astype(object)
    return [None if gone else _plain(value) for value, gone in zip(values, column.isna(), strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value
