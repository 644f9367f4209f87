"""One reading of a table: rows are the same in every format, whole, in parts and alone, whatever comes beside them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from config import Contract, Data, Split
from core.contract import DataContract, learn_contract
from core.sources import read_rows, read_table
from core.split import resolve
from core.table import as_features, fingerprint, row_hashes

ROWS = st.integers(4, 25)
OFTEN = settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Column(NamedTuple):
    """Hold a column as formats with types have it, and as texts."""

    values: list[Any]
    texts: list[str]


def column(values: list[Any], spell: Any = str) -> Column:
    return Column(values, ["" if value is None else spell(value) for value in values])


def gaps(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), elements, elements, elements)


printable = st.characters(exclude_categories=["Cs", "Cc"])
words = st.text(printable, min_size=1, max_size=6).filter(lambda text: bool(text.strip()))
KINDS: dict[str, tuple[st.SearchStrategy[Any], Any, list[Any]]] = {
    "whole": (st.integers(-1000, 1000), str, [7]),
    "huge": (st.integers(2**53, 2**63 - 1), str, [2**53 + 1]),
    "fraction": (st.floats(allow_nan=False, allow_infinity=False, width=64), repr, [0.5]),
    "flag": (st.booleans(), lambda value: str(value).lower(), [True]),
    "code": (st.sampled_from(["007", "7", "07", "1.10", "1.1", "1E5", "true", "NA"]), str, ["007", "x"]),
    "word": (words, str, ["NA", "None", "a b"]),
    "day": (st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)), str, [datetime(2024, 1, 31, 10, 5)]),
    "german": (st.dates().map(lambda day: f"{day.day:02}.{day.month:02}.{day.year:04}"), str, ["31.01.2024"]),
}
ODD = ["A1", "7,5", "1E5", "true", "03/04/2024", "x\ny"]
names = st.text(printable, min_size=1, max_size=6).map(str.strip).filter(bool)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Column]:
    """Draw a table: an id, a target, and columns of any kind with gaps under any name."""
    count = draw(ROWS)
    made = {"the id": column([f"0{row}" for row in range(count)])}
    made["the target"] = column([row % 2 for row in range(count)])
    for name in draw(st.lists(names.filter(lambda name: name not in made), min_size=1, max_size=5, unique=True)):
        elements, spell, sure = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        drawn = draw(st.lists(gaps(elements), min_size=count, max_size=count))
        made[name] = column([*sure, *drawn][:count], spell)
    return {name: made[name] for name in draw(st.permutations(list(made)))}


def written(table: dict[str, Column], folder: Path) -> dict[str, Data]:
    """Write a table in every format; return where it is."""
    frame = pd.DataFrame({name: pd.Series(column.values, dtype=object) for name, column in table.items()})
    typed = frame.infer_objects()
    for name, column in table.items():
        if any(isinstance(value, int) and abs(value) >= 2**53 for value in column.values):
            typed[name] = pd.array(column.values, dtype="Int64")
    pd.DataFrame({name: column.texts for name, column in table.items()}).to_csv(folder / "t.csv", index=False)
    typed.to_parquet(folder / "t.parquet")
    records = [dict(zip(table, row, strict=True)) for row in zip(*(c.values for c in table.values()), strict=True)]
    (folder / "t.jsonl").write_text("".join(json.dumps(record, default=str) + "\n" for record in records))
    (folder / "t.db").unlink(missing_ok=True)
    engine = sa.create_engine(f"sqlite:///{folder}/t.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        marks = ", ".join("?" for _ in table)
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in table)
        connection.exec_driver_sql(f"create table t({quoted})")
        rows = [tuple(str(v) if isinstance(v, datetime) else v for v in record.values()) for record in records]
        connection.exec_driver_sql(f"insert into t values ({marks})", rows)
    more = {"target": "the target", "id": ("the id",)}
    found = {ending: Data(source=str(folder / f"t.{ending}"), **more) for ending in ("csv", "parquet", "jsonl")}
    return found | {"sql": Data(source=f"sqlite:///{folder}/t.db", query="select * from t", **more)}


def learned(data: Data) -> tuple[pd.DataFrame, DataContract]:
    rows, reading = read_table(data)
    return rows, learn_contract(rows, data, Contract(), reading=reading)


@OFTEN
@given(tables())
def test_a_table_is_the_same_in_every_format(tmp_path: Path, table: dict[str, Column]) -> None:
    sources = written(table, tmp_path)
    rows = read_rows(sources["csv"])
    _, contract = learned(sources["csv"])
    everything = Data(source="made", target="the target")
    for ending, data in sources.items():
        # SQLite knows no truth values: 0 and 1 are some once a contract says so.
        found = read_rows(data, contract=contract if ending == "sql" else None)
        assert fingerprint(found) == fingerprint(rows), ending
        assert_frame_equal(found, rows, check_dtype=False)
        for rule in (resolve(rows, data, Split()), resolve(rows, everything, Split())):
            assert row_hashes(found, rule.identity).tolist() == row_hashes(rows, rule.identity).tolist()
            assert rule.held_out(read_rows(data)).tolist() == rule.held_out(rows).tolist()


@OFTEN
@given(tables(), st.data())
def test_a_row_is_read_alone_and_in_any_part_as_in_the_whole(
    tmp_path: Path, table: dict[str, Column], data: st.DataObject
) -> None:
    sources = written(table, tmp_path)
    rows, contract = learned(sources["csv"])
    order = data.draw(st.permutations(range(len(rows))))
    parts = [order[: len(order) // 2], order[len(order) // 2 :], *([row] for row in order[:3])]
    for part in parts:
        some = {name: Column(*([of[row] for row in part] for of in both)) for name, both in table.items()}
        for source in written(some, tmp_path).values():
            found = read_rows(source, contract=contract)
            whole = rows.iloc[part].reset_index(drop=True)
            features = as_features(found, contract.features)
            assert_frame_equal(features, as_features(whole, contract.features), check_exact=True)
            assert row_hashes(found, list(table)).tolist() == row_hashes(whole, list(table)).tolist()
            assert found["the id"].tolist() == whole["the id"].tolist()


@OFTEN
@given(tables(), st.lists(st.one_of(words, st.sampled_from(ODD)), min_size=7))
def test_another_row_never_moves_one(tmp_path: Path, table: dict[str, Column], odd: list[str]) -> None:
    everything = Data(source=str(tmp_path / "t.csv"), target="the target")
    written(table, tmp_path)
    rows = read_rows(everything)
    sides = resolve(rows, everything, Split()).held_out(rows)
    texts = pd.DataFrame({name: column.texts for name, column in table.items()})
    texts.loc[len(texts)] = odd[: len(texts.columns)]
    texts.to_csv(tmp_path / "t.csv", index=False)
    grown = read_rows(everything)
    assert resolve(grown, everything, Split()).held_out(grown)[: len(rows)].tolist() == sides.tolist()


@pytest.mark.parametrize("texts", [["03/04/2024", "13/04/2024"], ["1.5", "2.25"], ["true", "false"], ["000123", "7"]])
def test_a_value_of_another_kind_moves_no_row_and_changes_no_other(tmp_path: Path, texts: list[str]) -> None:
    data = Data(source=str(tmp_path / "t.csv"), target="y")
    hashes = []
    for more in ([], ["A1"]):
        lines = [f"{text},{place % 2}" for place, text in enumerate([*texts, *texts, *more])]
        (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines]))
        hashes.append(row_hashes(read_rows(data), ["x"])[: 2 * len(texts)].tolist())
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(texts)


def test_settled_numbers_keep_their_digits(tmp_path: Path) -> None:
    ids = [10**18 + 97 * row for row in range(50)]
    lines = ["k,x,y", *(f"{'' if row == 7 else key},{row},{row % 2}" for row, key in enumerate(ids))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = read_rows(Data(source=str(tmp_path / "t.csv"), target="y", id=("k",)))
    assert rows["k"].dtype == "Int64"
    assert [key for row, key in enumerate(rows["k"]) if row != 7] == [key for row, key in enumerate(ids) if row != 7]
    assert np.isnan(rows["k"].astype(object)[7]) if isinstance(rows["k"][7], float) else rows["k"].isna()[7]
