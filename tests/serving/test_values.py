"""One value in any spelling: what the contract takes, what it means, and what is refused."""

import csv
import io
import json
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loop.config import Contract, Data, Recipe, Serving
from loop.data.contract import Column, DataContract, Other, learn_contract
from loop.serving.schema import Refused, Schema
from loop.training.bundle import Card

COUNT = 60
ROWS = pd.DataFrame(
    {
        "id": np.arange(COUNT) + 9_007_199_254_760_000,
        "mail": [f"a{place}@b" for place in range(COUNT)],
        "when": pd.date_range("2025-01-01", periods=COUNT, freq="h"),
        "paid": True,
        "fee": 0.5,
        "junk": "x",
        "size": [None if place % 9 == 0 else place / 2 for place in range(COUNT)],
        "member": [None if place % 7 == 0 else place % 2 == 0 for place in range(COUNT)],
        "flag": np.where(np.arange(COUNT) % 2, "true", "false"),
        "grade": np.where(np.arange(COUNT) % 2, "3", "4.0"),
        "code": np.where(np.arange(COUNT) % 2, "007", "12"),
        "land": [[None, "DE", "US"][place % 3] for place in range(COUNT)],
        "since": pd.date_range("2020-01-01", periods=COUNT, freq="D"),
        "class": np.arange(COUNT) % 2,
    }
)
OTHERS = (
    Other(name="id", kind="numeric"),
    Other(name="mail", kind="text"),
    Other(name="when", kind="datetime", format="%d.%m.%Y %H:%M"),
    Other(name="paid", kind="boolean"),
    Other(name="fee", kind="numeric"),
)
DATA = Data(
    source="made",
    target="class",
    id=("id", "mail"),
    time="when",
    drop=("junk",),
    kinds=dict.fromkeys(("flag", "grade", "code"), "categorical"),
)


def schema(others: tuple[Other, ...] = OTHERS, options: dict[str, Any] | None = None, **serving: Any) -> Schema:
    learned = learn_contract(ROWS, DATA, Contract())

    def spelt(column: Column) -> Column:
        if column.name == "since":
            return column.model_copy(update={"format": "%d/%m/%Y"})
        return column.model_copy(update={"missing_words": {"land": ("NA",), "size": ("?",)}.get(column.name, ())})

    columns = tuple(map(spelt, learned.columns))
    contract = learned.model_copy(update={"others": others, "version": 2, "columns": columns})
    recipe = Recipe(name="made", data=DATA.model_copy(update={"options": options or {}}))
    return Schema(Card.model_construct(recipe=recipe, contract=contract), Serving(**serving))


SCHEMA, ACCEPTING = schema(), schema(unseen_category="accept", out_of_range="accept")
ROW = {
    "size": 7.5,
    "member": True,
    "flag": "true",
    "grade": "3",
    "code": "007",
    "land": "DE",
    "since": "2020-02-01",
}


def asked(of: Schema, **changed: Any) -> dict[str, Any]:
    """Return what a JSON row means, by column."""
    (row,) = of.rows(json.dumps(ROW | changed).encode())
    return dict(zip(of.columns, row, strict=True))


