"""Stack `docker`: every step in a container of its own, and the same champion as on stack `local`."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import base_image
import httpx
import pytest
from conftest import QUICK, Cli, last_run, output
from servers import free_port

from loop.cli import runs
from loop.config import ROOT


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with base_image.docker_engine("no step ran in a container") as found:
        yield found


@pytest.fixture
def contained(engine: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run a pipeline on stack docker; return what it printed and how many containers of the steps' image it took."""
    monkeypatch.setenv("BASE_IMAGE", base_image.ensure_for_steps(engine, ROOT / "stacks/requirements-server.txt"))

    def call(pipeline: str, name: str, *options: str) -> tuple[Any, int]:
        since = int(time.time())
        result = cli("--pipeline", pipeline, "--stack", "docker", "--set", f"name={name}", *QUICK, *options)
        wanted = {"event": "start", "type": "container"}
        events = list(engine.events(since=since, until=int(time.time()) + 1, filters=wanted, decode=True))
        return result, sum(event["Actor"]["Attributes"]["image"].startswith("zenml-loop:") for event in events)

    yield call
    label = {"label": "serving.name=contained"}
    for found in engine.containers.list(all=True, filters=label):
        found.remove(force=True)
    for network in engine.networks.list(filters=label):
        network.remove()


@pytest.mark.docker
def test_training_deployment_and_monitoring_run_in_containers_and_leave_the_champion_of_stack_local(
    contained: Any, engine: Any, cli: Cli
) -> None:
    from loop.registry import champions

    assert cli("--pipeline", "training", "--set", "name=at_home", *QUICK).code == 0
    result, containers = contained("training", "contained")
    assert result.code == 0, result.err
    assert containers == len(last_run().steps) > 5
    (at_home,), (inside,) = champions.history("at_home"), champions.history("contained")
    assert inside.fingerprint == at_home.fingerprint
    image = engine.images.get("zenml-loop:training-orchestrator")
    assert image.attrs["Config"]["User"] == "10001"

    port = free_port()
    result, containers = contained("deployment", "contained", "--set", f"serving.port={port}")
    assert result.code == 0, result.err
    assert containers == len(last_run().steps)
    assert engine.images.get("zenml-loop:deployment-orchestrator").id == image.id  # one image, built once
    rows = [output("deployment").example] * 20
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        assert len(client.post("/predict", json=rows).raise_for_status().json()["scores"]) == 20

    result, containers = contained("monitoring", "contained", "--set", "monitoring.report=never")
    assert result.code == 0, result.err
    assert containers == len(last_run().steps)
    assert output("window_report").rows == 20
    assert engine.images.get("zenml-loop:monitoring-orchestrator").id == image.id
    assert cli("--stop", "--stack", "docker", "--set", "name=contained").code == 0
    home = image.labels["steps.home"]  # other clones of this machine may have containers
    assert Path(home) == runs.LOCAL
    assert not engine.containers.list(all=True, filters={"label": f"steps.home={home}"})  # each went when it was done


@pytest.mark.docker
def test_a_step_that_fails_in_a_container_is_told_as_it_is_here(contained: Any) -> None:
    result, _ = contained("deployment", "nobody")
    assert result.code == 2
    assert result.err == (
        "error: 'nobody' has no champion to deploy; train one first: python run.py --pipeline training --stack docker "
        f"--set name=nobody {' '.join(QUICK)}\n"
    )


@pytest.mark.docker
def test_an_image_that_cannot_be_built_is_one_sentence(
    contained: Any, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASE_IMAGE", "no-such-image-of-ours:none")
    result, containers = contained("training", "unbuilt")
    assert (result.code, containers) == (2, 0)
    assert "error: the image of the steps cannot be built: " in result.err
    assert "BASE_IMAGE" in result.err
    assert len(result.err.splitlines()) == 1
