"""Decide whether to train again, and say which condition stands against it."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Literal

from loop.config import Monitoring, Policy, Section
from loop.paged import Paged
from loop.watching.monitor import Alarm, Kind, WindowReport

Action = Literal["retrain", "advise", "wait", "nothing"]

MENDED_BY_TRAINING: tuple[Kind, ...] = ("covariate", "label", "concept")
"""Kinds of drift that count: a sender that is broken is not to be learned from."""

LEAVES = 0.7
"""An alarm ends below this share of the floor that it began above, so that drift at the floor does not flap: in 60
windows of 500, 2,000 or 5,000 rows at a PSI of 0.1 it changes 15, 3 or 1 times instead of 30."""

FLOORS: dict[Kind, dict[str, float]] = {
    "schema": {"min_missing": 0, "min_refused": 0},
    "missing": {"min_missing": 0, "min_refused": 0},
    "covariate": {"min_psi": 0, "min_auc": 0.5, "min_refused": 0},
    "label": {"min_odds": 1, "min_shift": 0},
    "concept": {"min_drop": 0},
}
"""Floors of each kind of drift, and what each is where nothing has changed."""


class Requirement(Section):
    """One condition of the policy and whether it holds."""

    name: str
    met: bool
    sentence: str


class Decision(Paged):
    """One entry of a model's log of decisions."""

    number: int
    time: datetime
    by: Literal["monitoring", "feedback"]
    """`monitoring` looks at a window; `feedback` starts a retraining."""
    version: int
    """Of the model that was watched."""
    start: datetime | None
    end: datetime | None
    """Of the window; None where it had too few rows, which the next window then has as well."""
    rows: int
    alarms: tuple[Alarm, ...]
    labels: int
    """Labelled rows since the last retraining."""
    windows: tuple[int, ...]
    """Numbers of the entries that were counted."""
    since: datetime | None
    """Start of the first window of those that alarm without a break up to the newest; None if it does not."""
    requirements: tuple[Requirement, ...]
    action: Action
    run: str
    """Name of the ZenML run."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds of drift that were found."""
        return tuple(alarm.kind for alarm in self.alarms)

    @property
    def drifts(self) -> bool:
        """Say whether a retraining could mend what this window showed."""
        return any(kind in MENDED_BY_TRAINING for kind in self.kinds)

    @property
    def counts(self) -> bool:
        """Say whether this window by itself speaks for a retraining; an alarm that only goes on was counted before."""
        return any(alarm.kind in MENDED_BY_TRAINING and not alarm.kept for alarm in self.alarms)

    @property
    def against(self) -> str:
        """Say what stands against a retraining, if anything does."""
        return "; ".join(requirement.sentence for requirement in self.requirements if not requirement.met)


def judged_windows(entries: Sequence[Decision], version: int) -> list[Decision]:
    """Return the windows of this version since the last retraining, oldest first."""
    started = max((place for place, entry in enumerate(entries) if entry.by == "feedback"), default=-1)
    return [e for e in entries[started + 1 :] if e.by == "monitoring" and e.version == version and e.end is not None]


def last_retraining(entries: Sequence[Decision], now: datetime | None = None) -> datetime | None:
    """Return when a retraining last began; one that a wrong clock has dated later than `now` does not count."""
    began = (entry.time for entry in entries if entry.by == "feedback")
    return max((time for time in began if now is None or time <= now), default=None)


def drifting_since(windows: Sequence[Decision]) -> datetime | None:
    """Return the start of the first window of the unbroken series of alarms that ends with the newest."""
    series = takewhile(lambda window: window.drifts, reversed(windows))
    return min((window.start for window in series if window.start is not None), default=None)


def quiet_until(entries: Sequence[Decision], version: int) -> datetime | None:
    """Return the end of the version's newest window that did not alarm; where all did, the start of the first."""
    windows = [(e.start, e.end, e.alarms) for e in entries if e.by == "monitoring" and e.version == version]
    ends = [end for _, end, alarms in windows if end is not None and not alarms]
    return max(ends) if ends else min((start for start, _, _ in windows if start is not None), default=None)


