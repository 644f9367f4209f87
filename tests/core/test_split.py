from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import Data, Split, UserError
from core.split import SplitRule, check_sides, folds, resolve
from core.table import row_hashes

DATA = Data(source="made", target="y")
TIMED = Data(source="made", target="y", id=("key",), time="at")
shares = st.floats(0.01, 0.99)
seeds = st.integers(0, 10_000)


def made(count: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame({"a": random.normal(size=count), "b": random.integers(0, 9, count), "y": 0})


def by_hash(holdout: float = 0.25, seed: int = 0, identity: tuple[str, ...] = ("a", "b")) -> SplitRule:
    return SplitRule(identity=identity, holdout=holdout, seed=seed)


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(st.data(), shares, seeds)
def test_a_row_never_changes_side(data: st.DataObject, holdout: float, seed: int) -> None:
    rule, rows = by_hash(holdout, seed), made(60)
    order = data.draw(st.permutations(range(60)))
    kept = data.draw(st.integers(1, 60))
    grown = pd.concat([rows.iloc[order[:kept]], made(20, seed=1)])[["y", "b", "a"]]
    np.testing.assert_array_equal(rule.held_out(grown)[:kept], rule.held_out(rows)[order[:kept]])
    np.testing.assert_array_equal(folds(grown, rule, 5)[:kept], folds(rows, rule, 5)[order[:kept]])


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(seeds)
def test_duplicates_stay_together_also_when_their_labels_disagree(seed: int) -> None:
    rows = made(50)
    rule = resolve(rows, DATA, Split(seed=seed))
    assert rule.identity == ("a", "b")
    again = rows.assign(y=1)
    np.testing.assert_array_equal(rule.held_out(again), rule.held_out(rows))
    np.testing.assert_array_equal(folds(again, rule, 4), folds(rows, rule, 4))


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(shares, shares, seeds)
def test_a_larger_holdout_only_takes_from_train(one: float, other: float, seed: int) -> None:
    rows, (less, more) = made(200), sorted((one, other))
    assert not (by_hash(less, seed).held_out(rows) & ~by_hash(more, seed).held_out(rows)).any()


@pytest.mark.parametrize("holdout", [0.05, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_the_share_is_within_binomial_bounds(holdout: float, seed: int) -> None:
    rows = pd.DataFrame({"key": np.arange(20_000)})
    share = by_hash(holdout, seed, ("key",)).held_out(rows).mean()
    assert abs(share - holdout) < 4 * np.sqrt(holdout * (1 - holdout) / 20_000)


def test_folds_are_even_and_say_nothing_about_sides_seeds_or_other_folds() -> None:
    rows = pd.DataFrame({"key": np.arange(40_000)})
    rule = by_hash(0.5, identity=("key",))
    fold, side = folds(rows, rule, 5), rule.held_out(rows)
    assert fold.dtype == np.int64
    for chosen in (slice(None), side, ~side, by_hash(0.5, 1, ("key",)).held_out(rows)):
        counts = np.bincount(fold[chosen], minlength=5)
        expected = counts.sum() / 5
        assert ((counts - expected) ** 2 / expected).sum() < 25  # chi², 4 degrees: beyond 5 in 100,000
    assert abs((side == by_hash(0.5, 1, ("key",)).held_out(rows)).mean() - 0.5) < 0.01


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_a_key_splits_alike_as_int_float_or_text(keys: list[int]) -> None:
    rule = by_hash(0.5, identity=("key",))
    sides = [
        rule.held_out(pd.DataFrame({"key": pd.Series(keys, dtype=dtype)})).tolist()
        for dtype in ("int64", "float64", "Int64", object, "str")
    ]
    assert all(side == sides[0] for side in sides)


def test_sides_are_those_of_the_first_release() -> None:
    """Every champion's holdout would leak into training if these changed."""
    rows, rule = pd.DataFrame({"key": range(24)}), by_hash(identity=("key",))
    assert np.flatnonzero(rule.held_out(rows)).tolist() == GOLDEN_SIDES
    assert folds(rows, rule, 5).tolist() == GOLDEN_FOLDS


GOLDEN_SIDES = [0, 14, 15, 18, 19, 21]
GOLDEN_FOLDS = [2, 1, 1, 0, 0, 4, 4, 4, 4, 3, 1, 2, 0, 3, 2, 1, 2, 3, 2, 1, 1, 3, 2, 0]


def test_the_rule_travels_as_json() -> None:
    rows = pd.DataFrame({"key": range(10), "at": pd.date_range("2024-01-01", periods=10), "y": 0})
    for rule in (resolve(rows, DATA, Split()), resolve(rows, TIMED, Split(by="time"))):
        assert SplitRule.model_validate_json(rule.model_dump_json()) == rule


def test_a_time_split_holds_out_the_latest_rows() -> None:
    rows = pd.DataFrame({"key": range(8760), "at": pd.date_range("2023-01-01", periods=8760, freq="h"), "y": 0})
    rule = resolve(rows.sample(frac=1, random_state=0), TIMED, Split(by="time", holdout=0.25))
    held_out = rule.held_out(rows)
    assert rule.cutoff == datetime(2023, 10, 1, 18)
    assert rows["at"][held_out].min() > rows["at"][~held_out].max()
    assert held_out.mean() == pytest.approx(0.25, abs=0.002)
    text = rows.assign(at=rows["at"].astype(str))
    np.testing.assert_array_equal(rule.held_out(text), held_out)


def test_a_given_cutoff_wins_in_any_zone() -> None:
    rows = pd.DataFrame({"key": [1, 2], "at": ["2024-01-01T10:59Z", "2024-01-01T11:00Z"], "y": 0})
    cutoff = datetime.fromisoformat("2024-01-01T12:00+01:00")
    assert resolve(rows, TIMED, Split(by="time", cutoff=cutoff)).held_out(rows).tolist() == [False, True]
    assert resolve(rows, TIMED, Split(by="time", cutoff=cutoff.astimezone(UTC))).cutoff == datetime(2024, 1, 1, 11)


def test_a_time_split_needs_times_and_a_hash_split_columns() -> None:
    rows = pd.DataFrame({"key": [1, 2, 3], "at": ["2024-01-01", None, "soon"], "y": 0})
    with pytest.raises(UserError, match="column 'at' has none in 2 of 3"):
        resolve(rows, TIMED, Split(by="time"))
    with pytest.raises(UserError, match="needs rows, the table has none"):
        resolve(rows[:0], TIMED, Split(by="time"))
    with pytest.raises(UserError, match=r"data\.id needs column 'key'"):
        resolve(rows.drop(columns="key"), TIMED, Split())
    with pytest.raises(UserError, match="needs a column besides the target"):
        resolve(rows[["y"]], DATA, Split())


def test_checks_that_both_sides_are_usable() -> None:
    target, half = pd.Series(["a", "b", "a", "b"], name="y"), np.array([False, False, True, True])
    check_sides(target, half, "binary")
    with pytest.raises(UserError, match=r"class 'b' of target 'y' .* 2 in train and 0 in holdout"):
        check_sides(target, np.array([False, False, True, False]), "binary")
    with pytest.raises(UserError, match=r"holdout side .* needs rows, 0 of 4"):
        check_sides(target, half & False, "binary")
    with pytest.raises(UserError, match="train side"):
        check_sides(pd.Series([1.5, 2.5], name="y"), np.array([True, True]), "regression")
    check_sides(pd.Series([1.5, 2.5], name="y"), np.array([True, False]), "regression")


def test_the_identity_is_the_id_when_there_is_one() -> None:
    rows = pd.DataFrame({"key": [1, 1], "at": ["2024-01-01", "2024-01-02"], "y": [0, 1]})
    rule = resolve(rows, TIMED, Split())
    assert rule.identity == ("key",)
    assert len(set(row_hashes(rows, rule.identity).tolist())) == 1
