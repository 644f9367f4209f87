"""When a model is trained again: every condition by itself, and no flapping."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from loop.config import Monitoring, Policy
from loop.watching.drift import homogeneity
from loop.watching.monitor import KINDS, Alarm, Kind, WindowReport
from loop.watching.policy import (
    FLOORS,
    LEAVES,
    MENDED_BY_TRAINING,
    Decision,
    action,
    drifting_since,
    eased,
    ended,
    judged_windows,
    keep_alarms,
    last_retraining,
    quiet_until,
    requirements,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def entry(number: int, *kinds: Kind, **changes: Any) -> Decision:
    """Make the entry of the window that began `number` hours after START."""
    begin = START.replace(tzinfo=None) + number * HOUR
    values: dict[str, Any] = {
        "number": number + 1,
        "time": START + (number + 1) * HOUR,
        "by": "monitoring",
        "version": 1,
        "start": begin,
        "end": begin + HOUR,
        "rows": 5000,
        "alarms": tuple(Alarm(kind=kind, sentence="s", helps=KINDS[kind]) for kind in kinds),
        "labels": 0,
        "windows": (),
        "since": None,
        "requirements": (),
        "action": "nothing",
        "run": "r",
    }
    return Decision(**(values | changes))


def open_conditions(entries: list[Decision], policy: Policy, labels: int = 10_000) -> set[str]:
    """Return the names of the conditions that do not hold an hour after the last entry."""
    now = entries[-1].time + HOUR
    found = requirements(judged_windows(entries, 1), entries, labels, policy, now)
    return {requirement.name for requirement in found if not requirement.met}


def retraining(number: int) -> Decision:
    return entry(number, by="feedback", start=None, end=None, action="retrain")


def test_m_of_the_last_n_windows_must_alarm_and_the_newest_among_them() -> None:
    policy = Policy(alarms=2, windows=3)
    assert open_conditions([entry(0, "concept")], policy) == {"alarms"}
    assert open_conditions([entry(0, "concept"), entry(1, "label")], policy) == set()
    assert open_conditions([entry(0, "concept"), entry(1), entry(2, "covariate")], policy) == set()
    assert open_conditions([entry(0, "concept"), entry(1), entry(2), entry(3, "concept")], policy) == {"alarms"}
    assert open_conditions([entry(0, "concept"), entry(1, "concept"), entry(2)], policy) == {"alarms"}
    assert open_conditions([entry(0)], Policy(alarms=0)) == set()


def test_what_training_does_not_mend_does_not_count() -> None:
    policy = Policy(alarms=2, windows=3)
    for kind in set(KINDS) - set(MENDED_BY_TRAINING):
        assert open_conditions([entry(0, kind), entry(1, kind)], policy) == {"alarms"}, kind
    assert open_conditions([entry(0, "missing", "concept"), entry(1, "schema", "concept")], policy) == set()


def test_windows_with_too_few_rows_of_another_version_and_before_a_retraining_do_not_count() -> None:
    policy = Policy(alarms=2, windows=3, cooldown_hours=0)
    alarm = entry(1, "concept")
    assert open_conditions([entry(0, "concept", end=None), alarm], policy) == {"alarms"}
    assert open_conditions([entry(0, "concept", version=2), alarm], policy) == {"alarms"}
    assert open_conditions([entry(-2, "concept"), entry(-1, "concept"), retraining(0), alarm], policy) == {"alarms"}


def test_labels_cooldown_and_budget_each_stand_in_the_way_and_say_so() -> None:
    alarms = [entry(3, "concept"), entry(4, "concept")]
    policy = Policy(alarms=2, windows=3, labels=500, cooldown_hours=5, budget=1, budget_days=1)
    assert open_conditions(alarms, policy, labels=499) == {"labels"}
    assert open_conditions([retraining(0), *alarms], policy) == {"budget"}
    assert open_conditions([retraining(2), *alarms], policy) == {"budget", "cooldown"}
    assert open_conditions([retraining(-30), *alarms], policy) == set()
    found = requirements(judged_windows(alarms, 1), [retraining(2), *alarms], 499, policy, alarms[-1].time)
    said = " ".join(requirement.sentence for requirement in found if not requirement.met)
    assert "499" in said
    assert f"{policy.labels:,}" in said
    assert f"{policy.cooldown_hours:g} h" in said


def test_only_act_acts_and_off_is_off() -> None:
    policy = Policy(alarms=1, windows=1)
    met = requirements([entry(0, "concept")], [], 10_000, policy, START)
    unmet = requirements([entry(0, "concept")], [], 0, policy, START)
    modes = {mode: policy.model_copy(update={"mode": mode}) for mode in ("act", "advise", "off")}
    assert {mode: action(met, True, p) for mode, p in modes.items()} == {
        "act": "retrain",
        "advise": "advise",
        "off": "nothing",
    }
    assert action(unmet, True, modes["act"]) == "wait"
    assert action(unmet, False, modes["act"]) == "nothing"


def test_drift_began_with_the_first_of_the_unbroken_alarms() -> None:
    windows = [entry(0, "concept"), entry(1), entry(2, "covariate"), entry(3, "concept")]
    assert drifting_since(windows) == windows[2].start
    assert drifting_since(windows[:2]) is None
    assert drifting_since([]) is None


def test_traffic_is_as_usual_up_to_the_newest_window_without_an_alarm() -> None:
    entries = [entry(0, "missing"), entry(1), retraining(2), entry(3, "covariate"), entry(4, version=2)]
    assert quiet_until(entries, 1) == entries[1].end
    assert quiet_until(entries, 2) == entries[4].end
    assert quiet_until([entries[3], entries[0]], 1) == entries[0].start
    assert quiet_until(entries, 3) is None


def test_a_retraining_dated_later_than_now_holds_up_no_other() -> None:
    policy = Policy(mode="act", alarms=0, labels=1, cooldown_hours=24)
    before, ahead = retraining(0), retraining(24 * 365 * 100)
    now = before.time + timedelta(hours=25)
    assert last_retraining([before, ahead], now) == before.time
    assert {r.name: r.met for r in requirements([], [before, ahead], 1, policy, now)}["cooldown"]


def test_a_stream_that_alternates_at_the_threshold_starts_at_most_one_retraining_in_a_cooldown() -> None:
    policy = Policy(mode="act", alarms=2, windows=3, labels=1, cooldown_hours=24, budget=4, budget_days=30)
    for seed in range(4):
        random, entries = np.random.default_rng(seed), list[Decision]()
        for hour in range(40 * 24):
            window = entry(hour, *(["concept"] if random.random() < 0.5 else []))
            required = requirements(judged_windows([*entries, window], 1), entries, 100, policy, window.time)
            entries.append(window)
            if action(required, bool(window.alarms), policy) == "retrain":
                entries.append(retraining(hour))
        begun = [e.time for e in entries if e.by == "feedback"]
        gaps = [after - before for before, after in pairwise(begun)]
        assert begun
        assert min(gaps) >= timedelta(hours=policy.cooldown_hours)
        for moment in begun:
            month = timedelta(days=policy.budget_days)
            assert sum(moment - month < other <= moment for other in begun) <= policy.budget
        assert last_retraining(entries) == begun[-1]


def report(*kinds: Kind, enough: bool = True) -> WindowReport:
    alarms = tuple(Alarm(kind=kind, sentence="s", helps=KINDS[kind]) for kind in kinds)
    return WindowReport(name="n", version=1, start=None, end=None, rows=9, enough=enough, alarms=alarms, notes=())


def test_an_alarm_ends_below_a_lower_floor_than_it_began_above() -> None:
    before = [entry(0, "concept"), entry(1, "covariate", "label")]
    assert ended(before, report("label")) == {"covariate"}
    assert ended(before, report(enough=False)) == set()
    assert ended([*before, retraining(2)], report()) == set()  # it is another model's world
    assert ended([], report()) == set()
    settings = Monitoring()
    lower = eased(settings, ("covariate", "label"))
    assert lower.min_psi == pytest.approx(LEAVES * settings.min_psi)
    assert lower.min_auc == pytest.approx(0.5 + LEAVES * (settings.min_auc - 0.5))
    assert lower.min_odds == pytest.approx(1 + LEAVES * (settings.min_odds - 1))
    assert lower.min_drop == settings.min_drop
    assert {key for floors in FLOORS.values() for key in floors} <= Monitoring.model_fields.keys()
    going = keep_alarms(report("label"), report("label", "covariate", "concept"), {"covariate"})
    assert [(alarm.kind, alarm.kept) for alarm in going.alarms] == [("label", False), ("covariate", True)]
    assert f"until it is below {LEAVES:g} of its floor" in going.alarms[1].sentence


def kept(number: int) -> Decision:
    alarm = Alarm(kind="concept", sentence="s", helps=KINDS["concept"], kept=True)
    return entry(number, alarms=(alarm,))


def test_an_alarm_that_only_goes_on_is_counted_once_and_ends_nothing() -> None:
    policy = Policy(alarms=2, windows=3)
    assert open_conditions([entry(0, "concept"), kept(1), kept(2)], policy) == {"alarms"}
    assert open_conditions([entry(0, "concept"), kept(1), entry(2, "concept")], policy) == set()
    due = [entry(0, "concept"), entry(1, "concept"), kept(2), kept(3), kept(4)]
    assert open_conditions(due, policy) == set()  # what is due stays due until the alarm ends
    assert open_conditions([*due, entry(5)], policy) == {"alarms"}
    assert open_conditions([*due, entry(5), entry(6, "concept")], policy) == {"alarms"}
    assert drifting_since(due) == due[0].start


@pytest.mark.parametrize("rows", [2000, 5000])
def test_drift_at_the_floor_changes_the_alarm_rarely_and_trains_once_in_a_cooldown(rows: int) -> None:
    settings, policy = Monitoring(), Policy(mode="act", alarms=2, windows=3, labels=1, cooldown_hours=24, budget=99)
    edges = norm.ppf(np.linspace(0, 1, 11))
    shares = np.diff(norm.cdf(edges - brentq(lambda shift: _psi(edges, shift) - settings.min_psi, 0.1, 1)))
    random, entries, alone = np.random.default_rng(0), list[Decision](), list[bool]()
    for hour in range(60):
        _, p, psi = homogeneity(random.multinomial(rows, shares), np.full(10, 750)) or ("", 1.0, 0.0)
        found = report(*(["covariate"] if p <= 0.002 and psi >= settings.min_psi else []))
        alone.append(bool(found.alarms))
        if kinds := ended(entries, found):
            again = report(*(["covariate"] if p <= 0.002 and psi >= eased(settings, kinds).min_psi else []))
            found = keep_alarms(found, again, kinds)
        window = entry(hour, alarms=found.alarms)
        entries.append(window)
        required = requirements(judged_windows(entries, 1), entries, 100, policy, window.time)
        if action(required, bool(window.alarms), policy) == "retrain":
            entries.append(retraining(hour))
    states = [bool(e.alarms) for e in entries if e.by == "monitoring"]
    begun = [e.time for e in entries if e.by == "feedback"]
    assert _changes(alone) >= 20
    assert _changes(states) <= 8
    assert 1 <= len(begun) <= 3
    assert all(after - before >= 24 * HOUR for before, after in pairwise(begun))


def _psi(edges: Any, shift: float) -> float:
    shares = np.diff(norm.cdf(edges - shift))
    return float(((shares - 0.1) * np.log(shares / 0.1)).sum())


def _changes(states: list[bool]) -> int:
    return sum(before != after for before, after in pairwise(states))
