"""Measure how often the gate errs where that is most likely: `python -m benchmarks.gate`.

Each case draws holdouts on which challenger and champion are correlated and their true difference is known.
At exactly -margin a promotion is an error, allowed in at most 1 - confidence of the draws; at 3 standard
errors of the measured difference it is wanted. The naive rule promotes when the measured difference is above
-margin.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import cast

if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one process a core; more threads only wait for each other

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import binomtest, norm

from config import Evaluation, Gate, Task
from core.gate import judge
from core.metrics import Floats, Predictions, greater_is_better, measure


@dataclass(frozen=True)
class Case:
    """Say which metric is compared, where the challenger stands, and what the n holdout rows are like."""

    metric: str
    level: float
    """The challenger's true metric."""
    n: int
    correlation: float = 0.8
    """Of the two models' errors within a class."""
    positives: float = 0.5
    freedom: float | None = None
    """Degrees of freedom of Student's t for regression errors; normal when None."""


CASES = (
    Case("roc_auc", 0.80, 60),
    Case("roc_auc", 0.98, 60),
    Case("roc_auc", 0.97, 60, correlation=0.5),
    Case("roc_auc", 0.80, 170, correlation=0.9),
    Case("roc_auc", 0.98, 170),
    Case("roc_auc", 0.97, 170, positives=0.15),
    Case("roc_auc", 0.97, 500),
    Case("roc_auc", 0.80, 2000),
    Case("roc_auc", 0.98, 5000),
    Case("average_precision", 0.30, 5000, positives=0.02),
    Case("average_precision", 0.60, 5000, positives=0.02),
    Case("accuracy", 0.80, 60),
    Case("accuracy", 0.97, 60, correlation=0.9),
    Case("accuracy", 0.90, 170, correlation=0.9),
    Case("accuracy", 0.97, 500, correlation=0.9),
    Case("accuracy", 0.85, 2000),
    Case("rmse", 0.5, 60),
    Case("rmse", 0.5, 170, correlation=0.9, freedom=5),
    Case("r2", 0.6, 60, freedom=5),
    Case("r2", 0.6, 170),
    Case("r2", 0.6, 500, freedom=5),
)


def draw(case: Case, lead: float, rng: np.random.Generator) -> tuple[Predictions, Predictions]:
    """Draw a holdout on which the challenger's true metric is better than the champion's by `lead`."""
    first, second, third = rng.standard_normal((3, case.n))
    other = case.correlation * first + np.sqrt(1 - case.correlation**2) * second
    levels = (case.level, case.level - (lead if greater_is_better(case.metric) else -lead))
    if case.metric in ("r2", "rmse"):
        if case.freedom:
            heavy = np.sqrt((case.freedom - 2) / rng.chisquare(case.freedom, case.n))
            first, other = first * heavy, other * heavy
        spreads = [level if case.metric == "rmse" else np.sqrt(1 - level) for level in levels]
        scores = [third - spread * error for spread, error in zip(spreads, (first, other), strict=True)]
        return _pair("regression", third, *scores)
    truth = (rng.random(case.n) < case.positives).astype(int)
    scores = []
    for level, noise in zip(levels, (first, other), strict=True):
        distance = _distance(case.metric, level, case.positives)
        log_odds = distance * (noise + distance * truth) - distance**2 / 2 + logit(case.positives)
        scores.append(expit(log_odds))
    return _pair("binary", truth, *scores)


def three_standard_errors(case: Case, rng: np.random.Generator, draws: int = 200) -> float:
    """Return the true difference that is three standard errors of its own measurement."""
    lead = 0.0
    for _ in range(4):
        lead = 3 * float(np.std([_measured(case, *draw(case, lead, rng)) for _ in range(draws)]))
    return lead


def promotions(
    case: Case, lead: float, runs: int, rng: np.random.Generator, gate: Gate, evaluation: Evaluation
) -> tuple[int, int]:
    """Count the draws, of `runs`, that the gate promotes, and those the naive rule would."""
    gate = gate.model_copy(update={"metric": case.metric})
    prior = (0.0,) if case.metric in ("r2", "rmse") else (1 - case.positives, case.positives)
    promoted = naive = 0
    for _ in range(runs):
        challenger, champion = draw(case, lead, rng)
        seeded = evaluation.model_copy(update={"seed": int(rng.integers(2**31))})
        promoted += judge(challenger, champion, prior, gate, seeded).decision == "promote"
        naive += _measured(case, challenger, champion) > -gate.margin
    return promoted, naive


def _pair(task: Task, truth: Floats, challenger: Floats, champion: Floats) -> tuple[Predictions, Predictions]:
    return Predictions(task, truth, challenger), Predictions(task, truth, champion)


def _measured(case: Case, challenger: Predictions, champion: Predictions) -> float:
    lead = measure(case.metric, challenger) - measure(case.metric, champion)
    return lead if greater_is_better(case.metric) else -lead


@cache
def _distance(metric: str, level: float, positives: float) -> float:
    """Return how far apart two normal score distributions stand for a true metric (the binormal model)."""
    if metric == "roc_auc":
        return float(np.sqrt(2) * norm.ppf(level))
    if metric == "accuracy":
        return float(2 * norm.ppf(level))  # equal classes, cut half way

    def excess(distance: float) -> float:
        cuts = np.linspace(-8, 8 + distance, 20_001)
        hits, alarms = norm.sf(cuts - distance), norm.sf(cuts)
        precision = positives * hits / (positives * hits + (1 - positives) * alarms)
        return float(-np.trapezoid(precision, hits)) - level

    return cast("float", brentq(excess, 0.01, 8))


def _line(case: Case, runs: int) -> str:
    gate, evaluation = Gate(), Evaluation(resamples=400)
    rng = np.random.default_rng(1)
    runs = max(runs // 4, int(runs * min(1.0, 250 / case.n)))
    wanted = three_standard_errors(case, rng)
    errors, naive_errors = promotions(case, -gate.margin, runs, rng, gate, evaluation)
    found, _ = promotions(case, wanted, runs // 2, rng, gate, evaluation)
    sure = binomtest(errors, runs).proportion_ci(0.95, "wilson")
    note = f"r={case.correlation}" + (f" {case.positives:.0%} pos" if case.positives != 0.5 else "")
    note += f" t{case.freedom:g}" if case.freedom else ""
    return (
        f"{case.metric + f' {case.level:g}':22} {note:14} {case.n:5} {-gate.margin:7.3f} {errors / runs:8.1%}"
        f" [{sure.low:5.1%}, {sure.high:5.1%}] {naive_errors / runs:7.1%} {wanted:8.3f}"
        f" {found / (runs // 2):8.1%}  {runs}"
    )


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=500, help="draws for a case of up to 250 rows; fewer for more")
    runs = parser.parse_args().runs
    print(
        f"{'challenger':22} {'rows':14} {'n':>5} {'at':>7} {'promoted':>8} {'95 % interval':>16}"
        f" {'naive':>7} {'at +3 SE':>8} promoted  draws"
    )
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for line in pool.map(_line, CASES, [runs] * len(CASES)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
