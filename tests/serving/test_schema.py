"""The types of a service: what a row may hold, and the sentence for one that holds something else."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.config import Contract, Data, Recipe, Serving, UserError
from loop.data.contract import learn_contract
from loop.serving.openapi import EXAMPLE_ID
from loop.serving.schema import Refused, Schema, check_personal
from loop.training.bundle import Card

GAPS = [None if number % 10 == 0 else number for number in range(100)]
ROWS = pd.DataFrame(
    {
        "key": np.arange(100),
        "at": pd.date_range("2025-01-01", periods=100, freq="h"),
        "junk": 1,
        "height": np.linspace(100.0, 200.0, 100),
        "depth": [None if gap is None else gap / 2 - 20 for gap in GAPS],
        "member": [None if gap is None else gap % 3 == 0 for gap in GAPS],
        "grade": np.arange(100) % 12,
        "städte": np.where(np.arange(100) % 2 == 0, 'Köln, "am Rhein"', "Łódź"),
        "since": pd.date_range("2020-01-01", periods=100, freq="D"),
        "class": np.arange(100) % 2,
    }
)
DATA = Data(source="made", target="class", id=("key",), time="at", drop=("junk",), kinds={"grade": "categorical"})
SETTINGS = Contract(range_slack=0.5)
FEATURES = ("height", "depth", "member", "grade", "städte", "since")
ROW = {"height": 150.5, "depth": None, "member": True, "grade": "3", "städte": "Łódź", "since": "2020-02-01T00:00:00"}
VALUES = (150.5, None, True, "3", "Łódź", datetime(2020, 2, 1))


def schema(target: str = "class", **serving: Any) -> Schema:
    data = DATA.model_copy(update={"target": target})
    contract = learn_contract(ROWS, data, SETTINGS)
    recipe = Recipe(name="made", data=data, contract=SETTINGS)
    return Schema(Card.model_construct(recipe=recipe, contract=contract), Serving(**serving))


SCHEMA = schema(max_rows=7)
ACCEPTING = schema(out_of_range="accept", unseen_category="accept")
LABELS = {"class": SCHEMA, "grade": schema("grade"), "height": schema("height")}


def body(**changed: Any) -> bytes:
    """Return a row as JSON; `...` takes a field away, bytes go in as they are."""
    row = {name: value for name, value in (ROW | changed).items() if value is not ...}
    fields = (json.dumps(name).encode() + b":" + _json(value) for name, value in row.items())
    return b"{" + b",".join(fields) + b"}"


def spelt(rows: list[Any]) -> list[Any]:
    """Return rows with the one spelling of whole numbers that are categories; the model takes them both."""
    return [tuple(str(value) if type(value) is int else value for value in row) for row in rows]


def _json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def table(*records: dict[str, Any]) -> bytes:
    """Return rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue().encode()


SPELT = {
    "one object": body(),
    "an array of objects": b"[" + body() + b"]",
    "an array of arrays": json.dumps([list(ROW.values())]).encode(),
    "space around it": b"\n\t " + body().replace(b",", b" ,\r\n") + b" \n",
    "fields in another order": json.dumps(dict(reversed(ROW.items()))).encode(),
    "a category that is a whole number": body(grade=3),
    "a time with a zone": body(since="2020-02-01T01:00:00+01:00"),
    "a date": body(since="2020-02-01"),
    "known columns that are no features": body(key=7, at="2026-01-01", junk="x"),
    "escapes": body(städte=b'"\\u0141\\u00f3d\\u017a"'),
}


@pytest.mark.parametrize("way", SPELT)
def test_takes_a_row_however_it_is_spelt(way: str) -> None:
    (row,) = spelt(SCHEMA.rows(SPELT[way]))
    assert row[: len(FEATURES)] == VALUES


def test_a_csv_holds_the_rows_that_json_does() -> None:
    rows = SCHEMA.rows(body())
    assert spelt(SCHEMA.csv_rows(table(ROW, ROW))) == rows * 2
    assert spelt(SCHEMA.csv_rows(b"\xef\xbb\xbf" + table(dict(reversed(ROW.items()))))) == rows
    assert spelt(SCHEMA.csv_rows(table(ROW).replace(b"True", b"1"))) == rows