def table(*rows: dict[str, Any], separator: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def celled(of: Schema, separator: str = ",", **changed: Any) -> dict[str, Any]:
    """Return what a row of a CSV means, by column."""
    (row,) = of.csv_rows(table(ROW | changed, separator=separator))
    return dict(zip(of.columns, row, strict=True))


def refused(of: Schema, **changed: Any) -> Refused:
    with pytest.raises(Refused) as said:
        of.rows(json.dumps(ROW | changed).encode())
    return said.value


def test_columns_that_are_no_features_come_as_their_kind() -> None:
    came = asked(
        SCHEMA, id=9_007_199_254_760_001, mail="x@y", when="2026-01-02T03:04+01:00", paid=False, fee=1, junk=[][:0] or 7
    )
    assert came["id"] == 9_007_199_254_760_001
    assert came["when"] == datetime(2026, 1, 2, 2, 4)
    assert (came["mail"], came["paid"], came["fee"], came["junk"]) == ("x@y", False, 1.0, 7)
    assert asked(SCHEMA, when="31.12.2025 23:59")["when"] == datetime(2025, 12, 31, 23, 59)
    assert asked(SCHEMA, id=None, mail=None, when=None, paid=None)["id"] is None
    assert asked(SCHEMA, mail="007")["mail"] == "007"
    assert asked(SCHEMA, id=7.0)["id"] == 7
    for of in (SCHEMA, ACCEPTING):
        assert [int(asked(of, id=text)["id"]) for text in ("7", "-1", str(2**63 - 1))] == [7, -1, 2**63 - 1]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("when", "yesterday", "row 1: 'when' needs a time (%d.%m.%Y %H:%M or ISO 8601) or null, it is 'yesterday'"),
        ("when", 7, "row 1: 'when' needs a time"),
        ("mail", 7, "row 1: 'mail' needs a string or null, it is 7"),
        ("id", "abc", "row 1: 'id' needs a whole number or null, it is 'abc'"),
        ("id", "007", "row 1: 'id' needs a whole number or null, it is '007'"),
        ("id", 1.5, "row 1: 'id' needs a whole number or null, it is 1.5"),
        ("id", 1e20, "row 1: 'id' needs a whole number or null, it is 1e+20"),
        ("id", 2**63, "row 1: 'id' needs a whole number or null, it is 9223372036854775808"),
        ("id", str(2**63), "row 1: 'id' needs a whole number or null, it is '9223372036854775808'"),
        ("id", True, "row 1: 'id' needs a whole number or null, it is true"),
        ("mail", 1.5, "row 1: 'mail' needs a string or null, it is 1.5"),
        ("mail", [1], "row 1: 'mail' needs a string or null, it is an array"),
        ("paid", "yes", "row 1: 'paid' needs true or false or null, it is 'yes'"),
        ("fee", "much", "row 1: 'fee' needs a number or null, it is 'much'"),
        ("junk", {}, "row 1: 'junk' needs one value, it is an object"),
    ],
)
def test_a_column_that_is_no_feature_is_checked_at_the_door(name: str, value: Any, words: str) -> None:
    said = refused(SCHEMA, **{name: value})
    assert words in said.sentence
    assert (said.status, said.field, said.rule) == (422, name, "wrong_type")


def test_a_contract_without_others_takes_any_scalar_for_them() -> None:
    old = schema(others=())
    for value in ("yesterday", 1.5, True, None, 7):
        assert asked(old, when=value, id=value)["when"] == value
    assert "'when' needs one value" in refused(old, when=[1]).sentence


@pytest.mark.parametrize("of", [SCHEMA, ACCEPTING])
def test_a_word_that_stood_for_a_missing_value_does_so_in_requests(of: Schema) -> None:
    for ask in (asked, celled):
        came = ask(of, land="NA", size="?", member="", id="", when="", mail="")
        assert [came[name] for name in ("land", "size", "member", "id", "when", "mail")] == [None] * 6
    assert asked(ACCEPTING, land="NAM")["land"] == "NAM"
    assert "it is null (" in refused(of, code="").sentence
    assert refused(of, code="").rule == refused(of, code=None).rule == "new_nulls"
    assert refused(of, size="NA").rule == "wrong_type"


@pytest.mark.parametrize("given", [[-999, 7.5], {"size": [-999, 7.5]}])
def test_a_number_that_stands_for_a_missing_value_does_so_in_requests(given: Any) -> None:
    of = schema(options={"na_values": given}, out_of_range="accept")
    for number in (-999, -999.0, "-999", 7.5):
        assert asked(of, size=number)["size"] is None
        assert celled(of, size=str(number))["size"] is None
    (row,), as_they_are = of.read(json.dumps([list((ROW | {"size": -999}).values())]).encode())
    assert row[0] is None
    assert not as_they_are  # the log must not keep it as it was sent
    assert asked(of, size=-998)["size"] == celled(of, size="-998")["size"] == -998
    strict = schema(options={"na_values": {"flag": ["true"], "member": [1]}})
    assert refused(strict, flag="true").rule == "new_nulls"
    assert asked(strict, flag="false")["member"] is True


