import io
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.config import Data, UserError
from loop.data.table import (
    as_features,
    as_kind,
    as_text,
    exact_hashes,
    fingerprint,
    infer_kinds,
    infer_task,
    row_hashes,
)

NAN = float("nan")
DATA = Data(source="made", target="y", id=("id",), time="at", drop=("junk",), kinds={"zip": "categorical"})


def hashes(values: object, dtype: object = None, name: str = "x") -> list[int]:
    rows = pd.DataFrame({name: pd.Series(values, dtype=dtype)})  # type: ignore[call-overload]
    return row_hashes(rows, [name]).tolist()  # type: ignore[no-any-return]


def mixed_rows(count: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "number": np.where(random.random(count) < 0.1, NAN, random.normal(size=count)),
            "whole": random.integers(-5, 5, count),
            "flag": random.random(count) < 0.5,
            "word": random.choice(np.array(["red", "green", None]), count),
            "day": pd.date_range("2024-01-01", periods=count, freq="7h"),
        }
    )


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1, 1], "binary"),
        (["no", "yes", "no"], "binary"),
        ([True, False], "binary"),
        ([1.5, 2.5], "binary"),
        ([0, 1, 2], "multiclass"),
        (["a", "b", "c"], "multiclass"),
        ([f"c{i}" for i in range(30)], "multiclass"),
        (list(range(21)), "regression"),
        ([0.5, 1.0, 2.0], "regression"),
        ([Decimal("0.5"), Decimal(1), Decimal(2)], "regression"),
    ],
)
def test_infers_the_task_from_the_target(values: list[object], task: str) -> None:
    assert infer_task(pd.Series(values, name="y"), None) == task


def test_a_given_task_wins_where_it_fits() -> None:
    assert infer_task(pd.Series([1, 2, 3, 4]), "regression") == "regression"
    assert infer_task(pd.Series(range(30)), "multiclass") == "multiclass"


