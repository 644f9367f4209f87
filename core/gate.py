"""Decide whether a model may become champion, with an error rate that is stated and measured.

A condition has three outcomes at the one-sided level 1 - confidence: its whole interval lies on the right
side of the bound, on the wrong side, or across. So a challenger that is worse than the margin is promoted in
at most 1 - confidence of all cases; `python -m benchmarks.gate` measures that share where that is hardest.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from config import Evaluation, Gate
from core.bundle import Bundle
from core.metrics import (
    Estimate,
    Predictions,
    check_metric,
    constant_predictions,
    default_metric,
    estimate,
    estimate_difference,
    greater_is_better,
    unit,
)
from core.paged import Paged
from core.stand_in import StandIn

Decision = Literal["promote", "hold", "reject"]
Outcome = Literal["passed", "failed", "inconclusive"]


class Condition(BaseModel):
    """Say what was asked of one metric and what the holdout showed, in units of the metric."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    name: str
    outcome: Outcome
    metric: str
    value: float
    bound: float
    low: float
    high: float
    n: int
    confidence: float
    """Of each bound by itself (one-sided)."""
    unit: str = ""
    """What the values are counted in."""
    sentence: str


class Group(BaseModel):
    """Say how the models do on a part of the rows; nothing is decided by it."""

    # An undefined metric is NaN; JSON null would not load again.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    name: str
    rows: int
    metric: str
    challenger: Estimate
    champion: Estimate

    @property
    def sentence(self) -> str:
        """Say it in words."""
        new, old = self.challenger, self.champion
        return (
            f"{self.name}: {self.metric} is {new.value:.4g} [{new.low:.4g}, {new.high:.4g}], the champion's "
            f"{old.value:.4g} [{old.low:.4g}, {old.high:.4g}] (n = {self.rows:,}, {100 * new.confidence:g} %)"
        )


class Verdict(Paged):
    """Say what happens to the model and why, the most decisive reason first."""

    decision: Decision
    reasons: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()
    champion_version: int | None = None
    rows: int
    groups: tuple[Group, ...] = ()

    def because(self, reason: str) -> "Verdict":
        """Return the verdict with one more reason, which comes first."""
        return self.model_copy(update={"reasons": (reason, *self.reasons)})

    def held(self, reason: str) -> "Verdict":
        """Return the verdict as a hold for one more reason, which comes first."""
        return self.because(reason).model_copy(update={"decision": "hold"})


def judge(
    challenger: Predictions,
    champion: Predictions | None,
    prior: Sequence[float],
    gate: Gate,
    evaluation: Evaluation,
    *,
    champion_version: int | None = None,
    same_model: bool = False,
    notes: tuple[str, ...] = (),
) -> Verdict:
    """Compare the challenger with the minimum bounds, a constant and the champion, on the same rows.

    Both are judged in the challenger's costs: two currencies cannot be compared. `prior` holds the training class
    shares in label order, or the training mean. Every condition counts: any failed one rejects, else any inconclusive
    one holds, else the model is promoted. `notes` are reasons that decide nothing. An unknown metric is a UserError.
    """
    task, n = challenger.task, len(challenger.truth)
    metric = check_metric(gate.metric or default_metric(task), task, "gate.metric")
    for name in gate.minimum:
        check_metric(name, task, "gate.minimum")
    rival = "the champion" if champion_version is None else f"champion v{champion_version}"
    champion = champion and replace(champion, costs=challenger.costs)
    obstacle = f"it is the same model as {rival}" if same_model else _too_little(challenger, gate)
    if obstacle is None and champion is not None and not np.array_equal(champion.truth, challenger.truth):
        obstacle = f"{rival} and the challenger do not name the same classes, so they cannot be compared"
    if obstacle:
        return Verdict(decision="hold", reasons=(obstacle, *notes), champion_version=champion_version, rows=n)

    # Both ends of a two-sided interval at 2c - 1 are one-sided bounds at c.
    one_sided = evaluation.model_copy(update={"confidence": 2 * evaluation.confidence - 1})
    found = estimate(challenger, gate.minimum, one_sided)

    def condition(name: str, metric: str, against: str, found: Estimate, bound: float, floor: bool) -> Condition:
        return _condition(name, metric, against, found, bound, floor, evaluation, unit(metric, challenger))

    conditions = [
        condition(f"minimum_{name}", name, "", found[name], bound, greater_is_better(name))
        for name, bound in gate.minimum.items()
    ]
    constant = constant_predictions(challenger, prior)
    lead = estimate_difference(metric, challenger, constant, one_sided)
    conditions.append(condition("beats_constant", metric, " against a constant", lead, 0, True))
    if champion is None:
        notes = notes or ("first model: no champion to compare with, only a constant and the minimum bounds",)
    else:
        lead = estimate_difference(metric, challenger, champion, one_sided)
        conditions.append(condition("not_worse_than_champion", metric, f" against {rival}", lead, -gate.margin, True))

    outcomes = {c.outcome for c in conditions}
    decision: Decision = "reject" if "failed" in outcomes else "hold" if "inconclusive" in outcomes else "promote"
    # The champion comes last above and first here: among equals it is what people ask for.
    failed, open_, passed = (
        [c.sentence for c in reversed(conditions) if c.outcome == outcome]
        for outcome in ("failed", "inconclusive", "passed")
    )
    return Verdict(
        decision=decision,
        reasons=(*failed, *open_, *notes, *passed),
        conditions=tuple(conditions),
        champion_version=champion_version,
        rows=n,
    )