def test_keeps_known_columns_that_are_no_features_for_the_log() -> None:
    assert SCHEMA.extras == ("junk", "key", "at")
    (row,) = SCHEMA.rows(body(at="2026-01-01", key=7))
    assert row == (*VALUES, None, 7, datetime(2026, 1, 1))


HUGE = b"1" + b"0" * 800
REFUSED = {
    "empty": (b"", 400, "not JSON"),
    "no JSON": (body()[:-1], 400, "not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf" + body(), 400, "not JSON"),
    "UTF-16": (body().decode().encode("utf-16"), 400, "not JSON"),
    "no UTF-8 in a value": (body(städte=b'"\xff"'), 400, "not UTF-8"),
    "no UTF-8 in a name": (b'{"\xff": 1}', 400, "not UTF-8"),
    "deep arrays": (b"[" * 100_000, 400, "too deep"),
    "deep objects": (b'{"height":' * 100_000, 400, "too deep"),
    "a number": (b"5", 422, "row 1 needs an object of named values, it is 5"),
    "null": (b"null", 422, "row 1 needs an object of named values, it is null"),
    "no row": (b"[]", 422, "at least one row"),
    "too many rows": (b"[" + b",".join([body()] * 8) + b"]", 413, "this one has more (serving.max_rows)"),
    "too few values": (b"[[1, 2]]", 422, "row 1 needs the model's 6 values in the order of its features, it has 2"),
    "too many values": (json.dumps([[*ROW.values(), 1, 2, 3, 4]]).encode(), 422, "row 1 needs the model's 6 values"),
    "arrays and objects": (b"[" + body() + b"," + json.dumps(list(ROW.values())).encode() + b"]", 422, "as row 1 is"),
    "unknown field": (body(hight=1), 422, "row 1: no field 'hight'; the model has", "did you mean 'height'?"),
    "half a character as a name": (b'{"\\ud800": 1}', 422, "row 1: no field '\\ud800'"),
    "the target": (body(**{"class": 1}), 422, "row 1: 'class' is what the model predicts; leave it out"),
    "missing field": (body(depth=...), 422, "field 'depth' is missing; it needs a number from -44 to 54 or null"),
    "text for a number": (body(height="tall"), 422, "'height' needs a number from 50 to 250, it is 'tall'"),
    "a fraction out of range": (body(height=-1e5), 422, "'height' needs a number", "it is -100000.0"),
    "digits as text": (body(height="150"), 422, "'height' needs a number from 50 to 250, it is '150'"),
    "true for a number": (body(height=True), 422, "'height' needs a number", "it is true"),
    "an object for a number": (body(height={}), 422, "'height' needs a number", "it is an object"),
    "null where none was": (body(height=None), 422, "'height' needs a number from 50 to 250, it is null"),
    "NaN": (body(height=b"NaN"), 422, "'height' needs a number", "it is NaN"),
    "infinity": (body(height=b"Infinity"), 422, "'height' needs a number", "it is Infinity"),
    "minus infinity": (body(depth=b"-Infinity"), 422, "'depth' needs a number", "it is -Infinity"),
    "beyond a float": (body(height=b"1e999"), 422, "'height' needs a number", "it is Infinity"),
    "an integer beyond a float": (body(height=HUGE), 422, "'height' needs a number", "it is Infinity"),
    "5,000 digits": (body(height=b"1" * 5000), 422, "'height' needs a number", "it is Infinity"),
    "below the range": (body(height=49.9), 422, "row 1: 'height' needs a number from 50 to 250, it is 49.9"),
    "above the range": (body(height=251), 422, "from 50 to 250, it is 251 (serving.out_of_range governs this)"),
    "a number for a truth value": (body(member=1), 422, "'member' needs true or false or null, it is 1"),
    "unseen category": (body(städte="Oslo"), 422, "'städte' needs one of Köln", "it is 'Oslo' (serving.unseen_"),
    "unseen whole number": (body(grade=12), 422, "'grade' needs one of 0, 1, 10", "it is 12"),
    "a fraction for a category": (body(grade=3.5), 422, "'grade' needs one of 0, 1, 10", "it is 3.5"),
    "half a character": (body(städte=b'"\\ud800"'), 422, "'städte' needs one of", "it is '\\ud800'"),
    "a long text": (body(städte="x" * 10_000), 422, "it is 'xxx", "…'"),
    "no time": (body(since="yesterday"), 422, "'since' needs a time (ISO 8601) from", "it is 'yesterday'"),
    "a number for a time": (body(since=5), 422, "'since' needs a time (ISO 8601)", "it is 5"),
    "a 13th month": (body(since="2020-13-01"), 422, "'since' needs a time (ISO 8601)", "it is '2020-13-01'"),
    "a time out of range": (body(since="2019-01-01"), 422, "from 2019-11-12T12:00:00 on, it is '2019-01-01' (serving."),
    "before the year 1": (body(since="0001-01-01T00:00:00+01:00"), 422, "'since' needs a time", "it is '0001"),
    "after the year 9999": (body(since="9999-12-31T23:59:59-01:00"), 422, "'since' needs a time", "it is '9999"),
    "an array in a column for the log": (
        body(key=[1]),
        422,
        "row 1: 'key' needs a whole number or null, it is an array",
    ),
    "NaN in a column for the log": (body(key=b"NaN"), 422, "row 1: 'key' needs a whole number or null, it is NaN"),
    "20 digits in a column for the log": (body(key=10**20), 422, "row 1: 'key' needs a whole number or null, it is 1"),
    "half a character in a column for the log": (body(key=b'"\\ud800"'), 422, "row 1: 'key' needs a whole number"),
    "the second row": (b"[" + body() + b"," + body(height=0) + b"]", 422, "row 2: 'height' needs"),
}