def requirements(
    windows: Sequence[Decision], entries: Sequence[Decision], labels: int, policy: Policy, now: datetime
) -> tuple[Requirement, ...]:
    """Hold the policy's conditions against the judged windows, the log, and the labels there are."""
    last = list(windows[-policy.windows :])
    alarmed = sum(window.counts for window in last)
    newest = not policy.alarms or bool(last and last[-1].drifts)
    enough = newest and _most_alarms(windows, policy.windows) >= policy.alarms
    spent = [e for e in entries if e.by == "feedback" and e.time > now - timedelta(days=policy.budget_days)]
    before = last_retraining(entries, now)
    rested = before is None or now - before >= timedelta(hours=policy.cooldown_hours)
    since = "there was none" if before is None else f"the last began {(now - before).total_seconds() / 3600:.1f} h ago"
    still = ", which goes on from before" if enough and alarmed < policy.alarms else ""
    still = still if newest else ", the newest does not"
    return (
        Requirement(
            name="alarms",
            met=enough,
            sentence=f"windows that alarm: {alarmed} of the last {len(last)}{still} (needed: {policy.alarms} of "
            f"{policy.windows}, the newest among them)",
        ),
        Requirement(
            name="labels",
            met=labels >= policy.labels,
            sentence=f"{labels:,} labelled rows since the last retraining (needed: {policy.labels:,})",
        ),
        Requirement(
            name="cooldown",
            met=rested,
            sentence=f"{policy.cooldown_hours:g} h between retrainings, {since}",
        ),
        Requirement(
            name="budget",
            met=len(spent) < policy.budget,
            sentence=f"retrainings in {policy.budget_days:g} days: {len(spent)} (allowed: {policy.budget})",
        ),
    )


def _most_alarms(windows: Sequence[Decision], together: int) -> int:
    """Return the most alarms among so many windows in a row that end with one of the unbroken newest series."""
    series = len(list(takewhile(lambda window: window.drifts, reversed(windows))))
    ends = range(len(windows) - series + 1, len(windows) + 1)
    return max((sum(window.counts for window in windows[max(end - together, 0) : end]) for end in ends), default=0)


def ended(entries: Sequence[Decision], report: WindowReport) -> set[Kind]:
    """Return the kinds that the last window of this version alarmed for, since the last retraining, and this does not.

    A window that was not judged ends nothing.
    """
    windows = judged_windows(entries, report.version)
    return set(windows[-1].kinds) - set(report.kinds) if windows and report.enough else set()


def eased(settings: Monitoring, kinds: Collection[Kind]) -> Monitoring:
    """Return the settings with the floors of these kinds where an alarm ends."""
    floors = {name: none for kind in kinds for name, none in FLOORS.get(kind, {}).items()}
    lower = {name: none + LEAVES * (getattr(settings, name) - none) for name, none in floors.items()}
    return settings.model_copy(update=lower)


def keep_alarms(report: WindowReport, again: WindowReport, kinds: Collection[Kind]) -> WindowReport:
    """Return a report with the alarms of these kinds that another one has, of the same window under lower floors."""
    said = f"it goes on until it is below {LEAVES:g} of its floor"
    going = [alarm for alarm in again.alarms if alarm.kind in kinds]
    kept = [alarm.model_copy(update={"sentence": f"{alarm.sentence}; {said}", "kept": True}) for alarm in going]
    return report.model_copy(update={"alarms": (*report.alarms, *kept)})


def action(required: Sequence[Requirement], alarmed: bool, policy: Policy) -> Action:
    """Return what monitoring does about it."""
    if policy.mode == "off":
        return "nothing"
    if all(requirement.met for requirement in required):
        return "retrain" if policy.mode == "act" else "advise"
    return "wait" if alarmed else "nothing"
