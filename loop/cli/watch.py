"""Watch this clone's servers until Ctrl-C: `make watch` starts Prometheus, wired to the rules beside this file."""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from loop.cli import environment
from loop.config import ROOT, UserError, command_of
from loop.deploying import containers
from loop.deploying.process import LocalServer, reached
from loop.serving import state

HERE = ROOT / "monitoring"
START_SECONDS = 120.0  # it may have to read a long log of its own, or Docker to pull images
TICK_SECONDS = 2.0  # until a server that starts, or is stopped, is known
WEBHOOK = "ALERT_WEBHOOK_URL"
ALERTMANAGER_NAMES = ("prometheus-alertmanager", "alertmanager")  # Debian's, and its own


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parse = argparse.ArgumentParser(prog="python -m loop.cli.watch", description=__doc__)
    parse.add_argument("--port", type=int, default=9090, help="of Prometheus (%(default)s), on the loopback")
    parse.add_argument("--compose", action="store_true", help="run it, and Grafana, by docker compose")
    return parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until Ctrl-C; return 0, or 2 for a user's mistake."""
    given = parser().parse_args(arguments)
    environment.settle()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell lets what it starts in the background ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    home = Path(os.environ.get("SERVING_HOME", ROOT / ".local/serving"))
    try:
        with environment.disk_faults(home.parent):
            watch(home, home.parent / "watching", given.port, compose=given.compose)
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was measured is kept for the next time")
    return 0


def watch(home: Path, folder: Path, port: int, *, compose: bool) -> None:
    """Start Prometheus on the servers of `home`, with its files in `folder`, and follow servers that come and go."""
    token, webhook = os.environ.get("SERVING_TOKEN", ""), os.environ.get(WEBHOOK, "")
    servers = Servers(home)
    servers.check(token)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    commands = _composed(folder, port, webhook) if compose else _installed(folder, port, webhook)
    with _files(folder, token, webhook, port), ExitStack() as stack:
        found = _tell(folder, servers.targets())
        started = [stack.enter_context(_started(command, folder)) for command in commands]
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            _live(started, folder)
            if time.monotonic() > deadline:
                raise UserError(
                    f"Prometheus is not ready at 127.0.0.1:{port} after {START_SECONDS:.0f} s; see {folder}"
                )
            time.sleep(0.05)
        print(f"watching    {', '.join(f'{name} at {address}' for name, address in found.items())}")
        print(f"prometheus  http://127.0.0.1:{port}/alerts")
        if webhook:
            print(f"alerts      http://127.0.0.1:{port + 3}, told to {WEBHOOK}")
        if compose:
            print(f"grafana     http://127.0.0.1:{port + 4}")
        for place, name in enumerate(found):
            print(f"{'' if place else 'next':<12}{command_of(name, '--pipeline monitoring')}")
        print("            whose results appear here; Ctrl-C ends it", flush=True)
        while True:
            _live(started, folder)
            time.sleep(TICK_SECONDS)
            _tell(folder, servers.targets())


@dataclass
class Servers:
    """The servers of this clone, as processes and as containers."""

    home: Path
    containers: dict[str, str] = field(default_factory=dict)
    """As Docker last said, which may be away for a while."""

    def targets(self) -> dict[str, str]:
        """Return the address of each server that ought to answer, by name.

        A server that died is one of them, since its file stays until it is stopped: that is what an alert is for.
        """
        found = {}
        for path in sorted(self.home.glob("*/server.json")):
            if server := state.read(path):
                found[path.parent.name] = reached(server["host"], server["port"])
        with suppress(subprocess.SubprocessError, OSError):
            self.containers = containers.relays(self.home)
        return found | self.containers

    def check(self, token: str) -> None:
        """Refuse to watch nothing, or what would refuse to be watched."""
        running = {name: LocalServer(self.home / name).server() for name in self.targets()}
        if not self.containers and not any(running.values()):
            raise UserError("no server of this clone runs; start one: python run.py --pipeline deployment")
        for name, server in running.items():
            if server and server["token"] and server["token"] != sha256(f"serving {token}".encode()).hexdigest():
                what = "another token than SERVING_TOKEN holds" if token else "a token; set SERVING_TOKEN to it"
                raise UserError(f"the server of {name} asks for {what}")


