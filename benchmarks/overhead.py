"""Measure what ZenML and this project add to the work itself: `python -m benchmarks.overhead`.

Everything runs here, one after the other, in a folder that is thrown away: the same work as a plain script
(the functions of the engine and MLflow, no ZenML), the imports alone, and trainings through run.py.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import run
from loop.cli import runs
from loop.config import ROOT, load

CONFIG = ROOT / "configs/breast_cancer.yaml"
IMPORTS = (
    "from loop import config; from zenml.utils.source_utils import set_custom_source_root as root; "
    "root(str(config.ROOT)); "
    "import zenml.client, mlflow.sklearn, skops.io, pipelines.training"
)
CHILD = (
    "import os, sys, pathlib, run; from loop.cli import runs; runs.LOCAL = pathlib.Path({home!r}); "
    "sys.exit(run.main({arguments!r}))"
)


def plain(folder: Path) -> None:
    """Do what the training pipeline does to rows and model, top to bottom, without ZenML."""
    import mlflow
    import pandas as pd

    from loop.data.checks import ContractReport, check_table
    from loop.data.contract import learn_contract
    from loop.data.sources import read_rows
    from loop.data.split import resolve
    from loop.pages.report import contract_page, evaluation_page, verdict_page
    from loop.registry import tracking
    from loop.training.fit import train
    from loop.training.gate import judge
    from loop.training.metrics import Scorecard, estimate, metric_names

    config = load(CONFIG)
    rows = read_rows(config.data)
    rule = resolve(rows, config.data, config.split)
    held_out = rule.held_out(rows)
    train_rows, holdout_rows = rows[~held_out], rows[held_out]
    contract = learn_contract(train_rows, config.data, config.contract)
    findings = check_table(pd.concat([train_rows, holdout_rows]), config.data, config.contract, contract)
    report = ContractReport(findings=findings, rows=len(rows), compared_with=None)
    bundle = train(train_rows, contract, rule, config.recipe)
    predictions = bundle.predictions(holdout_rows)
    estimates = estimate(predictions, metric_names(predictions.task), config.evaluation)
    verdict = judge(predictions, None, bundle.card.prior, config.gate, config.evaluation)
    pages = {
        "contract": contract_page(config.name, report, contract),
        "evaluation": evaluation_page(bundle, holdout_rows, predictions, estimates),
        "verdict": verdict_page(config.name, verdict),
    }
    mlflow.set_tracking_uri(f"sqlite:///{folder}/plain.db")
    experiment = mlflow.create_experiment("plain", artifact_location=f"file:{folder}/plain")
    with mlflow.start_run(experiment_id=experiment):
        tracking.record(config.name, 1, bundle, Scorecard(estimates=estimates), pages)


def timed(code: str, environment: dict[str, str]) -> tuple[float, float]:
    """Run a Python process to its end; return its CPU and wall seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def warm(home: Path) -> tuple[float, float]:
    """Train three times in this process; return seconds around each step function, and in a run outside steps."""
    from zenml.steps import BaseStep

    inside: list[float] = []
    call = BaseStep.call_entrypoint

    def stopwatch(self: BaseStep, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return call(self, *args, **kwargs)
        finally:
            inside.append(time.perf_counter() - start)

    BaseStep.call_entrypoint = stopwatch  # type: ignore[method-assign]
    runs.LOCAL = home
    around, outside = [], []
    for _ in range(3):
        inside.clear()
        start = time.perf_counter()
        with quiet():
            run.main(["--pipeline", "training", "--no-cache"])
        wall = time.perf_counter() - start
        steps = sum(_step_seconds())
        around.append((steps - sum(inside)) / len(inside))
        outside.append(wall - steps)
    return min(around), min(outside)


def _step_seconds() -> Iterator[float]:
    from zenml.client import Client

    (newest,) = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items
    for step in newest.steps.values():
        yield (step.end_time - step.start_time).total_seconds()  # type: ignore[operator]


@contextmanager
def quiet() -> Iterator[None]:
    """Send what is printed nowhere."""
    with Path(os.devnull).open("w") as nowhere:
        stdout, sys.stdout = sys.stdout, nowhere
        try:
            yield
        finally:
            sys.stdout = stdout


def main() -> None:
    """Print one table from one run of each."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        environment = dict(os.environ) | runs.ENVIRONMENT | runs.zenml_home(home / "zenml")
        os.environ |= environment
        train = ["--pipeline", "training"]
        script = f"import pathlib, benchmarks.overhead as o; o.plain(pathlib.Path({folder!r}))"
        first = CHILD.format(home=folder, arguments=train)
        rows = {
            "run.py --help": timed("from loop.cli import commandline; commandline.parser().format_help()", environment),
            "plain script": timed(script, environment),
            "first training, fresh clone": timed(first, environment),
            "imports alone": timed(IMPORTS, environment),
            "training, --no-cache": timed(CHILD.format(home=folder, arguments=[*train, "--no-cache"]), environment),
            "training, cached": timed(CHILD.format(home=folder, arguments=train), environment),
        }
        around, outside = warm(home)
    base = rows["plain script"][0]
    print(f"{'one process each':<30}{'CPU s':>8}{'wall s':>8}{'CPU / script':>14}")
    for name, (cpu, wall) in rows.items():
        print(f"{name:<30}{cpu:8.2f}{wall:8.2f}{cpu / base:14.2f}")
    limit = base + rows["imports alone"][0]
    share = rows["training, --no-cache"][0]
    print(f"\nuncached training / (script + imports), CPU: {share / limit:.2f}")
    print(
        f"warm, a step: {1000 * around:.0f} ms around the step's own function; a run: {outside:.2f} s outside its steps"
    )


if __name__ == "__main__":
    main()
