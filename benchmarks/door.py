"""Measure what a good client notices of hostile ones: `python -m benchmarks.door`.

One server as a deployment starts it; the attacks know its token. A client sends one row every few milliseconds over a
connection that it keeps, first alone, then beside each attack. Aims: its p99 at most 5 times the quiet one, none of its
requests failed, and at most twice the quiet memory.
"""

import argparse
import http.client
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.serving import LOAD, SERVER, TOKEN, Subject, _on, _ours, subject

PAUSE = 0.005
MOST_SECONDS = 15  # of an attack that does not end by itself
MB = 2**20
FORK = multiprocessing.get_context("fork")
HEAD = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
Attack = Callable[[int, Subject, float], None]


@dataclass(frozen=True)
class Seen:
    """What the good client had, and the highest memory of the worker meanwhile."""

    milliseconds: np.ndarray
    failed: int
    megabytes: float

    @property
    def p99(self) -> float:
        """Return the 99th percentile in ms."""
        return float(np.percentile(self.milliseconds, 99))


def good_client(port: int, body: bytes, done: "Synchronized[int]", answer: Any) -> None:
    """Ask until told to stop, then send back the latencies in ms and the number of failures."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
    latencies, failed = [], 0
    while not done.value:
        start = time.perf_counter()
        try:
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            response.read()
            failed += response.status != 200
        except (OSError, http.client.HTTPException):
            failed += 1
            connection.close()
        latencies.append(1000 * (time.perf_counter() - start))
        time.sleep(PAUSE)
    answer.send((latencies, failed))


def nothing(port: int, model: Subject, until: float) -> None:
    """Leave the client alone."""
    time.sleep(until - time.monotonic())


def heads(port: int, model: Subject, until: float) -> None:
    """Send endless headers, endless URLs and many headers as fast as they go: 150 MB in less than a second."""
    while time.monotonic() < until:
        for begin, more in ((b"GET / HTTP/1.1\r\nX: ", b"a" * MB), (b"GET /", b"a" * MB), (HEAD, b"X: 1\r\n" * 2**17)):
            with connection(port, begin) as stranger, suppress(OSError):
                while time.monotonic() < until:
                    stranger.sendall(more)


def csv_headers(port: int, model: Subject, until: float) -> None:
    """Send CSV files whose header has 16 MB of names, one after another."""
    body = b",".join(b"%d" % n for n in range(2 * MB))[: 16 * MB - 4] + b"\n1\n"
    while time.monotonic() < until:
        _post(port, b"/predict_csv", b"text/csv", body)


def half_open(port: int, model: Subject, until: float) -> None:
    """Hold 1,000 connections whose head is not complete, and add a byte to each now and then."""
    with ExitStack() as stack:
        strangers = [stack.enter_context(connection(port, b"GET / HTTP/1.1\r\nX: ")) for _ in range(1000)]
        while time.monotonic() < until:
            time.sleep(1)
            for stranger in strangers:
                with suppress(OSError):
                    stranger.send(b"a")


def slow_bodies(port: int, model: Subject, until: float) -> None:
    """Hold 64 requests of one row that lack a byte."""
    _hold(port, 64, model.named(model.rows[:1]), until)


def large_slow_bodies(port: int, model: Subject, until: float) -> None:
    """Hold 64 requests of 15 MB that lack a byte."""
    _hold(port, 64, b" " * (15 * MB), until)


def large_bodies(port: int, model: Subject, until: float) -> None:
    """Send rows of 15 MB in all, the last of them bad, over 8 connections at a time."""
    rows = model.named(model.rows[:1])[1:-1]
    body = b"[" + (rows + b",") * (15 * MB // len(rows)) + b"{}]"
    while time.monotonic() < until:
        with ExitStack() as stack:
            strangers = [stack.enter_context(connection(port, b"")) for _ in range(8)]
            for stranger in strangers:
                with suppress(OSError):
                    stranger.sendall(_request(b"/predict", b"application/json", body))
            for stranger in strangers:
                with suppress(OSError):
                    stranger.recv(MB)


ATTACKS: dict[str, Attack] = {
    "alone": nothing,
    "heads without end": heads,
    "CSV headers of 16 MB": csv_headers,
    "1,000 half-open connections": half_open,
    "64 slow bodies": slow_bodies,
    "64 slow bodies of 15 MB": large_slow_bodies,
    "8 × 15 MB of rows, last one bad": large_bodies,
}


@contextmanager
def connection(port: int, begin: bytes) -> Iterator[socket.socket]:
    """Connect and say something."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as stranger:
        with suppress(OSError):
            stranger.sendall(begin)
        yield stranger


def _request(path: bytes, media: bytes, body: bytes) -> bytes:
    head = HEAD.replace(b"/predict", path) + b"Content-Type: %s\r\nContent-Length: %d\r\n\r\n" % (media, len(body))
    return head + body


def _post(port: int, path: bytes, media: bytes, body: bytes) -> None:
    with connection(port, b"") as stranger, suppress(OSError):
        stranger.sendall(_request(path, media, body))
        stranger.recv(MB)


def _hold(port: int, count: int, body: bytes, until: float) -> None:
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(connection(port, _request(b"/predict", b"application/json", body)[:-1]))
        time.sleep(max(until - time.monotonic(), 0))


def measure(attack: Attack, port: int, model: Subject, worker: psutil.Process, seconds: float) -> Seen:
    """Let the good client ask beside an attack."""
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # forgets the highest memory so far
    done, (mine, theirs) = FORK.Value("i", 0), FORK.Pipe(duplex=False)
    with _on(LOAD):
        client = FORK.Process(target=good_client, args=(port, model.named(model.rows[:1]), done, theirs))
        stranger = FORK.Process(target=_nicely, args=(attack, port, model, time.monotonic() + seconds))
        for process in (client, stranger):
            process.start()
        stranger.join()
        done.value = 1
        latencies, failed = mine.recv()
        client.join()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    return Seen(np.array(latencies), failed, int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def _nicely(attack: Attack, *arguments: Any) -> None:
    os.nice(19)  # the good client is on the same core
    attack(*arguments)


def main() -> int:
    """Print a line for each attack; 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help=f"an attack (default {MOST_SECONDS})")
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = subject(Path(folder) / "v1", "configured")
        with _on(SERVER):
            service = _ours(stack, model)[0]
        (worker,) = service.process.children()
        port = urlsplit(service.url).port or 0
        titles = ("requests", "failed", "p50 ms", "p99 ms", "times", "MB", "times")
        print(f"{'one row every few ms':<34}" + "".join(f"{title:>9}" for title in titles))
        quiet = None
        for name, attack in ATTACKS.items():
            seen = measure(attack, port, model, worker, options.seconds)
            quiet = quiet or seen
            slower, larger = seen.p99 / quiet.p99, seen.megabytes / quiet.megabytes
            missed += bool(seen.failed or slower > 5 or larger > 2)
            counts = f"{len(seen.milliseconds):>9,}{seen.failed:>9}{np.median(seen.milliseconds):>9.2f}{seen.p99:>9.2f}"
            print(f"{name:<34}{counts}{slower:>9.1f}{seen.megabytes:>9.0f}{larger:>9.2f}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