def assert_one_sentence(err: Refused, status: int, *words: str) -> None:
    assert err.status == status
    assert "\n" not in err.sentence
    assert len(err.sentence) < 400
    for word in words:
        assert word in err.sentence


@pytest.mark.parametrize("fault", REFUSED)
def test_refuses_in_one_sentence_that_names_row_and_field(fault: str) -> None:
    content, status, *words = REFUSED[fault]
    with pytest.raises(Refused) as refused:
        SCHEMA.rows(content)
    assert_one_sentence(refused.value, status, *words)


LINE = table(ROW).splitlines()[1].decode()
REFUSED_CSV = {
    "empty": (b"", 422, "a header and at least one row"),
    "a header alone": (table(ROW).splitlines()[0], 422, "at least one row"),
    "one line, as curl -d sends": (table(ROW).replace(b"\r\n", b""), 422, "it has no row; with curl say --data-binary"),
    "JSON": (body(), 400, "not CSV in UTF-8"),
    "Latin-1": (table(ROW).decode().encode("latin-1", "replace"), 400, "not CSV in UTF-8"),
    "an open quote": (table(ROW) + b'"', 400, "not CSV in UTF-8"),
    "too many rows": (table(*[ROW] * 8), 413, "at most 7 rows, this one has more"),
    "too many lines": (table(*[ROW | {"städte": "\n" * 60_000}] * 3), 413, "at most 32 lines a row"),
    "a row too short": (table(ROW) + LINE.rpartition(",")[0].encode(), 422, "row 2 needs 6 cells", "it has fewer"),
    "a row too long": (table(ROW) + LINE.encode() + b",1", 422, "row 2 needs 6 cells", "it has more"),
    "a column twice": (b"height," + table(ROW).replace(b"\r\n1", b"\r\n1,1"), 422, "names 'height' twice"),
    "unknown column": (table(ROW | {"hight": 1}), 422, "row 1: no field 'hight'", "did you mean 'height'?"),
    "missing column": (table({"height": 150}), 422, "row 1: field 'depth' is missing"),
    "bars": (table(ROW).replace(b",", b"|"), 422, "row 1: no field 'height|depth"),
    "text for a number": (table(ROW, ROW | {"height": "tall"}), 422, "row 2: 'height' needs", "it is 'tall'"),
    "an empty cell where none was": (table(ROW | {"height": ""}), 422, "'height' needs", "it is null"),
    "nan": (table(ROW | {"height": "nan"}), 422, "'height' needs a number", "it is 'nan'"),
    "inf": (table(ROW | {"height": "inf"}), 422, "'height' needs a number", "it is 'inf'"),
    "out of range": (table(ROW | {"height": 251}), 422, "'height' needs a number from 50 to 250, it is '251'"),
    "unseen category": (table(ROW | {"grade": 12}), 422, "'grade' needs one of", "it is '12'"),
    "no time": (table(ROW | {"since": "yesterday"}), 422, "'since' needs a time", "it is 'yesterday'"),
}


