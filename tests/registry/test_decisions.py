"""The log of decisions: append-only, the first of two runs wins, and a long one stays quick to read."""

from datetime import UTC, datetime, timedelta

import pytest
from conftest import Cli

from loop.config import Policy, UserError
from loop.registry import decisions
from loop.registry.materializers import Report
from loop.watching.monitor import KINDS, Alarm, WindowReport
from loop.watching.policy import Decision, last_retraining

START = datetime(2026, 1, 1)
AHEAD = datetime(2199, 1, 1)


def weighed(name: str, hour: int, *, alarm: bool = False, by: str = "monitoring") -> Decision:
    report = WindowReport(
        name=name,
        version=1,
        start=START + timedelta(hours=hour),
        end=START + timedelta(hours=hour + 1),
        rows=5000,
        enough=True,
        alarms=(Alarm(kind="concept", sentence="s", helps=KINDS["concept"]),) if alarm else (),
        notes=(),
    )
    found = None if by == "feedback" else report
    return decisions.weigh(name, decisions.history(name), by, 1, found, 1000, Policy(alarms=2, windows=3), "run")  # type: ignore[arg-type]


def test_two_runs_that_decide_at_once_do_not_both_count(cli: Cli) -> None:
    cli("--status")
    first, second = weighed("raced", 0), weighed("raced", 0)
    decisions.append("raced", first)
    with pytest.raises(UserError, match="another run has decided something about 'raced' just now"):
        decisions.append("raced", second)
    assert [e.number for e in decisions.history("raced")] == [1]


def test_windows_and_retrainings_are_found_again_also_those_of_long_ago(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("--status")
    monkeypatch.setattr(decisions, "NEWEST", 3)
    name = "aged"
    decisions.append(name, weighed(name, 0, by="feedback"))
    for hour in range(1, 6):
        decisions.append(name, weighed(name, hour, alarm=hour > 3), Report)
    found = decisions.history(name)
    assert [(e.number, e.by) for e in found] == [(1, "feedback"), *((n, "monitoring") for n in (4, 5, 6))]
    assert last_retraining(found) == found[0].time
    assert decisions.last_judged(found) == found[-1].end
    last = found[-1]
    assert last.since == START + timedelta(hours=4)
    assert last.windows == (4, 5, 6)
    assert {q.name: q.met for q in last.requirements}["alarms"]
    assert "retraining begins" in last.page
    assert datetime.now(UTC) - last.time < timedelta(minutes=5)


def test_a_window_dated_later_than_now_does_not_blind_the_next(cli: Cli) -> None:
    cli("--status")
    name = "ahead"
    first = weighed(name, 0)
    ends_ahead = weighed(name, 1).model_copy(update={"end": AHEAD})
    assert decisions.last_judged([first, ends_ahead]) == ends_ahead.time.replace(tzinfo=None)
    judged_ahead = ends_ahead.model_copy(update={"time": AHEAD.replace(tzinfo=UTC)})
    assert decisions.last_judged([first, judged_ahead]) == first.end
