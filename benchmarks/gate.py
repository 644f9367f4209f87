"""Measure how often the gate errs where that is most likely: `python -m benchmarks.gate`.

Each case draws holdouts on which challenger and champion are correlated and their true difference is known.
At exactly -margin a promotion is an error, allowed in at most 1 - confidence of the draws; at 3 standard
errors of the measured difference it is wanted. A promotion asks for a lead over a constant too, so the draws
that passed against the champion alone are counted beside it: where few rows tell the challenger from a
constant, that condition decides. The naive rule promotes when the measured difference is above -margin.

`--large` is about holdouts whose intervals are computed from slopes instead of resamples: how often each one-sided
bound of a difference misses the true one, which is 0, and how wide the interval is beside the resampled one.
`--intervals` counts how often two-sided 95 % intervals of one model hold, also where they are known not to.

`--looks` is about many tries on one holdout: how often any of 20 challengers that are worse by the margin is promoted,
with the level spent over the looks and without; where 20 challengers end that are each worse than the champion by half
of the margin; and how often one that is better by three or four standard errors is promoted at its k-th look.
"""

import argparse
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, NamedTuple, cast
from unittest.mock import patch

if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one process a core; more threads only wait for each other

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import brentq
from scipy.signal import lfilter
from scipy.special import gamma, softmax
from scipy.stats import binomtest, norm
from scipy.stats.qmc import Sobol

from loop.config import Data, Evaluation, Gate, Task
from loop.data.groups import groups_of
from loop.training.gate import judge
from loop.training.level import spend
from loop.training.metrics import (
    LARGE,
    METRICS,
    Floats,
    Predictions,
    estimate,
    estimate_difference,
    evaluate,
    greater_is_better,
    measure,
)

EVEN, FEW, RARE = (0.5, 0.5), (0.85, 0.15), (0.98, 0.02)
THREE, SKEWED = (0.3, 0.3, 0.4), (0.1, 0.3, 0.6)


@dataclass(frozen=True)
class Case:
    """Say which metric is compared, where the challenger stands, and what the n holdout rows are like."""

    metric: str
    level: float
    """The challenger's true metric."""
    n: int
    correlation: float = 0.8
    """Of the two models' errors within a class."""
    shares: tuple[float, ...] = EVEN
    """Of the classes in the population; the second of two is the positive one."""
    costs: tuple[float, float] = (1.0, 1.0)
    """Of a false positive and a false negative; they decide the threshold too."""
    freedom: float | None = None
    """Degrees of freedom of Student's t for regression errors; normal when None."""
    size: int = 1
    """Rows of a group, such as a customer."""
    common: float = 0.0
    """Share of the errors' variance that the rows of a group have in common."""
    labels: Literal["row", "group"] = "row"
    """Whether the rows of a group differ in their class."""
    serial: float = 0.0
    """Correlation of the errors of neighbouring rows."""

    @property
    def task(self) -> Task:
        """Return what the metric is of."""
        if self.metric in METRICS["regression"]:
            return "regression"
        return "binary" if len(self.shares) == 2 else "multiclass"


