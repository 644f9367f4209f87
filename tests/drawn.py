"""Draw small tables of any kind, and write each in every format."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import sqlalchemy as sa
from hypothesis import strategies as st

from loop.config import Data

ROWS = st.integers(4, 25)


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
def tables(draw: st.DrawFn, rows: int | None = None, largest: float | None = None) -> dict[str, Column]:
    """Draw a table: an id, a target, and columns of any kind with gaps under any name; fractions up to a largest."""
    bounded = None if largest is None else st.floats(-largest, largest)
    count = rows or draw(ROWS)
    made = {"the id": column([f"0{row}" for row in range(count)])}
    made["the target"] = column([row % 2 for row in range(count)])
    for name in draw(st.lists(names.filter(lambda name: name not in made), min_size=1, max_size=5, unique=True)):
        kind = draw(st.sampled_from(sorted(KINDS)))
        elements, spell, sure = KINDS[kind]
        elements = bounded if bounded is not None and kind == "fraction" else elements
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
