from typing import Any

import pandas as pd
import pytest

from config import Contract, Data
from core.categories import category_of
from core.checks import check_rows
from core.contract import counts_of, learn_contract
from core.dtypes import settle
from core.table import as_kind


@pytest.mark.parametrize(
    ("value", "known", "category"),
    [
        (3, ("3", "3.0"), "3"),
        (3.0, ("3", "3.0"), "3"),
        (3, ("3.0",), "3.0"),
        ("3", ("3.0",), "3.0"),
        (3.0, ("3.0",), "3.0"),
        ("3.0", ("3",), "3.0"),
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
