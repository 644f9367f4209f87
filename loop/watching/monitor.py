"""Look at a window of served traffic: what was asked, what was answered, what came true, and what has changed."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as with_default
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from loop.config import Config, Monitoring, Section, command
from loop.data.checks import Finding, check_rows
from loop.data.contract import Column, DataContract, deciles, histogram, label_codes
from loop.data.dtypes import plain, plain_objects
from loop.data.groups import groups_worth
from loop.data.split import FEW_CONTENTS, SplitRule, repeats
from loop.log.gauges import Gauge
from loop.log.records import TRUTH, in_audit, read_labels, read_predictions, read_refusals
from loop.paged import Paged
from loop.training.bundle import Bundle, Card
from loop.training.metrics import Estimate, Predictions, estimate, metric_names
from loop.watching.concept import (
    ALIKE_ROWS,
    ConceptDrift,
    LabelDrift,
    ReliabilityBin,
    Segment,
    concept_drift,
    effective_rows,
    estimated_performance,
    label_drift,
    likeness,
    reliability,
    worse_segments,
)
from loop.watching.coverage import (
    EVEN_LABELS,
    NEARLY_ALL,
    Coverage,
    asked_of,
    audit_of,
    coverage_of,
    drift_is_likelier,
    evened_out,
    logged_scores,
)
from loop.watching.drift import (
    FAMILIES,
    FEWEST_GROUPS,
    ColumnDrift,
    Separation,
    column_drifts,
    homogeneity,
    p_value,
    separation,
)
from loop.watching.rhythm import NEEDED, SPAN, WINDOWS, Drift, Earlier, held_columns, held_labels, held_separation

Kind = Literal["schema", "missing", "covariate", "coverage", "label", "concept"]

KINDS: dict[Kind, str] = {
    "schema": "mend the sender, or train again on a table that has the new columns",
    "missing": "find out why the values stopped coming; a model that must live without them has to be trained so",
    "covariate": "look at the columns that moved; retrain once labels of the new traffic have come",
    "coverage": "have a random sample labelled (feedback.audit), or wait for all labels (monitoring.label_delay_hours)",
    "label": "scores are off by one factor: retrain on recent rows, which also moves the threshold",
    "concept": "what the model learned no longer holds: retrain on recent labelled rows",
}
"""Each kind of drift, and what usually helps."""

SCHEMA_RULES = ("missing_column", "renamed_column", "extra_column", "wrong_type")
MEASURED_ROWS = 10_000
"""Labelled rows from which the intervals of the metrics are taken, at most, drawn with a fixed seed."""
_UNTOLD = (
    "metrics are not shown: the labels of like scores are not as promised, by drift or since they were chosen by what "
    "came true"
)
_FEW = 30  # refused rows; fewer say nothing


@dataclass(frozen=True)
class Window:
    """Hold the traffic of one version that is looked at together."""

    rows: pd.DataFrame
    """What was asked and answered, as `loop.log.records.read_predictions` returns it."""
    judged: pd.DataFrame
    """The rows whose labels should have come, these or those of `label_delay_hours` before; with their label as
    `loop.log.records.TRUTH`, or None."""
    refusals: pd.DataFrame
    other_versions: int
    """Rows that another version answered; they are not looked at."""
    from_future: int = 0
    """Rows dated later than now; they are not looked at."""
    earlier: Earlier = with_default(default_factory=Earlier)


class Alarm(Section):
    """Say what has changed, how it shows, and what usually helps."""

    kind: Kind
    sentence: str
    helps: str
    kept: bool = False
    """An alarm of the window before that goes on, below the floor that it began above."""

    @property
    def title(self) -> str:
        """Return what people call it."""
        names = {"schema": "changed schema", "missing": "missing values", "coverage": "selective labels"}
        return names.get(self.kind, f"{self.kind} drift")


class WindowReport(Paged):
    """Hold what was found in one window."""

    name: str
    version: int
    start: datetime | None
    """UTC, without a zone, as the log has it."""
    end: datetime | None
    rows: int
    enough: bool
    """False: too few rows to judge drift by."""
    alarms: tuple[Alarm, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    columns: tuple[ColumnDrift, ...] = ()
    separation: Separation | None = None
    prediction_psi: float | None = None
    prediction_drifted: bool = False
    refused: dict[str, int] = Field({})
    """Requests refused, by rule of the contract."""
    refused_share: float = 0.0
    refused_rows: int = 0
    refused_where: dict[str, int] = Field({})
    """Rows refused, by column and rule in words, the most first."""
    labelled: int = 0
    coverage: float = 0.0
    """Share of the judged rows that have a label."""
    bands: Coverage | None = None
    """Which rows have one; None where none has, or all have."""
    measured: int = 0
    """Labelled rows that the metrics are of: all, those of the audit sample, or those that stand for all."""
    performance: dict[str, Estimate] = Field({})
    before: dict[str, Estimate] = Field({})
    """The same on the holdout, at promotion."""
    estimated: dict[str, float] = Field({})
    """Expected without labels, as long as there is no concept drift."""
    alike: int | None = None
    """Holdout rows, in effect, that the labelled ones are held against: those of inputs like theirs."""
    label: LabelDrift | None = None
    concept: ConceptDrift | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    segments: tuple[Segment, ...] = ()

    @property
    def refusals(self) -> str | None:
        """Say how many rows were refused, and for what."""
        if not self.refused_rows:
            return None
        total, where = self.rows + self.refused_rows, list(self.refused_where.items())
        shown = ", ".join(f"{words} {count:,}" for words, count in where[:5])
        more = f", and {len(where) - 5} more" if len(where) > 5 else ""
        return f"{self.refused_rows:,} of {total:,} rows were refused ({self.refused_rows / total:.0%}): {shown}{more}"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds of drift that were found."""
        return tuple(alarm.kind for alarm in self.alarms)

    def gauges(self) -> list[Gauge]:
        """Return what Prometheus may know of it."""
        bounds = ("low", "value", "high")
        metrics = [({"metric": m, "bound": b}, getattr(e, b)) for m, e in self.performance.items() for b in bounds]
        estimated = [({"metric": metric}, value) for metric, value in self.estimated.items()]
        apart = None if self.separation is None else self.separation.auc
        samples: dict[tuple[str, str], Sequence[tuple[dict[str, str], float | None]]] = {
            ("window_rows", "Rows looked at."): [({}, self.rows)],
            ("refused_share", "Share of requests outside the data contract."): [({}, self.refused_share)],
            ("alarm", "1 for each kind of drift that was found."): [({"kind": k}, k in self.kinds) for k in KINDS],
            ("column_psi", "Population stability index."): [({"column": c.name}, c.psi) for c in self.columns],
            ("column_missing_share", "Missing values."): [({"column": c.name}, c.missing) for c in self.columns],
            ("prediction_psi", "Population stability index of the scores."): [({}, self.prediction_psi)],
            ("reference_auc", "How well a classifier tells window from reference."): [({}, apart)],
            ("label_coverage", "Share of rows with a label."): [({}, self.coverage)],
            ("performance", "On labelled rows, with its interval."): metrics,
            ("estimated_performance", "What calibrated scores promise."): estimated,
        }
        return [
            Gauge(name=f"monitoring_{name}", help=text, samples=tuple(found)) for (name, text), found in samples.items()
        ]


