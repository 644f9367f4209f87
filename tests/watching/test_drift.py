import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, chi2_contingency, false_discovery_control, fisher_exact

from benchmarks.drift import inputs, learned
from loop.config import Contract, Data, Monitoring
from loop.data.contract import learn_contract
from loop.watching.drift import CLASSIFIER_ROWS, FAMILIES, column_drifts, discoveries, homogeneity, separation

SETTINGS = Monitoring()
N = 3000  # reference rows


def random(seed):
    return np.random.default_rng(seed)


def reference(**columns):
    rows = pd.DataFrame(columns)
    data = Data(source="made", target="y")
    return learn_contract(rows.assign(y=np.arange(len(rows)) % 2), data, Contract()).columns


def one(values, *, before, settings=SETTINGS):
    columns = reference(x=before)
    return column_drifts(pd.DataFrame({"x": values}), columns, len(before), settings)[0]


def test_windows_without_drift_alarm_no_more_often_than_stated():
    runs, alarms, tests = 100, 0, 0
    columns = learned(inputs(N, random(0)))
    for seed in range(1, runs + 1):
        if seed % 25 == 0:  # the reference is drawn as well
            columns = learned(inputs(N, random(1000 + seed)))
        drifts = column_drifts(inputs(SETTINGS.min_rows, random(seed)), columns, N, SETTINGS)
        alarms += any(drift.drifted or drift.missing_drifted for drift in drifts)
        tests += any(discoveries([drift.p for drift in drifts], SETTINGS.false_alarm_rate))
    assert alarms <= binom.ppf(0.999, runs, SETTINGS.false_alarm_rate)
    assert tests <= binom.ppf(0.999, runs, SETTINGS.false_alarm_rate)


@pytest.mark.parametrize("rows", [500, 5000])
def test_finds_half_a_standard_deviation_in_one_of_thirty_columns(rows):
    columns = learned(inputs(N, random(0)))
    for seed in range(1, 6):
        found = column_drifts(inputs(rows, random(seed), moved=1, shift=0.5), columns, N, SETTINGS)
        assert [drift.name for drift in found if drift.drifted] == ["normal_0"]
        assert "'normal_0' moved (PSI" in found[0].sentence
        assert found[1].sentence == f"'{found[1].name}' is as it was"


@pytest.mark.parametrize("shift", [0.2, 0.4, 0.6])
def test_psi_is_about_the_square_of_a_shift_in_standard_deviations(shift):
    drift = one(random(1).normal(shift, size=50_000), before=random(0).normal(size=50_000))
    assert drift.psi == pytest.approx(shift**2, rel=0.15)


def test_psi_is_nothing_on_average_without_drift_however_few_the_rows():
    found = [one(random(i).normal(size=200), before=random(1000 + i).normal(size=1000)).psi for i in range(100)]
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / 10)


def test_chi_square_is_that_of_the_table():
    window, before = np.array([50, 60, 90, 20]), np.array([400, 500, 600, 300])
    test, p, _ = homogeneity(window, before)
    assert (test, p) == ("chi-square", pytest.approx(chi2_contingency([window, before], correction=False).pvalue))


def test_rare_bins_are_pooled_and_empty_ones_left_out():
    window, before = np.array([60, 4, 50, 0, 1, 3]), np.array([500, 30, 600, 0, 20, 15])
    test, p, psi = homogeneity(window, before)
    pooled = np.array([60, 50, 8]), np.array([500, 600, 65])
    assert (test, p) == ("chi-square", pytest.approx(chi2_contingency(pooled, correction=False).pvalue))
    assert (test, p, psi) == homogeneity(*pooled)


def test_pools_until_the_rest_is_large_enough():
    window, before = np.array([100, 3, 6]), np.array([100, 1, 5])
    assert homogeneity(window, before) == homogeneity(np.array([100, 9]), np.array([100, 6]))


def test_two_bins_with_too_few_rows_are_tested_exactly():
    window, before = np.array([3, 997]), np.array([1, 4999])
    test, p, _ = homogeneity(window, before)
    assert (test, p) == ("Fisher", pytest.approx(fisher_exact([window, before]).pvalue))


@pytest.mark.parametrize("rows", [100, 500])
def test_a_change_of_missing_values_that_counts_is_found_where_there_were_none(rows):
    values = random(1).normal(size=rows)
    values[: int(1.2 * SETTINGS.min_missing * rows)] = np.nan
    assert one(values, before=random(0).normal(size=N)).missing_drifted


@pytest.mark.parametrize(("window", "before"), [([5], [7]), ([0, 0], [5, 5]), ([5, 0], [9, 0]), ([], [])])
def test_nothing_is_tested_where_nothing_can_shift(window, before):
    assert homogeneity(np.array(window, int), np.array(before, int)) is None


