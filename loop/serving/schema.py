"""Turn a data contract into the types of a service: what a request may hold, and what is said if it does not.

msgspec decodes and checks a request in one pass of C. Only a request that fails is looked at again, slowly: to take
what is spelt in another way, or to say in one sentence which row and field is wrong.
"""

import csv
import io
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np

from loop.config import Serving, UserError, known
from loop.data.contract import Column, DataContract, class_code
from loop.data.table import as_text, quoted
from loop.log.records import PREDICTION_ID, Rule
from loop.serving.openapi import EXAMPLE_ID, describe
from loop.serving.values import UNFIT, Field, Moment, Whole, companion, feature, floats, listed, parse, shown
from loop.training.bundle import Card

Row = tuple[Any, ...]
Body = bytes | bytearray
"""Of a request; one that came in several parts is a bytearray."""

MOST = "serving.max_rows"
LABEL_COLUMNS = ("prediction_id", "id", "label", "date")
"""Of a table of labels, besides the model's own."""
RECORD_LENGTH = 2**17  # characters of one line of a CSV: what Python's csv allows for one cell
LINES = 32  # of one row of a CSV, in its cells, where all rows have so many: a million take half a second
DEEPEST = sys.getrecursionlimit()  # JSON that is nested deeper is read by nobody

_OBJECT, ARRAYS = re.compile(rb"\s*\{"), re.compile(rb"\s*\[\s*\[")
# Marks of JSON, or a text that may hold some; nothing in it backtracks, whatever a client sends.
_MARK = re.compile(rb'[][{},]|"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_MISSES = msgspec.ValidationError("a number that stands for a missing value")
_GOVERNS: dict[Rule, str] = {
    "out_of_range": "serving.out_of_range governs this",
    "unseen_category": "serving.unseen_category governs this",
    "wrong_type": "data.kinds governs this",
    "new_nulls": "no row of training lacked it",
    "missing_column": "contract.accept lets a next version do without",
}
"""What lets in, here or in a next version, what is refused."""
_ODD_NAME = re.compile(r'["\\\x00-\x1f]')


class Refused(Exception):
    """A request that gets a 4xx: the sentence for the client, field and broken rule for metrics and log."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of the answer, for programs."""

    def __init__(self, status: int, sentence: str, field: str | None = None, rule: Rule = "other") -> None:
        super().__init__(sentence)
        self.rows = 1
        """Rows of the request, where they were counted."""
        self.status, self.sentence, self.field, self.rule = status, sentence, field, rule


class Rows(list[Row]):
    """Rows of a request in which something was not as the contract has it, and what."""

    def __init__(self, rows: Iterable[Row], faults: Mapping[int, Refused], ignored: Iterable[str]) -> None:
        """Take the good rows, why others are not by their place in the request, and the columns left unread."""
        super().__init__(rows)
        self.faults, self.ignored = faults, tuple(ignored)

    def spread(self, values: Iterable[Any]) -> list[Any]:
        """Return a value a row of the request: those of the good ones in their places, None in the others."""
        given = iter(values)
        return [None if place in self.faults else next(given) for place in range(len(self) + len(self.faults))]


class Labels(NamedTuple):
    """Labels of a table."""

    names: tuple[str, ...]
    """The columns of `data.id`; none where they came by prediction id."""
    found: list[tuple[tuple[str, ...], Any, datetime | None]]
    """Id, label, and since when it is true (UTC, without a zone), where that was said."""


class Schema:
    """The types of one model's requests, made from its card and its serving settings."""

    def __init__(self, card: Card, serving: Serving) -> None:
        self.contract, self.serving = card.contract, serving
        self.features = tuple(card.contract.features)
        self.extras = tuple(name for name in card.contract.left_out if name != card.contract.target)
        """Columns that are known and no features: they may be sent, and are kept in the log for training."""
        self.columns = (*self.features, *self.extras)
        self.fields = self._fields(card)
        """What each column takes, features first, as `columns`."""
        self._between_commas = [replace(field, decimal=".", thousands=None) for field in self.fields]
        self._known = frozenset(self.columns)
        options = card.recipe.data.options
        given = options.get("sep")
        self._separator = given if isinstance(given, str) and len(given) == 1 else ","
        """What stood between the fields of the table."""
        gone = (name for name, reason in card.contract.left_out.items() if reason == "gone")
        self._gone = {self.columns.index(name): name for name in gone}
        """Columns that an earlier version used: they are still taken, and told of."""
        self._quoting = {key: options[key] for key in ("quotechar", "escapechar") if key in options}
        self._gaps = [(place, field.gaps) for place, field in enumerate(self.fields) if field.gaps]
        self._expected = [(place, field.expects) for place, field in enumerate(self.fields) if field.expects]
        self.values = msgspec.defstruct("Values", self._types(), forbid_unknown_fields=True, array_like=True)
        self.label = msgspec.defstruct(
            "Label",
            [("id", str), ("label", str | Whole | float | bool)],
            forbid_unknown_fields=True,
        )
        self._rows = self._readers()
        self._decode_labels = msgspec.json.Decoder(list[self.label])  # type: ignore[name-defined]
        self._decode_label = msgspec.json.Decoder(self.label)

    def rows(self, body: Body) -> list[Row]:
        """Return the rows of a JSON body: one object, an array of objects, or an array of arrays of values."""
        return self.read(body)[0]

    def read(self, body: Body) -> tuple[list[Row], bool]:
        """Return the rows of a JSON body, and whether they are spelt there as they are here."""
        place = 0 if _OBJECT.match(body) else 2 if ARRAYS.match(body) else 1
        self.check_size(body, b"[" if place == 2 else b"{", "row", len(self.columns))
        try:
            found = self._rows[place](body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            return self._second_look(body, err), False
        found = [found] if place == 0 else found
        self._check_count(len(found))
        rows = [msgspec.structs.astuple(row) for row in found]
        if any(row[place] in gaps for place, gaps in self._gaps for row in rows):
            return self._second_look(body, _MISSES), False
        return rows, True

    def csv_rows(self, body: Body) -> list[Row]:
        """Return the rows of a CSV with a header; an empty cell is a missing value.

        Its separator is a comma, or a semicolon or tab where only that makes columns of the model of its header.
        """
        try:
            names, lines, separator = self._table(body)
        except (UnicodeDecodeError, csv.Error) as err:
            raise Refused(400, f"the body is not CSV in UTF-8: {err}") from None
        if not lines:
            fix = "" if b"\n" in body else "; with curl say --data-binary, since -d takes the ends of lines out"
            raise Refused(422, f"the CSV needs a header and at least one row, it has no row{fix}")
        self._check_count(len(lines))
        ignored = self.check_table(names, lines, "the header of the CSV")
        cells = dict(zip(names, zip(*lines, strict=True), strict=True))
        nothing = (None,) * len(lines)
        fields = self._between_commas if separator == "," != self._separator else self.fields
        columns = [field.read_all(cells[field.name]) if field.name in cells else nothing for field in fields]
        rows = list(zip(*columns, strict=True))
        try:
            found = msgspec.convert(rows, list[self.values], dec_hook=parse)  # type: ignore[name-defined]
        except UNFIT:
            said = zip(*(cells.get(name, nothing) for name in self.columns), strict=True)
            pairs = list(zip(rows, said, strict=True))
            return self._each(len(pairs), lambda place: self._row(place + 1, *pairs[place]), ignored)
        taken = [msgspec.structs.astuple(row) for row in found]
        return Rows(taken, {}, ignored) if ignored else taken

    def check_table(self, names: Sequence[str], lines: Sequence[Sequence[Any]], header: str) -> set[str]:
        """Return the columns that are left unread.

        A header that is not the model's or names a column twice is refused, and lines of another length.
        """
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise Refused(422, f"{header} names {shown(twice[0])} twice")
        for number, line in enumerate(lines, 1):
            if len(line) != len(names):
                has = "more" if len(line) > len(names) else "fewer"
                wanted = f"{len(names)} cells, as many as {header}"
                raise Refused(422, f"row {number} needs {wanted}, it has {has}")
        # Labels may stay in a table.
        return self._check_names(1, [name for name in names if name != self.contract.target])

    def ignored(self, rows: list[Row]) -> tuple[list[str], list[str]]:
        """Return which columns that came with rows were left unread: those an earlier version used, and others."""
        gone = [name for place, name in self._gone.items() if any(row[place] is not None for row in rows)]
        return gone, [*rows.ignored] if isinstance(rows, Rows) else []

    def labels(self, body: Body) -> list[tuple[str, Any]]:
        """Return prediction ids and labels, spelt as the contract does, of one object or an array of them."""
        self.check_size(body, b"{", "label", 2)
        try:
            found = [self._decode_label.decode(body)] if _OBJECT.match(body) else self._decode_labels.decode(body)
        except msgspec.ValidationError as err:
            place = re.search(r"\$\[(\d+)\]", str(err))
            number = int(place[1]) + 1 if place else 1
            raise Refused(422, f'label {number} needs {{"id": "…", "label": …}}: {plain(err)}') from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
            raise not_json(err) from None
        self._check_count(len(found), "label")
        for number, item in enumerate(found, 1):
            if not PREDICTION_ID.match(item.id):
                raise Refused(422, f"label {number}: {shown(item.id)} is not a prediction id, such as '{EXAMPLE_ID}'")
        return [(item.id, self._label(number, item.label)) for number, item in enumerate(found, 1)]

    def outside(self, rows: Sequence[Row]) -> Iterator[tuple[str, int]]:
        """Yield each field, with its number of rows, whose values the contract does not know and that is accepted."""
        for place, expects in self._expected:
            if count := sum(1 for row in rows if row[place] is not None and not expects(row[place])):
                yield self.columns[place], count

    def example(self) -> dict[str, Any]:
        """Return a row made from the contract alone: averages, and the most frequent categories."""
        return {column.name: _typical(column) for column in self.contract.columns}

    def openapi(self, title: str, version: str, *, explained: int, audit: bool, token: bool) -> dict[str, Any]:
        """Return the OpenAPI 3.1 description of the service; `explained` is how many rows /explain takes."""
        return describe(self, title, version, explained=explained, audit=audit, token=token)

    def _fields(self, card: Card) -> list[Field]:
        contract, options = card.contract, card.recipe.data.options
        others = {other.name: other for other in contract.others}
        slack, keys = card.recipe.contract.range_slack, ("id", "group")
        return [
            *(feature(column, self.serving, slack, options) for column in contract.columns),
            *(companion(name, others.get(name), contract.left_out[name] in keys, options) for name in self.extras),
        ]

    def _types(self) -> list[Any]:
        """Return a field a column as `msgspec.defstruct` wants them; a row may leave out what is no feature."""
        named = [(f"c{place}", field.type) for place, field in enumerate(self.fields)]
        return [*named[: len(self.features)], *((*field, None) for field in named[len(self.features) :])]

    def _readers(self) -> tuple[Callable[[Body], Any], ...]:
        """Return what reads one object, an array of objects, and an array of arrays.

        Names that msgspec does not take, with quotes or line breaks, are left to the second look.
        """
        arrays = msgspec.json.Decoder(list[self.values], dec_hook=parse).decode  # type: ignore[name-defined]
        if any(_ODD_NAME.search(name) for name in self.columns):
            return _not_at_once, _not_at_once, arrays
        rename = {f"c{place}": name for place, name in enumerate(self.columns)}
        row = msgspec.defstruct("Row", self._types(), rename=rename, forbid_unknown_fields=True)
        one, many = (msgspec.json.Decoder(of, dec_hook=parse).decode for of in (row, list[row]))  # type: ignore[valid-type]
        return one, many, arrays

    def _check_count(self, count: int, of: str = "row") -> None:
        if count == 0:
            raise Refused(422, f"the body needs at least one {of}, it holds none")
        if count > self.serving.max_rows:
            raise Refused(413, f"one request takes at most {self.serving.max_rows:,} {of}s, this one has more ({MOST})")

    def check_size(self, body: Body, mark: bytes, of: str, values: int) -> None:
        """Refuse a JSON body of too many items before it is read, if it has that many of a mark.

        Around each value stand at most three marks (its name, itself where it is a text, a comma), two around an item.
        """
        most = self.serving.max_rows
        if len(body) <= 2 * most:
            return
        there = np.count_nonzero(np.frombuffer(body, np.uint8) == ord(mark))  # a third of the time of body.count
        marks = most * (3 * values + 2) + 3 * DEEPEST
        if there > (most * values if mark == b"," else most + 1) and _is_too_much(body, most, marks):
            sentence = f"one request takes at most {most:,} {of}s of {values} values, this one has more ({MOST})"
            raise Refused(413, sentence)

    def label_rows(self, body: Body) -> "Labels":
        """Return what a CSV of labels says, see `label_table`."""
        names = {*self.contract.id, self.contract.target, *LABEL_COLUMNS}
        try:
            records = self._counted(self._records(body, self._separates(body, names)), "label")
            header, *lines = [record for record in records if record] or [[]]
        except (UnicodeDecodeError, csv.Error) as err:
            raise Refused(400, f"the body is not CSV in UTF-8: {err}") from None
        self._check_count(len(lines), "label")
        return self.label_table([name.strip() for name in header], lines)

    def label_table(self, names: Sequence[str], lines: Sequence[Sequence[str]]) -> "Labels":
        """Return labels by `data.id`, or by prediction id, as the contract spells them; other columns are left unread.

        They stand in a column called as the target, or `label`; `date` says when each became true.
        """
        own, target = self.contract.id, self.contract.target
        ids = own if own and {*own} <= {*names} else tuple(name for name in LABEL_COLUMNS[:2] if name in names)[:1]
        label = next((name for name in (target, "label") if name in names), None)
        if not ids or label is None:
            what = f"{' and '.join(map(quoted, own))} or 'prediction_id'" if own else "'prediction_id'"
            has = ", ".join(map(_brief, names[:12]))
            raise Refused(422, f"labels need the columns {what}, and {quoted(target)} or 'label'; there are {has}")
        places, place = [names.index(name) for name in ids], names.index(label)
        dated = names.index("date") if "date" in names else None
        found = []
        for number, line in enumerate(lines, 1):
            if len(line) != len(names):
                raise Refused(
                    422, f"label {number} needs {len(names)} cells, as many as the header, it has {len(line)}"
                )
            key = tuple(line[place] for place in places)
            if "" in key:
                raise Refused(422, f"label {number} has no {' or '.join(ids)}")
            if ids != own and not PREDICTION_ID.match(key[0]):
                raise Refused(422, f"label {number}: {shown(key[0])} is not a prediction id, such as '{EXAMPLE_ID}'")
            given: Any = line[place]
            if self.contract.task == "regression":
                given = (floats([given]) or [given])[0]
            date = None
            if dated is not None and line[dated]:
                try:
                    date = Moment.parse(line[dated])
                except ValueError:
                    raise Refused(422, f"label {number}: 'date' needs ISO 8601, it is {shown(line[dated])}") from None
            found.append((key, self._label(number, given), date))
        return Labels(own if ids == own else (), found)

    def _label(self, number: int, label: Any) -> Any:
        contract = self.contract
        if contract.task == "regression":
            if isinstance(label, bool | str) or not math.isfinite(label):
                raise Refused(422, f"label {number}: {quoted(contract.target)} needs a number, it is {shown(label)}")
            return float(label)
        code = class_code(as_text(label), contract.classes)
        if code is None:
            needs = f"{quoted(contract.target)} needs {listed(contract.classes)}"
            raise Refused(422, f"label {number}: {needs}, it is {shown(label)}")
        return contract.classes[code]

    def _second_look(self, body: Body, err: Exception) -> list[Row]:
        """Read value by value what could not be read at once: other spellings are taken, the first fault is refused."""
        self.check_size(body, b",", "row", len(self.columns))
        try:
            # Unlike msgspec it reads NaN, so that we can say where it is.
            data = json.loads(
                body.decode(),
                parse_int=lambda text: int(text) if len(text) < 300 else float(text),
                object_pairs_hook=_once,
            )
        except (ValueError, RecursionError) as said:
            raise not_json(said) from None
        rows = data if isinstance(data, list) else [data]
        self._check_count(len(rows))
        ignored: set[str] = set()
        found = self._each(
            len(rows),
            lambda place: self._row(place + 1, *self._arranged(place + 1, rows[place], rows[0], ignored)),
            ignored,
        )
        if not isinstance(err, msgspec.ValidationError):  # JSON to Python alone
            raise not_json(err)
        return found

    def _each(self, count: int, take: Callable[[int], Row], ignored: set[str]) -> list[Row]:
        """Return the rows one by one; the first fault is refused, or all rows have one, or the others are good."""
        rows: list[Row] = []
        faults: dict[int, Refused] = {}
        for place in range(count):
            try:
                rows.append(take(place))
            except Refused as err:
                err.rows = count
                if self.serving.bad_rows == "refuse":
                    raise
                faults[place] = err
        if not rows:
            raise faults[0]
        return Rows(rows, faults, ignored) if faults or ignored else rows

    def _arranged(self, number: int, row: Any, first: Any, ignored: set[str]) -> tuple[list[Any], list[Any]]:
        """Return what the values of a row mean in the order of the columns, and what was sent; add what is unread."""
        if type(row) is not type(first):
            raise Refused(422, f"row {number} needs {shown(first)}, as row 1 is, it is {shown(row)}")
        if isinstance(row, list):
            if not len(self.features) <= len(row) <= len(self.columns):
                wanted = f"the model's {len(self.features)} values in the order of its features"
                rule: Rule = "missing_column" if len(row) < len(self.features) else "extra_column"
                raise Refused(422, f"row {number} needs {wanted}, it has {len(row)}", rule=rule)
            row = dict(zip(self.columns, row, strict=False))
        if not isinstance(row, dict):
            raise Refused(422, f"row {number} needs an object of named values, it is {shown(row)}")
        if isinstance(row, _Twice):
            raise Refused(422, f"row {number} names {shown(row.name)} twice")
        ignored |= self._check_names(number, row)
        said = [row.get(name) for name in self.columns]
        return [field.meant(value) for field, value in zip(self.fields, said, strict=True)], said

    def _check_names(self, number: int, names: Collection[str]) -> set[str]:
        """Return the names of columns that may come and are left unread."""
        unknown = {name for name in names if name not in self._known}
        if self.serving.extra_columns == "refuse":
            for name in (name for name in names if name in unknown):
                if name == self.contract.target:
                    sentence = f"row {number}: {quoted(name)} is what the model predicts; leave it out"
                    raise Refused(422, sentence, rule="extra_column")
                there = known("the model", map(_brief, self.columns), name)
                sentence = f"row {number}: no field {shown(name)}; {there} (serving.extra_columns governs this)"
                raise Refused(422, sentence, rule="extra_column")
        for field in self.fields[: len(self.features)]:
            if field.name not in names:
                sentence = f"row {number}: field {quoted(field.name)} is missing; it needs {field.needs}"
                raise Refused(422, sentence + _governed("missing_column"), field.name, "missing_column")
        return unknown

    def _row(self, number: int, values: Sequence[Any], said: Sequence[Any]) -> Row:
        """Return a row as its types have it, or refuse the first value that does not fit, as it was sent."""
        row = []
        for field, value, sent in zip(self.fields, values, said, strict=True):
            try:
                row.append(field.take(value))
            except UNFIT:
                it = shown(None if value is None else sent)
                rule = field.rule(value)
                sentence = f"row {number}: {quoted(field.name)} needs {field.needs}, it is {it}"
                raise Refused(422, sentence + _governed(rule), field.name, rule) from None
        return tuple(row)

    def _table(self, body: Body) -> tuple[list[str], list[list[str]], str]:
        """Return the header of a CSV, its other lines that are not empty, and its separator.

        Reading ends behind a line that cannot be taken.
        """
        names = self._known | {self.contract.target}
        separator = self._separates(body, names)
        records, lines = self._counted(self._records(body, separator), "row"), list[list[str]]()
        header = [name if name in names else name.strip() for name in next(records, [])]
        for line in records:
            if line:
                lines.append(line)
                if len(line) != len(header) or len(header) > len(names):
                    break
        return header, lines, separator

    def _separates(self, body: Body, names: Collection[str]) -> str:
        """Return the sign that makes most of these names of a CSV's header, the table's own or a usual one."""
        marks: dict[str, None] = dict.fromkeys((*self._separator, *",;\t"))
        headers = {mark: next(self._records(body, mark, strict=False), []) for mark in marks}
        return max(marks, key=lambda mark: len({*names} & {*headers[mark]}))

    def _counted(self, records: Iterable[list[str]], of: str) -> Iterator[list[str]]:
        """Yield a header and its records, unless they are more than a request takes."""
        for number, record in enumerate(records):
            if number > 2 * self.serving.max_rows:  # some write an empty line behind each
                self._check_count(number, of)
            yield record

    def _records(self, body: Body, separator: str, *, strict: bool = True) -> Iterator[list[str]]:
        """Yield the records of a CSV; one that is too long is refused before it is taken apart."""
        text = io.TextIOWrapper(io.BufferedReader(_Reading(body)), "utf-8-sig", newline="")
        length, most = 0, max(LINES * self.serving.max_rows, RECORD_LENGTH)

        def lines() -> Iterator[str]:
            nonlocal length, most
            while line := text.readline(RECORD_LENGTH + 1):
                length += len(line)
                most -= 1
                if most < 0:
                    raise Refused(413, f"the cells of a CSV hold at most {LINES} lines a row, these more ({MOST})")
                if length > RECORD_LENGTH:
                    raise Refused(422, f"a line of the CSV has more than {RECORD_LENGTH:,} characters")
                yield line

        for record in csv.reader(lines(), delimiter=separator, strict=strict, **self._quoting):
            length = 0
            yield record


def _governed(rule: Rule) -> str:
    return f" ({_GOVERNS[rule]})" if rule in _GOVERNS else ""


class _Reading(io.RawIOBase):
    """A body as a file; BytesIO would copy it, and hold up all others for 17 ms where it has 16 MB."""

    def __init__(self, body: Body) -> None:
        self._left = memoryview(body)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, room: Any) -> int:
        """Fill a buffer with what comes next, and return how much that was."""
        size = min(len(room), len(self._left))
        room[:size] = self._left[:size]
        self._left = self._left[size:]
        return size


class _Twice(dict[str, Any]):
    """A JSON object in which a name stands twice.

    It is told of at the second look only: msgspec keeps the last one and says nothing, and counting the names of each
    body would take nearly half as long as reading it.
    """

    name = ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice, seen = _Twice(found), set()
    for name, _ in pairs:
        if name in seen:
            twice.name = name
        seen.add(name)
    return twice


def _is_too_much(body: Body, items: int, marks: int) -> bool:
    """Say whether a JSON array has more objects and arrays in it, or more marks in all, than it may have."""
    depth = 0
    for mark in _MARK.finditer(body):
        marks -= 1
        if mark[0] in (b"[", b"{"):
            items -= depth == 1
            depth += 1
        elif mark[0] in (b"]", b"}"):
            depth -= 1
        if items < 0 or marks < 0:
            return True
        if not 0 < depth < DEEPEST:
            return False
    return False


def _not_at_once(body: Body) -> Any:
    raise msgspec.ValidationError("a name that msgspec does not take")


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


def _brief(name: str) -> str:
    return quoted(name)[1:-1]


def not_json(err: Exception) -> Refused:
    """Say why a body is not JSON."""
    if isinstance(err, RecursionError):
        why = "it is nested too deep"
    else:
        why = "it is not UTF-8" if isinstance(err, UnicodeDecodeError) else plain(err)
    return Refused(400, f"the body is not JSON: {why}")


def plain(err: Exception) -> str:
    """Return what a library says, within a sentence."""
    text = str(err).replace("`", "'")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def check_personal(contract: DataContract, serving: Serving) -> None:
    """Refuse a personal column that no request can have: it would be a typo that leaves the real one in the log."""
    columns = [*contract.features, *contract.left_out]
    for name in serving.personal:
        if name not in columns:
            raise UserError(f"serving.personal: no column '{name}'; {known('the model', columns, name)}")
