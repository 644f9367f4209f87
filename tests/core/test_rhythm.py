from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from benchmarks.drift import MORE, learned, predictions
from config import Monitoring
from core.concept import LabelDrift, label_drift
from core.drift import Counts, column_drifts, discoveries, separation
from core.rhythm import NEEDED, WINDOWS, Earlier, Past, _Spread, held_columns, held_label, held_separation

SETTINGS = Monitoring()
N, ROWS, COLUMNS = 500, 7500, 4
START = pd.Timestamp("2026-01-01")


def made(world: str, windows: int, seed: int) -> pd.DataFrame:
    """Draw windows of N rows, of which two columns of four depend on what came before."""
    random, rows = np.random.default_rng(seed), windows * N
    values, since = random.normal(size=(rows, COLUMNS)), np.arange(rows)
    if world == "cycle":
        values[:, :2] += 1.5 * np.sin(2 * np.pi * (since[:, None] / 5000 + random.random(2)))
    elif world == "weekend":
        values[:, 0] = since // 1000 % 7 >= 5
    elif world == "autoregressive":
        values[:, :2] = lfilter([(1 - 0.9**2) ** 0.5], [1, -0.9], values[:, :2], axis=0)
    elif world == "customers":
        values = np.repeat(values[::50], 50, axis=0) + 0.3 * values
    return pd.DataFrame(values, columns=list("abcd")).assign(prediction_time=START + pd.to_timedelta(since, "min"))


@cache
def reference(world: str):
    rows = made(world, 140, 0).drop(columns="prediction_time")
    return learned(rows.sample(ROWS, random_state=0, ignore_index=True))


def alarms(rows: pd.DataFrame, world: str, settings: Monitoring = SETTINGS) -> list[bool]:
    """Look at one window after the other, as monitoring does."""
    columns, found, quiet = reference(world), [], rows["prediction_time"].iloc[0] - pd.Timedelta(1, "us")
    for end in range(N, len(rows) + 1, N):
        window = rows[end - N : end]
        drifts = column_drifts(window, columns, ROWS, settings)
        past = Earlier(lambda before=rows[: end - N]: before, quiet).cut(N)
        if past is not None and any(drift.drifted for drift in drifts):
            drifts = held_columns(drifts, window, columns, ROWS, past, settings)
        found.append(any(drift.drifted for drift in drifts))
        quiet = quiet if found[-1] else window["prediction_time"].iloc[-1]
    return found


@pytest.mark.parametrize("world", ["cycle", "weekend", "autoregressive", "customers"])
def test_rows_that_depend_on_each_other_alarm_until_windows_have_shown_how_much_they_differ(world):
    for seed in (1, 2):
        found = alarms(made(world, NEEDED + 10, seed), world)
        assert sum(found[:NEEDED]) >= NEEDED // 4
        assert not any(found[NEEDED:])


@pytest.mark.parametrize(
    ("world", "began"), [("independent", 3), ("independent", 12), ("independent", NEEDED + 3), ("cycle", NEEDED + 3)]
)
def test_a_drift_that_lasts_never_hides_behind_itself(world, began):
    rows = made(world, NEEDED + 15, 3)
    rows.loc[began * N :, "d"] += 0.5
    assert all(alarms(rows, world)[began:])


def test_half_a_standard_deviation_is_found_beside_columns_with_a_rhythm():
    for seed in range(3):
        rows = made("cycle", NEEDED + 2, seed)
        rows.loc[(NEEDED + 1) * N :, "c"] += 0.5
        assert alarms(rows, "cycle")[NEEDED:] == [False, True]


def test_where_nothing_depends_on_anything_the_spread_of_windows_is_that_of_chance():
    """Degrees of freedom are those of the bins, and the p-values of a family are as stated."""
    random, found = np.random.default_rng(0), []
    for _ in range(400):
        counts: list[Counts] = list(random.multinomial(N, np.full(10, 0.1), size=NEEDED + 1))
        spread = _Spread(counts[1:])
        found.append(spread.p(counts[0], np.sum(counts[1:], axis=0)))
    assert 5 <= spread.freedom <= 9
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert sum(discoveries(found, 0.002)) == 0


