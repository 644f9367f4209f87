from typing import Any

import pandas as pd
import pytest

from core.categories import category_of
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
