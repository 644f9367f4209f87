"""The service in real containers: an image of a bento, started, switched under load, killed inside, stopped."""

import fcntl
import gc
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import base_image
import httpx
import pytest
from load import traffic
from servers import TOKEN, breast_cancer, free_port, release, request_rows

from loop.config import Serving, UserError
from loop.deploying import containers
from loop.deploying.contract import Bento
from loop.log.records import read_predictions
from loop.serving import state
from loop.serving.container import STOP_SECONDS

SWITCHES = 5  # each takes seconds: a container's workers start, another's drain
STEADY = {"clients": 4, "pause": 0.01}  # cores are left for what happens beside
NAME = "breast_cancer"
WORKER = "import json; print(json.load(open('/tmp/serving/ready/release/0.json'))['pid'])"
ZOMBIES = "import pathlib; print(sum(') Z' in path.read_text() for path in pathlib.Path('/proc').glob('[0-9]*/stat')))"


class Place(NamedTuple):
    deployer: Any
    engine: Any
    bentos: list[Bento]
    log: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        return self.log.parents[1] / "docker"

    def container(self, role: str = "release") -> Any:
        labels = {"label": [f"serving.home={self.home}", f"serving.role={role}"]}
        return self.engine.containers.list(all=True, filters=labels)[0]

    def bring_up(self, bento: Bento) -> None:
        self.deployer.start(bento, self.port, 1)
        self.deployer.switch(bento)


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with base_image.docker_engine("no container was started") as found:
        yield found


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one test process at a time build images; the next finds the layers of the first."""
    with (Path(tempfile.gettempdir()) / "zenml-loop-docker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def place(engine: Any, zenml: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Build three bentos; the last one's check cannot be passed. Whatever is made of them is removed."""
    folder = tmp_path_factory.mktemp("docker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVING_HOME", str(folder / "serving"))
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        port = free_port()
        slow = bento(folder / "v3", 3, port=port, latency_budget_ms=0.001)
        bentos = [bento(folder / "v1", 1), bento(folder / "v2", 2), slow]
        with one_at_a_time():
            place = Place(deployer(base_image.ensure(engine)), engine, bentos, folder / "logs" / NAME, port)
            warm_up(place)
        yield place
    remove(engine, folder, bentos)


def deployer(base: str) -> Any:
    from zenml.enums import StackComponentType

    from loop.deploying.docker import DockerConfig, DockerDeployer

    now = datetime.now(UTC)
    return DockerDeployer(
        name="docker", id=uuid4(), config=DockerConfig(base_image=base, token=None), flavor="bento_docker",
        type=StackComponentType.MODEL_DEPLOYER, user=None, created=now, updated=now,
    )  # fmt: skip


def bento(folder: Path, version: int, **serving: Any) -> Bento:
    """Build a real bento, as the pipeline does."""
    from steps.build_bento import _build

    made = release(folder, breast_cancer(), version, **serving)
    tag, path = _build(folder, made, {})
    return Bento(
        name=made.name, version=version, release=made.id, sha256=made.hash, tag=tag, path=path, runtime="onnx", note=""
    )


def warm_up(place: Place) -> None:
    from loop.deploying.docker import _build

    for built in place.bentos:
        _build(place.engine, built, place.deployer.config.base_image)


def remove(engine: Any, folder: Path, bentos: list[Bento]) -> None:
    label = {"label": f"serving.home={folder / 'docker'}"}
    for found in engine.containers.list(all=True, filters=label):
        found.remove(force=True)
    for network in engine.networks.list(filters=label):
        network.remove()
    for tag in (f"{NAME}:packages", *(built.tag for built in bentos)):
        if engine.images.list(name=tag):
            engine.images.remove(tag, force=True)


@pytest.fixture
def in_service(place: Place) -> Place:
    """Have a release in service, whichever it is."""
    status = place.deployer.status(NAME)
    if status is None or status.state != "running":
        place.bring_up(place.bentos[0])
    return place


def logged(place: Place) -> set[str]:
    return set(read_predictions(place.log / "predictions")["prediction_id"])


def run_in(container: Any, code: str, user: str = "") -> tuple[int, str]:
    code, said = container.exec_run(["python", "-c", code], user=user)
    return code, said.decode()


