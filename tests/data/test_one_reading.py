"""One reading of a table: rows are the same in every format, whole, in parts and alone, whatever comes beside them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import ODD, Column, tables, words, written
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from loop.config import Contract, Data, Split
from loop.data.contract import DataContract, learn_contract
from loop.data.sources import read_rows, read_table
from loop.data.split import resolve
from loop.data.table import as_features, fingerprint, row_hashes

OFTEN = settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


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


@pytest.mark.parametrize("texts", [["03/04/2024", "13/04/2024"], ["1.5", "2.25"], ["true", "false"], ["000123", "7"],
                          [str(2**60 + 1), str(2**60 + 3)], [str(2**70 + 1), str(2**70 + 3)]])  # fmt: skip
def test_a_value_of_another_kind_moves_no_row_and_changes_no_other(tmp_path: Path, texts: list[str]) -> None:
    data = Data(source=str(tmp_path / "t.csv"), target="y")
    hashes = []
    for more in ([], ["A1"], ["1.5"], ["inf"]):
        lines = [f"{text},{place % 2}" for place, text in enumerate([*texts, *texts, *more])]
        (tmp_path / "t.csv").write_text("\n".join(["x,y", *lines]))
        hashes.append(row_hashes(read_rows(data), ["x"])[: 2 * len(texts)].tolist())
    assert hashes == hashes[:1] * 4
    assert len(set(hashes[0])) == len(texts)


def test_settled_numbers_keep_their_digits(tmp_path: Path) -> None:
    ids = [10**18 + 97 * row for row in range(50)]
    lines = ["k,x,y", *(f"{'' if row == 7 else key},{row},{row % 2}" for row, key in enumerate(ids))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = read_rows(Data(source=str(tmp_path / "t.csv"), target="y", id=("k",)))
    assert rows["k"].dtype == "Int64"
    assert [key for row, key in enumerate(rows["k"]) if row != 7] == [key for row, key in enumerate(ids) if row != 7]
    assert np.isnan(rows["k"].astype(object)[7]) if isinstance(rows["k"][7], float) else rows["k"].isna()[7]