@pytest.mark.parametrize(
    ("values", "task", "said"),
    [
        ([1, 1, 1], None, "at least two different values"),
        ([], None, "at least two different values"),
        ([1, None, 0, None], None, "2 of 4 have none"),
        ([1.0, np.inf, 0.5], None, "1 of 3 are none, e.g. inf; repair them$"),
        (["a", "b"], "regression", "use 'binary'"),
        ([1, 2, 3], "binary", "use 'multiclass'"),
        ([0, 1], "multiclass", "use 'binary'"),
        ([*(f"{euros}.50" for euros in range(60)), "Total"], None, "1 of 61 are none, e.g. 'Total'; repair them, or"),
        ([*(f"{euros},50" for euros in range(60)), "288"], None, "100% are numbers with a decimal comma; set data."),
    ],
)
def test_refuses_a_target_that_makes_no_sense(values: list[object], task: None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        infer_task(pd.Series(values, name="y", dtype=object), task)


def test_infers_kinds_of_feature_columns_only() -> None:
    rows = pd.DataFrame(
        {
            **{name: [1, 2, 3] for name in ("y", "id", "junk", "whole", "zip")},
            "at": pd.to_datetime(["2024-01-01"] * 3),
            "nullable": pd.array([1, None, 3], "Int64"),
            "decimal": pd.Series([Decimal(1), None, Decimal(2)], dtype=object),
            "flag": pd.array([True, None, False], "boolean"),
            "csv_flag": pd.Series([True, NAN, False], dtype=object),
            "day": [date(2024, 1, 1), None, date(2024, 1, 3)],
            "colour": ["red", "red", None],
            "level": pd.Categorical([1, 2, 2]),
            "note": ["a", "b", "c"],
            "empty": pd.Series([None] * 3, dtype=object),
            "empty_number": [NAN] * 3,
        }
    )
    assert infer_kinds(rows, DATA, max_categories=2) == {
        "whole": "numeric",
        "zip": "categorical",
        "nullable": "numeric",
        "decimal": "numeric",
        "flag": "boolean",
        "csv_flag": "boolean",
        "day": "datetime",
        "colour": "categorical",
        "level": "categorical",
        "note": "text",
        "empty": "categorical",
        "empty_number": "numeric",
    }


def test_names_a_column_that_is_not_there() -> None:
    rows = pd.DataFrame({"y": [1], "id": [1], "junk": [1], "zip": [1], "when": [1]})
    with pytest.raises(UserError, match=r"data\.time needs column 'at'; the table has id, junk"):
        infer_kinds(rows, DATA, 5)
    with pytest.raises(UserError, match="column 'a' stands twice"):
        infer_kinds(pd.DataFrame([[1, 2]], columns=["a", "a"]), DATA, 5)


def test_coerces_each_kind_and_keeps_its_input() -> None:
    rows = pd.DataFrame(
        {
            "n": pd.Series(["1.5", 2, None, "n/a", np.inf], dtype=object),
            "b": pd.Series([True, "false", 1, None, "maybe"], dtype=object),
            "c": pd.Series([3, 3.0, "3", None, True], dtype=object),
            "d": pd.Series(["2024-01-02", "2024-01-02T03:00+03:00", None, "soon", date(2024, 1, 2)]),
            "unused": 1,
        }
    ).set_axis([7, 7, 8, 9, 9])
    before = rows.copy(deep=True)
    kinds = {"d": "datetime", "n": "numeric", "b": "boolean", "c": "categorical"}
    features = as_features(rows, kinds)  # type: ignore[arg-type]
    assert list(features) == list(kinds)
    assert features.index.equals(rows.index)
    assert features.dtypes.astype(str).tolist() == ["datetime64[us]", "float64", "float64", "object"]
    np.testing.assert_array_equal(features["n"], [1.5, 2, NAN, NAN, NAN])
    np.testing.assert_array_equal(features["b"], [1, 0, 1, NAN, NAN])
    assert features["c"].tolist()[:3] + features["c"].tolist()[4:] == ["3", "3", "3", "True"]
    day = pd.Timestamp("2024-01-02")
    assert features["d"].tolist() == [day, day, pd.NaT, pd.NaT, day]
    pd.testing.assert_frame_equal(as_features(features, kinds), features)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(rows, before)


def test_a_row_alone_is_coerced_as_in_a_table() -> None:
    rows = mixed_rows()
    kinds = infer_kinds(rows, Data(source="made", target="y"), 50)
    whole = as_features(rows, kinds)
    alone = pd.concat([as_features(rows.iloc[[i]], kinds) for i in range(len(rows))])
    pd.testing.assert_frame_equal(alone, whole)


def test_features_need_their_columns() -> None:
    with pytest.raises(UserError, match="needs column 'age'; the table has aged; did you mean 'aged'"):
        as_features(pd.DataFrame({"aged": [1]}), {"age": "numeric"})
    with pytest.raises(ValueError, match="text"):
        as_features(pd.DataFrame({"a": ["b"]}), {"a": "text"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (3.0, "3"),
        (-0.0, "0"),
        (0.1, "0.1"),
        (Decimal("3.00"), "3"),
        (np.float64(1e300), "1e+300"),
        (np.True_, "True"),
        (10**18 + 1, "1000000000000000001"),
        (date(2024, 1, 2), "2024-01-02"),
    ],
)
def test_a_value_has_one_spelling(value: object, text: str) -> None:
    assert as_text(value) == text


VARIANTS: list[list[list[int]]] = [
    [hashes([1, 2]), hashes([1.0, 2.0]), hashes([1, 2], "Int64"), hashes([1, 2], object), hashes(["1", "2"])],
    [hashes([1, 2]), hashes([1, 2], "int8"), hashes([1, 2], "uint64"), hashes([1, 2], "category")],
    [hashes(["a", None]), hashes(["a", NAN], object), hashes(["a", None], "category"), hashes(["a", pd.NA])],
    [hashes([0.0]), hashes([-0.0]), hashes([0]), hashes([False]), hashes(["0"]), hashes([Decimal("0.0")])],
    [
        hashes([None], object),
        hashes([NAN]),
        hashes([pd.NaT]),
        hashes([pd.NA], "Int64"),
        hashes([None], "str"),
    ],
    [hashes([True, None], "boolean"), hashes([True, None], object), hashes(["True", None]), hashes([1, NAN])],
    [hashes([0.1, 1e-300]), hashes(["0.1", "1e-300"])],
    [
        hashes([2**53 + 1]),
        hashes([str(2**53 + 1)]),
        hashes([2**53 + 1], "UInt64"),
        hashes([2**53 + 1], object),
    ],
    [hashes([2.0**60]), hashes([2**60]), hashes([str(2**60)])],
    [
        hashes(["2024-01-02T03:04:05"], "datetime64[s]"),
        hashes(["2024-01-02T03:04:05"], "datetime64[ns]"),
        hashes(["2024-01-02T03:04:05+00:00"], "datetime64[ms, UTC]"),
        hashes(["2024-01-02T05:04:05+02:00"]),
        hashes(["2024-01-02 03:04:05"], "category"),
    ],
]


@pytest.mark.parametrize("variants", VARIANTS)
def test_a_value_hashes_alike_however_it_is_stored(variants: list[list[int]]) -> None:
    assert all(variant == variants[0] for variant in variants)


def test_different_values_hash_differently() -> None:
    values = [1, 2, -1, 0.5, "a", "A", " a", 2**53, 2**53 + 1, 10**18, 10**18 + 1, None, "inf", pd.Timestamp(0)]
    values += ["12345678901234567890", "12345678901234567891", "2024-01-02x", "1.2.3"]
    assert len(set(hashes(values, object))) == len(values)
    spelt = ["007", "7.0", " 7", "7", "nan", "NA", "true", "1e2", "100", "2024-01-02", "02.01.2024", "1,5", "1.5"]
    exact = exact_hashes(pd.DataFrame({"x": pd.Series(values + spelt, dtype=object)}), ["x"])
    assert len(set(exact.tolist())) == len(values) + len(spelt)
    assert hashes([1], name="a") != hashes([1], name="b")
    swapped = pd.DataFrame({"a": [1, 2], "b": [2, 1]})
    assert len(set(row_hashes(swapped, ["a", "b"]).tolist())) == 2


def test_hashes_ignore_the_order_of_rows_and_columns_and_the_index() -> None:
    rows = mixed_rows()
    order = np.random.default_rng(0).permutation(len(rows))
    columns = ["number", "whole", "flag", "word", "day"]
    np.testing.assert_array_equal(
        row_hashes(rows.iloc[order][columns[::-1]], columns[::-1]), row_hashes(rows, columns)[order]
    )


def test_hashes_are_those_of_the_first_release() -> None:
    """Rows would change sides if these changed: whoever changes them makes every split new."""
    rows = pd.DataFrame(
        {
            "n": [1.25, NAN],
            "i": [7, 2**60],
            "s": ["é", None],
            "t": pd.Series(["1970-01-01", None], dtype="datetime64[us]"),
        }
    )
    assert row_hashes(rows, ["n", "i", "s", "t"]).tolist() == GOLDEN
    assert fingerprint(rows) == GOLDEN_FINGERPRINT


GOLDEN = [16090264967938532205, 11023515593815850702]
GOLDEN_FINGERPRINT = "764f6134b459fc4b1c3ddd5d07840502e51ec165d12be946576ba2cb05b4cae8"


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(st.lists(st.one_of(st.none(), st.integers(-(2**53), 2**53)), min_size=1))
def test_whole_numbers_hash_alike_in_every_dtype(values: list[int | None]) -> None:
    assert hashes(values, "Int64") == hashes(values, "float64") == hashes(values, object)


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(st.lists(st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.booleans(), st.dates())))
def test_any_column_can_be_hashed_and_coerced(values: list[object]) -> None:
    column = pd.Series(values, dtype=object, name="x")
    assert len(hashes(values, object)) == len(values)
    for kind in ("numeric", "boolean", "categorical", "datetime", "text"):
        once = as_kind(column, kind)
        assert not once[column.isna()].notna().any()
        pd.testing.assert_series_equal(as_kind(once, kind), once)


