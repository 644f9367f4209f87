"""Keep what was decided about each window of traffic: an append-only log a model, ZenML artifact `NAME_decision`."""

from datetime import UTC, datetime
from typing import Any, Literal

from loop.config import Policy, UserError
from loop.pages.report import decision_page
from loop.registry import ledger
from loop.watching.monitor import WindowReport
from loop.watching.policy import Decision, action, drifting_since, judged_windows, requirements

RETRAINING = "retraining"
"""Tag of the entries that begin one."""

NEWEST = 200
"""Entries that are looked at; an hourly log has thousands a year, and each takes some milliseconds to read."""


def history(name: str) -> list[Decision]:
    """Return the newest entries of a model's log and every retraining, oldest first."""
    found = [*ledger.entries(_log(name), tag=RETRAINING), *ledger.entries(_log(name), newest=NEWEST)]
    return sorted({entry.number: entry for entry in found}.values(), key=lambda entry: entry.number)


def append(name: str, decision: Decision, materializer: type[Any] | None = None) -> None:
    """Append an entry under its number; another run that was first is a UserError.

    The materializer of pages lets the dashboard show the entry's own.
    """
    tags = [RETRAINING] if decision.by == "feedback" else []
    try:
        ledger.append(_log(name), decision, decision.number, materializer=materializer, tags=tags)
    except ledger.Taken as err:
        raise UserError(f"another run has decided something about '{name}' just now; look at it, run again") from err


def last_judged(entries: list[Decision]) -> datetime | None:
    """Return the end of the newest window that was judged, whatever version had answered.

    A window ends no later than it was judged; one that was judged later than now, by a wrong clock, does not count.
    """
    now = datetime.now(UTC)
    ends = (min(e.end, e.time.replace(tzinfo=None)) for e in entries if e.end is not None and e.time <= now)
    return max(ends, default=None)


def weigh(
    name: str,
    entries: list[Decision],
    by: Literal["monitoring", "feedback"],
    version: int,
    report: WindowReport | None,
    labels: int,
    policy: Policy,
    run: str,
) -> Decision:
    """Hold the policy's conditions against the log and, where there is one, this window; nothing is appended yet."""
    now = datetime.now(UTC)
    judged = report is not None and report.enough
    entry = Decision(
        number=entries[-1].number + 1 if entries else 1,
        time=now,
        by=by,
        version=version,
        start=report.start if report is not None and judged else None,
        end=report.end if report is not None and judged else None,
        rows=report.rows if report is not None else 0,
        alarms=report.alarms if report is not None else (),
        labels=labels,
        windows=(),
        since=None,
        requirements=(),
        action="nothing",
        run=run,
    )
    windows = judged_windows([*entries, entry] if by == "monitoring" else entries, version)
    required = requirements(windows, entries, labels, policy, now)
    if by == "monitoring":
        done = action(required, bool(entry.alarms), policy)
    else:
        done = "retrain" if all(requirement.met for requirement in required) else "wait"
    counted = tuple(window.number for window in windows[-policy.windows :])
    found = {"windows": counted, "since": drifting_since(windows), "requirements": required, "action": done}
    entry = entry.model_copy(update=found)
    return entry.with_page(decision_page(name, entry, [*entries, entry]))


def _log(name: str) -> str:
    return f"{name}_decision"
