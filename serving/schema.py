"""Turn a data contract into the types of a service: what a request may hold, and what is said if it does not.

msgspec decodes and checks a request in one pass of C. Only a request that fails is looked at again, slowly, to
say in one sentence which row and field is wrong.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

import msgspec

from config import Serving, UserError, known
from core.bundle import Card
from core.contract import Column, DataContract, class_code
from core.records import PREDICTION_ID, Rule
from core.table import as_text, quoted
from serving.openapi import EXAMPLE_ID, describe

Row = tuple[Any, ...]
Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # a longer one is no number to anybody else
Scalar = str | Whole | float | bool | None

_OBJECT, ARRAYS = re.compile(rb"\s*\{"), re.compile(rb"\s*\[\s*\[")


class Refused(Exception):
    """A request that gets a 4xx: the sentence for the client, field and broken rule for metrics and log."""

    def __init__(self, status: int, sentence: str, field: str | None = None, rule: Rule = "other") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.field, self.rule = status, sentence, field, rule


class _Times(type):
    """Let msgspec take any datetime for a Moment."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, datetime)


class Moment(metaclass=_Times):
    """Name the type of a datetime column to msgspec; each column has a subclass with bounds of its own."""

    low, high = datetime.min, datetime.max

    @classmethod
    def parse(cls, text: str) -> datetime:
        """Read ISO 8601 as naive UTC; a ValueError says it is none, or out of bounds."""
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            try:
                moment = moment.astimezone(UTC).replace(tzinfo=None)
            except OverflowError:  # before the year 1 or after 9999
                raise ValueError("out of range") from None
        if not cls.low <= moment <= cls.high:
            raise ValueError("out of range")
        return moment