def collect_window(log: str, version: int, settings: Monitoring, after: datetime | None, now: datetime) -> Window:
    """Read the newest rows that a version answered after `after`, their labels, and what was refused meanwhile.

    Times are UTC without a zone. Where labels take time, the rows to be judged are those of as long before. Nothing is
    looked at that is dated later than now, since one such record would put all others before the next window.
    """
    delay, hours = timedelta(hours=settings.label_delay_hours), settings.window_hours
    starts = [] if after is None else [min(after, now) + timedelta(microseconds=1)]
    starts += [] if hours is None else [now - timedelta(hours=hours)]
    first = max(starts, default=None)
    found = plain_objects(read_predictions(f"{log}/predictions", first and first - delay))
    known = found[found["prediction_time"] <= now]
    recent = known if first is None else known[known["prediction_time"] >= first]
    ours = recent[recent["prediction_version"] == version]
    rows = ours.tail(settings.window_rows or len(ours)).reset_index(drop=True)
    since = first
    if len(rows):
        times, start, end = known["prediction_time"], rows["prediction_time"].iloc[0], rows["prediction_time"].iloc[-1]
        first = start.to_pydatetime()
        if len(rows) < len(ours):  # nobody asks what was refused before the rows that count
            since = first
        inside = (times >= start - delay) & (times <= end - delay) & (known["prediction_version"] == version)
        judged = known[inside] if delay else rows
    else:
        judged = rows
    labels = read_labels(f"{log}/labels", first and first - delay).set_index("prediction_id")["label"].rename(TRUTH)
    refusals = read_refusals(f"{log}/refusals", since, now)
    return Window(
        rows=rows,
        judged=judged.join(plain(labels), on="prediction_id"),
        refusals=refusals[refusals["version"].isin((0, version))].reset_index(drop=True),
        other_versions=len(recent) - len(ours),
        from_future=len(found) - len(known),
    )


