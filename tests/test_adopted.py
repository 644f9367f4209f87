"""What somebody does who makes a clone their own: a column, an estimator, a metric, a step and a pipeline of theirs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loop.cli.runs import ENVIRONMENT, zenml_home
from loop.config import ROOT

FEATURES = """    return pd.DataFrame({"area per radius": rows["mean area"] / rows["mean radius"]})
"""
ESTIMATORS = '''"""Estimators of mine."""

import numpy as np
from sklearn.linear_model import LogisticRegression

HALF = 0.5


class Cautious(LogisticRegression):
    """A logistic regression that never says more than it is sure of."""

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return HALF + (super().predict_proba(X) - HALF) * 0.9
'''
METRICS = '''"""Metrics of mine."""

from functools import partial

from sklearn.metrics import fbeta_score

from loop.training.own import Own

METRICS: dict[str, Own] = {"f2": Own(partial(fbeta_score, beta=2))}
'''
STEP = '''"""Count rows."""

from typing import Annotated

from zenml import step

from loop.config import Config
from loop.data.sources import read_table


@step
def count_rows(config: Config) -> Annotated[int, "counted_rows"]:
    """Count the rows of the source."""
    return len(read_table(config.data)[0])
'''
PIPELINE = '''"""Counting: how much there is to learn from."""

from zenml import pipeline

from loop.config import Config
from steps.count_rows import count_rows


@pipeline
def counting(config: Config) -> None:
    """Count the rows of the source."""
    count_rows(config)
'''
CONFIG = """name: mine
data:
  source: sklearn:breast_cancer
  target: diagnosis
  positive: malignant
model:
  estimator: model.estimators.Cautious
  params: {max_iter: 2000}
gate:
  metric: f2
  minimum: {f2: 0.7}
evaluation:
  resamples: 200
serving:
  port: PORT
monitoring:
  min_rows: 100
"""
Run = Callable[..., str]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Copy what git knows of, and put into it what its owner would."""
    folder = tmp_path / "clone"
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    derived = folder / "model/features.py"
    text = derived.read_text(encoding="utf-8")
    assert text.count("    return pd.DataFrame(index=rows.index)\n") == 1
    derived.write_text(text.replace("    return pd.DataFrame(index=rows.index)\n", FEATURES), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = CONFIG.replace("PORT", str(free.getsockname()[1]))
    for name, content in (
        ("model/estimators.py", ESTIMATORS),
        ("model/metrics.py", METRICS),
        ("steps/count_rows.py", STEP),
        ("pipelines/counting.py", PIPELINE),
        ("configs/mine.yaml", config),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def do(clone: Path) -> Iterator[Run]:
    """Type a command in the clone; return what it prints, on one line."""
    ours = {*ENVIRONMENT, *zenml_home(clone), "SERVING_HOME", "BENTOML_HOME", "LOCAL_FOLDER", "ZENML_ACTIVE_STACK_ID"}
    world = {key: value for key, value in os.environ.items() if key not in ours}

    def call(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "run.py", *arguments, "--config", "configs/mine.yaml"]
        done = subprocess.run(command, cwd=clone, env=world, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join((done.stdout + done.stderr).split())

    yield call
    call("--stop")


def test_a_clone_that_was_made_ones_own_goes_round_the_loop(clone: Path, do: Run) -> None:
    assert "counted_rows 569" in do("--pipeline", "counting")
    trained = do("--pipeline", "training")
    assert "verdict promote, version 1 of mine" in trained
    assert re.search(r"passed: f2 is 0\.\d+ \[0\.\d+, [01]\.\d+\], must be above 0\.7", trained)
    assert re.search(r"holdout 95 % .* f2 0\.\d+ \(0\.\d+ – [01]\.\d+\)", trained)

    deployed = do("--pipeline", "deployment")
    print(deployed)
    url = re.search(r"url (http://\S+)", deployed)[1]  # type: ignore[index]
    assert "runtime" in deployed, deployed
    answered = ask(f"{url}/predict", clone / ".local/reports/mine/request.json", "application/json")
    table = ask(f"{url}/predict_csv", clone / ".local/reports/mine/request.csv", "text/csv")
    (score,) = json.loads(answered)["scores"]
    assert 0.05 <= score <= 0.95  # as cautious as it was told to be
    assert f",{score}" in table
    do("--simulate", "--rows", "200")
    assert "window 202 rows that version 1 of mine answered" in do("--pipeline", "monitoring")

    estimators = clone / "model/estimators.py"
    estimators.write_text(ESTIMATORS.replace("* 0.9", "* 0.5"), encoding="utf-8")
    again = do("--pipeline", "training", "--set", "gate.promote=off")
    assert "version 2 of mine" in again  # trained, not taken from the cache
    assert "this project's code has changed since" in do("--reproduce", "1", code=1)
    compared = do("--compare", "1", "2")
    losses = re.search(r"log_loss (0\.\d+) .*?(0\.\d+)", compared)
    assert losses is not None, compared
    assert float(losses[1]) < float(losses[2])  # version 1 answers as it did before the edit
    assert "window 0 rows" in do("--pipeline", "monitoring")


def ask(url: str, body: Path, kind: str) -> str:
    request = urllib.request.Request(url, body.read_bytes(), {"content-type": kind})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()