def _installed(folder: Path, port: int, webhook: str) -> list[list[str]]:
    """Return how to start what the machine has."""
    prometheus = _binary("prometheus", "prometheus")
    commands = [
        [
            prometheus, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{_free(port)}", "--log.level=warn",
        ]
    ]  # fmt: skip
    if webhook:
        alertmanager = _binary("prometheus-alertmanager", *ALERTMANAGER_NAMES)
        commands.append(
            [
                alertmanager, f"--config.file={folder}/alertmanager.yaml", f"--storage.path={folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{_free(port + 3)}", "--cluster.listen-address=", "--log.level=warn",
            ]
        )  # fmt: skip
    return commands


def _binary(package: str, *names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    raise UserError(
        f"no {names[-1]} on this machine; apt-get install --no-install-recommends {package}, "
        "or where Docker may pull images: make watch ARGS=--compose"
    )


def _composed(folder: Path, port: int, webhook: str) -> list[list[str]]:
    """Return how to start all of it in containers."""
    asked = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(asked, capture_output=True).returncode:  # noqa: S603
        raise UserError("no 'docker compose' on this machine; install it, or Prometheus alone: make watch")
    for used in (port, port + 3, port + 4):
        _free(used)
    settings = {
        "WATCHING_FOLDER": str(folder.resolve()),
        "WATCHING_USER": f"{os.getuid()}:{os.getgid()}",  # else the containers could not read the token
        "WATCHING_PORT": str(port),
        "WATCHING_ALERTS_PORT": str(port + 3),
        "WATCHING_GRAFANA_PORT": str(port + 4),
        "COMPOSE_PROFILES": "alerts" if webhook else "",
    }
    (folder / "grafana").mkdir(exist_ok=True)  # else Docker makes it, and root owns it
    values = folder / "compose.env"
    state.write(values, "".join(f"{name}={value}\n" for name, value in settings.items()))
    return [["docker", "compose", f"--env-file={values}", f"--file={HERE}/compose.yaml", "up"]]


def _free(port: int) -> int:
    """Return the port, if nothing listens there: else what answers would be taken for ours."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as err:
            raise UserError(
                f"127.0.0.1:{port} is in use; stop what listens there, or: make watch ARGS='--port 9190'"
            ) from err
    return port


@contextmanager
def _files(folder: Path, token: str, webhook: str, port: int) -> Iterator[None]:
    """Write what Prometheus and Alertmanager read; take the secrets away at the end."""
    for name in ("prometheus.yaml", "rules.yaml"):
        shutil.copy(HERE / name, folder)
    state.write(folder / "alertmanagers.json", json.dumps([{"targets": [f"127.0.0.1:{port + 3}"]}] if webhook else []))
    secret = {"token": token}
    if webhook:
        routes = (HERE / "alertmanager.yaml").read_text(encoding="utf-8")
        secret["alertmanager.yaml"] = routes.replace(f"${{{WEBHOOK}}}", json.dumps(webhook))
    try:
        for name, content in secret.items():
            _keep(folder / name, content)
        yield
    finally:
        for name in secret:
            (folder / name).unlink(missing_ok=True)


def _keep(path: Path, secret: str) -> None:
    """Replace a file that its owner alone may read."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secret)
    new.replace(path)


def _tell(folder: Path, found: dict[str, str]) -> dict[str, str]:
    """Write the servers down for Prometheus, which reads the file whenever it changes."""
    path = folder / "targets.json"
    listed = json.dumps([{"targets": [address], "labels": {"model": name}} for name, address in found.items()])
    if not path.exists() or path.read_text(encoding="utf-8") != listed:
        state.write(path, listed)
    return found


@contextmanager
def _started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own: Ctrl-C is for this one, which stops the other."""
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (found on this machine, with arguments of ours)
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _live(started: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Say why a process ended that should not have."""
    for process in started:
        if process.poll() is not None:
            name = Path(str(process.args[0])).name  # type: ignore[index]
            said = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise UserError(f"{name} ended: {said[-1] if said else 'no word'}")


def _answers(port: int) -> bool:
    """Say whether Prometheus is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
