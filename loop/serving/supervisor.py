"""Keep the workers of a server's releases alive: `python -m loop.serving.supervisor FOLDER HOST PORT`.

It holds the public socket for as long as it lives, and makes true what `loop.serving.state` says should run: it
starts workers, starts them again when they die, opens the live release to the public socket, and stops what is
no longer wanted, and itself when its folder is gone. Releases come and go beside each other, and the socket's queue
outlives them all.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from loop.serving import state
from loop.serving.process import listen, raise_file_limit

TICK_SECONDS = 0.05
KILL_SECONDS = 30.0
ATTEMPTS = 3  # starts that fail in a row before a release counts as one that cannot start
SOON_SECONDS = 10.0  # a death later than this after a start is an accident, not a fault of the release
REFUSED = 2  # a worker's exit code when it will not start, as it was tampered with; trying again would not help
LAST_WORDS = 2000  # characters of a failed worker's output that are kept


@dataclass
class Worker:
    """One slot of one release: the process that fills it now."""

    release: dict[str, Any]
    slot: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    ready: bool = False
    opened: bool = False
    ever_ready: bool = False
    failures: int = 0
    """Deaths in a row that came soon after the start."""
    told_to_stop: float | None = None


@dataclass
class Supervisor:
    """Run what the folder says on one public socket."""

    folder: Path
    host: str
    port: int
    workers: dict[tuple[str, int], Worker] = field(default_factory=dict)
    stopping: bool = False

    def run(self) -> None:
        """Serve until SIGTERM, then let every worker finish."""
        raise_file_limit()
        held = state.lock(self.folder)
        if held is None:
            sys.exit("error: a supervisor runs on this folder already")
        self.lock = os.fstat(held.fileno())
        for leftover in ("ready", "failed"):
            for file in (self.folder / leftover).rglob("*.json" if leftover == "ready" else "*"):
                file.unlink(missing_ok=True)
        try:
            self.public = listen(self.host, self.port)
        except OSError as err:
            sys.exit(f"error: {self.host}:{self.port} cannot be listened on ({err.strerror})")
        self.public.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        since = datetime.now(UTC).isoformat()
        told = {"pid": os.getpid(), "host": self.host, "port": self.port, "since": since}
        state.write(self.folder / "server.json", {**told, "token": os.environ.get("SERVING_TOKEN_HASH", "")})
        while not self.stopping or self.workers:
            if self._is_gone():
                self.stopping = True
                self.public.close()
            self._reconcile()
            time.sleep(TICK_SECONDS)
        state.remove(self.folder / "server.json")

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _is_gone(self) -> bool:
        """Say whether the folder was deleted or moved: nobody could find this server or stop it any more."""
        try:
            there = os.path.samestat(self.lock, (self.folder / "lock").stat())
        except state.GONE:
            return True
        return not (there and (self.folder / "server.json").exists())

    def _reconcile(self) -> None:
        wanted = {} if self.stopping else state.read_all(self.folder / "wanted")
        live = state.live(self.folder)
        for name, release in wanted.items():
            for slot in range(release["workers"]):
                self.workers.setdefault((name, slot), Worker(release, slot))
        for (name, slot), worker in list(self.workers.items()):
            if name not in wanted:
                if self._end(worker):
                    del self.workers[name, slot]
                continue
            self._keep(name, worker)
            if name == live and worker.ready and not worker.opened and worker.process is not None:
                worker.process.send_signal(signal.SIGUSR1)
                worker.opened = True

    def _keep(self, name: str, worker: Worker) -> None:
        """Start the worker if it is not there; give up on a release that never came up."""
        ready = self._ready(name, worker)
        if worker.process is not None:
            code = worker.process.poll()
            if code is None:
                worker.ready = ready.exists()
                worker.ever_ready |= worker.ready
                return
            state.remove(ready)
            soon = time.monotonic() - worker.started < SOON_SECONDS
            worker.failures = worker.failures + 1 if soon else 0
            worker.process, worker.ready, worker.opened = None, False, False
            if not worker.ever_ready and (code == REFUSED or worker.failures >= ATTEMPTS):
                worker.failures = ATTEMPTS
                state.write(self.folder / "failed" / name, self._last_words(name))
        gave_up = worker.failures >= ATTEMPTS and not worker.ever_ready
        if not gave_up and time.monotonic() - worker.started > min(worker.failures, 10) * 0.5:
            self._start(name, worker, ready)

    def _start(self, name: str, worker: Worker, ready: Path) -> None:
        release, fd = worker.release, self.public.fileno()
        environment = os.environ | {
            "SERVING_LOG": release["log"],
            "SERVING_STATE": str(self.folder / "state" / name),
            "OMP_NUM_THREADS": "1",  # a worker is one core
            "BENTOML_DO_NOT_TRACK": "True",
        }
        arguments = [str(worker.slot), release["sha256"], str(ready), str(fd)]
        with self._output(name) as output:
            worker.started, worker.told_to_stop = time.monotonic(), None
            worker.process = subprocess.Popen(  # noqa: S603  (our own worker)
                [sys.executable, "-m", "loop.serving.worker", *arguments],
                cwd=release["folder"], env=environment, pass_fds=[fd],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def _end(self, worker: Worker) -> bool:
        """Ask a worker to stop, make it stop when it has had its time; say whether it is gone."""
        if worker.process is None or worker.process.poll() is not None:
            state.remove(self._ready(worker.release["id"], worker))
            return True
        if worker.told_to_stop is None:
            worker.told_to_stop = time.monotonic()
            worker.process.terminate()
        elif time.monotonic() - worker.told_to_stop > KILL_SECONDS:
            worker.process.kill()
        return False

    def _ready(self, name: str, worker: Worker) -> Path:
        return self.folder / "ready" / name / f"{worker.slot}.json"

    def _output(self, name: str) -> IO[bytes]:
        return (self.folder / f"{name}.log").open("ab")

    def _last_words(self, name: str) -> str:
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:]
        said = [line for line in text.splitlines() if line.startswith("error: ")]
        return said[-1].removeprefix("error: ") if said else text


if __name__ == "__main__":
    Supervisor(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])).run()
