"""Serve bentos from containers: a relay holds the port, releases come and go behind it.

Docker itself knows all that is deployed, by labels; the one file is the relay's, which says where the traffic goes.
"""

import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from zenml.model_deployers.base_model_deployer import BaseModelDeployerConfig
from zenml.utils.secret_utils import SecretField

from loop.config import UserError, command
from loop.deploying import containers
from loop.deploying.contract import Bento, Status
from loop.deploying.local import BentoDeployer, BentoFlavor
from loop.deploying.process import START_SECONDS, answers
from loop.serving import container, state

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

RECIPE = "src/loop/serving/Dockerfile"
INDEX = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
HTTP = f"{container.PORT}/tcp"
RELAY_MIB = 256  # it holds 64 KB of a connection each way
HARDENED: Mapping[str, Any] = {
    "read_only": True,
    "tmpfs": {"/tmp": "size=256m"},  # noqa: S108  (inside the container)
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 512,
    "log_config": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    "restart_policy": {"Name": "unless-stopped"},  # also after a reboot, unless --stop stopped it
}


class DockerConfig(BaseModelDeployerConfig):
    """What an image is built on, and who may ask the server."""

    base_image: str = "python:3.11-slim"
    token: str | None = SecretField(default=None)
    memory_mib: int = Field(1024, ge=256)
    """For each worker; a container that needs more has its largest process killed, which is started again."""


class DockerDeployer(BentoDeployer):
    """Run releases as containers of this machine's Docker, reached on its loopback only."""

    @property
    def config(self) -> DockerConfig:
        """Return the component's configuration."""
        return self._config  # type: ignore[return-value]

    def start(self, bento: Bento, port: int, workers: int) -> list[str]:
        """Build the image unless it is there, start a container of it, return its own address."""
        with _docker() as engine:
            _build(engine, bento, self.config.base_image)
            folder = _folder(bento.name)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                _relay(engine, bento, port, folder)
                release = _run(
                    engine, bento, "release", 0, ["python", "-m", "loop.serving.container"],
                    memory_mib=workers * self.config.memory_mib,
                    volumes={str(_log(bento.name)): {"bind": "/data", "mode": "rw"}},
                    environment={
                        "SERVING_RELEASE_SHA256": bento.sha256,
                        "SERVING_WORKERS": str(workers),
                        "SERVING_HASH_KEY": self._hash_key(),
                        # `docker inspect` shows it to whoever controls Docker, who controls all of this anyway.
                        "SERVING_TOKEN": self.token or "",
                    },
                )  # fmt: skip
                return [_wait(release)]
            except BaseException:
                self.discard(bento)
                raise

    def switch(self, bento: Bento) -> None:
        """Point the relay at the started container, then stop the others, which finish what they began."""
        with _docker() as engine:
            started = _beside(engine, bento)
            if not started:
                raise UserError(f"no container of release {bento.release} waits for traffic; deploy again")
            state.write(_folder(bento.name) / "live", f"{started[0].short_id}:{container.PORT}")
            for other in _find(engine, bento.name, "release"):
                if other.id != started[0].id:
                    _end(other)

    def discard(self, bento: Bento) -> None:
        """Remove the containers of a release that got no traffic, and the relay if there is nothing behind it."""
        with _docker() as engine:
            for started in _beside(engine, bento):
                _end(started)
            if not _find(engine, bento.name, "release"):
                for found in _find(engine, bento.name, "relay"):
                    _end(found)

    def names(self) -> list[str]:
        """Return the names that containers bear."""
        with _docker() as engine:
            return sorted({found.labels["serving.name"] for found in _find(engine)})

    def status(self, name: str) -> Status | None:
        """Ask Docker what is there and the server, the way clients do, whether it answers."""
        with _docker() as engine:
            live, relays = _live(engine, name), _find(engine, name, "relay")
            if live is None or not relays:
                return None
            release = live.labels["serving.release"]
            if live.status == "exited" and relays[0].status == "exited":
                return Status(name=name, state="stopped", release=release)
            address = f"127.0.0.1:{relays[0].labels['serving.port']}"
            return Status(
                name=name,
                state="running" if answers(address) else "failing",
                release=release,
                since=datetime.fromtimestamp((_folder(name) / "live").stat().st_mtime, UTC),
                url=f"http://{address}",
                process=f"container {live.name} ({live.status}) behind {relays[0].name} ({relays[0].status})",
            )

    def stop(self, name: str) -> bool:
        """Stop the containers, the release first; requests under way are answered."""
        with _docker() as engine:
            found = [*_find(engine, name, "release"), *_find(engine, name, "relay")]
            running = [one for one in found if one.status != "exited"]
            for one in running:
                one.stop(timeout=container.STOP_SECONDS)
            return bool(running)


