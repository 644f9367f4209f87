"""Measure what a training costs beside its fit: `python -m benchmarks.training --rows 1000000`.

A table of 30 columns is fitted with five folds, evaluated, compared with a champion and put on record in MLflow, by
the functions that the pipeline's steps call. Aim: the last three together cost at most 0.4 of the fit.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

from loop.cli import runs

os.environ |= runs.ENVIRONMENT  # before scikit-learn is imported: its threads read it then

import numpy as np
import pandas as pd

from loop.config import Evaluation, Gate, Recipe
from loop.data.checks import ContractReport
from loop.data.contract import learn_contract
from loop.data.split import resolve
from loop.pages.report import contract_page, evaluation_page, verdict_page
from loop.registry import tracking
from loop.training.fit import train
from loop.training.gate import judge_models
from loop.training.metrics import Scorecard, estimate, metric_names

T = TypeVar("T")


def table(rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Make a table of 30 features, of every kind but times, and a binary target that some of them predict."""
    found = pd.DataFrame(random.normal(size=(rows, 24)), columns=[f"x{number}" for number in range(24)])
    for number in range(4):
        found[f"c{number}"] = random.choice(["alpha", "beta", "gamma"], rows)
    found["count"] = random.integers(0, 1000, rows)
    found["flag"] = random.random(rows) > 0.5
    logit = found["x0"] + found["x1"] * (found["c0"] == "beta") + found["flag"] - 1
    found["y"] = np.where(logit + random.logistic(size=rows) > 0, "yes", "no")
    return found


def timed(what: str, call: Callable[[], T], fit: float | None = None) -> tuple[T, float]:
    """Call, print the seconds it took and their ratio to those of the fit, and return both."""
    start = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - start
    print(f"{what:24}{seconds:9.2f} s" + (f"{seconds / fit:9.3f}" if fit else ""), flush=True)
    return found, seconds


def main() -> None:
    """Print one line a stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = table(parser.parse_args().rows, np.random.default_rng(0))
    data = {"source": "made", "target": "y", "positive": "yes"}
    recipe, evaluation = Recipe.model_validate({"name": "measured", "data": data}), Evaluation()
    rule = resolve(rows, recipe.data, recipe.split)
    held_out = rule.held_out(rows)
    train_rows, holdout_rows = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    contract = learn_contract(train_rows, recipe.data, recipe.contract)
    some = train_rows.head(5000)
    champion = train(some, learn_contract(some, recipe.data, recipe.contract), rule, recipe)

    bundle, fit = timed("fit with five folds", lambda: train(train_rows, contract, rule, recipe))

    def evaluate() -> Scorecard:
        predictions = bundle.predictions(holdout_rows)
        estimates = estimate(predictions, metric_names(predictions.task), evaluation)
        return Scorecard(estimates=estimates, page=evaluation_page(bundle, holdout_rows, predictions, estimates))

    scorecard, evaluated = timed("evaluate", evaluate, fit)
    verdict, compared = timed(
        "compare with a champion", lambda: judge_models(bundle, champion, 1, holdout_rows, Gate(), evaluation), fit
    )
    pages = {
        "contract": contract_page("measured", ContractReport(findings=(), rows=len(rows)), contract),
        "evaluation": scorecard.page,
        "verdict": verdict_page("measured", verdict),
    }
    with tempfile.TemporaryDirectory() as folder:
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder}/measured.db")
        experiment = mlflow.create_experiment("measured", artifact_location=f"file:{folder}/measured")
        with mlflow.start_run(experiment_id=experiment):
            record = lambda: tracking.record("measured", 1, bundle, scorecard, pages)  # noqa: E731
            _, registered = timed("put on record", record, fit)
    print(f"{'all but the fit':36}{(evaluated + compared + registered) / fit:9.3f}")


if __name__ == "__main__":
    main()