CASES = (
    Case("roc_auc", 0.80, 60),
    Case("roc_auc", 0.98, 60),
    Case("roc_auc", 0.97, 60, correlation=0.5),
    Case("roc_auc", 0.80, 170, correlation=0.9),
    Case("roc_auc", 0.98, 170),
    Case("roc_auc", 0.97, 170, shares=FEW),
    Case("roc_auc", 0.97, 500),
    Case("roc_auc", 0.80, 2000),
    Case("roc_auc", 0.98, 5000),
    Case("average_precision", 0.30, 5000, shares=RARE),
    Case("average_precision", 0.60, 5000, shares=RARE),
    Case("average_precision", 0.80, 170),
    Case("accuracy", 0.80, 60),
    Case("accuracy", 0.97, 60, correlation=0.9),
    Case("accuracy", 0.90, 170, correlation=0.9),
    Case("accuracy", 0.97, 500, correlation=0.9),
    Case("accuracy", 0.85, 2000),
    Case("balanced_accuracy", 0.85, 60),
    Case("balanced_accuracy", 0.80, 500, shares=FEW),
    Case("recall", 0.80, 170, shares=FEW),
    Case("recall", 0.80, 2000, shares=FEW),
    Case("precision", 0.90, 170),
    Case("precision", 0.80, 2000, shares=FEW),
    Case("f1", 0.85, 60),
    Case("f1", 0.95, 60),
    Case("f1", 0.80, 170, shares=FEW),
    Case("f1", 0.60, 5000, shares=RARE),
    Case("cost", 0.30, 170, shares=FEW, costs=(1, 10)),
    Case("cost", 0.30, 2000, shares=FEW, costs=(1, 10)),
    Case("log_loss", 0.40, 60),
    Case("log_loss", 0.10, 170),
    Case("log_loss", 0.15, 500, shares=FEW),
    Case("brier", 0.15, 60),
    Case("brier", 0.03, 60),
    Case("brier", 0.03, 170),
    Case("brier", 0.05, 500, shares=FEW),
    Case("accuracy", 0.90, 60, shares=THREE),
    Case("accuracy", 0.80, 500, shares=SKEWED),
    Case("balanced_accuracy", 0.80, 170, shares=THREE),
    Case("balanced_accuracy", 0.80, 500, shares=SKEWED),
    Case("macro_f1", 0.80, 170, shares=THREE),
    Case("macro_f1", 0.80, 500, shares=SKEWED),
    Case("log_loss", 0.50, 60, shares=THREE),
    Case("log_loss", 0.20, 500, shares=SKEWED),
    Case("roc_auc_ovr", 0.95, 60, shares=THREE),
    Case("roc_auc_ovr", 0.95, 170, shares=SKEWED),
    Case("rmse", 0.5, 60),
    Case("rmse", 0.5, 60, freedom=5),
    Case("rmse", 0.5, 170, correlation=0.9, freedom=5),
    Case("mae", 0.5, 60),
    Case("mae", 0.5, 60, freedom=5),
    Case("mae", 0.3, 60, freedom=5),
    Case("mae", 0.5, 500, freedom=5),
    Case("r2", 0.6, 60),
    Case("r2", 0.6, 60, freedom=5),
    Case("r2", 0.8, 60, freedom=5),
    Case("r2", 0.6, 170),
    Case("r2", 0.6, 500, freedom=5),
    Case("roc_auc", 0.85, 1000, shares=(0.98, 0.02)),
    Case("roc_auc", 0.85, 1000, size=10, common=0.5),
    Case("roc_auc", 0.85, 1000, size=10, common=0.5, labels="group"),
    Case("roc_auc", 0.85, 2500, size=50, common=0.5, labels="group"),
    Case("roc_auc", 0.85, 1000, serial=0.9),
    Case("accuracy", 0.85, 1000, size=10, common=0.5),
    Case("accuracy", 0.85, 1000, size=10, common=0.5, labels="group"),
    Case("accuracy", 0.85, 2500, size=50, common=0.5, labels="group"),
    Case("accuracy", 0.85, 1000, serial=0.9),
    Case("brier", 0.10, 2500, size=50, common=0.5, labels="group"),
    Case("mae", 0.5, 1000, size=10, common=0.5),
)