def test_discoveries_are_those_of_benjamini_and_hochberg():
    for seed in range(50):
        p_values = random(seed).random(20) ** 3
        for level in (0.01, 0.05, 0.2):
            assert discoveries(p_values, level) == list(false_discovery_control(p_values) <= level)


def test_a_column_without_a_test_is_no_discovery_and_costs_the_others_nothing():
    assert discoveries([None, 0.04, None], 0.05) == [False, True, False]
    assert discoveries([None], 0.05) == [False]
    assert discoveries([], 0.05) == []


def test_a_classifier_finds_a_flipped_correlation_that_no_column_shows():
    def pair(n, sign, seed):
        a, b = random(seed).multivariate_normal([0, 0], [[1, 0.8 * sign], [0.8 * sign, 1]], n).T
        return pd.DataFrame({"a": a, "b": b})

    before, holdout, same, flipped = pair(N, 1, 0), pair(1500, 1, 1), pair(1500, 1, 2), pair(1500, -1, 3)
    columns = reference(**before)
    assert not any(drift.drifted for drift in column_drifts(flipped, columns, N, SETTINGS))
    found = separation(flipped, holdout, columns, SETTINGS)
    assert found.drifted
    assert found.auc > SETTINGS.min_auc
    assert found.columns == ("a", "b")
    assert not separation(same, holdout, columns, SETTINGS).drifted


def test_the_classifier_sees_a_sample_of_a_large_window_and_no_times():
    rows = pd.DataFrame({"x": random(0).normal(size=CLASSIFIER_ROWS + 9)})
    rows["at"] = pd.date_range("2026-01-01", periods=len(rows), freq="s")
    columns = reference(**rows)
    later = rows.assign(at=rows["at"] + pd.Timedelta(days=1000))
    found = separation(later, rows.head(1000), columns, SETTINGS)
    assert (found.rows, found.columns, found.drifted) == (CLASSIFIER_ROWS + 1000, ("x",), False)
    assert separation(later, rows, [column for column in columns if column.kind == "datetime"], SETTINGS) is None
    assert separation(later, rows.head(0), columns, SETTINGS) is None


def test_requests_that_are_sent_twice_do_not_give_a_window_away():
    holdout = pd.DataFrame(random(0).normal(size=(1500, 4)), columns=list("abcd"))
    window = pd.DataFrame(random(1).normal(size=(1000, 4)), columns=list("abcd"))
    columns, twice = reference(**holdout), window.loc[np.repeat(np.arange(1000), 2)].reset_index(drop=True)
    found = separation(twice, holdout, columns, SETTINGS)
    assert found.auc == pytest.approx(0.5, abs=0.05)

    assert not found.drifted


@pytest.mark.parametrize("named", [True, False])
def test_customers_who_come_back_are_known_again_only_where_nobody_names_them(named):
    """A customer's rows are alike, not the same; by the name of the customer they share a fold."""

    def visits(customers, seed, first):
        who = np.repeat(np.arange(customers), 50)
        rows = pd.DataFrame(random(seed).normal(size=(customers, 4))[who], columns=list("abcd"))
        return (rows + 0.1 * random(seed + 1).normal(size=rows.shape)).assign(customer=first + who)

    holdout, window = visits(50, 0, 0), visits(20, 2, 1000)
    columns = reference(**holdout.drop(columns="customer"))
    found = separation(window, holdout, columns, SETTINGS, ("customer",) if named else ())
    assert found.drifted is not named
    assert separation(window.head(450), holdout, columns, SETTINGS, ("customer",)) is None  # nine customers


def test_a_table_of_few_different_rows_is_compared_row_by_row():
    def pair(n, sign, seed):
        a = random(seed).integers(0, 2, n)
        return pd.DataFrame({"a": a, "b": np.where(random(seed + 1).random(n) < 0.8, a, 1 - a) ^ (sign < 0)})

    before, holdout, same, flipped = pair(N, 1, 0), pair(1500, 1, 2), pair(1500, 1, 4), pair(1500, -1, 6)
    columns = reference(**before)
    assert separation(flipped, holdout, columns, SETTINGS).drifted
    assert not separation(same, holdout, columns, SETTINGS).drifted


@pytest.mark.parametrize(("cells", "rows_a_side"), [(6000, 600), (60, 500), (10**9, 1500)])
def test_the_classifier_sees_fewer_rows_of_a_wide_table(monkeypatch, cells, rows_a_side):
    monkeypatch.setattr("loop.watching.drift.CLASSIFIER_CELLS", cells)
    rows = pd.DataFrame(random(0).normal(size=(1500, 10)), columns=list("abcdefghij"))
    assert separation(rows, rows, reference(**rows), SETTINGS).rows == 2 * rows_a_side


def test_times_move_on_and_are_not_tested():
    before = pd.Series(pd.date_range("2025-01-01", periods=N, freq="h"))
    drift = one(before + pd.Timedelta(days=365), before=before)
    assert (drift.test, drift.p, drift.psi, drift.drifted) == (None, None, None, False)


