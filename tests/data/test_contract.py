from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import CONTRACT, DATA, ROWS, SETTINGS, learned

from loop.config import UserError
from loop.data.contract import DataContract, encode_target, learn_contract, shares_of


def test_learns_what_the_columns_held() -> None:
    assert CONTRACT.features == {
        "age": "numeric",
        "amount": "numeric",
        "gap": "numeric",
        "member": "boolean",
        "colour": "categorical",
        "since": "datetime",
    }
    assert CONTRACT.left_out == {"junk": "dropped", "key": "id", "at": "time"}
    assert (CONTRACT.task, CONTRACT.classes, CONTRACT.positive) == ("binary", ("no", "yes"), "yes")
    assert (CONTRACT.rows, CONTRACT.id, CONTRACT.time) == (400, ("key",), "at")
    age, amount, gap, member, colour, since = CONTRACT.columns
    assert (age.integer, amount.integer, member.integer) == (True, False, False)
    assert (age.minimum, age.maximum) == (ROWS["age"].min(), ROWS["age"].max())
    assert gap.nullable
    assert gap.missing == pytest.approx(ROWS["gap"].isna().mean())
    assert len(amount.edges) == 9
    assert amount.shares == pytest.approx([0.1] * 10)
    assert amount.mean == pytest.approx(ROWS["amount"].mean())
    assert member.edges == (0.0,)
    assert member.shares[1] == pytest.approx(ROWS["member"].mean())
    assert colour.categories == ("blue", "green", "red")
    assert sum(colour.shares) == pytest.approx(1)
    assert since.minimum == ROWS["since"].min().isoformat()
    assert CONTRACT.target_statistics.categories == CONTRACT.classes


def test_travels_as_json() -> None:
    assert DataContract.model_validate_json(CONTRACT.model_dump_json()) == CONTRACT
    regression = learned(ROWS, "amount")
    assert DataContract.model_validate_json(regression.model_dump_json()) == regression
    assert regression.classes == ()
    assert len(regression.target_statistics.edges) == 9


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(0, 3)), min_size=2))
def test_every_reference_bin_holds_rows_and_shares_are_complete(values: list[float | None]) -> None:
    present = {value for value in values if value is not None}
    if len(present) < 2:
        return
    rows = pd.DataFrame(
        {"x": pd.Series(values, dtype="float64"), "y": [0, 1] * (len(values) // 2) + [0] * (len(values) % 2)}
    )
    column = learned(rows).columns[0]
    assert min(column.shares) > 0
    assert sum(column.shares) == pytest.approx(1)
    assert list(column.edges) == sorted(set(column.edges))
    np.testing.assert_array_equal(shares_of(rows["x"], column), column.shares)


def test_shares_of_other_rows_show_unseen_and_shifted_values() -> None:
    _, amount, _, _, colour, since = CONTRACT.columns
    assert shares_of(pd.Series([1e9, 1e9]), amount)[-1] == 1
    assert shares_of(pd.Series(["red", "pink"]), colour).sum() == 0.5
    assert shares_of(pd.Series([None, None], dtype=object), colour).sum() == 0
    assert shares_of(ROWS["since"], since).shape == (0,)


def test_leaves_out_what_teaches_nothing() -> None:
    rows = ROWS.assign(same=5, void=None, note=[f"note {i}" for i in range(len(ROWS))], half=None)
    rows.loc[3, "half"] = 1.0
    contract = learn_contract(rows, DATA, SETTINGS)
    assert contract.left_out == {**CONTRACT.left_out, "same": "constant", "void": "empty", "note": "text"}
    assert "half" in contract.features
    with pytest.raises(UserError, match=r"none is left; left out: same \(constant\)"):
        learned(rows[["same", "y"]])


@pytest.mark.parametrize(
    ("labels", "positive", "classes"),
    [
        ([0, 1, 1], None, ("0", "1")),
        ([0.0, 1.0, 1.0], 0, ("1", "0")),
        (["no", "yes", "no"], "no", ("yes", "no")),
        ([True, False, True], 1, ("False", "True")),
        ([0, 1, 1], True, ("0", "1")),
        ([2, 10, 2], None, ("2", "10")),
        ([2, 10, 1], None, ("1", "2", "10")),
    ],
)
def test_orders_classes_with_the_positive_last(labels: list[Any], positive: Any, classes: tuple[str]) -> None:
    rows = pd.DataFrame({"x": range(len(labels)), "y": labels})
    assert learned(rows, positive=positive).classes == classes


def test_refuses_a_positive_class_that_is_not_there() -> None:
    rows = pd.DataFrame({"x": [1, 2, 3], "y": ["no", "yes", "yes"], "z": [1, 2, 3]})
    with pytest.raises(UserError, match=r"one of the classes no, yes, it is 'si'"):
        learned(rows, positive="si")
    with pytest.raises(UserError, match="'z' is multiclass; leave it out"):
        learned(rows, "z", positive=1)


@pytest.mark.parametrize("labels", [[0, 1], [0.0, 1.0], ["0", "1"], ["0.0", "1.0"], [False, True], ["false", "true"]])
@pytest.mark.parametrize("trained", [[0, 1], [False, True], ["0", "1"]])
def test_labels_mean_the_same_however_they_are_spelt(labels: list[Any], trained: list[Any]) -> None:
    contract = learned(pd.DataFrame({"x": range(4), "y": trained * 2}))
    encoded = encode_target(pd.Series(labels, dtype=object), contract)
    assert encoded.dtype == np.int64
    assert encoded.tolist() == [0, 1]


def test_encodes_the_target_for_each_task() -> None:
    assert encode_target(pd.Series(["yes", "no"]), CONTRACT).tolist() == [1, 0]
    many = learned(pd.DataFrame({"x": range(3), "y": ["b", "c", "a"]}))
    assert encode_target(pd.Series(["c", "a"]), many).tolist() == [2, 0]
    assert encode_target(pd.Series(["1.5", 2]), learned(ROWS, "amount")).tolist() == [1.5, 2.0]


def test_refuses_labels_it_does_not_know() -> None:
    with pytest.raises(UserError, match=r"one of no, yes in every row, 2 of 3 hold something else, e\.g\. 'maybe'"):
        encode_target(pd.Series(["yes", "maybe", None]), CONTRACT)
    with pytest.raises(UserError, match="needs a number in every row, 1 of 2"):
        encode_target(pd.Series([1, "many"], dtype=object), learned(ROWS, "amount"))