def test_words_for_truth_values_are_those_of_the_table() -> None:
    of = schema(options={"true_values": ["Ja"], "false_values": ["Nein"]})
    said = [celled(of, member=text)["member"] for text in ("JA", "nein", "true", "1.0", "0", "")]
    assert said == [True, False, True, True, False, None]


@pytest.mark.parametrize(
    ("name", "value", "category"),
    [
        ("flag", True, "true"),
        ("flag", False, "false"),
        ("flag", "TRUE", "true"),
        ("grade", 3, "3"),
        ("grade", 3.0, "3"),
        ("grade", 4, "4.0"),
        ("grade", 4.0, "4.0"),
        ("code", 12, "12"),
    ],
)
def test_a_category_is_known_in_every_spelling_of_it(name: str, value: Any, category: str) -> None:
    for of in (SCHEMA, ACCEPTING):
        assert str(asked(of, **{name: value})[name]) in (category, str(value))
        assert list(of.outside(of.rows(json.dumps(ROW | {name: value}).encode()))) == []
    assert str(asked(SCHEMA, **{name: value})[name]) == category
    if isinstance(value, str):
        assert celled(SCHEMA, **{name: value})[name] == category


def test_a_code_is_only_what_it_is_spelt() -> None:
    for name, value in (("code", 7), ("code", "7"), ("code", "12.0"), ("grade", "03"), ("flag", 1), ("flag", "yes")):
        assert refused(SCHEMA, **{name: value}).rule == "unseen_category"
        with pytest.raises(Refused):
            celled(SCHEMA, **{name: value})


def test_a_csv_is_read_as_training_reads_it() -> None:
    for text, number in (("12.50", 12.5), (" 7", 7.0), ("1e-05", 1e-05), ("+7", 7.0), (".5", 0.5)):
        assert celled(SCHEMA, size=text)["size"] == number
    for text in ("1_000", "inf", "-Infinity", "٣", "1,5", "0x10", "-"):
        with pytest.raises(Refused, match="'size' needs a number from"):
            celled(SCHEMA, size=text)
    for text in ("nan", "NULL", "NA", ""):
        assert celled(SCHEMA, size=text)["size"] is None
    with pytest.raises(Refused, match="'size' needs a number from"):
        asked(SCHEMA, size="nan")
    assert celled(schema(options={"na_values": ["-"]}), size="-")["size"] is None
    for text, truth in (("TRUE", True), ("false", False), ("1", True), ("0", False), ("", None)):
        assert celled(SCHEMA, member=text)["member"] is truth
    with pytest.raises(Refused, match="'member' needs true or false or null, it is 'yes'"):
        celled(SCHEMA, member="yes")
    assert celled(schema(options={"true_values": ["Yes"], "false_values": ["No"]}), member="yes")["member"] is True
    quoted = table(ROW | {"land": "'DE'"})
    assert schema(options={"quotechar": "'"}).csv_rows(quoted) == SCHEMA.csv_rows(table(ROW | {"land": "DE"}))
    assert celled(SCHEMA, id=str(2**63 - 1), mail="007", when="31.12.2025 23:59", paid="TRUE", fee="1") == {
        **celled(SCHEMA),
        **{"id": 2**63 - 1, "mail": "007", "when": datetime(2025, 12, 31, 23, 59), "paid": True, "fee": 1.0},
    }


def test_a_time_is_read_in_the_format_of_training_and_in_iso_8601() -> None:
    for ask in (asked, celled):
        assert ask(SCHEMA, since="01/02/2020")["since"] == datetime(2020, 2, 1)
        assert ask(SCHEMA, since="2020-02-01")["since"] == datetime(2020, 2, 1)
    sentence = refused(SCHEMA, since="13/13/2020").sentence
    assert "'since' needs a time (%d/%m/%Y or ISO 8601) from" in sentence


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_may_have_another_separator_and_then_the_decimal_comma_of_the_table(separator: str) -> None:
    assert celled(SCHEMA, separator) == celled(SCHEMA)
    with pytest.raises(Refused, match="'size' needs a number from"):
        celled(SCHEMA, separator, size="7,5")
    commas = schema(options={"sep": ";", "decimal": ","})
    assert celled(commas, separator, size="7,5")["size"] == celled(commas, size="7.5")["size"] == 7.5
    with pytest.raises(Refused, match="it is '7,5'"):
        celled(commas, size="7,5")
    with pytest.raises(Refused, match=r"it is '1\.007,5'"):
        celled(commas, separator, size="1.007,5")


