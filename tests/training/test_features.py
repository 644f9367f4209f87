from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline

from loop.config import Kind
from loop.data.table import as_features
from loop.training.features import CALENDAR, CalendarParts, Categories, preprocessing


def fitted(kind: Kind, values: list[Any]) -> ColumnTransformer:
    return preprocessing({"x": kind}).fit(as_features(pd.DataFrame({"x": values}), {"x": kind}))


def prepared(transformer: ColumnTransformer, kind: Kind, values: list[Any]) -> npt.NDArray[np.float64]:
    rows = pd.DataFrame({"x": pd.Series(values, dtype=object)})
    return np.asarray(transformer.transform(as_features(rows, {"x": kind})), np.float64)


def test_a_missing_number_is_the_median_and_says_so() -> None:
    numbers = fitted("numeric", [1.0, 2.0, 9.0, None])
    gap, median, other = prepared(numbers, "numeric", [None, 2.0, 5.0])
    assert gap[0] == median[0] != other[0]
    assert gap[1] != median[1] == other[1]
    gap, median = prepared(fitted("numeric", [1.0, 2.0, 9.0]), "numeric", [None, 2.0])
    assert gap.tolist() == median.tolist()
    assert len(gap) == 1  # no column about gaps that training never had


def test_a_column_without_any_number_stays_in_place() -> None:
    assert prepared(fitted("numeric", [None, None]), "numeric", [3.0, None]).shape == (2, 2)


def test_booleans_are_numbers_with_gaps() -> None:
    no, yes, gap = prepared(fitted("boolean", [True, False, True, None]), "boolean", [False, True, None])
    assert no[0] < yes[0] == gap[0]
    assert gap[1] > yes[1]


def test_a_missing_category_is_a_category() -> None:
    colours = fitted("categorical", ["rød", "blå", None])
    rows = prepared(colours, "categorical", ["rød", "blå", None])
    assert (rows.sum(axis=1) == 1).all()
    assert len(np.unique(rows, axis=0)) == 3


def test_rare_and_unseen_categories_share_a_column() -> None:
    colours = fitted("categorical", ["rød"] * 400 + ["blå"] * 400 + ["grøn", "gul"])
    rows = prepared(colours, "categorical", ["grøn", "gul", "violet", None])
    assert (rows == rows[0]).all()
    assert rows[0].sum() == 1
    assert rows.shape == (4, 3)
    plain = fitted("categorical", ["rød", "blå"])
    assert prepared(plain, "categorical", ["violet"]).tolist() == [[0, 0]]


def test_a_time_unfolds_into_days_and_calendar() -> None:
    times = ["1970-01-02T06:00:00", "2024-02-29", "0001-01-01", "9999-12-31T23:59:59", None]
    rows = as_features(pd.DataFrame({"t": times}), {"t": "datetime"})
    parts = CalendarParts().fit(rows)
    found = parts.transform(rows)
    assert found[0].tolist() == [1.25, 1, 4, 6]
    assert found[1].tolist() == [19782, 2, 3, 0]
    assert found[2:4, 0].round().tolist() == [-719162, 2932897]
    assert np.isnan(found[4]).all()
    assert list(parts.get_feature_names_out()) == [f"t_{part}" for part in CALENDAR]


def test_the_same_moment_is_the_same_in_any_unit() -> None:
    moment = pd.Series(pd.to_datetime(["2024-02-29 12:30"]))
    units = [
        as_features(pd.DataFrame({"t": moment.dt.as_unit(unit)}), {"t": "datetime"}) for unit in ("s", "ms", "us", "ns")
    ]
    assert len({tuple(CalendarParts().fit_transform(rows)[0]) for rows in units}) == 1


@pytest.mark.parametrize("step", [CalendarParts(), Categories()])
def test_the_steps_are_scikit_learn_citizens(step: Any) -> None:
    rows = pd.DataFrame({"größe": pd.to_datetime(["2024-01-01", "2024-01-02"])})
    named = make_pipeline(step).fit(rows).get_feature_names_out()
    assert all(name.startswith("größe") for name in named)


def test_no_column_of_a_kind_is_no_fault() -> None:
    numbers = fitted("numeric", [1.0, 2.0])
    assert prepared(numbers, "numeric", [1.0, 2.0]).shape == (2, 1)