LARGE_CASES = (
    Case("roc_auc", 0.80, LARGE),
    Case("roc_auc", 0.90, LARGE, shares=RARE),
    Case("average_precision", 0.60, LARGE),
    Case("average_precision", 0.30, 2 * LARGE, shares=RARE),
    Case("accuracy", 0.97, LARGE, correlation=0.9),
    Case("balanced_accuracy", 0.85, LARGE, shares=RARE),
    Case("recall", 0.80, LARGE, shares=FEW),
    Case("precision", 0.80, LARGE, shares=FEW),
    Case("f1", 0.60, 2 * LARGE, shares=RARE),
    Case("cost", 0.30, LARGE, shares=FEW, costs=(1, 10)),
    Case("log_loss", 0.15, LARGE, shares=FEW),
    Case("brier", 0.03, LARGE),
    Case("macro_f1", 0.80, LARGE, shares=SKEWED),
    Case("roc_auc_ovr", 0.95, LARGE, shares=THREE),
    Case("rmse", 0.5, LARGE),
    Case("mae", 0.5, LARGE, freedom=5),
    Case("r2", 0.6, LARGE),
)
INTERVALS = (
    *(Case("roc_auc", 0.85, 1000, shares=(1 - share, share)) for share in (0.005, 0.01, 0.02)),
    Case("roc_auc", 0.85, 2000, size=10, common=0.5, labels="group"),
    Case("roc_auc", 0.85, 2000, size=50, common=0.5, labels="group"),
    Case("accuracy", 0.85, 2000, size=10, common=0.5, labels="group"),
    Case("accuracy", 0.85, 2000, size=50, common=0.5, labels="group"),
    *(Case("rmse", 0.5, n, freedom=freedom) for freedom in (None, 5, 3, 2.5) for n in (60, 500)),
    *(Case("mae", 0.5, 500, freedom=freedom) for freedom in (None, 3)),
)
LOOK_CASES = (
    Case("roc_auc", 0.85, 500),
    Case("roc_auc", 0.85, 2500),
    Case("accuracy", 0.85, 500),
    Case("r2", 0.6, 500, freedom=5),
)
TRIES, LOOKS = 20, (1, 2, 3, 5, 10, 20)
_WIDTHS = 4  # draws whose interval is resampled too


