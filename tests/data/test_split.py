from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from loop.config import Data, Split, UserError
from loop.data.notes import Reading
from loop.data.split import SplitRule, check_sides, folds, resolve
from loop.data.table import row_hashes

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


def survey(count: int, seed: int, amounts: bool = False) -> pd.DataFrame:
    """Draw answers to two questions, 20 different ones, and what they are to predict: yes or no, or an amount."""
    random = np.random.default_rng(seed)
    a, b = random.choice(5, count, p=[0.5, 0.3, 0.1, 0.06, 0.04]), random.integers(0, 4, count)
    return pd.DataFrame({"a": a, "b": b, "y": random.normal(a) if amounts else random.integers(0, 2, count) * (a > 1)})


def sides_of(rows: pd.DataFrame, rule: SplitRule) -> list[list[list[float]]]:
    """Return the rows of training and of the holdout, in an order of their own."""
    held_out = rule.held_out(rows)
    return [sorted(rows[side].to_numpy().tolist()) for side in (~held_out, held_out)]


@pytest.mark.parametrize("amounts", [False, True])
def test_the_holdout_of_a_table_of_few_contents_is_a_sample_of_it(amounts: bool) -> None:
    shares, likely = [], []
    for seed in range(20):
        rows = survey(2000, seed, amounts)
        rule = resolve(rows, DATA, Split(seed=seed))
        held_out = rule.held_out(rows)
        shares.append(held_out.mean())
        cells = [rows["a"], rows["b"]] + ([] if amounts else [rows["y"]])
        likely.append(chi2_contingency(pd.crosstab(cells, held_out)).pvalue)
        assert np.bincount(folds(rows[~held_out], rule, 5)).min() > 220
    chance = np.sqrt(0.25 * 0.75 / 2000)
    assert np.abs(np.array(shares) - 0.25).max() < 4 * chance
    assert 0.7 < np.std(np.array(shares)) / chance < 1.3
    assert min(likely) > 0.001
    assert 0.25 < np.mean(likely) < 0.75


@pytest.mark.parametrize("amounts", [False, True])
def test_rows_that_are_alike_stay_on_their_side_as_the_table_grows_in_any_order(amounts: bool) -> None:
    rows, later = survey(600, 1, amounts), survey(400, 2, amounts)
    rule = resolve(rows, DATA, Split())
    assert sides_of(rows.sample(frac=1, random_state=0), rule) == sides_of(rows, rule)
    grown = pd.concat([later, rows]).sample(frac=1, random_state=1)
    assert resolve(grown[["y", "b", "a"]], DATA, Split()) == rule
    for before, after in zip(sides_of(rows, rule), sides_of(grown, rule), strict=True):
        left = Counter(map(tuple, before)) - Counter(map(tuple, after))
        assert not left
        assert len(after) > len(before)


def test_a_few_copies_stay_together_and_an_id_decides_alone() -> None:
    copies = np.random.default_rng(0).integers(2, 11, 300)
    rows = made(300).loc[np.repeat(np.arange(300), copies)].assign(y=np.arange(copies.sum()) % 2)
    for part in (resolve(rows, DATA, Split()).held_out(rows), folds(rows, resolve(rows, DATA, Split()), 5)):
        assert (pd.Series(part).groupby(rows.index.to_numpy()).nunique() == 1).all()
    named = survey(600, 0).assign(key=range(600))
    rule = resolve(named, TIMED, Split(seed=7))
    assert rule == by_hash(seed=7, identity=("key",)).model_copy(update={"version": 2})


def test_what_a_model_of_few_contents_has_not_learned_from_is_known_by_its_own_rule_alone() -> None:
    rows = survey(600, 0)
    rule, plain = resolve(rows, DATA, Split()), by_hash(identity=("a", "b"))
    holdout = rows[rule.held_out(rows)]
    assert rule.unseen(holdout, rule).all()
    assert rule.unseen(holdout, resolve(rows, DATA, Split(holdout=0.2))).all()
    for other in (Split(holdout=0.3), Split(seed=1)):
        assert not rule.unseen(holdout, resolve(rows, DATA, other)).any()
    assert not rule.unseen(holdout, plain).any()
    np.testing.assert_array_equal(plain.unseen(holdout, rule), plain.held_out(holdout))
    fewer = rows.drop_duplicates(["a", "b"])
    assert resolve(fewer, DATA, Split(), Reading(alike=True)) == rule, "a champion's rule stays"
    assert resolve(fewer, DATA, Split()).label is None


@pytest.mark.parametrize("key", ["id", "group"])
def test_rows_that_do_not_say_who_they_are_are_split_by_their_values(key: str) -> None:
    guests = np.arange(8000) % 5 < 2
    table = pd.DataFrame({"x": np.arange(8000.0), "who": [f"c{i}" for i in range(8000)], "y": 0})
    table["who"] = table["who"].where(~guests)
    for seed in range(3):
        data = Data(source="made", target="y", **{key: ("who",)})
        rule = resolve(table, data, Split(seed=seed))
        held_out = rule.held_out(table)
        assert 0.22 < held_out[guests].mean() < 0.28
        assert 0.22 < held_out[~guests].mean() < 0.28
        more = pd.concat([table.sample(frac=1, random_state=seed), table.head(10).assign(x=-1.0)])
        assert (rule.held_out(more)[:8000] == pd.Series(held_out)[more.index[:8000]].to_numpy()).all()
    whole = resolve(table.dropna(), data, Split())
    assert whole.anonymous == ()
    known = table[~guests]
    assert (whole.held_out(known) == resolve(table, data, Split()).held_out(known)).all()