def collect_earlier(log: str, version: int, rows: pd.DataFrame, first: datetime) -> pd.DataFrame:
    """Read what a version answered before the rows of a window, back to `first`, with labels as `TRUTH`.

    These are the newest `WINDOWS` windows of as many rows; where they do not reach back `SPAN`, others with gaps
    between them that do, if these are enough.
    """
    end = rows["prediction_time"].iloc[0].to_pydatetime()
    parts = _windows_before(log, version, rows, first)
    if len(parts) == WINDOWS:
        gap = (min(end - first, SPAN) - (end - parts[-1]["prediction_time"].iloc[0])) / WINDOWS
        spread = _windows_before(log, version, rows, first, gap) if gap > timedelta(0) else []
        parts = spread if len(spread) >= NEEDED else parts
    known = pd.concat(parts[::-1] or [rows.head(0)], ignore_index=True)
    start = known["prediction_time"].min() if len(known) else end
    weeks = [*pd.date_range(start, rows["prediction_time"].iloc[-1], freq="7D"), None]
    labels = pd.concat([_labels_of(known["prediction_id"], log, *week) for week in itertools.pairwise(weeks)])
    newest = labels.drop_duplicates("prediction_id", keep="last").set_index("prediction_id")["label"]
    return known.join(plain(newest.rename(TRUTH)), on="prediction_id")


def _windows_before(
    log: str, version: int, rows: pd.DataFrame, first: datetime, gap: timedelta = timedelta(0)
) -> list[pd.DataFrame]:
    """Return `WINDOWS` windows of as many rows, the newest first; the last may be cut short.

    The log is read in pieces, each twice as long as the one after it until a window is full; what falls into a gap is
    not kept. Gaps are of random length, so that windows keep step with no hour.
    """
    n, times, random = len(rows), rows["prediction_time"], np.random.default_rng(0)
    end = times.iloc[0].to_pydatetime()
    length = max(2 * (times.iloc[-1].to_pydatetime() - end), timedelta(minutes=1))
    parts, rest, longer = list[pd.DataFrame](), rows.head(0), length
    while len(parts) < WINDOWS:
        while len(rest) < n and end > first:
            start = max(end - longer, first)
            found = plain_objects(read_predictions(f"{log}/predictions", start, end))
            found = found[found["prediction_version"] == version]
            rest = pd.concat([found, rest], ignore_index=True) if len(rest) else found
            end, longer = start, 2 * longer
        if not len(rest):
            break
        parts, rest = [*parts, rest.tail(n)], rest.head(-n)
        if gap:
            until = parts[-1]["prediction_time"].iloc[0] - gap * random.uniform(0.5, 1.5)
            end, longer, rest = min(end, until.to_pydatetime()), length, rest[rest["prediction_time"] < until]
    return parts


def _labels_of(ids: pd.Series, log: str, start: datetime, end: datetime | None) -> pd.DataFrame:
    labels = read_labels(f"{log}/labels", start, end)
    return labels[labels["prediction_id"].isin(ids)]


def examine(
    window: Window,
    bundle: Bundle,
    version: int,
    holdout_rows: pd.DataFrame,
    before: dict[str, Estimate],
    config: Config,
) -> WindowReport:
    """Compare a window with the contract of the model that answered, and with holdout rows of its training."""
    settings, rows, n = config.monitoring, window.rows, len(window.rows)
    refused, share = _refused(window)
    report = WindowReport(
        name=config.name,
        version=version,
        start=rows["prediction_time"].iloc[0].to_pydatetime() if n else None,
        end=rows["prediction_time"].iloc[-1].to_pydatetime() if n else None,
        rows=n,
        enough=n >= settings.min_rows,
        alarms=(),
        notes=tuple(_notes(window, settings)),
        refused=refused,
        refused_share=share,
        refused_rows=int(window.refusals["rows"].sum()),
        refused_where=_refused_where(window.refusals),
        before=before,
    )
    notes = (report.refusals, *report.notes) if report.refusals else report.notes
    alarms = _joined(_refusal_alarms(report, window.refusals, settings))
    report = report.model_copy(update={"alarms": alarms, "notes": notes})
    if not report.enough:
        return report
    window, left_out = _comparable(window, bundle.card)
    report = report.model_copy(
        update={"notes": (*report.notes, *left_out), "enough": len(window.rows) >= settings.min_rows}
    )
    if not report.enough:
        return report
    holdout = bundle.predictions(holdout_rows)
    report = _examine_inputs(report, window, bundle, holdout_rows, holdout, config)
    return _examine_labels(report, window, bundle, holdout_rows, holdout, config)


