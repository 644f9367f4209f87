"""Runs that are killed, and runs at the same time: nothing is half-promoted and nothing stays broken."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from children import forkserver, start
from conftest import QUICK, Cli, Result, output

from loop.cli import runs
from loop.config import ROOT
from loop.registry import champions

Train = Callable[..., Result]

POINTS = [
    "train_model",
    *(f"loop.registry.{each}" for each in ("champions:register", "tracking:record", "champions:promote")),
    "loop.registry.champions:draw",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_anywhere_leaves_the_champion_and_the_next_run_completes(
    train: Train, cli: Cli, point: str
) -> None:
    name = "killed"
    if champions.champion(name) is None:
        train(name, "model.params={C: 0.00001}", "gate.minimum={}")
    before = champions.history(name)
    better = f"model.params={{C: {0.1 + 0.01 * POINTS.index(point)}}}"
    arguments = ["--pipeline", "training", "--set", f"name={name}", "--set", better, *QUICK]
    child = start(forkserver(), arguments, die_at=point)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    after = champions.history(name)
    promoted = point == POINTS[-1]  # the one point behind the entry in the log: promoted, not yet drawn
    assert after[: len(before)] == before
    assert len(after) == len(before) + promoted
    assert champions.load_champion(name) is not None
    assert cli("--history", "--set", f"name={name}").code == 0
    assert_shown(name, after[-1].version)
    assert train(name, better).code == 0
    registration = output("registration")
    assert registration.champion == registration.version == champions.history(name)[-1].version
    assert_shown(name, registration.version)


def assert_shown(name: str, champion: int) -> None:
    """Ask ZenML and MLflow which runs go on, which versions there are, and which one is champion."""
    from mlflow import MlflowClient
    from zenml.client import Client

    client = Client()
    runs = client.list_pipeline_runs(name=f"startswith:training-{name}-", size=100, hydrate=True).items
    assert {run.status.value for run in runs} <= {"completed", "failed"}
    assert all(step.status.is_finished for run in runs for step in run.steps.values())
    assert client.get_model_version(name, "production").number == champion
    whole = {
        str(version.number)
        for version in client.list_model_versions(model=name, hydrate=True).items
        if "fingerprint" in version.run_metadata
    }
    mlflow = MlflowClient(client.active_stack.experiment_tracker.get_tracking_uri())
    assert {v.tags["zenml_version"] for v in mlflow.search_model_versions(f"name='{name}'")} == whole
    assert mlflow.get_model_version_by_alias(name, "champion").tags["zenml_version"] == str(champion)


TRAINING = ("--pipeline", "training", *QUICK)
HALF = [
    ("--status", "zenml.stack.flavor_registry:FlavorRegistry.register_integration_flavors", signal.SIGKILL, "zenml.db"),
    ("--status", "zenml.zen_stores.sql_zen_store:SqlZenStore._initialize_database", signal.SIGINT, "zenml.db"),
    ("--pipeline training", "mlflow.store.db.utils:_upgrade_db", signal.SIGKILL, "mlflow.db"),
]


def test_a_first_run_interrupted_while_it_makes_its_databases_is_followed_by_one_that_works(tmp_path: Path) -> None:
    for command, point, by, database in HALF:
        child = start(forkserver(), command.split(), point, by=by, local=tmp_path)
        child.join(120)
        assert child.exitcode == (130 if by == signal.SIGINT else -by)
        assert not list(tmp_path.rglob(database))
    child = start(forkserver(), TRAINING, "no step", local=tmp_path)
    child.join(240)
    assert child.exitcode == 0
    assert {"mlflow.db", "zenml.db"} == {path.name for path in tmp_path.rglob("*.db*") if "-" not in path.name}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_disk_that_is_full_or_read_only_is_one_line_and_room_is_all_it_needs(small_disk: Path) -> None:
    def call(*arguments: str) -> tuple[int | None, str]:
        said = small_disk.with_name("said")
        said.write_text("")
        child = start(forkserver(), arguments, "no step", local=small_disk / "local", said=said)
        child.join(240)
        return child.exitcode, said.read_text()

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(small_disk)], check=True)

    assert call("--status") == (2, f"error: the disk is full at {small_disk}/local; make room and run it again\n")
    remount("size=64m")
    code, said = call(*TRAINING)
    assert code == 0, said
    disk = os.statvfs(small_disk)
    remount(f"size={(disk.f_blocks - disk.f_bfree) * disk.f_frsize + 300_000}")
    code, said = call(*TRAINING, "--set", "model.params.C=0.5")
    assert (code, said.count("Traceback")) == (2, 0), said
    assert said.endswith(f"error: the disk is full at {small_disk}/local; make room and run it again\n")
    remount("size=64m,ro")
    for command in ("--history", "--status"):
        code, said = call(command)
        assert (code, len(said.splitlines())) == (2, 1), said
        assert "cannot be read or written (Read-only file system)" in said
    remount("size=64m,rw")
    code, said = call("--history")
    assert (code, said.count(" UTC  version ")) == (0, 1), said


def test_two_trainings_at_once_on_a_fresh_clone_both_finish_and_one_is_champion(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in runs.zenml_home(tmp_path)}
    code = f"import pathlib, sys, run; from loop.cli import runs; runs.LOCAL = pathlib.Path({str(tmp_path)!r}); "
    code += "sys.exit(run.main(sys.argv[1:]))"

    def cli(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, "--set", "name=both", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    children = [cli("--pipeline", "training", "--set", f"model.params.C={c}", *QUICK) for c in (0.1, 0.2)]
    printed = [child.communicate(timeout=240)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert {f"version {v} of both" for out in printed for v in "12" if f"version {v} of both" in out} == {
        "version 1 of both",
        "version 2 of both",
    }
    history = cli("--history").communicate(timeout=60)[0].splitlines()
    assert re.search(r"UTC  version [12]", [line for line in history if "UTC" in line][-1])
