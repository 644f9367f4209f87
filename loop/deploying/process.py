"""Start, switch and stop servers on this machine; each use case has one, in a folder of its own."""

import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loop.config import ROOT, UserError, command, command_of
from loop.serving import state
from loop.serving.process import listen

START_SECONDS = 60.0
SWITCH_SECONDS = 45.0  # longer than a worker may take to finish what it has begun

NOT_A_SERVERS = ("PYTHON", "BENTOML_", "OTEL_", "PROMETHEUS_", "SERVING_TOKEN", "WEB_CONCURRENCY")
"""Variables of the shell that starts a server which mean nothing to it."""

_STARTED: list[subprocess.Popen[bytes]] = []  # a Popen that is dropped complains that its process runs on


@dataclass(frozen=True)
class LocalServer:
    """A supervised server of this machine, found again by its folder whoever started it."""

    folder: Path

    def start(
        self, release: Mapping[str, Any], host: str, port: int, token: str | None, environment: Mapping[str, str]
    ) -> list[str]:
        """Start a release beside what runs; return the private address of each worker once all answer.

        `release` holds id, folder (of the code), sha256 (of release.json), workers, log. A release that cannot
        start, a taken port, another host, port or token than the running server's are UserErrors.
        """
        self._supervise(host, port, token, environment)
        name = release["id"]
        (self.folder / "failed" / name).unlink(missing_ok=True)
        state.write(self.folder / "wanted" / f"{name}.json", dict(release))
        self._wait(lambda: len(self.workers(name)) == release["workers"], name, START_SECONDS, "start")
        return [f"127.0.0.1:{worker['port']}" for worker in self.workers(name)]

    def switch(self, name: str) -> None:
        """Give the public traffic to a release that answers, then stop the others, which finish what they began."""
        before = self.live()
        state.write(self.folder / "live", name)
        try:
            self._wait(lambda: all(w["open"] for w in self.workers(name)), name, SWITCH_SECONDS, "take over")
        except BaseException:
            state.write(self.folder / "live", before or "")
            raise
        others = [other for other in self.wanted() if other != name]
        for other in others:
            self.discard(other)
        self._wait(lambda: not any(map(self.workers, others)), name, SWITCH_SECONDS, "replace the old one")
        for counts in (self.folder / "state").glob("*"):
            if counts.name != name:
                shutil.rmtree(counts, ignore_errors=True)

    def discard(self, name: str) -> None:
        """Stop a release, and the server with the last one."""
        state.remove(self.folder / "wanted" / f"{name}.json")
        if not self.wanted():
            self.stop()

    def stop(self) -> bool:
        """Stop the server; say whether one ran. One that died is no longer expected to answer."""
        server = self.server()
        if server is None:
            state.remove(self.folder / "server.json")
            return False
        os.kill(server["pid"], signal.SIGTERM)
        self._wait(lambda: self.server() is None, "the server", SWITCH_SECONDS, "stop")
        for process in _STARTED:
            if process.pid == server["pid"]:
                process.wait(SWITCH_SECONDS)  # else it stays a zombie
        return True

    def server(self) -> dict[str, Any] | None:
        """Return the supervisor's pid, host, port and start, or None when none lives."""
        if not self.folder.is_dir():
            return None
        if (held := state.lock(self.folder)) is not None:
            held.close()
            return None
        return state.read(self.folder / "server.json")

    def live(self) -> str | None:
        """Return the release that gets, or last got, the public traffic."""
        return state.live(self.folder)

    def wanted(self) -> dict[str, dict[str, Any]]:
        """Return the releases that run, or ran when the server stopped."""
        return state.read_all(self.folder / "wanted")

    def workers(self, name: str) -> list[dict[str, Any]]:
        """Return pid, private port and openness of each worker of a release that answers."""
        return list(state.read_all(self.folder / "ready" / name).values())

    def check(self, host: str, port: int, token: str | None) -> str | None:
        """Refuse a taken port, or another token than the running server's; say where that listens if not as asked.

        A server keeps its place while it runs: whoever promotes need not know how it was started.
        """
        server = self.server()
        if server is None:
            try:
                listen(host, port).close()
            except OSError as err:
                stop = _holder(port, self.folder.parent) or "stop what listens there"
                fix = f"{stop}, or choose another: --set serving.port=3010"
                raise UserError(f"{host}:{port} cannot be listened on ({err.strerror}); {fix}") from err
            return None
        at, stop = reached(server["host"], server["port"]), command("--stop")
        if server["token"] != _hash(token):
            raise UserError(
                f"the server of '{self.folder.name}' at {at} runs with another token; set SERVING_TOKEN to it, or stop "
                f"it first: {stop}"
            )
        if (server["host"], server["port"]) == (host, port):
            return None
        return f"the server stays at {at}; for {reached(host, port)} stop it first: {stop}"

    def _supervise(self, host: str, port: int, token: str | None, environment: Mapping[str, str]) -> None:
        """See to it that a supervisor runs, with this token; one that runs keeps its host and port."""
        self.check(host, port, token)
        if self.server():
            return
        for old in (self.folder / "wanted").glob("*.json"):  # what a server ran that is gone
            old.unlink()
        (self.folder / "live").unlink(missing_ok=True)
        (self.folder / "server.json").unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        secrets = {"SERVING_TOKEN": token, "SERVING_TOKEN_HASH": _hash(token)} if token else {}
        world = {name: value for name, value in os.environ.items() if not name.startswith(NOT_A_SERVERS)}
        output = self.folder / "supervisor.log"
        with output.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  (our own supervisor)
                [sys.executable, "-m", "loop.serving.supervisor", str(self.folder), host, str(port)],
                cwd=ROOT, env={**world, **environment, **secrets, "PYTHONUTF8": "1"}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        _STARTED.append(process)
        deadline = time.monotonic() + START_SECONDS
        while not (self.folder / "server.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                said = output.read_text(encoding="utf-8", errors="replace").strip().removeprefix("error: ")
                raise UserError(f"the server did not start: {said.splitlines()[-1] if said else 'no word'}")
            time.sleep(0.02)

    def _wait(self, done: Callable[[], bool], name: str, seconds: float, what: str) -> None:
        deadline, failed = time.monotonic() + seconds, self.folder / "failed" / name
        while not done():
            if failed.exists():
                said = failed.read_text(encoding="utf-8").strip().splitlines() or ["no word"]
                raise UserError(f"release {name} does not start: {said[-1]}; see {self.folder}/{name}.log")
            if time.monotonic() > deadline:
                raise UserError(f"{name} did not {what} within {seconds:.0f} s; see {self.folder}/{name}.log")
            time.sleep(0.02)


def _hash(token: str | None) -> str:
    return hashlib.sha256(f"serving {token}".encode()).hexdigest() if token else ""


def _holder(port: int, home: Path) -> str | None:
    """Say how to stop a server of ours that has a port, also of another clone; Linux tells whose it is."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if command[1:3] == ["-m", "loop.serving.supervisor"] and command[5:6] == [str(port)]:
                folder = Path(command[3])
                stop = command_of(folder.name, "--stop") if folder.parent == home else f"kill {process.name}"
                return f"the server of {folder} has it, stop that one: {stop}"
    return None


def reached(host: str, port: int) -> str:
    """Return where this machine reaches a server that listens on `host`, as it stands in a URL."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared, not listened on)
    return f"[{near}]:{port}" if ":" in near else f"{near}:{port}"


def answers(address: str) -> bool:
    """Say whether a server answers at host:port."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
