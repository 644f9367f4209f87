from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from loop.config import Contract, Data
from loop.data.categories import category_of
from loop.data.checks import check_rows
from loop.data.contract import counts_of, learn_contract
from loop.data.dtypes import settle
from loop.data.sources import read_rows
from loop.data.table import as_features, as_kind

ENDINGS = ("csv", "parquet")


@pytest.mark.parametrize(
    ("value", "known", "category"),
    [
        (3, ("3", "3.0"), "3"),
        (3.0, ("3", "3.0"), "3"),
        (3, ("3.0",), "3.0"),
        ("3", ("3.0",), "3.0"),
        (3.0, ("3.0",), "3.0"),
        ("3.0", ("3", "2.5"), "3"),
        ("3.0", ("3", "007"), "3.0"),
        ("3.0", ("3", "1.10"), "3.0"),
        ("3.0", ("3", "x"), "3.0"),
        ("03.0", ("3",), "03.0"),
        (7, ("007",), "7"),
        ("007", ("7",), "007"),
        ("007", ("7", "007"), "007"),
        (True, ("False", "True"), "True"),
        (True, ("false", "true"), "true"),
        (False, ("FALSE", "TRUE"), "FALSE"),
        ("true", ("False", "True"), "True"),
        ("True", ("TRUE", "true"), "true"),
        (1, ("False", "True"), "1"),
        (1.5, ("1.5", "1.50"), "1.5"),
        ("new", ("old",), "new"),
    ],
)
def test_a_spelling_is_the_category_that_is_known_or_itself(value: Any, known: tuple[str, ...], category: str) -> None:
    values = pd.Series([value], dtype=object)
    assert as_kind(values, "categorical", known).tolist() == [category]
    assert category_of(category, known) == category


def test_an_empty_text_is_a_missing_category() -> None:
    assert as_kind(pd.Series(["", "a", None], dtype=object), "categorical", ("a",)).isna().tolist() == [
        True,
        False,
        True,
    ]


def test_a_batch_and_a_log_know_a_category_however_their_format_spells_it() -> None:
    rows = pd.DataFrame({"plan": ["true", "false"] * 20, "rank": ["1.0", "2.0"] * 20, "y": [0, 1] * 20})
    kinds = dict.fromkeys(("plan", "rank"), "categorical")
    data, settings = Data.model_validate({"source": "made", "target": "y", "kinds": kinds}), Contract()
    contract = learn_contract(rows, data, settings)
    typed = rows.assign(plan=rows["plan"] == "true", rank=rows["rank"].astype(float))
    assert check_rows(typed, contract, settings) == ()
    for column in contract.columns:
        assert counts_of(typed[column.name], column)[1].tolist() == [20, 20, 0]
        settled = settle(typed[column.name], contract.known[column.name])
        assert (settled.values.tolist(), settled.notes) == (rows[column.name].tolist(), ())


@pytest.mark.parametrize("learned", ENDINGS)
@pytest.mark.parametrize("scored", ENDINGS)
def test_floats_that_the_config_calls_categories_are_the_same_ones_in_every_format(
    tmp_path: Path, learned: str, scored: str
) -> None:
    rows = pd.DataFrame({"level": [1.0, 2.5, None, 4.0] * 10, "y": [0, 1] * 20})
    rows.to_csv(tmp_path / "t.csv", index=False)
    rows.to_parquet(tmp_path / "t.parquet")
    by = {end: Data(source=str(tmp_path / f"t.{end}"), target="y", kinds={"level": "categorical"}) for end in ENDINGS}
    contract = learn_contract(read_rows(by[learned]), by[learned], Contract())
    found = read_rows(by[scored], contract=contract)
    assert check_rows(found, contract, Contract()) == ()
    features = as_features(found, contract.features, contract.categories)
    assert features["level"].dropna().unique().tolist() == list(contract.columns[0].categories)