@pytest.mark.parametrize("fault", REFUSED_CSV)
def test_refuses_a_csv_in_one_sentence_that_names_row_and_field(fault: str) -> None:
    content, status, *words = REFUSED_CSV[fault]
    with pytest.raises(Refused) as refused:
        SCHEMA.csv_rows(content)
    assert_one_sentence(refused.value, status, *words)


@pytest.mark.parametrize("line", [b"\n", b"a,b\n", b'"a",b\n'])
def test_too_many_labels_are_refused_before_they_are_all_read(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    read, records = list[list[str]](), Schema._records

    def seen(*arguments: Any, **ways: Any) -> Iterator[list[str]]:
        for record in records(*arguments, **ways):
            read.append(record)
            yield record

    monkeypatch.setattr(Schema, "_records", seen)
    with pytest.raises(Refused, match="at most 7 labels, this one has more"):
        SCHEMA.label_rows(b"prediction_id,label\n" + 10_000 * line)
    assert len(read) < 100


@pytest.mark.parametrize("text", ["nan", "inf", "-inf"])
def test_no_range_lets_in_what_is_no_number(text: str) -> None:
    with pytest.raises(Refused, match="row 1: 'height' needs a number, it is"):
        ACCEPTING.csv_rows(table(ROW | {"height": text}))
    with pytest.raises(Refused, match="row 1: 'height' needs a number, it is"):
        ACCEPTING.rows(body(height=json.dumps(float(text)).encode()))


def test_a_time_later_than_training_is_let_in_since_times_move_on() -> None:
    (row,) = SCHEMA.rows(body(since="2035-01-01"))
    assert row[5] == datetime(2035, 1, 1)
    assert dict(ACCEPTING.outside(ACCEPTING.rows(body(since="2035-01-01")))) == {}


def test_names_the_field_to_blame_for_the_metrics() -> None:
    for content, field in ((body(height=0), "height"), (body(depth=...), "depth"), (b"{", None), (body(hight=1), None)):
        with pytest.raises(Refused) as refused:
            SCHEMA.rows(content)
        assert refused.value.field == field


BROKEN: list[tuple[dict[str, Any], str | None, str]] = [
    ({"depth": ...}, "depth", "missing_column"),
    ({"hight": 1}, None, "extra_column"),
    ({"height": None}, "height", "new_nulls"),
    ({"height": 251}, "height", "out_of_range"),
    ({"since": "2019-01-01"}, "since", "out_of_range"),
    ({"grade": 12}, "grade", "unseen_category"),
    ({"städte": "Oslo"}, "städte", "unseen_category"),
    ({"height": "tall"}, "height", "wrong_type"),
    ({"height": "nan"}, "height", "wrong_type"),
    ({"depth": "true"}, "depth", "wrong_type"),
    ({"member": 2}, "member", "wrong_type"),
    ({"since": "yesterday"}, "since", "wrong_type"),
]


@pytest.mark.parametrize(("changes", "field", "rule"), BROKEN)
def test_names_the_rule_that_was_broken_alike_in_json_and_csv(
    changes: dict[str, Any], field: str | None, rule: str
) -> None:
    changed = {name: value for name, value in (ROW | changes).items() if value is not ...}
    for found in (refusal(SCHEMA.rows, body(**changes)), refusal(SCHEMA.csv_rows, table(changed))):
        assert found is not None
        assert (found.field, found.rule) == (field, rule)
        assert GOVERNS[rule] in found.sentence


GOVERNS = {
    "missing_column": "(contract.accept lets a next version do without)",
    "extra_column": "(serving.extra_columns governs this)",
    "new_nulls": "(no row of training lacked it)",
    "out_of_range": "(serving.out_of_range governs this)",
    "unseen_category": "(serving.unseen_category governs this)",
    "wrong_type": "(data.kinds governs this)",
}


def test_names_the_rule_that_only_json_can_break() -> None:
    for content, field, rule in (
        (body(height="150"), "height", "wrong_type"),
        (body(height=True), "height", "wrong_type"),
        (body(height=float("nan")), "height", "wrong_type"),
        (body(height=HUGE), "height", "wrong_type"),
        (body(grade=True), "grade", "wrong_type"),
        (body(städte=["Łódź"]), "städte", "wrong_type"),
        (body(since=5), "since", "wrong_type"),
        (body(key=[1]), "key", "wrong_type"),
        (b"[[1]]", None, "missing_column"),
        (json.dumps([[0] * 10]).encode(), None, "extra_column"),
        (b"[]", None, "other"),
        (b"[5]", None, "other"),
    ):
        found = refusal(SCHEMA.rows, content)
        assert found is not None
        assert (found.field, found.rule) == (field, rule), content


def test_accepts_and_counts_what_is_outside_where_the_config_says_so() -> None:
    far = body(height=1e9, depth=-1e9, städte="Oslo", grade=99, since="1900-01-01")
    rows = ACCEPTING.rows(b"[" + far + b"," + body() + b"," + body(height=0) + b"]")
    outside = {"height": 2, "depth": 1, "städte": 1, "grade": 1, "since": 1}
    assert dict(ACCEPTING.outside(rows)) == outside
    assert dict(ACCEPTING.outside(ACCEPTING.csv_rows(table(json.loads(far), ROW, ROW | {"height": 0})))) == outside
    for fault in ({"height": None}, {"height": "tall"}, {"grade": True}, {"grade": 10**20}, {"member": 2}):
        with pytest.raises(Refused, match=f"row 1: '{next(iter(fault))}' needs"):
            ACCEPTING.rows(body(**fault))


TRUTHS = {
    "class": ([1, 0, "1", "0.0", 1.0, True, False], ["1", "0", "1", "0", "1", "1", "0"]),
    "grade": ([3, "11", 3.0], ["3", "11", "3"]),
    "height": ([1, -2.5, 0], [1.0, -2.5, 0.0]),
}


@pytest.mark.parametrize("target", TRUTHS)
def test_spells_labels_as_the_contract_does(target: str) -> None:
    given_as, expected = TRUTHS[target]
    labels = json.dumps([{"id": EXAMPLE_ID, "label": label} for label in given_as]).encode()
    assert LABELS[target].labels(labels) == [(EXAMPLE_ID, label) for label in expected]


def label(value: Any = 1, prediction: Any = EXAMPLE_ID, **more: Any) -> bytes:
    return b'{"id":' + _json(prediction) + b',"label":' + _json(value) + b"}"


REFUSED_LABELS = {
    "empty": ("class", b"", 400, "not JSON"),
    "no label": ("class", b"[]", 422, "at least one label"),
    "too many": ("class", b"[" + b",".join([label()] * 8) + b"]", 413, "at most 7 labels"),
    "no UTF-8": ("class", label(b'"\xff"'), 400, "not UTF-8"),
    "deep": ("class", b"[" * 100_000, 422, "label 1"),
    "another id": ("class", label(prediction="7"), 422, "label 1: '7' is not a prediction id, such as"),
    "a newline after the id": ("class", label(prediction=EXAMPLE_ID + "\n"), 422, "is not a prediction id"),
    "a number as id": ("class", label(prediction=7), 422, "label 1 needs"),
    "without id": ("class", b'[{"label": 1}]', 422, "label 1 needs", "'id'"),
    "more than asked": ("class", b'{"id": "x", "label": 1, "when": 2}', 422, "label 1 needs", "'when'"),
    "unknown class": ("class", label("maybe"), 422, "label 1: 'class' needs one of 0, 1, it is 'maybe'"),
    "fraction": ("class", label(0.5), 422, "label 1: 'class' needs one of 0, 1, it is 0.5"),
    "the second": ("class", b"[" + label() + b"," + label("maybe") + b"]", 422, "label 2: 'class' needs one of"),
    "the second's form": ("class", b"[" + label() + b",5]", 422, "label 2 needs"),
    "null": ("class", label(None), 422, "label 1 needs"),
    "NaN": ("class", label(b"NaN"), 400, "not JSON"),
    "beyond a float": ("height", label(b"1e999"), 422, "label 1 needs"),
    "huge integer": ("class", label(HUGE), 422, "label 1 needs"),
    "huge integer for a number": ("height", label(HUGE), 422, "label 1 needs"),
    "text for a number": ("height", label("1"), 422, "label 1: 'height' needs a number, it is '1'"),
    "true for a number": ("height", label(True), 422, "label 1: 'height' needs a number, it is true"),
}


@pytest.mark.parametrize("fault", REFUSED_LABELS)
def test_refuses_labels_in_one_sentence_that_names_the_label(fault: str) -> None:
    target, content, status, *words = REFUSED_LABELS[fault]
    with pytest.raises(Refused) as refused:
        LABELS[target].labels(content)
    assert_one_sentence(refused.value, status, *words)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(list(ROW.values())),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from([*ROW, "key"]) | st.text(), inner),
    max_leaves=20,
)
ALMOST = st.fixed_dictionaries({}, optional={name: st.just(value) | JSON for name, value in ROW.items()})