def test_windows_that_never_differed_excuse_nothing():
    same = [np.array([N, 0])] * NEEDED
    assert _Spread(same).p(np.array([N - 50, 50]), np.array([ROWS, 0])) == 0


def test_traffic_counts_up_to_the_newest_window_without_an_alarm():
    rows = made("independent", NEEDED + 5, 0)

    def cut(quiet: int | None, windows: int = NEEDED + 5) -> Past | None:
        until = None if quiet is None else rows["prediction_time"].iloc[quiet * N - 1]
        return Earlier(lambda: rows[: windows * N], until).cut(N)

    assert cut(None, NEEDED - 1) is None
    assert Earlier().cut(N) is None
    for quiet, windows, together in ((None, NEEDED + 5, NEEDED + 5), (12, 12, 12), (5, NEEDED + 5, NEEDED)):
        past = cut(quiet)
        assert past is not None
        assert (len(past.windows), len(past.together)) == (windows, together)
        assert all(len(window) == N for window in past.windows)
    assert past.sentence == f"{NEEDED + 5} earlier windows of {N} rows, from 2026-01-01 00:00 on"
    many = Earlier(lambda: pd.concat([rows] * 3)).cut(N)
    assert many is not None
    assert len(many.windows) == WINDOWS


def pairs(correlations: list[float], seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    parts = [random.multivariate_normal([0, 0], [[1, c], [c, 1]], N) for c in correlations]
    rows = pd.DataFrame(np.concatenate(parts), columns=["a", "b"])
    return rows.assign(prediction_time=START + pd.to_timedelta(np.arange(len(rows)), "min"))


@pytest.mark.parametrize(("earlier", "alarms"), [([0.0] * NEEDED, True), ([-0.8, 0.8] * (NEEDED // 2), False)])
def test_what_only_a_classifier_sees_is_held_against_what_it_sees_in_earlier_windows(earlier, alarms):
    window, holdout = pairs([0.8], 1), pairs([0.0] * 2, 2)
    columns = learned(holdout[["a", "b"]])
    apart = separation(window, holdout, columns, SETTINGS)
    past = Earlier(lambda: pairs(earlier, 3)).cut(N)
    assert apart is not None
    assert past is not None
    assert apart.drifted
    assert held_separation(apart, window, holdout, columns, past, SETTINGS).drifted is alarms


def of_labels(odds: list[float]) -> list[LabelDrift]:
    holdout = predictions(MORE, 2000, np.random.default_rng(0))
    return [
        label_drift(predictions(MORE, N, np.random.default_rng(seed), factor), holdout, (0.8, 0.2), "y", SETTINGS)
        for seed, factor in enumerate(odds, 1)
    ]


@pytest.mark.parametrize(("slow", "together", "alarms"), [(0.7, 1.0, False), (0.0, 1.0, True), (0.0, 3.0, True)])
def test_odds_that_come_and_go_slowly_are_no_label_drift_where_earlier_windows_show_them(slow, together, alarms):
    earlier = of_labels([float(np.exp(slow * np.sin(place))) for place in range(NEEDED)])
    label, every = of_labels([2.2, together])
    assert label.drifted
    held = held_label(label, earlier, every, NEEDED + 1, SETTINGS)
    assert held.drifted is alarms


def test_odds_that_have_been_others_all_the_time_are_no_rhythm():
    *earlier, label, every = of_labels([2.2] * (NEEDED + 2))
    assert held_label(label, earlier, every, NEEDED + 1, SETTINGS).drifted


def test_what_a_classifier_has_seen_in_all_traffic_is_no_rhythm():
    window, holdout = pairs([0.8], 1), pairs([-0.8] * 2, 2)
    columns = learned(holdout[["a", "b"]])
    apart = separation(window, holdout, columns, SETTINGS)
    past = Earlier(lambda: pairs([0.8] * NEEDED, 3)).cut(N)
    assert apart is not None
    assert past is not None
    assert held_separation(apart, window, holdout, columns, past, SETTINGS).drifted
