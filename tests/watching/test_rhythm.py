from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift import (
    MORE,
    NUMBERS,
    WEEK,
    dependent,
    dependent_reference,
    learned,
    one_after_the_other,
    predictions,
)
from loop.config import Monitoring
from loop.watching.concept import ConceptDrift, LabelDrift, concept_drift, label_drift
from loop.watching.drift import Counts, separation
from loop.watching.rhythm import NEEDED, WINDOWS, Earlier, Past, _Spread, held_labels, held_separation

SETTINGS = Monitoring()
N, ROWS = 500, 7500
START = pd.Timestamp("2026-01-01")


def made(world: str, windows: int, seed: int) -> pd.DataFrame:
    return dependent(world, windows * N, np.random.default_rng(seed))


def alarms(rows: pd.DataFrame, world: str) -> list[bool]:
    """Look at one window after the other, as monitoring does."""
    return [alarm for _, alarm in one_after_the_other(rows, dependent_reference(world), N, SETTINGS)]


@pytest.mark.parametrize("world", ["cycle", "weekend", "autoregressive 0.9", "customers 50"])
def test_rows_that_depend_on_each_other_alarm_until_windows_have_shown_how_much_they_differ(world):
    found = alarms(made(world, NEEDED + 10, 1), world)
    assert sum(found[:NEEDED]) >= NEEDED // 4
    assert not any(found[NEEDED:])


@pytest.mark.parametrize(
    ("world", "began"), [("independent", 3), ("independent", 12), ("independent", NEEDED + 3), ("cycle", NEEDED + 3)]
)
def test_a_drift_that_lasts_never_hides_behind_itself(world, began):
    rows = made(world, NEEDED + 15, 3)
    rows.loc[began * N :, "d"] += 0.5
    assert all(alarms(rows, world)[began:])


def test_what_comes_and_goes_over_several_windows_is_no_drift_that_lasts():
    world = "autoregressive 0.999"
    assert not any(any(alarms(made(world, NEEDED + 5, seed), world)[NEEDED:]) for seed in range(6))


def test_half_a_standard_deviation_is_found_beside_columns_with_a_rhythm():
    for seed in range(3):
        rows = made("cycle", NEEDED + 2, seed)
        rows.loc[(NEEDED + 1) * N :, "c"] += 0.5
        assert alarms(rows, "cycle")[NEEDED:] == [False, True]


def test_a_week_of_hours_is_no_drift_behind_two_weeks_and_half_a_standard_deviation_in_it_is():
    world, skipped = "hours of a week", 2 * WEEK
    rows = made(world, skipped + 4, 2)
    rows.loc[(skipped + 3) * N :, "d"] += 0.5
    found = one_after_the_other(rows, dependent_reference(world), N, SETTINGS, skipped)
    assert found == [(True, False)] * 3 + [(True, True)]


def test_where_nothing_depends_on_anything_the_spread_of_windows_is_that_of_chance():
    """Degrees of freedom are those of the bins, and no p-value is too small more often than stated."""
    random, found = np.random.default_rng(0), []
    for _ in range(400):
        counts: list[Counts] = list(random.multinomial(N, np.full(10, 0.1), size=NEEDED + 1))
        spread = _Spread(counts[1:])
        found.append(spread.p(counts[0], np.sum(counts[1:], axis=0)))
    assert 5 <= spread.freedom <= 9
    assert 0 < np.mean(np.array(found) < 0.05) <= 0.06
    assert min(found) > 0.0002


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
    for quiet, windows, together in ((12, 12, NEEDED - 7), (5, NEEDED, NEEDED), (None, NEEDED + 5, NEEDED + 5)):
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
    held = held_labels(label, earlier, every, NEEDED + 1, SETTINGS)
    assert held.drifted is alarms


def test_odds_that_have_been_others_all_the_time_are_no_rhythm():
    *earlier, label, every = of_labels([2.2] * (NEEDED + 2))
    assert held_labels(label, earlier, every, NEEDED + 1, SETTINGS).drifted


def test_odds_that_stay_for_a_dozen_windows_and_go_are_no_label_drift_that_lasts():
    *earlier, label, every = of_labels([2.6] * 12 + [1.0] * 8 + [2.6, 1.8])
    assert label.drifted
    assert every.drifted
    assert not held_labels(label, earlier, every, NEEDED + 1, SETTINGS).drifted


def of_ranks(strengths: list[float], wide: float = 0.0) -> list[ConceptDrift]:
    """Look at numbers whose errors are wider and narrower by turns, or at ranks of other strengths."""
    target, found = NUMBERS if wide else MORE, []
    holdout = predictions(target, 2000, np.random.default_rng(0))
    for seed, strength in enumerate(strengths, 1):
        labelled = predictions(target, N, np.random.default_rng(seed), 1.0, 1.0 if wide else strength)
        if wide:
            errors = (labelled.truth - labelled.scores) * np.exp(wide * strength)
            labelled = replace(labelled, truth=labelled.scores + errors)
        found.append(concept_drift(labelled, holdout, SETTINGS))
    return [each for each in found if each is not None]


@pytest.mark.parametrize("wide", [0.0, 0.3])
def test_a_concept_that_comes_and_goes_is_no_drift_and_one_that_goes_or_never_held_is(wide):
    good, bad = (0.0, 1.0) if wide else (1.0, 0.0)
    swinging, steady, lost = of_ranks([good, bad] * 10, wide), of_ranks([good] * 20, wide), of_ranks([bad] * 20, wide)
    *_, now = of_ranks([bad] * 22, wide)
    assert now.drifted
    for earlier, alarms in ((swinging, False), (steady, True), (lost, True)):
        assert held_labels(now, earlier, now if alarms else steady[0], NEEDED + 1, SETTINGS).drifted is alarms


def test_what_a_classifier_has_seen_in_all_traffic_is_no_rhythm():
    window, holdout = pairs([0.8], 1), pairs([-0.8] * 2, 2)
    columns = learned(holdout[["a", "b"]])
    apart = separation(window, holdout, columns, SETTINGS)
    past = Earlier(lambda: pairs([0.8] * NEEDED, 3)).cut(N)
    assert apart is not None
    assert past is not None
    assert held_separation(apart, window, holdout, columns, past, SETTINGS).drifted
