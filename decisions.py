"""Keep what was decided about each window of traffic: an append-only log a model, ZenML artifact `NAME_decision`."""

from datetime import UTC, datetime
from typing import Literal

import ledger
from config import Policy
from core.monitor import WindowReport
from core.policy import Decision, action, drifting_since, judged_windows, requirements
from core.policy import last_retraining as last
from core.report import decision_page


def history(name: str) -> list[Decision]:
    """Return the log of a model, oldest first."""
    return ledger.entries(_log(name))


def append(name: str, decision: Decision) -> None:
    """Append an entry under its number; raise ledger.Taken if another run was first."""
    from steps.materializers import Report

    ledger.append(_log(name), decision, decision.number, materializer=Report)


def last_judged(entries: list[Decision]) -> datetime | None:
    """Return the end of the newest window that was judged, whatever version had answered."""
    return max((entry.end for entry in entries if entry.end is not None), default=None)


def weigh(
    name: str,
    by: Literal["monitoring", "feedback"],
    version: int,
    report: WindowReport | None,
    labels: int,
    policy: Policy,
    run: str,
) -> Decision:
    """Hold the policy's conditions against the log and, where there is one, this window; nothing is appended yet."""
    entries, now = history(name), datetime.now(UTC)
    judged = report is not None and report.enough
    entry = Decision(
        number=len(entries) + 1,
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


def last_retraining(name: str) -> datetime | None:
    """Return when a retraining last began."""
    return last(history(name))


def _log(name: str) -> str:
    return f"{name}_decision"