def test_lists_count_as_text() -> None:
    assert hashes([[1, 2], [1, 2], None], object)[0] == hashes(["[1, 2]"])[0]


def test_a_table_survives_storage_with_its_fingerprint() -> None:
    rows = mixed_rows().round({"number": 6})
    parquet = io.BytesIO()
    rows.to_parquet(parquet)
    assert fingerprint(pd.read_parquet(parquet)) == fingerprint(rows)


def test_the_last_bit_that_a_csv_reader_loses_hardly_ever_counts() -> None:
    rows = pd.DataFrame({"x": np.random.default_rng(0).normal(size=10_000)})
    read = pd.read_csv(io.StringIO(rows.to_csv(index=False)), float_precision="high")
    assert (read["x"] != rows["x"]).mean() > 0.1
    assert (row_hashes(read, ["x"]) != row_hashes(rows, ["x"])).mean() < 0.001


def test_a_fingerprint_tells_tables_apart() -> None:
    rows = mixed_rows()
    others = [
        rows[::-1],
        rows[:-1],
        rows[list(rows)[::-1]],
        rows.rename(columns={"word": "Word"}),
        rows.assign(whole=rows["whole"].where(rows.index != 3, 99)),
    ]
    assert len({fingerprint(table) for table in [rows, *others]}) == len(others) + 1
    assert fingerprint(rows.set_index(rows.index + 5)) == fingerprint(rows)