def draw(case: Case, lead: float, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Draw a holdout on which the challenger's true metric is better than the champion's by `lead`."""
    challenger, champion = draw_models(case, (0.0, -lead), rng)
    return challenger, champion


def draw_models(case: Case, leads: Sequence[float], rng: np.random.Generator) -> list[Predictions]:
    """Draw a holdout and models whose true metrics are better than the case's by `leads`.

    The errors of each are correlated with the first one's.
    """
    levels = [case.level + (lead if greater_is_better(case.metric) else -lead) for lead in leads]
    classes = () if case.task == "regression" else (len(case.shares),)
    first, *others = (_noise(case, (case.n, *classes), rng) for _ in leads)
    errors = [first, *(case.correlation * first + np.sqrt(1 - case.correlation**2) * own for own in others)]
    if classes:
        truth = rng.choice(*classes, case.n, p=case.shares)
        if case.labels == "group":
            truth = truth[: case.n // case.size].repeat(case.size)
        return [
            _grouped(case, _classifier(case.shares, case.costs, distance, truth, noise))
            for noise, level in zip(errors, levels, strict=True)
            for distance in [_distance(case.metric, case.shares, case.costs, level)]
        ]
    heavy = np.sqrt((case.freedom - 2) / rng.chisquare(case.freedom, case.n)) if case.freedom else np.ones(case.n)
    target = rng.standard_normal(case.n)
    models = [
        Predictions("regression", target, target - _spread(case, level) * heavy * error)
        for level, error in zip(levels, errors, strict=True)
    ]
    return [_grouped(case, model) for model in models]


def _noise(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw standard normal errors that rows of a group, or neighbours, partly have in common."""
    found = rng.standard_normal(shape)
    if case.size > 1:
        shared = rng.standard_normal((case.n // case.size, *shape[1:])).repeat(case.size, axis=0)
        found = np.sqrt(case.common) * shared + np.sqrt(1 - case.common) * found
    if case.serial:
        start = rng.standard_normal((1, *shape[1:])) * case.serial
        found = lfilter([np.sqrt(1 - case.serial**2)], [1, -case.serial], found, axis=0, zi=start)[0]
    return np.asarray(found)


def _grouped(case: Case, predictions: Predictions) -> Predictions:
    """Say which rows belong together, as a table would that has a customer's number, or a time."""
    if case.size == 1 and not case.serial:
        return predictions
    rows = pd.DataFrame({"customer": np.arange(case.n) // case.size, "time": pd.Timestamp(2020, 1, 1)})
    rows["time"] += pd.to_timedelta(np.arange(case.n), "min")
    data = (
        Data(source="none", target="y", group=("customer",))
        if case.size > 1
        else Data(source="none", target="y", time="time")
    )
    return replace(predictions, groups=groups_of(rows, data, ()))


def three_standard_errors(case: Case, rng: np.random.Generator, draws: int = 200) -> float:
    """Return the true difference that is three standard errors of its own measurement."""
    lead = 0.0
    for _ in range(4):
        lead = 3 * float(np.std([_measured(case, *draw(case, lead, rng)) for _ in range(draws)]))
    return lead


class Counts(NamedTuple):
    """Say what became of a number of draws."""

    promoted: int
    not_worse: int
    """Passed against the champion, whatever they did against a constant."""
    naive: int


def judgements(
    case: Case, lead: float, runs: int, rng: np.random.Generator, gate: Gate, evaluation: Evaluation
) -> Counts:
    """Count what the gate, and the naive rule, make of `runs` draws."""
    gate = gate.model_copy(update={"metric": case.metric})
    prior = (0.0,) if case.task == "regression" else case.shares
    promoted = not_worse = naive = 0
    for _ in range(runs):
        challenger, champion = draw(case, lead, rng)
        seeded = evaluation.model_copy(update={"seed": int(rng.integers(2**31))})
        verdict = judge(challenger, champion, prior, gate, seeded)
        promoted += verdict.decision == "promote"
        not_worse += any(c.name == "not_worse_than_champion" and c.outcome == "passed" for c in verdict.conditions)
        naive += _measured(case, challenger, champion) > -gate.margin
    return Counts(promoted, not_worse, naive)


def tries(case: Case, rng: np.random.Generator, gate: Gate, evaluation: Evaluation) -> tuple[bool, bool]:
    """Say whether any of `TRIES` challengers that are worse by the margin is promoted on one holdout.

    First where each has the whole level, then with the level spent over the looks.
    """
    gate = gate.model_copy(update={"metric": case.metric})
    evaluation = evaluation.model_copy(update={"seed": int(rng.integers(2**31))})
    champion, *worse = draw_models(case, [0.0] + TRIES * [-gate.margin], rng)
    whole = [place for place, each in enumerate(worse, 1) if _promotes(case, each, champion, gate, evaluation)]
    # What fails at the whole level passes at no smaller one.
    return bool(whole), any(_promotes(case, worse[k - 1], champion, gate, spend(evaluation, k)) for k in whole)


def walk(case: Case, seed: int, gate: Gate, evaluation: Evaluation, *, spending: bool) -> float:
    """Return how the champion's true metric has changed after `TRIES` challengers, worse by half of the margin each.

    Where the level is spent, each is compared with the best champion so far.
    """
    gate = gate.model_copy(update={"metric": case.metric})
    step, leads, worse, look = gate.margin / 2, [0.0] * (TRIES + 1), 0, 1
    champion = best = draw_models(case, leads, np.random.default_rng(seed))[0]
    for place in range(1, TRIES + 1):
        leads[place] = -step * (worse + 1)
        challenger = draw_models(case, leads, np.random.default_rng(seed))[place]
        rival = best if spending else champion
        passes = _promotes(case, challenger, rival, gate, evaluation)
        if passes and spending:
            passes = _promotes(case, challenger, rival, gate, spend(evaluation, look))
        if passes:
            worse, champion = worse + 1, challenger
            best = challenger if _measured(case, challenger, best) >= 0 else best
        else:
            look += 1
    return -step * worse


def _promotes(case: Case, challenger: Predictions, champion: Predictions, gate: Gate, evaluation: Evaluation) -> bool:
    prior = (0.0,) if case.task == "regression" else case.shares
    if _measured(case, challenger, champion) <= -gate.margin:
        return False
    return judge(challenger, champion, prior, gate, evaluation).decision == "promote"


def _measured(case: Case, challenger: Predictions, champion: Predictions) -> float:
    lead = measure(case.metric, challenger) - measure(case.metric, champion)
    return lead if greater_is_better(case.metric) else -lead


def _classifier(
    shares: tuple[float, ...], costs: tuple[float, float], distance: float, truth: npt.NDArray[np.int_], noise: Floats
) -> Predictions:
    """Return the exact class probabilities of rows whose classes are normal clouds `distance` from the origin."""
    seen = noise + distance * np.eye(len(shares))[truth]
    scores = softmax(distance * seen + np.log(shares), axis=1)
    if len(shares) > 2:
        return Predictions("multiclass", truth, scores)
    return Predictions("binary", truth, scores[:, 1], threshold=costs[0] / sum(costs), costs=costs)


@cache
def _distance(metric: str, shares: tuple[float, ...], costs: tuple[float, float], level: float) -> float:
    """Return how far apart the classes stand for a true metric, on a fixed even sample of each class.

    It holds 32,768 points of a Sobol sequence a class; that gives a metric to 0.0003, F1 of 2 % positives to 0.002.
    """
    noise = norm.ppf(Sobol(len(shares), rng=0).random_base2(15))
    truth = np.repeat(np.arange(len(shares)), len(noise))
    everywhere, weights = np.tile(noise, (len(shares), 1)), np.asarray(shares)[truth][None]

    def excess(distance: float) -> float:
        population = _classifier(shares, costs, distance, truth, everywhere)
        return float(evaluate(metric, population, weights)[0]) - level

    return cast("float", brentq(excess, 0.05, 8, xtol=1e-4))


def _spread(case: Case, level: float) -> float:
    """Return the standard deviation of regression errors for a true metric; that of the target is 1."""
    if case.metric == "r2":
        return float(np.sqrt(1 - level))
    if case.metric == "rmse":
        return level
    absolute = np.sqrt(2 / np.pi)  # mean absolute value at standard deviation 1
    if half := (case.freedom or 0) / 2:
        absolute = np.sqrt((2 * half - 2) / np.pi) * gamma(half - 0.5) / gamma(half)
    return float(level / absolute)


def _line(case: Case, runs: int) -> str:
    gate, evaluation = Gate(), Evaluation(resamples=400)
    rng = np.random.default_rng(1)
    runs = max(runs // 4, int(runs * min(1.0, 250 / case.n)))
    lead = three_standard_errors(case, rng)
    wrong = judgements(case, -gate.margin, runs, rng, gate, evaluation)
    right = judgements(case, lead, runs // 2, rng, gate, evaluation)
    sure = binomtest(wrong.promoted, runs).proportion_ci(0.95, "wilson")
    return (
        f"{case.metric + f' {case.level:g}':23} {_note(case):24} {case.n:5} {wrong.promoted / runs:7.1%}"
        f" [{sure.low:5.1%}, {sure.high:5.1%}] {wrong.naive / runs:6.1%} {lead:9.3f}"
        f" {right.promoted / (runs // 2):8.1%} {right.not_worse / (runs // 2):9.1%}  {runs}"
    )


def _note(case: Case) -> str:
    """Say what else a case is like."""
    note = f"r={case.correlation}" + (f" {case.labels}s×{case.size}" if case.size > 1 else "")
    note += f" AR({case.serial:g})" if case.serial else ""
    note += f" t{case.freedom:g}" if case.freedom else ""
    if case.shares != EVEN:
        note += f" {'/'.join(f'{100 * share:g}' for share in case.shares)}"
    return note


def _large_line(case: Case, runs: int) -> str:
    evaluation, rng = Evaluation(confidence=0.9, resamples=2000), np.random.default_rng(1)
    too_high = too_low = smooth = resampled = 0.0
    for run in range(runs):
        models = draw(case, 0.0, rng)
        found = estimate_difference(case.metric, *models, evaluation)
        too_high += found.low > 0
        too_low += found.high < 0
        if run < _WIDTHS:
            with patch("loop.training.metrics.LARGE", math.inf):
                exact = estimate_difference(case.metric, *models, evaluation)
            smooth, resampled = smooth + found.high - found.low, resampled + exact.high - exact.low
    shares = "/".join(f"{100 * share:g}" for share in case.shares)
    return (
        f"{case.metric + f' {case.level:g}':23} {shares:15} {case.n:6} {too_high / runs:7.1%} {too_low / runs:7.1%}"
        f" {smooth / resampled:9.3f}  {runs}"
    )


def _interval_line(case: Case, runs: int) -> str:
    rng, held = np.random.default_rng(1), 0
    for _ in range(runs):
        (found,) = estimate(draw(case, 0.0, rng)[0], [case.metric], Evaluation()).values()
        held += found.low <= case.level <= found.high
    return f"{case.metric + f' {case.level:g}':16} {_note(case):24} {case.n:6} {held / runs:7.1%}  {runs}"


def _tries_line(case: Case, runs: int) -> str:
    gate, evaluation, rng = Gate(metric=case.metric), Evaluation(resamples=400), np.random.default_rng(1)
    runs = max(runs // 4, int(runs * min(1.0, 500 / case.n)))
    whole, spent = np.mean([tries(case, rng, gate, evaluation) for _ in range(runs)], axis=0)
    walked, walked_spent = (
        np.mean([walk(case, seed, gate, evaluation, spending=spending) for seed in range(runs // 4)])
        for spending in (False, True)
    )
    lead = three_standard_errors(case, rng)
    levels = [evaluation, *(spend(evaluation, look) for look in LOOKS)]
    power = []
    for factor in (1, 4 / 3):
        models = [draw(case, factor * lead, rng) for _ in range(runs // 4)]
        shares = [np.mean([_promotes(case, *pair, gate, level) for pair in models]) for level in levels]
        power.append(" ".join(f"{share:4.0%}" for share in shares))
    return (
        f"{case.metric + f' {case.level:g}':15} {case.n:5} {whole:7.1%} {spent:6.1%} {walked:8.4f} {walked_spent:8.4f}"
        f"  {power[0]} | {power[1]}  {runs}"
    )


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=500, help="draws for a case of up to 250 rows; fewer for more")
    parser.add_argument("--metric", help="only the cases of this metric")
    parser.add_argument("--large", action="store_true", help="bounds on holdouts that are not resampled")
    parser.add_argument("--intervals", action="store_true", help="how often two-sided intervals hold")
    parser.add_argument("--looks", action="store_true", help="many tries on one holdout")
    given = parser.parse_args()
    listed: Sequence[Case] = CASES
    line = _line
    if given.large:
        listed, line = LARGE_CASES, _large_line
    elif given.intervals:
        listed, line = INTERVALS, _interval_line
    elif given.looks:
        listed, line = LOOK_CASES, _tries_line
    cases = [case for case in listed if given.metric in (None, case.metric)]
    if given.intervals:
        print(f"{'':48} {'hold':>7}  draws")
    elif given.looks:
        looks = " ".join(f"{look:4}" for look in ("all", *LOOKS))
        print(f"{'':22} any of {TRIES} at -margin | walked by, spent | at +3 SE, look {looks} | at +4 SE  draws")
    elif given.large:
        print(f"{'':46} {'too high':>7} {'too low':>7} {'width':>8}  draws")
    else:
        print(f"{'':54} {'at -margin':22} {'naive':>6} {'at +3 SE':>9} {'promoted':>8} {'not worse':>9}  draws")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(line, cases, [given.runs] * len(cases)):
            print(found, flush=True)


if __name__ == "__main__":
    main()
