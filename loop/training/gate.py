"""Decide whether a model may become champion, with an error rate that is stated and measured.

A condition has three outcomes at the one-sided level 1 - confidence: its whole interval lies on the right
side of the bound, on the wrong side, or across. So a challenger that is worse than the margin is promoted in
at most 1 - confidence of all cases; `python -m benchmarks.gate` measures that share where that is hardest.
Of many challengers on the same rows, one is promoted so in at most 1 - confidence: `training.level` spends
it over them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from loop.config import Evaluation, Gate
from loop.data.groups import groups_worth
from loop.data.split import SplitRule
from loop.paged import Paged
from loop.training.bundle import Bundle
from loop.training.level import look_at, look_sentence, spend
from loop.training.metrics import (
    Estimate,
    Predictions,
    by_class,
    check_metric,
    constant_predictions,
    default_metric,
    estimate,
    estimate_difference,
    events,
    greater_is_better,
    measure,
    unit,
    unseen_share,
)
from loop.training.stand_in import StandIn

Decision = Literal["promote", "hold", "reject"]
Outcome = Literal["passed", "failed", "inconclusive"]

FEWEST_GROUPS = 30
"""Groups whose spread can be told; of fewer, an interval is too narrow (Cameron, Gelbach & Miller 2008)."""
FEWEST_EVEN = 3
"""Even groups that uneven ones must be worth: where one of 40 has 80 % of the rows, 10 % instead of 5 are promoted at
the margin, where it has half of them 3 %."""


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
    effective: float | None = None
    """Independent rows that the n rows are worth; None where each stands alone."""
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
            f"{old.value:.4g} [{old.low:.4g}, {old.high:.4g}] ({new.size}, {100 * new.confidence:g} %)"
        )


class Verdict(Paged):
    """Say what happens to the model and why, the most decisive reason first."""

    decision: Decision
    reasons: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()
    champion_version: int | None = None
    rows: int
    groups: tuple[Group, ...] = ()
    look: float | None = None
    """Which look at these rows it was, as `loop.training.level` counts them; None where nothing was compared."""
    against: int | None = None
    """The version it was compared with: the champion, or an earlier one that does better on these rows."""

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
    obstacle = f"it is the same model as {rival}" if same_model else _too_little(challenger, metric, gate)
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
    compared, limits = conditions[-1], tuple[str, ...]()
    if share := unseen_share(metric, compared.effective or n, task):
        worse = f"up to {share:.1%} of all rows may be worse than any of these"
        limits = (f"{metric} has no upper bound: {worse}, and of them nothing is promised",)
    decision: Decision = "reject" if "failed" in outcomes else "hold" if "inconclusive" in outcomes else "promote"
    # The champion comes last above and first here: among equals it is what people ask for.
    failed, open_, passed = (
        [c.sentence for c in reversed(conditions) if c.outcome == outcome]
        for outcome in ("failed", "inconclusive", "passed")
    )
    return Verdict(
        decision=decision,
        reasons=(*failed, *open_, *notes, *passed, *limits),
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
    earlier: Sequence[StandIn] = (),
    best: tuple[int, Bundle | StandIn] | None = None,
) -> Verdict:
    """Let both models predict those holdout rows of the challenger that the champion has not seen either, and judge.

    A champion that cannot be loaded is held to what it said of these rows when it was registered. Where nothing is
    known of that, the challenger is judged like a first model: a model that is lost must not block all later ones.
    `earlier` are the records of models that were judged and did not pass. `best` is a champion of before: where it does
    better on these rows than the champion, it is the one to compare with, so that margins do not add up.
    """
    rule = challenger.card.split
    rows = holdout_rows if champion is None else holdout_rows[champion.unseen(holdout_rows, rule)]
    known, n = champion, len(rows)
    notes: tuple[str, ...] = ()
    if isinstance(champion, Bundle) and n < len(holdout_rows):
        notes = (
            f"judged on {n:,} of {len(holdout_rows):,} holdout rows: champion v{champion_version} learned from the "
            "others, or may have, since data.id or split was another for it; undo that, or train under another name",
        )
    if isinstance(champion, StandIn):
        lost = f"champion v{champion_version} cannot be loaded ({champion.fault})"
        notes = (f"{lost}: compared with its recorded predictions on {n:,} common rows",)
        if not n:
            rows, known = holdout_rows, None
            notes = (f"{lost} and no prediction of these rows is on record: judged like a first model",)
        elif n < gate.min_rows:
            few = f"{lost} and its predictions are on record for {n:,} of these {len(holdout_rows):,} rows only"
            fix = f"bring back what it lacks, or have them compared on those: gate.min_events: 1, gate.min_rows: {n}"
            return Verdict(decision="hold", reasons=(f"{few}; {fix}",), champion_version=champion_version, rows=n)
    if rows.empty:
        reasons = ("there is no holdout row that no model has seen", *notes)
        return Verdict(decision="hold", reasons=reasons, champion_version=champion_version, rows=0)
    same = champion is not None and champion.card is not None and champion.card.fingerprint == challenger.fingerprint
    against = champion_version
    if known is not None and best is not None and not same:
        costs = challenger.card.recipe.model.threshold.costs
        if ahead := _where_ahead(best[1], known, rows, rule, gate, costs):
            against, known, rows = best[0], best[1], rows[best[1].unseen(rows, rule)]
            notes = (
                *notes,
                f"v{against}, a champion before v{champion_version}, is ahead of it on these rows: {ahead}",
            )
    look = look_at(rows, earlier)
    if look > 1:
        notes = (*notes, look_sentence(look, len(rows), evaluation))
    verdict = judge(
        challenger.predictions(rows),
        None if known is None else known.predictions(rows),
        challenger.card.prior,
        gate,
        spend(evaluation, look),
        champion_version=against,
        same_model=same,
        notes=notes,
    )
    found = {"champion_version": champion_version, "against": None if known is None else against}
    return verdict.model_copy(update={**found, "look": look if verdict.conditions else None})


def _where_ahead(
    best: Bundle | StandIn,
    champion: Bundle | StandIn,
    rows: pd.DataFrame,
    rule: SplitRule,
    gate: Gate,
    costs: tuple[float, float],
) -> str:
    """Say by how much a champion of before does better on rows that it has not seen either; nothing if it does not.

    Where it is known on fewer than half of the rows, it is no measure.
    """
    common = rows[best.unseen(rows, rule)]
    if len(common) < max(gate.min_rows, len(rows) / 2):
        return ""
    models = [replace(model.predictions(common), costs=costs) for model in (best, champion)]
    if not np.array_equal(models[0].truth, models[1].truth):
        return ""
    metric = check_metric(gate.metric or default_metric(models[0].task), models[0].task, "gate.metric")
    one, other = (measure(metric, said) for said in models)
    ahead = one > other if greater_is_better(metric) else one < other
    return f"{metric} {one:.4g} beside {other:.4g}" if ahead else ""


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


def _too_little(predictions: Predictions, metric: str, gate: Gate) -> str | None:
    """Say why the rows cannot carry a judgement, if they cannot."""
    n, groups = len(predictions.truth), predictions.groups
    what = "rows" if groups is None else "groups of rows"
    if n < gate.min_rows:
        return f"only {n:,} holdout rows that no model has seen; gate.min_rows asks for {gate.min_rows:,}"
    if groups is not None and (draws := int(groups.max()) + 1) < FEWEST_GROUPS:
        return f"only {draws:,} groups of rows in the holdout; {FEWEST_GROUPS} are needed to tell how far chance goes"
    if groups is not None and (worth := groups_worth(groups)) < FEWEST_EVEN:
        return f"one group has most of the holdout rows, worth {worth:.1f} even groups; {FEWEST_EVEN} are needed"
    if predictions.task == "regression":
        return None if np.ptp(predictions.truth) > 0 else f"the target is the same on all {n:,} holdout rows"
    present = np.unique(predictions.truth).astype(int)
    classes = predictions.labels or (("0", "1") if predictions.task == "binary" else ())
    absent = [label for code, label in enumerate(classes) if code not in present]
    if absent:
        return f"no holdout row of class {', '.join(absent)} among {n:,}; every class is needed"
    if by_class(metric, predictions.task):
        for code, count in events(predictions).items():
            if count < gate.min_events:
                asked = f"{metric} is judged on {gate.min_events:,} of each class (gate.min_events)"
                return f"only {count:,} holdout {what} of class {classes[code]}; {asked}: bring more rows"
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
        f" must be {asked} {bound:{sign}.4g} ({found.size}, one-sided {100 * evaluation.confidence:g} %)"
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
        effective=found.effective,
        confidence=evaluation.confidence,
        unit=unit,
        sentence=sentence,
    )