class DockerFlavor(BentoFlavor):
    """Containers on this machine."""

    called, config, deployer = "bento_docker", DockerConfig, DockerDeployer


@contextmanager
def _docker() -> "Iterator[docker.DockerClient]":
    """Connect to Docker; it not running, and what it refuses, are UserErrors."""
    import docker
    from docker.errors import APIError, DockerException
    from requests import RequestException

    try:
        engine = docker.from_env(timeout=120)
    except DockerException as err:
        raise UserError("Docker does not run, or may not be used by this user; start it, see: docker info") from err
    try:
        yield engine
    except APIError as err:
        raise UserError(f"Docker refuses: {err.explanation or err}") from err
    except RequestException as err:
        raise UserError(f"Docker does not answer any more: {err}") from err
    finally:
        engine.close()


def _build(engine: "docker.DockerClient", bento: Bento, base_image: str) -> None:
    """Build the bento's image unless the same is there."""
    from docker.errors import BuildError, ImageNotFound

    labels = {"serving.home": str(_home()), "serving.release": bento.sha256, "serving.base": base_image}
    with suppress(ImageNotFound):
        if labels.items() <= engine.images.get(bento.tag).labels.items():
            return
    _fetch(engine, base_image)
    arguments = {name: os.environ[name] for name in INDEX if name in os.environ}
    arguments |= {"BASE_IMAGE": base_image, "PYTHON": ".".join(platform.python_version_tuple()[:2])}
    try:
        # The first stage, the packages, gets a name: it is there for the next release, and is no nameless leftover.
        for target, tag in (("packages", f"{bento.name}:packages"), (None, bento.tag)):
            engine.images.build(
                path=bento.path, dockerfile=RECIPE, target=target, tag=tag, labels=labels, buildargs=arguments,
                network_mode="host",  # an index that this machine reaches is reached from the build too
                rm=True, forcerm=True,
            )  # fmt: skip
        engine.images.prune({"dangling": True, "label": f"serving.home={_home()}"})  # what had one of these names
    except BuildError as err:
        lines = [line for part in err.build_log for line in str(part.get("stream", "")).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error: ")]
        raise UserError(f"the image of {bento.tag} cannot be built: {(errors or lines or [err.msg])[-1]}") from err


def _fetch(engine: "docker.DockerClient", base_image: str) -> None:
    from docker.errors import APIError, ImageNotFound

    try:
        engine.images.get(base_image)
    except ImageNotFound:
        try:
            engine.images.pull(base_image)
        except APIError as err:
            fix = "set base_image of the stack's model deployer to one that is there"
            raise UserError(f"no base image {base_image} here, and none can be pulled; {fix}") from err


def _relay(engine: "docker.DockerClient", bento: Bento, port: int, folder: Path) -> None:
    """See to it that a relay holds the port."""
    for found in _find(engine, bento.name, "relay"):
        if found.status == "exited":
            found.remove()
        elif found.labels["serving.port"] != str(port):
            held = found.labels["serving.port"]
            raise UserError(f"{bento.name} is served on port {held}; to change it, stop it: {command('--stop')}")
        else:
            return
    _run(
        engine, bento, "relay", port, ["python", "-m", "loop.serving.relay", "/live/live"], memory_mib=RELAY_MIB,
        volumes={str(folder): {"bind": "/live", "mode": "ro"}}, environment={},
    )  # fmt: skip


def _run(
    engine: "docker.DockerClient", bento: Bento, role: str, port: int, command: list[str],
    *, memory_mib: int, volumes: Mapping[str, Any], environment: Mapping[str, str],
) -> "Container":  # fmt: skip
    """Start a container on the loopback; port 0 means any."""
    from docker.errors import APIError

    labels = {"serving.release": bento.release, "serving.role": role, "serving.port": str(port)}
    made = engine.containers.create(
        bento.tag,
        command,
        name=f"{bento.name}-{role}-{secrets.token_hex(4)}",
        labels=_labels(bento.name) | labels,
        user="{}:{}".format(*containers.user()),
        network=_network(engine, bento.name),
        ports={HTTP: ("127.0.0.1", port)},
        volumes=dict(volumes),
        environment=dict(environment),
        mem_limit=f"{memory_mib}m",
        memswap_limit=f"{memory_mib}m",  # no swap beside it
        **HARDENED,
    )
    try:
        made.start()
    except APIError as err:
        made.remove(force=True)
        said = str(err.explanation)
        if "address already in use" in said or "port is already allocated" in said:
            raise UserError(
                f"127.0.0.1:{port} is in use; stop what listens there, or choose another: --set serving.port=3010"
            ) from err
        raise
    return made


def _wait(release: "Container") -> str:
    """Return the address of a started container once it answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        release.reload()
        if release.attrs["RestartCount"] or release.status == "exited":
            raise UserError(f"release {release.labels['serving.release']} does not start: {_last_words(release)}")
        bound = release.ports.get(HTTP)
        if bound and answers(address := f"127.0.0.1:{bound[0]['HostPort']}"):
            return address
        time.sleep(0.1)
    raise UserError(f"{release.name} did not answer within {START_SECONDS:.0f} s; see: docker logs {release.name}")


def _last_words(release: "Container") -> str:
    lines = release.logs(tail=50).decode(errors="replace").strip().splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (said or lines or ["no word"])[0]


def _end(found: "Container") -> None:
    """Stop a container with the time it may need, and remove it."""
    found.stop(timeout=container.STOP_SECONDS)
    found.remove(force=True)


def _find(engine: "docker.DockerClient", name: str | None = None, role: str | None = None) -> "list[Container]":
    """Return this home's containers, the newest first."""
    wanted = {"serving.home": str(_home()), "serving.name": name, "serving.role": role}
    labels = [f"{key}={value}" for key, value in wanted.items() if value is not None]
    return list(engine.containers.list(all=True, filters={"label": labels}))


def _live(engine: "docker.DockerClient", name: str) -> "Container | None":
    """Return the container that gets the traffic."""
    address = state.live(_folder(name)) or ":"
    return next((one for one in _find(engine, name, "release") if one.short_id == address.split(":")[0]), None)


def _beside(engine: "docker.DockerClient", bento: Bento) -> "list[Container]":
    """Return the containers of a release that get no traffic, the newest first."""
    live = _live(engine, bento.name)
    found = _find(engine, bento.name, "release")
    return [one for one in found if one != live and one.labels["serving.release"] == bento.release]


def _network(engine: "docker.DockerClient", name: str) -> str:
    """Return a network of this model's own, where the relay finds releases by their id."""
    network = f"serving-{name}-{hashlib.sha256(str(_home()).encode()).hexdigest()[:8]}"
    if network not in [found.name for found in engine.networks.list(names=[network])]:  # it lists by substring
        engine.networks.create(network, driver="bridge", labels=_labels(name))
    return network


def _labels(name: str) -> dict[str, str]:
    return {"serving.home": str(_home()), "serving.name": name}


def _log(name: str) -> Path:
    """Return the folder of the prediction log, where the container's user may write."""
    folder = _home().parent / "logs" / name
    folder.mkdir(parents=True, exist_ok=True)
    containers.give(folder)
    return folder.resolve()


def _home() -> Path:
    """Return a folder beside the local servers': the same model may be served both ways."""
    return Path(os.environ["SERVING_HOME"]).resolve().parent / "docker"


def _folder(name: str) -> Path:
    return _home() / name