def test_a_name_that_stands_twice_is_refused_where_a_body_is_looked_at_again() -> None:
    body = json.dumps(ROW | {"land": "NA"}).encode()
    with pytest.raises(Refused, match="row 1 names 'size' twice"):
        SCHEMA.rows(body[:-1] + b', "size": 9}')


ODD = (
    "",
    "self",
    "id",
    "label",
    "score",
    "prediction",
    'a "b"',
    "back\\slash",
    "two\nlines",
    "tab\t",
    "x" * 400,
    "'",
    ",",
    ";",
)


def odd_schema(names: tuple[str, ...]) -> Schema:
    rows = pd.DataFrame({name: np.arange(COUNT) / 2 for name in names} | {"class": np.arange(COUNT) % 2})
    data = Data(source="made", target="class")
    contract: DataContract = learn_contract(rows, data, Contract())
    return Schema(Card.model_construct(recipe=Recipe(name="made", data=data), contract=contract), Serving())


@pytest.mark.parametrize("names", [ODD, ODD[:6], ("",), ('"',), ("two\nlines",)])
def test_a_column_may_be_called_anything(names: tuple[str, ...]) -> None:
    of = odd_schema(names)
    row = {name: place / 2 for place, name in enumerate(names)}
    values = tuple(row.values())
    assert of.rows(json.dumps(row).encode()) == of.rows(json.dumps([row]).encode()) == [values]
    assert of.rows(json.dumps([list(values)]).encode()) == of.csv_rows(table(row)) == [values]
    page = of.openapi("made", "1", explained=0, audit=False, token=False)
    assert [*page["components"]["schemas"]["Row"]["properties"]] == list(names)
    example = page["paths"]["/predict_csv"]["post"]["requestBody"]["content"]["text/csv"]["example"]
    assert of.csv_rows(example.encode()) == of.rows(json.dumps(of.example()).encode())
    for changed in ({names[0]: "x"}, {"other\n": 1}):
        with pytest.raises(Refused) as said:
            of.rows(json.dumps(row | changed).encode())
        assert "\n" not in said.value.sentence
        assert len(said.value.sentence) < 1000
    with pytest.raises(Refused, match="is missing; it needs a number"):
        of.rows(json.dumps({name: row[name] for name in names[1:]}).encode())


def test_a_number_that_stands_for_a_missing_value_does_so_in_json_too() -> None:
    low = SCHEMA.contract.columns[SCHEMA.features.index("size")].minimum
    assert isinstance(low, float)
    of = schema(options={"na_values": [low]})
    assert asked(of, size=low)["size"] is asked(of, size=str(low))["size"] is celled(of, size=str(low))["size"] is None
    (row,) = of.rows(json.dumps([[low if name == "size" else ROW[name] for name in of.features]]).encode())
    assert row[of.features.index("size")] is None
    assert asked(SCHEMA, size=low)["size"] == low


def test_a_time_with_a_decimal_comma_is_none_as_in_a_batch() -> None:
    assert refused(SCHEMA, since="2020-02-01T00:00:00,5").rule == "wrong_type"
    assert asked(SCHEMA, since="2020-02-01T00:00:00.5")["since"].microsecond == 500_000


@pytest.mark.parametrize("separator", [",", ";"])
def test_labels_may_stay_in_a_csv(separator: str) -> None:
    labelled = table(ROW | {DATA.target: "yes"}, separator=separator)
    assert SCHEMA.csv_rows(labelled) == SCHEMA.csv_rows(table(ROW))