def _examine_inputs(
    report: WindowReport,
    window: Window,
    bundle: Bundle,
    holdout_rows: pd.DataFrame,
    holdout: Predictions,
    config: Config,
) -> WindowReport:
    settings, contract, rows = config.monitoring, bundle.card.contract, window.rows
    kept = [column for column in contract.columns if column.name not in config.serving.personal]
    logged = contract.model_copy(update={"columns": tuple(kept)})
    findings = check_rows(rows[[c for c in logged.features if c in rows]], logged, config.contract)
    sides = _Sides.of(rows, bundle, holdout_rows)
    drifts = column_drifts(sides.train(rows), kept, contract.reference_rows or contract.rows, settings)
    gaps = {drift.name for drift in drifts if drift.missing_drifted}
    whole = [column for column in kept if column.name in rows and column.name not in gaps]
    identity = bundle.card.recipe.data.group or contract.id
    apart = separation(sides.holdout(rows), holdout_rows, whole, settings, identity)
    drifts, apart, notes = _beside_past(drifts, apart, window, sides, holdout_rows, contract, whole, identity, settings)
    scores, alarms = logged_scores(rows, bundle.card), _input_alarms(findings, drifts, apart, settings)
    psi, moved = _prediction_drift(scores, holdout, settings)
    if len(np.unique(scores, axis=0)) == 1 < len(np.unique(holdout.scores, axis=0)):
        said = f"all {len(rows):,} answers are the same, those to the holdout are not; look at what the service is sent"
        alarms, estimated, note = [*alarms, _alarm("schema", said)], dict[str, float](), list[str]()
    else:
        alike = likeness(rows, scores, holdout_rows, holdout, whole, identity)
        estimated, note = _estimated(scores, holdout, alike)
    return report.model_copy(
        update={
            "alarms": _joined([*report.alarms, *alarms]),
            "notes": (*report.notes, *notes, *note),
            "findings": findings,
            "columns": tuple(drifts),
            "separation": apart,
            "prediction_psi": psi,
            "prediction_drifted": moved,
            "estimated": estimated,
        }
    )


def _comparable(window: Window, card: Card) -> tuple[Window, list[str]]:
    """Return a window without answers that hold no score, and labels that no model of this contract can be told."""
    notes, contract = list[str](), card.contract
    rows, judged = (_scored(side, card) for side in (window.rows, window.judged))
    if unscored := len(window.rows) - len(rows):
        notes.append(f"{unscored:,} answers hold no score and are left out")
    truth = judged[TRUTH]
    unknown = label_codes(truth, contract).isna() & truth.notna()
    if unknown.any():
        wanted = f"none of {', '.join(contract.classes)}" if contract.classes else "no number"
        notes.append(f"{int(unknown.sum()):,} labels are {wanted} and are left out; send the right ones to /feedback")
        judged = judged.assign(**{TRUTH: truth.where(~unknown)})
    return replace(window, rows=rows, judged=judged), notes


def _scored(rows: pd.DataFrame, card: Card) -> pd.DataFrame:
    scores = logged_scores(rows, card)
    scored = np.asarray(np.isfinite(scores.reshape(len(rows), -1)).all(axis=1), np.bool_)
    return rows[scored].reset_index(drop=True)