def refusal(read: Callable[[bytes], Any], content: bytes) -> Refused | None:
    try:
        read(content)
    except Refused as err:
        return err
    return None


@settings(max_examples=150, derandomize=True, deadline=None)
@given((JSON | ALMOST | st.lists(ALMOST)).map(lambda found: json.dumps(found).encode()) | st.binary() | st.just(body()))
def test_anything_at_all_is_rows_or_refused(content: bytes) -> None:
    for of in (SCHEMA, ACCEPTING):
        for read in (of.rows, of.csv_rows, of.labels):
            if refused := refusal(read, content):
                assert refused.status in (400, 413, 422)
                assert_one_sentence(refused, refused.status)
                assert refused.sentence.encode()


@pytest.mark.parametrize("of", [SCHEMA, ACCEPTING, schema("grade"), schema("height")])
def test_its_example_is_a_request_that_it_takes(of: Schema) -> None:
    example = of.example()
    assert spelt(of.csv_rows(table(example))) == spelt(of.rows(json.dumps(example).encode()))
    page = of.openapi("made", "1", explained=0, audit=False, token=False)["paths"]
    asked = page["/predict_csv"]["post"]["requestBody"]["content"]["text/csv"]["example"]
    assert of.csv_rows(asked.encode()) == of.csv_rows(table(example))
    label = page["/feedback"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert of.labels(json.dumps(label).encode())


def test_a_personal_column_that_no_request_has_is_a_user_error() -> None:
    check_personal(SCHEMA.contract, Serving(personal={"städte": "hash", "key": "omit"}))
    with pytest.raises(UserError, match=r"no column 'hight'; .*did you mean 'height'\?"):
        check_personal(SCHEMA.contract, Serving(personal={"hight": "hash"}))


LARGE = 2**22
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a header of many names": (b"a," * (LARGE // 2) + b"\n1", "line of the CSV has more than 131,072 characters"),
    "a header of one name": (b"a" * LARGE, "line of the CSV has more than 131,072 characters"),
    "a wide line": (table(ROW) + b"," * LARGE, "line of the CSV has more than 131,072 characters"),
    "a line over lines": (table(ROW) + b'"\n",' * (LARGE // 4), "line of the CSV has more than 131,072 char"),
    "wide lines": (table(ROW) + (b"," * 1000 + b"\n") * (LARGE // 1001), "row 2 needs"),
    "empty lines": (b"\n" * LARGE, "at most 10,000 rows"),
    "many lines": (table(*[ROW] * (LARGE // 80)), "at most 10,000 rows"),
    "rows, the last one bad": (b"[" + (body() + b",") * (LARGE // len(body())) + b"{}]", "at most 10,000 rows"),
    "empty rows": (b"[" + b"{}," * (LARGE // 3) + b"{}]", "at most 10,000 rows"),
    "arrays": (b"[" + b"[]," * (LARGE // 3) + b"[]]", "at most 10,000 rows"),
    "numbers": (b"[" + b"1.5," * (LARGE // 4) + b"1]", "at most 10,000 rows of"),
    "one long row": (b"[[" + b"1.5," * (LARGE // 4) + b"1]]", "at most 10,000 rows of"),
    "a long name": (b'{"' + b"a" * LARGE + b'":1}', "row 1: no field 'aaa"),
    "a text that does not end": (b'[{,"' + b'\\"[{,' * (LARGE // 5), "not JSON"),
    "brackets alone": (b"[" * LARGE, "nested too deep"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_too_much_is_refused_before_it_is_taken_apart(case: str) -> None:
    content, words = HOSTILE[case]
    reader = schema()
    read = reader.rows if content[:1] in (b"[", b"{") else reader.csv_rows
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match=re.escape(words)):
            read(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * LARGE


def test_as_many_rows_as_allowed_are_read_though_their_texts_hold_brackets() -> None:
    rows = [ROW | {"städte": "[{,"}] * 10_000
    with pytest.raises(Refused, match="row 1: 'städte' needs"):
        schema().rows(json.dumps(rows).encode())