def test_missing_values_are_a_drift_of_their_own():
    before = random(0).normal(size=N)
    drift = one(np.where(random(1).random(1000) < 2 * SETTINGS.min_missing, np.nan, before[:1000]), before=before)
    assert (drift.drifted, drift.missing_drifted) == (False, True)
    assert drift.sentence.startswith(f"{drift.missing:.0%} of 'x' is missing, it was 0%")


def test_a_few_missing_values_are_real_and_too_few_to_matter():
    drift = one(np.append(np.full(10, np.nan), random(1).normal(size=990)), before=random(0).normal(size=N))
    assert drift.missing_p < SETTINGS.false_alarm_rate / FAMILIES
    assert not drift.missing_drifted


def test_categories_that_training_never_saw_are_one_more_bin():
    before = random(0).choice(["red", "green"], N)
    drift = one(np.append(random(1).choice(["red", "green"], 800), ["blue", "black"] * 100), before=before)
    assert drift.drifted
    assert len(drift.shares) == 3
    assert drift.shares[-1] == pytest.approx(0.2)
    assert sum(drift.shares) == pytest.approx(1)


def levels(seed, n, power, new=0.0, top=0.0, count=1000):
    """Draw rows of a column of many categories, of which some are new, or the most frequent one more often."""
    shares = np.arange(1, count + 1) ** -power
    drawn, moved = random(seed).choice(count, n, p=shares / shares.sum()), random(1000 + seed).random(n)
    names = np.select([moved < new, moved < top], ["new", "level 0"], [f"level {code}" for code in drawn])
    return pd.DataFrame({"x": names, "y": np.arange(n) % 2})


def many(window, before, last=None):
    data = Data(source="made", target="y", kinds={"x": "categorical"})
    columns = learn_contract(before, data, Contract(), last).columns[:1]
    return column_drifts(window, columns, last or len(before), SETTINGS)[0]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("rows", [500, 2000])
def test_a_column_of_a_thousand_categories_does_not_alarm_by_those_that_did_not_come_before(power, rows):
    found = [many(levels(seed, rows, power), levels(100 + seed, 5000, power)) for seed in range(6)]
    assert not any(drift.drifted for drift in found)
    assert all(drift.p > SETTINGS.false_alarm_rate / FAMILIES for drift in found if drift.p is not None)


def test_categories_known_from_rows_before_the_reference_do_not_alarm():
    before = pd.concat([levels(1, 20_000, 0.0, count=3000), levels(2, 5000, 0.0, count=3000)], ignore_index=True)
    drift = many(levels(3, 2000, 0.0, count=3000), before, last=5000)
    assert drift.p > SETTINGS.false_alarm_rate / FAMILIES
    assert not drift.drifted


@pytest.mark.parametrize("moved", [{"new": 0.2}, {"top": 0.18}])
def test_a_new_category_or_a_frequent_one_that_doubles_is_found_among_a_thousand(moved):
    assert all(many(levels(seed, 2000, 1.0, **moved), levels(100 + seed, 5000, 1.0)).drifted for seed in range(3))


def test_only_unseen_categories_is_drift():
    assert one(["blue"] * 500, before=random(0).choice(["red", "green"], N)).drifted


@pytest.mark.parametrize("kind", ["number", "category", "boolean"])
def test_a_window_without_a_value_is_missing_and_no_shift(kind):
    before = {
        "number": random(0).normal(size=N),
        "category": ["a", "b"] * (N // 2),
        "boolean": [True, False] * (N // 2),
    }
    drift = one([None] * 500, before=before[kind])
    assert (drift.rows, drift.p, drift.drifted, drift.missing_drifted) == (0, None, False, True)


def test_a_window_of_one_value_has_drifted():
    drift = one([0.3] * 500, before=random(0).normal(size=N))
    assert drift.drifted
    assert max(drift.shares) == 1


def test_text_among_numbers_counts_as_missing():
    values = random(1).normal(size=500).astype(object)
    values[:100] = "n/a"
    drift = one(values, before=random(0).normal(size=N))
    assert (drift.rows, drift.missing_drifted) == (400, True)


def test_no_rows_are_no_drift_and_an_absent_column_is_left_to_the_contract():
    columns = learned(inputs(N, random(0)))
    none = column_drifts(inputs(1, random(1)).head(0), columns, N, SETTINGS)
    assert not any(drift.drifted or drift.missing_drifted for drift in none)
    fewer = inputs(500, random(1)).drop(columns="normal_0")
    assert len(column_drifts(fewer, columns, N, SETTINGS)) == len(columns) - 1


def test_a_stricter_rate_and_a_higher_floor_find_less():
    values, before = random(1).normal(0.35, size=500), random(0).normal(size=N)
    assert one(values, before=before).drifted
    assert not one(values, before=before, settings=Monitoring(min_psi=1)).drifted
    assert not one(values, before=before, settings=Monitoring(false_alarm_rate=1e-30)).drifted
