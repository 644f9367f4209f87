"""Runs that are killed, and runs at the same time: nothing is half-promoted and nothing stays broken."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from children import forkserver, start
from conftest import QUICK, Result, output

import registry

Train = Callable[..., Result]

POINTS = ["train_model", "registry:register", "tracking:record", "registry:promote", "registry:draw"]


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_anywhere_leaves_the_champion_and_the_next_run_completes(train: Train, point: str) -> None:
    name = "killed"
    if registry.champion(name) is None:
        train(name, "model.params={C: 0.00001}", "gate.minimum={}")
    before = registry.history(name)
    better = f"model.params={{C: {0.1 + 0.01 * POINTS.index(point)}}}"
    arguments = ["--pipeline", "training", "--set", f"name={name}", "--set", better, *QUICK]
    child = start(forkserver(), arguments, die_at=point)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    after = registry.history(name)
    promoted = point == "registry:draw"  # the one point behind the entry in the log: promoted, not yet drawn
    assert after[: len(before)] == before
    assert len(after) == len(before) + promoted
    assert registry.load_champion(name) is not None
    assert train(name, better).code == 0
    registration = output("registration")
    assert registration.champion == registration.version == registry.history(name)[-1].version
    from zenml.client import Client

    assert Client().get_model_version(name, "production").number == registration.version


def test_two_trainings_at_once_both_finish_and_one_is_champion(zenml: None, tmp_path: Path) -> None:
    context = forkserver()
    children = [
        start(context, ["--pipeline", "training", "--set", "name=both", "--set", f"model.params.C={c}", *QUICK])
        for c in (0.1, 0.2)
    ]
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    from zenml.client import Client

    assert {v.number for v in Client().list_model_versions(model="both")} == {1, 2}
    current = registry.champion("both")
    assert current is not None
    assert current.version in (1, 2)
    assert all(registry.load("both", version) for version in (1, 2))
