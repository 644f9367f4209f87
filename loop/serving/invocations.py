"""Read rows as clients of `mlflow models serve` send them, each value as it is spelt, into what /predict takes.

The formats are those of MLflow's scoring server (mlflow/pyfunc/scoring_server): tables as pandas splits or lists them,
and TensorFlow Serving's rows or columns. Other keys beside them, such as `params`, count no more than there.
"""

import re
from collections.abc import Sequence

import msgspec

from loop.serving.openapi import FORMATS
from loop.serving.schema import Body, Refused, Row, Schema, not_json, plain

VERSION = "3.17.2"
"""The MLflow whose scoring server this follows."""

_NUMBERS = {b"NaN": b"null", b"Infinity": b"1e999"}  # what Python writes and JSON lacks; a gap, and what is refused
_BEYOND = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|NaN|Infinity', re.DOTALL)  # reads on to the end where a quote is missing
_NULL = msgspec.Raw(b"null")


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    data: msgspec.Raw
    columns: list[str] | msgspec.UnsetType = msgspec.UNSET
    index: msgspec.Raw = _NULL


_envelope = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_split = msgspec.json.Decoder(_Split).decode
_lines = msgspec.json.Decoder(list[list[msgspec.Raw]]).decode
_columns = msgspec.json.Decoder(dict[str, list[msgspec.Raw]]).decode


def invoked_rows(schema: Schema, body: Body) -> list[Row]:
    """Return the rows of a JSON body in one of MLflow's four formats."""
    schema.check_size(body, b",", "row", len(schema.columns))
    if b"NaN" in body or b"Infinity" in body:
        body = _BEYOND.sub(lambda found: _NUMBERS.get(found[0], found[0]), body)
    try:
        return schema.rows(_rows(schema, body))
    except msgspec.ValidationError as err:
        raise Refused(422, f"the body needs an object with one of {', '.join(FORMATS)}: {plain(err)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise not_json(err) from None


def _rows(schema: Schema, body: Body) -> bytes:
    """Return the same rows as /predict takes them."""
    found = _envelope(body)
    given = [name for name in FORMATS if name in found]
    if len(given) != 1:
        raise Refused(422, f"the body needs one of {', '.join(FORMATS)}, it has {' and '.join(given) or 'none'}")
    content = bytes(found[given[0]])
    if given[0] == "dataframe_split":
        split = _split(content)
        if split.columns is msgspec.UNSET or (*split.columns,) == schema.features:
            return bytes(split.data)
        return _arranged(schema, split.columns, _lines(split.data))
    if given[0] == "dataframe_records" or not content.startswith(b"{"):
        return content
    try:
        columns = _columns(content)
    except msgspec.ValidationError:  # one row
        return content
    if len(lengths := {len(values) for values in columns.values()}) > 1:
        raise Refused(422, f"the columns need values for as many rows each, they have {min(lengths)} to {max(lengths)}")
    return _arranged(schema, [*columns], [*zip(*columns.values(), strict=True)])


def _arranged(schema: Schema, names: Sequence[str], lines: Sequence[Sequence[msgspec.Raw]]) -> bytes:
    """Return the lines of a table as arrays in the order of the model's columns."""
    schema.check_table(names, lines, "the table's header")
    if {*names}.difference(schema.columns, [schema.contract.target]):  # what is left unread is told
        known = [(name, place) for place, name in enumerate(names) if name != schema.contract.target]
        return msgspec.json.encode([{name: line[place] for name, place in known} for line in lines])
    cells = {name: place for place, name in enumerate(names)}
    places = [cells.get(name) for name in schema.columns]
    return msgspec.json.encode([[_NULL if place is None else line[place] for place in places] for line in lines])