@dataclass(frozen=True)
class _Sides:
    """Say which rows are like those that a statistic was learned from.

    All are, as long as few rows repeat another, or each is a row of its own. In a table without an id in which
    most rows are copies, some contents were learned from and others held out: served rows of the one side are compared
    with it alone.
    """

    rule: SplitRule | None

    @classmethod
    def of(cls, rows: pd.DataFrame, bundle: Bundle, holdout_rows: pd.DataFrame) -> "_Sides":
        rule, logged = bundle.card.split, {*rows.columns}
        by_content = not (bundle.card.recipe.data.keys or rule.time or rule.label) and {*rule.identity} <= logged
        few = by_content and repeats(holdout_rows, rule.identity) >= FEW_CONTENTS * len(holdout_rows)
        return cls(rule if few else None)

    def train(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows if self.rule is None else rows[~self.rule.held_out(rows)]

    def holdout(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows if self.rule is None else rows[self.rule.held_out(rows)]


def _beside_past(
    drifts: list[ColumnDrift],
    apart: Separation | None,
    window: Window,
    sides: "_Sides",
    holdout_rows: pd.DataFrame,
    contract: DataContract,
    seen: Sequence[Column],
    identity: Sequence[str],
    settings: Monitoring,
) -> tuple[list[ColumnDrift], Separation | None, list[str]]:
    """Hold what has drifted, if rows are independent of each other, against earlier windows; say what came of it."""
    alarmed = {drift.name for drift in drifts if drift.drifted or drift.missing_drifted}
    if not alarmed and (apart is None or not apart.drifted):
        return drifts, apart, []
    rows, past = window.rows, window.earlier.cut(len(window.rows))
    if past is None:
        return drifts, apart, [_assumed("rows", len(rows), len(window.earlier.rows))]
    n = contract.reference_rows or contract.rows
    held = held_columns(drifts, sides.train(rows), contract.columns, n, past.of(sides.train), settings)
    still = {drift.name for drift in held if drift.drifted or drift.missing_drifted}
    usual = [f"'{drift.name}'" for drift in held if drift.name in alarmed - still]
    if apart is not None and apart.drifted and not still:
        there = past.of(sides.holdout)
        apart = held_separation(apart, sides.holdout(rows), holdout_rows, seen, there, settings, identity)
        usual += [] if apart.drifted else ["what a classifier sees"]
    if not usual:
        return held, apart, []
    more = f" and {len(usual) - 5} more" if len(usual) > 5 else ""
    return held, apart, [f"no alarm for {', '.join(usual[:5])}{more}: {past.sentence}, differ as much"]


def _examine_labels(
    report: WindowReport,
    window: Window,
    bundle: Bundle,
    holdout_rows: pd.DataFrame,
    holdout: Predictions,
    config: Config,
) -> WindowReport:
    settings, contract = config.monitoring, bundle.card.contract
    is_labelled = window.judged[TRUTH].notna()
    share, count = float(is_labelled.mean()) if len(is_labelled) else 0.0, int(is_labelled.sum())
    notes = [*report.notes, f"labels for {share:.0%} of the rows ({count:,} of {len(is_labelled):,})"]
    found: dict[str, Any] = {"labelled": count, "coverage": share}
    due, (audit, enough) = window.judged, audit_of(window.judged, config.feedback.audit, settings)
    if len(audit):
        known = int(audit[TRUTH].notna().sum())
        needed = f" alone; that needs {settings.min_labels:,}, and {NEARLY_ALL:.0%}"
        said = "labels are judged by the audit sample alone" if enough else f"the audit sample does not judge{needed}"
        notes.append(f"{said}: {known:,} of its {len(audit):,} rows are labelled")
        due = audit if enough else due
    measured = due[due[TRUTH].notna()].reset_index(drop=True)
    # Where values have stopped coming the model knows less, which is no change of what there is to know.
    gaps = [drift.name for drift in report.columns if drift.missing_drifted and drift.name in due]
    due = due[due[gaps].notna().all(axis=1)]
    usable = due[due[TRUTH].notna()].reset_index(drop=True)
    bands = coverage_of(*asked_of(due, bundle.card), settings) if 0 < len(usable) < len(due) else None
    columns = [column for column in contract.columns if column.name not in config.serving.personal]
    alarms = []
    if bands is not None and bands.selective:
        alarms.append(_alarm("coverage", bands.sentence))
        measured, said = _evened_out(due, bundle, holdout_rows, holdout, columns, settings)
        notes.append(f"label and concept drift are not judged, and {said}")
    elif len(usable) >= settings.min_labels:
        labelled = _predictions(usable, bundle)
        identity = bundle.card.recipe.data.group or contract.id
        weights = likeness(usable, labelled.scores, holdout_rows, holdout, columns, identity)
        found["alike"] = effective_rows(weights)
        if unlike := _unlike(weights) or _few_groups(labelled, holdout):
            notes.append(f"label and concept drift are not judged: {unlike}")
        else:
            label = label_drift(labelled, holdout, bundle.card.prior, contract.target, settings, weights)
            concept = concept_drift(labelled, holdout, settings, weights)
            if label.drifted or (concept is not None and concept.drifted):
                sample = config.feedback.audit if enough else 1.0
                of_past = (usable, window, sample, bundle, holdout, settings)
                label, concept, told = _labels_beside_past(label, concept, *of_past)
                notes += told
            segments = worse_segments(usable, labelled, holdout_rows, holdout, columns, settings)
            alarms = _label_alarms(label, concept, segments)
            if alarms and bands is not None and not drift_is_likelier(*asked_of(due, bundle.card), holdout, settings):
                seen = "; ".join(alarm.sentence for alarm in alarms)
                alarms = [_alarm("coverage", f"{seen}; labels that come selectively would explain it as well")]
                notes.append(f"label and concept drift are not judged, and {_UNTOLD}")
                measured = measured.head(0)
            else:
                found |= {"label": label, "concept": concept, "segments": segments}
    else:
        needed = "labelled rows without the new gaps" if gaps else "labelled rows"
        notes.append(f"label and concept drift need {settings.min_labels:,} {needed}, there are {len(usable):,}")
    if len(measured) >= settings.min_labels:
        labelled = _predictions(measured, bundle)
        drawn = labelled.take(np.sort(np.random.default_rng(0).permutation(len(measured))[:MEASURED_ROWS]))
        found["performance"] = estimate(drawn, metric_names(contract.task), config.evaluation)
        found |= {"reliability": reliability(labelled), "measured": len(measured)}
    found |= {"bands": bands, "alarms": _joined([*report.alarms, *alarms])}
    return report.model_copy(update={**found, "notes": tuple(notes)})


def _evened_out(
    due: pd.DataFrame,
    bundle: Bundle,
    holdout_rows: pd.DataFrame,
    holdout: Predictions,
    columns: Sequence[Column],
    settings: Monitoring,
) -> tuple[pd.DataFrame, str]:
    """Return labelled rows that stand for all, if labels came by decision and score, and what is to be said of them.

    None where too few are left, or where they are not as promised: then they may have been chosen by what came true.
    """
    rows = due[evened_out(*asked_of(due, bundle.card))].reset_index(drop=True)
    if len(rows) < settings.min_labels:
        fewest = f"{settings.min_labels:,} labels that are spread as all rows are, {EVEN_LABELS} in each band at least"
        return rows.head(0), f"metrics are not shown: they need {fewest}"
    came, card = _predictions(rows, bundle), bundle.card
    identity = card.recipe.data.group or card.contract.id
    weights = likeness(rows, came.scores, holdout_rows, holdout, columns, identity)
    if unlike := _unlike(weights):
        return rows.head(0), f"metrics are not shown: {unlike}"
    concept = concept_drift(came, holdout, settings, weights)
    label = label_drift(came, holdout, card.prior, card.contract.target, settings, weights)
    if label.drifted or (concept is not None and concept.drifted):
        return rows.head(0), _UNTOLD
    return rows, (
        f"metrics are those of {len(rows):,} labelled rows, drawn so that each decision and score band counts as often "
        "as it was asked; of labels that were chosen by what came true, such as complaints, that makes no fair sample"
    )


def _estimated(scores: np.ndarray, holdout: Predictions, weights: np.ndarray) -> tuple[dict[str, float], list[str]]:
    """Return the performance to be expected, and why some of it is not shown."""
    if holdout.task == "regression":
        return {}, []
    if unlike := _unlike(weights):
        return {}, [f"performance is not estimated: {unlike}"]
    estimated = estimated_performance(scores, holdout, weights)
    if not (hidden := [name for name in metric_names(holdout.task) if name not in estimated]):
        return estimated, []
    return estimated, [f"no estimate of {', '.join(hidden)}: on the holdout it misses what was measured there"]


def _unlike(weights: np.ndarray) -> str:
    """Say that too little of the holdout is like the window; nothing where there is enough."""
    alike, needed = effective_rows(weights), min(ALIKE_ROWS, len(weights) // 2)
    said = f"too few holdout rows are like these ({alike:,} in effect, {needed:,} are needed)"
    return said if alike < needed else ""


def _labels_beside_past(
    label: LabelDrift,
    concept: ConceptDrift | None,
    judged: pd.DataFrame,
    window: Window,
    sample: float,
    bundle: Bundle,
    holdout: Predictions,
    settings: Monitoring,
) -> tuple[LabelDrift, ConceptDrift | None, list[str]]:
    """Hold labels that have drifted, if they are independent of each other, against those of earlier windows.

    `sample` is the share of predictions, by their ids, whose labels are looked at.
    """
    known = window.earlier.rows
    if len(known):
        known = _comparable(replace(window, judged=known), bundle.card)[0].judged
        known = known[
            known[TRUTH].notna()
            & in_audit(known["prediction_id"], sample)
            & (known["prediction_time"] < judged["prediction_time"].iloc[0])
        ]
    past = Earlier(lambda: known, window.earlier.quiet).cut(len(judged))
    if past is None:
        return label, concept, [_assumed("labels", len(judged), len(known))]
    earlier = [_predictions(rows.reset_index(drop=True), bundle) for rows in past.windows]
    count = len(past.together) + 1
    together = _predictions(pd.concat([*past.together, judged], ignore_index=True), bundle)

    def held(now: Drift, look: Callable[[Predictions], Drift | None]) -> Drift:
        lasting, found = look(together), [each for each in map(look, earlier) if each is not None]
        if lasting is None or len(found) < NEEDED // 2:
            return now
        return held_labels(now, found, lasting, count, settings)

    usual = []
    if label.drifted:
        prior, target = bundle.card.prior, bundle.card.contract.target
        label = held(label, lambda labelled: label_drift(labelled, holdout, prior, target, settings))
        usual += [] if label.drifted else ["label"]
    if concept is not None and concept.drifted:
        concept = held(concept, lambda labelled: concept_drift(labelled, holdout, settings))
        usual += [] if concept.drifted else ["concept"]
    return label, concept, [f"no {' or '.join(usual)} drift: {past.sentence}, differ as much"] if usual else []


def _few_groups(labelled: Predictions, holdout: Predictions) -> str:
    """Say that too few groups of rows have labels, or are in the holdout; nothing where there are enough."""
    for where, side in (("have labels", labelled), ("are in the holdout", holdout)):
        worth = FEWEST_GROUPS if side.groups is None else groups_worth(side.groups)
        if worth < FEWEST_GROUPS:
            return f"groups of rows worth {worth:.1f} even ones {where}, {FEWEST_GROUPS} are needed"
    return ""


def _assumed(what: str, n: int, known: int) -> str:
    wanted = f"{NEEDED} earlier windows of {n:,} would show how much they differ by themselves"
    return f"{what} are taken to be independent of each other: {wanted}, the log holds {known // n}"


def _notes(window: Window, settings: Monitoring) -> list[str]:
    notes, n = [], len(window.rows)
    if not n:
        notes.append("no new rows: nothing was answered since the last window")
    elif n < settings.min_rows:
        notes.append(f"too few rows: {n:,} since the last window, judging needs {settings.min_rows:,}")
    if window.other_versions:
        then = f"; deploy the champion to have it watched: {command('--pipeline deployment')}"
        fix = "" if n or len(window.refusals) else then
        notes.append(f"{window.other_versions:,} rows that another version answered are left out{fix}")
    if window.from_future:
        fix = "look at the clocks of the servers"
        notes.append(f"{window.from_future:,} rows are dated later than now and are left out; {fix}")
    return notes


def _refused(window: Window) -> tuple[dict[str, int], float]:
    """Return refusals by rule, and their share of all requests."""
    refused = {str(rule): int(count) for rule, count in window.refusals["rule"].value_counts().items()}
    # Each request has a row 0, but for the first of the window, which may be cut.
    firsts = window.rows["prediction_id"].str.endswith("-0")
    answered = int(firsts.sum() + (not firsts.iloc[0])) if len(firsts) else 0
    total = answered + len(window.refusals)
    return refused, len(window.refusals) / total if total else 0.0


def _refused_where(refusals: pd.DataFrame) -> dict[str, int]:
    """Count refused rows by column and rule; a request that is refused whole counts with all its rows."""
    counts: Counter[str] = Counter()
    for field, rule, rows in zip(refusals["field"], refusals["rule"], refusals["rows"], strict=True):
        words = rule.replace("_", " ")
        counts[f"'{field}' {words}" if isinstance(field, str) else words] += int(rows)
    return dict(counts.most_common())


def _refusal_alarms(report: WindowReport, refusals: pd.DataFrame, settings: Monitoring) -> list[Alarm]:
    """Alarm where a sender has changed, or where many rows lie outside the contract.

    A sender that has changed breaks all its rows, so their share is that of its requests. A value out of bounds makes a
    request be refused for one row among many, so what is known of it, one row, is held against the rows answered; all
    of them are known where the others were answered.
    """
    shown = report.refusals or ""
    is_broken = refusals["rule"].isin(SCHEMA_RULES)
    total, broken = len(refusals), int(is_broken.sum())
    faulty = refusals["rows"].where(refusals["answered"] > 0, 1)
    values, gaps = int(faulty[~is_broken].sum()), int(faulty[refusals["rule"] == "new_nulls"].sum())
    share = report.refused_share * broken / max(total, 1)
    alarms = []
    if refusals["rows"][is_broken].sum() >= _FEW and share >= settings.min_refused:
        alarms.append(_alarm("schema", f"{share:.0%} of the requests were refused for their columns; {shown}"))
    share = values / max(values + report.rows, 1)
    if values >= _FEW and share >= settings.min_refused:
        kind: Kind = "missing" if gaps >= values / 2 else "covariate"
        alarms.append(_alarm(kind, f"values outside the contract; {shown}"))
    return alarms


def _input_alarms(
    findings: Sequence[Finding], drifts: Sequence[ColumnDrift], apart: Separation | None, settings: Monitoring
) -> list[Alarm]:
    alarms = [
        _alarm("schema", finding.sentence)
        for finding in findings
        if finding.rule in SCHEMA_RULES and finding.share >= settings.min_missing
    ]
    alarms += [_alarm("missing", drift.sentence) for drift in drifts if drift.missing_drifted]
    moved = sorted((d for d in drifts if d.drifted and not d.missing_drifted), key=lambda d: -(d.psi or 0))
    alarms += [_alarm("covariate", drift.sentence) for drift in moved]
    if apart is not None and apart.drifted and not moved:
        sentence = f"columns moved together: a classifier tells window from reference with ROC AUC {apart.auc:.2f}"
        alarms.append(_alarm("covariate", sentence))
    return alarms


def _label_alarms(label: LabelDrift, concept: ConceptDrift | None, segments: Sequence[Segment]) -> list[Alarm]:
    alarms = []
    if label.drifted:
        what = f"{label.value:.4g} where the inputs promise {label.promised:.4g} ({p_value(label.p)})"
        alarms.append(_alarm("label", f"'{label.label}' is {what}"))
    if concept is not None and concept.drifted:
        worst = f", worst where {segments[0].column} is {segments[0].values}" if segments else ""
        what = f"{concept.value:.3f} where the scores promise {concept.promised:.3f} ({p_value(concept.p)})"
        alarms.append(_alarm("concept", f"{concept.metric} is {what}{worst}"))
    return alarms


def _joined(alarms: Sequence[Alarm]) -> tuple[Alarm, ...]:
    """Join the sentences of each kind, three at most."""
    said = {kind: [alarm.sentence for alarm in alarms if alarm.kind == kind] for kind in KINDS}
    more = {kind: f"; and {len(found) - 3} more" if len(found) > 3 else "" for kind, found in said.items()}
    return tuple(_alarm(kind, "; ".join(found[:3]) + more[kind]) for kind, found in said.items() if found)


def _alarm(kind: Kind, sentence: str) -> Alarm:
    return Alarm(kind=kind, sentence=sentence, helps=KINDS[kind])


def _prediction_drift(scores: np.ndarray, holdout: Predictions, settings: Monitoring) -> tuple[float | None, bool]:
    if scores.ndim == 2:
        k = scores.shape[1]
        counts = [np.bincount(side.argmax(axis=1), minlength=k) for side in (scores, holdout.scores)]
    else:
        edges = deciles(holdout.scores, holdout.scores.max())
        counts = [histogram(side, edges) for side in (scores, holdout.scores)]
    found = homogeneity(*counts)
    if found is None:
        return None, False
    _, p, psi = found
    return psi, p <= settings.false_alarm_rate / FAMILIES and psi >= settings.min_psi


def _predictions(rows: pd.DataFrame, bundle: Bundle) -> Predictions:
    """Return what was answered beside the labels that came."""
    return asked_of(rows, bundle.card)[0]
