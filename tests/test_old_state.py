"""What version 0.1.0 stored is read by this one: its champion is watched, replaced, and can come back.

`state_0_1_0/state.tar.xz` is the `.local` of a clone, as the code of 0.1.0 left it: one training, a server that was
asked for rows and told their labels, one look at them, and more rows. MLflow's files, bentos and copies are left out.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import sklearn

from loop.cli import runs
from loop.config import ROOT, Feedback
from loop.log.records import read_labels, read_predictions
from loop.training.bundle import Bundle
from loop.watching.feedback import join_labels

OLD, CONFIG = ROOT / "tests/state_0_1_0", "tests/state_0_1_0/loans.yaml"
TRAINED_WITH = "1.9.1"
"""The bundle is a pickle of this scikit-learn; another one refuses it, and then there must be a way on."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Unpack the state into another folder than it was made in: it is that of a clone that was moved."""
    with tarfile.open(OLD / "state.tar.xz") as archive:
        archive.extractall(tmp_path / "möved 2", filter="data")
    return tmp_path / "möved 2/.local"


class Done(NamedTuple):
    codes: list[int]
    out: str
    err: str
    history: list[dict[str, Any]]


def commands(local: Path, library: str, *lines: str) -> Done:
    """Run command lines on the clone in one process, under this version of scikit-learn; say who was champion."""
    code = f"""
import json, pathlib, run, sklearn.base, sys
from loop.cli import runs
sklearn.base.__version__ = {library!r}
runs.LOCAL = pathlib.Path({str(local)!r})
codes = [run.main([*line.split(), "--config", {CONFIG!r}]) for line in sys.argv[1:]]
from loop.registry import champions
print(json.dumps([codes, [entry.model_dump(mode="json") for entry in champions.history("loans")]]))
"""
    ours = {*runs.zenml_home(local), "SERVING_HOME", "BENTOML_HOME", "LOCAL_FOLDER", "ZENML_ACTIVE_STACK_ID"}
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    command = [sys.executable, "-c", code, *lines]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    out, _, last = done.stdout.rstrip().rpartition("\n")
    codes, history = json.loads(last)
    return Done(codes, " ".join(out.split()), done.stderr, history)


def test_contract_and_log_are_read_and_the_model_scores_as_it_answered(clone: Path) -> None:
    (card,) = clone.glob("zenml/local_stores/*/train_model/model/*/*/card.json")
    bundle = Bundle.read(card.parent)
    assert (bundle.card.contract.version, bundle.card.contract.others) == (1, ())
    answered = read_predictions(clone / "logs/loans/predictions")
    labelled, report = join_labels(answered, read_labels(clone / "logs/loans/labels", history=True), Feedback())
    assert (len(answered), len(labelled), report.unknown) == (216, 144, 0)
    if sklearn.__version__ == TRAINED_WITH:
        np.testing.assert_allclose(bundle.scores(answered), answered["prediction_score"], atol=1e-9)
    else:
        assert bundle.fault == f"needs scikit-learn {TRAINED_WITH}, here is {sklearn.__version__}"


def test_a_moved_clone_repairs_its_paths_and_says_so(clone: Path) -> None:
    done = commands(clone, sklearn.__version__, "--history", "--history")
    assert done.codes == [0, 0]
    said = f"this clone's state was at /clone/.local/zenml and is at {clone}/zenml now; its databases follow\n"
    assert done.err.count(said) == 1
    assert not (ROOT / "mlruns").exists()  # MLflow was given version 1, in its own place
    for file in (clone / "zenml").rglob("*"):
        if file.suffix in (".db", ".yaml"):
            assert b"/clone/.local" not in file.read_bytes()


@pytest.mark.parametrize("library", [sklearn.__version__, "1.9.1000"])
def test_its_champion_is_watched_and_replaced_and_a_library_that_refuses_it_does_not_block(
    clone: Path, library: str
) -> None:
    done = commands(
        clone,
        library,
        "--pipeline monitoring --set monitoring.report=never",
        "--pipeline training --stack default --set model.params.C=1.0",
    )
    first, second = done.history
    assert (first["version"], second["version"], second["replaces"]) == (1, 2, 1)
    if library == TRAINED_WITH:
        assert done.codes == [0, 0], done.out + done.err
        assert "72 rows that version 1 of loans answered" in done.out
        assert "against champion v1" in second["reasons"][0]
    else:
        fault = f"needs scikit-learn {TRAINED_WITH}, here is {library}"
        assert done.codes == [2, 0], done.out + done.err
        assert f"champion version 1 of 'loans' cannot be loaded ({fault})" in done.err
        assert second["reasons"][0] == (
            f"champion v1 cannot be loaded ({fault}) and no prediction of these rows is on record: "
            "judged like a first model"
        )