def judge_models(
    challenger: Bundle,
    champion: Bundle | StandIn | None,
    champion_version: int | None,
    holdout_rows: pd.DataFrame,
    gate: Gate,
    evaluation: Evaluation,
) -> Verdict:
    """Let both models predict those holdout rows that the champion has not seen either, and judge.

    A champion that cannot be loaded is held to what it said of these rows when it was registered. Where nothing is
    known of that, the challenger is judged like a first model: a model that is lost must not block all later ones.
    """
    rows = holdout_rows if champion is None else holdout_rows[champion.unseen(holdout_rows)]
    known, n = champion, len(rows)
    notes: tuple[str, ...] = ()
    if isinstance(champion, Bundle) and n < len(holdout_rows):
        notes = (
            f"judged on {n:,} of {len(holdout_rows):,} holdout rows: champion v{champion_version} learned from the "
            "others, since data.id or split was another for it",
        )
    if isinstance(champion, StandIn):
        lost = f"champion v{champion_version} cannot be loaded ({champion.fault})"
        notes = (f"{lost}: compared with its recorded predictions on {n:,} common rows",)
        if not n:
            rows, known = holdout_rows, None
            notes = (f"{lost} and no prediction of these rows is on record: judged like a first model",)
        elif n < gate.min_rows:
            few = f"{lost} and its predictions are on record for {n:,} of these {len(holdout_rows):,} rows only"
            fix = f"bring back what it lacks, or have them compared on those: gate.min_rows: {n}"
            return Verdict(decision="hold", reasons=(f"{few}; {fix}",), champion_version=champion_version, rows=n)
    same = champion is not None and champion.card is not None and champion.card.fingerprint == challenger.fingerprint
    return judge(
        challenger.predictions(rows),
        None if known is None else known.predictions(rows),
        challenger.card.prior,
        gate,
        evaluation,
        champion_version=champion_version,
        same_model=same,
        notes=notes,
    )


def judge_old_rows(
    verdict: Verdict, challenger: Predictions, champion: Predictions, gate: Gate, evaluation: Evaluation
) -> Verdict:
    """Ask as well that the challenger is not worse than the champion on old rows, at the same level and margin.

    Where new rows may have been labelled selectively, old ones are those known to stand for what is asked.
    """
    if not verdict.conditions:
        return verdict
    metric = check_metric(gate.metric or default_metric(challenger.task), challenger.task, "gate.metric")
    one_sided = evaluation.model_copy(update={"confidence": 2 * evaluation.confidence - 1})
    lead = estimate_difference(metric, challenger, replace(champion, costs=challenger.costs), one_sided)
    against = f" on old rows, against champion v{verdict.champion_version},"
    of = unit(metric, challenger)
    found = _condition("not_worse_on_old_rows", metric, against, lead, -gate.margin, True, evaluation, of)
    verdict = verdict.model_copy(update={"conditions": (*verdict.conditions, found)})
    if found.outcome == "passed":
        return verdict.model_copy(update={"reasons": (*verdict.reasons, found.sentence)})
    if found.outcome == "failed":
        return verdict.because(found.sentence).model_copy(update={"decision": "reject"})
    return verdict.held(found.sentence)


def compare_group(
    name: str, challenger: Predictions, champion: Predictions, gate: Gate, evaluation: Evaluation
) -> Group:
    """Measure both models on a part of the rows by the metric of the gate, each with its two-sided interval."""
    metric = gate.metric or default_metric(challenger.task)
    champion = replace(champion, costs=challenger.costs)
    new, old = (estimate(predictions, [metric], evaluation)[metric] for predictions in (challenger, champion))
    return Group(name=name, rows=len(challenger.truth), metric=metric, challenger=new, champion=old)


def _too_little(predictions: Predictions, gate: Gate) -> str | None:
    """Say why the rows cannot carry a judgement, if they cannot."""
    n = len(predictions.truth)
    if n < gate.min_rows:
        return f"only {n:,} holdout rows that no model has seen; gate.min_rows asks for {gate.min_rows:,}"
    if predictions.task == "regression":
        return None if np.ptp(predictions.truth) > 0 else f"the target is the same on all {n:,} holdout rows"
    present = np.unique(predictions.truth).astype(int)
    classes = predictions.labels or (("0", "1") if predictions.task == "binary" else ())
    absent = [label for code, label in enumerate(classes) if code not in present]
    if absent:
        return f"no holdout row of class {', '.join(absent)} among {n:,}; every class is needed"
    return None


def _condition(
    name: str,
    metric: str,
    against: str,
    found: Estimate,
    bound: float,
    floor: bool,
    evaluation: Evaluation,
    unit: str,
) -> Condition:
    """Hold an estimate against a floor or a ceiling; a metric that is undefined decides nothing."""
    good, bad = (found.low, found.high) if floor else (-found.high, -found.low)
    limit = bound if floor else -bound
    outcome: Outcome = "passed" if good > limit else "failed" if bad < limit else "inconclusive"
    asked = "above" if floor else "below"
    sign = "+" if name != f"minimum_{metric}" else ""
    weighed = f" ({unit})" if metric == "cost" else ""
    sentence = (
        f"{outcome}: {metric}{weighed}{against} is {found.value:{sign}.4g}"
        f" [{found.low:{sign}.4g}, {found.high:{sign}.4g}],"
        f" must be {asked} {bound:{sign}.4g} (n = {found.n:,}, one-sided {100 * evaluation.confidence:g} %)"
    )
    return Condition(
        name=name,
        outcome=outcome,
        metric=metric,
        value=found.value,
        bound=bound,
        low=found.low,
        high=found.high,
        n=found.n,
        confidence=evaluation.confidence,
        unit=unit,
        sentence=sentence,
    )