@pytest.mark.docker
def test_container_is_not_root_cannot_write_answers_logs_and_starts_a_killed_worker_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loop.deploying.docker import RELAY_MIB

    monkeypatch.setenv("SERVING_TOKEN", TOKEN)
    place.bring_up(place.bentos[0])
    container, rows = place.container(), request_rows(breast_cancer(), 3)
    assert run_in(container, "import os; print(os.getuid() > 0)") == (0, "True\n")
    assert "Read-only file system" in run_in(container, "open('/app/config.py', 'a')", user="0")[1]
    assert container.attrs["HostConfig"]["CapDrop"] == ["ALL"]
    for role, megabytes in (("release", 1024), ("relay", RELAY_MIB)):
        host = place.container(role).attrs["HostConfig"]
        assert host["Memory"] == host["MemorySwap"] == megabytes * 2**20
    assert {bound["HostIp"] for found in container.ports.values() for bound in found} == {"127.0.0.1"}
    with httpx.Client(base_url=place.url, timeout=30) as client:
        assert client.post("/predict", json=rows).status_code == 401
        client.headers["authorization"] = f"Bearer {TOKEN}"
        before = client.post("/predict", json=rows).json()
        worker = run_in(container, WORKER)[1]
        run_in(container, f"import os; os.kill({worker}, 9)")
    with httpx.Client(base_url=place.url, timeout=30, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        after = client.post("/predict", json=rows).json()  # waited in the socket's queue for the new worker
    assert after["scores"] == before["scores"]
    assert run_in(container, WORKER)[1] != worker
    assert {*before["ids"], *after["ids"]} <= logged(place)
    run_in(container, "import os; os.fork() or os.fork() or os._exit(0)")  # two orphans for process 1
    time.sleep(0.5)
    assert run_in(container, ZOMBIES) == (0, "0\n")
    place.deployer.stop(NAME)


@pytest.mark.docker
def test_release_that_fails_its_check_or_does_not_start_leaves_the_old_one_serving(
    in_service: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steps.deploy_bento import deploy_bento

    monkeypatch.setattr("loop.deploying.deployer.active", lambda: in_service.deployer)
    before, slow = in_service.deployer.status(NAME), in_service.bentos[2]
    with traffic(in_service.url, request_rows(breast_cancer(), 60), **STEADY) as seen:
        with pytest.raises(UserError, match="latency_budget_ms"):
            deploy_bento.entrypoint(slow, breast_cancer().holdout, Serving())
        with pytest.raises(UserError, match=r"does not start: release\.json was changed after"):
            in_service.deployer.start(slow.model_copy(update={"sha256": "0" * 64}), in_service.port, 1)
        with pytest.raises(UserError, match="served on port"):
            in_service.deployer.start(in_service.bentos[1], free_port(), 1)
    assert not seen.faults
    assert in_service.deployer.status(NAME) == before
    assert in_service.container().labels["serving.release"] == before.release  # the newest: the others are gone


@pytest.mark.docker
def test_switches_both_ways_under_load_without_a_failed_request(in_service: Place) -> None:
    earlier, before = logged(in_service), in_service.deployer.status(NAME)
    targets = sorted(in_service.bentos[:2], key=lambda bento: bento.release == before.release)
    with traffic(in_service.url, request_rows(breast_cancer(), 60), **STEADY) as seen:
        for turn in range(SWITCHES):
            target = targets[turn % 2]
            in_service.bring_up(target)
            assert in_service.deployer.status(NAME).release == target.release
    assert not seen.faults
    assert set(seen.versions) == {1, 2}
    assert len(seen.ids) == len(set(seen.ids)) > 100 * SWITCHES
    assert logged(in_service) - earlier == set(seen.ids)


@pytest.mark.docker
def test_stops_within_its_grace_period_and_every_answer_is_on_record(in_service: Place) -> None:
    before = in_service.deployer.status(NAME)
    with traffic(in_service.url, request_rows(breast_cancer(), 60), **STEADY) as seen:
        time.sleep(1)
        start = time.monotonic()
        assert containers.relays(in_service.home) == {NAME: in_service.url.removeprefix("http://")}
        assert containers.stop(in_service.home) == [NAME]
        seconds = time.monotonic() - start
    assert in_service.container().attrs["State"]["ExitCode"] == 0  # 137 would be a kill
    assert seconds < STOP_SECONDS
    assert containers.relays(in_service.home) == {}
    assert len(seen.ids) > 100
    assert set(seen.ids) <= logged(in_service)
    status = in_service.deployer.status(NAME)
    assert (status.state, status.release) == ("stopped", before.release)


@pytest.mark.docker
def test_missing_base_image_and_taken_port_are_one_sentence_each(place: Place) -> None:
    place.deployer.stop(NAME)
    unbuilt = place.bentos[0].model_copy(update={"tag": "breast_cancer:unbuilt"})
    with pytest.raises(UserError, match="no base image localhost:1/none here, and none can be pulled; set base_image"):
        deployer("localhost:1/none").start(unbuilt, place.port, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} is in use; stop what listens there"):
            place.deployer.start(place.bentos[0], port, 1)


@pytest.mark.docker
def test_a_build_leaves_no_container_and_no_nameless_image(place: Place) -> None:
    ours = [f"serving.home={place.home}"]
    tags = {tag for image in place.engine.images.list(filters={"label": ours}) for tag in image.tags}
    assert tags == {f"{NAME}:packages", *(built.tag for built in place.bentos)}
    assert not place.engine.images.list(filters={"label": ours, "dangling": True})
    layer = place.engine.images.get(f"{NAME}:packages").history()[1]["Id"]  # below the labels
    assert layer not in {image.id for image in place.engine.images.list(filters={"dangling": True})}
    # A container of a build has a layer for its image; others may build at the same time.
    layers = {layer["Id"] for tag in tags for layer in place.engine.images.get(tag).history()} - {"<missing>"}
    assert not layers & {found.attrs["Config"]["Image"] for found in place.engine.containers.list(all=True)}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_docker_that_does_not_run_is_one_line(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    result = cli("--status", "--stack", "docker")
    gc.collect()  # docker-py leaves the socket open that found nobody
    assert result.code == 2
    assert "Docker does not run, or may not be used by this user; start it, see: docker info\n" in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.docker
def test_prune_removes_what_stopped_and_what_is_not_to_be_kept_but_nothing_in_use(in_service: Place) -> None:
    kept, other = sorted(in_service.bentos[:2], key=lambda b: b.release != in_service.deployer.status(NAME).release)
    steps, engine = {"steps.home": str(in_service.home.parent)}, in_service.engine
    engine.containers.run(kept.tag, ["python", "-c", ""], labels=steps, name="interrupted-step", network="none")
    removed = containers.prune(in_service.home, lambda tag: tag == in_service.bentos[2].tag)
    assert removed == ["container interrupted-step", f"image {NAME}:packages", f"image {other.tag}"]
    left = {tag for image in engine.images.list() for tag in image.tags}
    assert {kept.tag, in_service.bentos[2].tag} <= left  # one serves
    assert in_service.deployer.status(NAME).state == "running"
    in_service.deployer.stop(NAME)
    removed = containers.prune(in_service.home, lambda tag: tag == in_service.bentos[2].tag)
    assert sorted(what.split("-")[0] for what in removed) == [f"container {NAME}"] * 2 + [
        f"image {kept.tag.split('-')[0]}"
    ]
    assert in_service.deployer.status(NAME) is None
    assert not engine.networks.list(filters={"label": f"serving.home={in_service.home}"})


def test_what_looks_at_all_containers_looks_where_the_deployer_has_them(
    zenml: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loop.cli import actions
    from loop.deploying import docker

    monkeypatch.setenv("SERVING_HOME", str(tmp_path / "serving"))
    asked: list[Path] = []
    monkeypatch.setattr(containers, "_running", lambda home: asked.append(home) or [])
    assert actions.stop_all() == 0
    assert actions._elsewhere(set()) == {}
    assert asked == [docker._home()] * 2


DOCKER = """#!/bin/sh
echo "$*" >> "$0.asked"
test "$1" = stop || printf '%s\\n' 'ill relay aaa 3011' 'ill release bbb 0'
"""


def test_servers_in_containers_are_told_and_stopped_whatever_stack_is_asked(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loop.cli import actions

    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=":")
    monkeypatch.setenv("SERVING_HOME", str(tmp_path / "serving"))
    state.write(tmp_path / "docker/ill/live", "bbb:3000")
    result = cli("--status")
    assert result.code == 0, result.err
    assert result.out == "ill at 127.0.0.1:3011, in a container: python run.py --status --stack docker\n"
    assert actions.stop_all() == 0
    asked = docker.with_name("docker.asked").read_text().splitlines()
    assert [line.split()[-1] for line in asked if line.startswith("stop ")] == ["bbb", "aaa"]  # the relay goes last