class Schema:
    """The types of one model's requests, made from its card and its serving settings."""

    def __init__(self, card: Card, serving: Serving) -> None:
        self.contract, self.serving = card.contract, serving
        self._slack = card.recipe.contract.range_slack
        self.features = tuple(card.contract.features)
        self.extras = tuple(name for name in card.contract.left_out if name != card.contract.target)
        """Columns that are known and no features: they may be sent, and are kept in the log for training."""
        self.columns = (*self.features, *self.extras)
        self._accepted = dict(self._expectations())
        self.types = {column.name: self._type(column) for column in card.contract.columns}
        self._anywhere = {column.name: self._type(column, anywhere=True) for column in card.contract.columns}
        self.row = self._struct("Row", as_array=False)
        self.values = self._struct("Values", as_array=True)
        self.label = msgspec.defstruct(
            "Label",
            [("id", str), ("label", str | Whole | float | bool)],
            forbid_unknown_fields=True,
        )
        self._decode_row = self._decoder(self.row)
        self._decode_rows = self._decoder(list[self.row])  # type: ignore[name-defined]
        self._decode_values = self._decoder(list[self.values])  # type: ignore[name-defined]
        self._decode_labels = msgspec.json.Decoder(list[self.label])  # type: ignore[name-defined]
        self._decode_label = msgspec.json.Decoder(self.label)

    def rows(self, body: bytes) -> list[Row]:
        """Return the rows of a JSON body: one object, an array of objects, or an array of arrays of values."""
        try:
            if _OBJECT.match(body):
                found = [self._decode_row(body)]
            elif ARRAYS.match(body):
                found = self._decode_values(body)
            else:
                found = self._decode_rows(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            raise self._explain(body, err) from None
        self._check_count(len(found))
        return [msgspec.structs.astuple(row) for row in found]

    def csv_rows(self, body: bytes) -> list[Row]:
        """Return the rows of a CSV with a header; an empty cell is a missing value."""
        try:
            reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
            records = list(reader)
        except (UnicodeDecodeError, csv.Error) as err:
            raise Refused(400, f"the body is not CSV in UTF-8: {err}") from None
        if not records:
            raise Refused(422, "the CSV needs a header and at least one row, it has no row")
        self._check_count(len(records))
        names = list(reader.fieldnames or ())
        if twice := [name for name in names if names.count(name) > 1]:
            raise Refused(422, f"the header of the CSV names {_shown(twice[0])} twice")
        for number, record in enumerate(records, 1):
            if None in record or None in record.values():  # what is beyond the header, or short of it
                wanted = f"{len(names)} cells, as many as the header"
                raise Refused(422, f"row {number} needs {wanted}, it has {'more' if None in record else 'fewer'}")
        texts = [{name: None if text == "" else text for name, text in record.items()} for record in records]
        try:
            found = msgspec.convert(texts, list[self.row], strict=False, dec_hook=_parse)  # type: ignore[name-defined]
        except msgspec.ValidationError:
            raise self._first_fault(texts, strict=False) or Refused(
                422, "the CSV is not what the model takes"
            ) from None
        rows = [msgspec.structs.astuple(row) for row in found]
        for number, row in enumerate(rows, 1):  # in a text, unlike in JSON, `nan` and `inf` are numbers
            for name, value in zip(self.features, row, strict=False):
                if isinstance(value, float) and not math.isfinite(value):
                    raise self._fault(number, name, value, strict=False)
        return rows

    def labels(self, body: bytes) -> list[tuple[str, Any]]:
        """Return prediction ids and labels, spelt as the contract does, of one object or an array of them."""
        try:
            found = [self._decode_label.decode(body)] if _OBJECT.match(body) else self._decode_labels.decode(body)
        except msgspec.ValidationError as err:
            place = re.search(r"\$\[(\d+)\]", str(err))
            number = int(place[1]) + 1 if place else 1
            raise Refused(422, f'label {number} needs {{"id": "…", "label": …}}: {_plain(err)}') from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise _not_json(err) from None
        self._check_count(len(found), "label")
        for number, item in enumerate(found, 1):
            if not PREDICTION_ID.match(item.id):
                raise Refused(422, f"label {number}: {_shown(item.id)} is not a prediction id, such as '{EXAMPLE_ID}'")
        return [(item.id, self._label(number, item.label)) for number, item in enumerate(found, 1)]

    def outside(self, rows: Sequence[Row]) -> Iterator[tuple[str, int]]:
        """Yield each field, with its number of rows, whose values the contract does not know and that is accepted."""
        for place, accepted in self._accepted.items():
            if count := sum(1 for row in rows if row[place] is not None and not accepted(row[place])):
                yield self.columns[place], count

    def example(self) -> dict[str, Any]:
        """Return a row made from the contract alone: averages, and the most frequent categories."""
        return {column.name: _typical(column) for column in self.contract.columns}

    def openapi(self, title: str, version: str, *, explained: int, token: bool) -> dict[str, Any]:
        """Return the OpenAPI 3.1 description of the service; `explained` is how many rows /explain takes."""
        return describe(self, title, version, explained=explained, token=token)

    def needs(self, name: str) -> str:
        """Say what a feature holds, in words."""
        column = next(column for column in self.contract.columns if column.name == name)
        null = " or null" if column.nullable else ""
        if column.kind == "boolean":
            return f"true or false{null}"
        if column.kind == "categorical":
            if self.serving.unseen_category == "accept":
                return f"a string{null}"
            shown = ", ".join(column.categories[:12]) + (" …" if len(column.categories) > 12 else "")
            return f"one of {shown}{null}"
        kind = "a number" if column.kind == "numeric" else "a time (ISO 8601)"
        if self.serving.out_of_range == "accept":
            return f"{kind}{null}"
        low, high = column.bounds(self._slack)
        shown = f"{low:.6g} to {high:.6g}" if column.kind == "numeric" else f"{low.isoformat()} to {high.isoformat()}"
        return f"{kind} from {shown}{null}"

    def _expectations(self) -> Iterator[tuple[int, Callable[[Any], bool]]]:
        """Yield, for each feature that may leave its contract, what says whether a value has not."""
        for place, column in enumerate(self.contract.columns):
            if column.kind in ("numeric", "datetime") and self.serving.out_of_range == "accept":
                yield place, partial(_within, *column.bounds(self._slack))
            if column.kind == "categorical" and self.serving.unseen_category == "accept":
                yield place, partial(_is_one_of, frozenset(column.categories))

    def _type(self, column: Column, *, anywhere: bool = False) -> Any:
        """Return what a value must be; `anywhere` in its kind, or where the settings let it be."""
        bounded = self.serving.out_of_range == "refuse" and not anywhere
        if column.kind == "boolean":
            kind: Any = bool
        elif column.kind == "categorical":
            # A whole number is a category's other spelling: 3 is "3", as in training.
            numbers = [int(text) for text in column.categories if re.fullmatch(r"0|-?[1-9]\d{0,17}", text)]
            known_only = self.serving.unseen_category == "refuse" and not anywhere
            kind = Literal[(*column.categories, *numbers)] if known_only else str | Whole | float
        elif column.kind == "datetime":
            low, high = column.bounds(self._slack) if bounded else (datetime.min, datetime.max)
            kind = type("Moment", (Moment,), {"low": low, "high": high})
        elif bounded:
            low, high = column.bounds(self._slack)
            kind = Annotated[float, msgspec.Meta(ge=low, le=high)]
        else:
            kind = float
        return kind | None if column.nullable else kind

    def _struct(self, name: str, *, as_array: bool) -> type[msgspec.Struct]:
        fields: list[Any] = [(f"c{place}", self.types[column]) for place, column in enumerate(self.features)]
        fields += [(f"c{len(self.features) + place}", Scalar, None) for place in range(len(self.extras))]
        rename = {f"c{place}": column for place, column in enumerate(self.columns)}
        return msgspec.defstruct(name, fields, rename=rename, forbid_unknown_fields=True, array_like=as_array)

    def _decoder(self, of: Any) -> Any:
        return msgspec.json.Decoder(of, dec_hook=_parse).decode

    def _check_count(self, count: int, of: str = "row") -> None:
        if count == 0:
            raise Refused(422, f"the body needs at least one {of}, it holds none")
        if count > self.serving.max_rows:
            raise Refused(413, f"one request takes at most {self.serving.max_rows:,} {of}s, this one has {count:,}")

    def _label(self, number: int, label: Any) -> Any:
        contract = self.contract
        if contract.task == "regression":
            if isinstance(label, bool | str) or not math.isfinite(label):
                raise Refused(422, f"label {number}: '{contract.target}' needs a number, it is {_shown(label)}")
            return float(label)
        code = class_code(as_text(label), contract.classes)
        if code is None:
            wanted = ", ".join(contract.classes)
            raise Refused(422, f"label {number}: '{contract.target}' needs one of {wanted}, it is {_shown(label)}")
        return contract.classes[code]

    def _explain(self, body: bytes, err: Exception) -> Refused:
        """Find the first fault of a body that could not be decoded."""
        try:
            # Unlike msgspec it reads NaN, so that we can say where it is.
            data = json.loads(body, parse_int=lambda text: int(text) if len(text) < 300 else float(text))
        except (ValueError, RecursionError) as said:
            return _not_json(said)
        rows = data if isinstance(data, list) else [data]
        if fault := self._first_fault(rows, strict=True):
            return fault
        if not isinstance(err, msgspec.ValidationError):
            return _not_json(err)
        return Refused(422, f"the body is not what the model takes: {_plain(err)}")

    def _first_fault(self, rows: list[Any], *, strict: bool) -> Refused | None:
        for number, row in enumerate(rows, 1):
            if type(row) is not type(rows[0]):
                return Refused(422, f"row {number} needs {_shown(rows[0])}, as row 1 is, it is {_shown(row)}")
            if isinstance(row, list):
                if len(row) < len(self.features) or len(row) > len(self.columns):
                    wanted = f"the model's {len(self.features)} values in the order of its features"
                    rule: Rule = "missing_column" if len(row) < len(self.features) else "extra_column"
                    return Refused(422, f"row {number} needs {wanted}, it has {len(row)}", rule=rule)
                row = dict(zip(self.columns, row, strict=False))
            if not isinstance(row, dict):
                return Refused(422, f"row {number} needs an object of named values, it is {_shown(row)}")
            for name in row:
                if name not in self.columns:
                    named = known("the model", self.columns, name)
                    return Refused(422, f"row {number}: no field {_shown(name)}; {named}", rule="extra_column")
            for name in self.features:
                if name not in row:
                    sentence = f"row {number}: field '{name}' is missing; it needs {self.needs(name)}"
                    return Refused(422, sentence, name, "missing_column")
                if not _fits(row[name], self.types[name], strict):
                    return self._fault(number, name, row[name], strict)
            for name in self.extras:
                if not _fits(row.get(name), Scalar, strict):
                    sentence = f"row {number}: '{name}' needs one value, it is {_shown(row[name])}"
                    return Refused(422, sentence, name, "wrong_type")
        return None

    def _fault(self, number: int, name: str, value: Any, strict: bool) -> Refused:
        rule: Rule = "out_of_range" if self.contract.features[name] != "categorical" else "unseen_category"
        if value is None:
            rule = "new_nulls"
        elif not _fits(value, self._anywhere[name], strict):
            rule = "wrong_type"
        return Refused(422, f"row {number}: '{name}' needs {self.needs(name)}, it is {_shown(value)}", name, rule)


def _fits(value: Any, kind: Any, strict: bool) -> bool:
    """Say whether a value that Python's JSON or CSV reader found is of a type; NaN and half a character never are."""
    try:
        if isinstance(value, str):
            value.encode()
        found = msgspec.convert(value, kind, strict=strict, dec_hook=_parse)
    except (msgspec.ValidationError, UnicodeEncodeError):
        return False
    return not isinstance(found, float) or math.isfinite(found)


def _parse(kind: type[Any], value: Any) -> Any:
    """Decode what msgspec does not know: a time with bounds."""
    if isinstance(value, str) and issubclass(kind, Moment):
        return kind.parse(value)
    raise ValueError("not a time")


def _within(low: Any, high: Any, value: Any) -> bool:
    return bool(low <= value <= high)


def _is_one_of(seen: frozenset[str], value: Any) -> bool:
    return as_text(value) in seen


def _typical(column: Column) -> Any:
    """Return the value that stands for a column in an example."""
    if column.kind == "categorical":
        return column.categories[max(range(len(column.shares)), key=column.shares.__getitem__)]
    if column.kind == "datetime":
        return column.maximum
    if column.kind == "boolean":
        return bool(round(column.mean or 0))
    mean = column.mean or 0.0
    return round(mean) if column.integer else float(f"{mean:.4g}")


def _shown(value: Any) -> str:
    """Show a client its own value, in JSON's words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if value is None or isinstance(value, bool | float):
        return json.dumps(value)
    return quoted(value)


def _not_json(err: Exception) -> Refused:
    if isinstance(err, RecursionError):
        why = "it is nested too deep"
    else:
        why = "it is not UTF-8" if isinstance(err, UnicodeDecodeError) else _plain(err)
    return Refused(400, f"the body is not JSON: {why}")


def _plain(err: Exception) -> str:
    text = str(err).replace("`", "'")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def check_personal(contract: DataContract, serving: Serving) -> None:
    """Refuse a personal column that no request can have: it would be a typo that leaves the real one in the log."""
    columns = [*contract.features, *contract.left_out]
    for name in serving.personal:
        if name not in columns:
            raise UserError(f"serving.personal: no column '{name}'; {known('the model', columns, name)}")
