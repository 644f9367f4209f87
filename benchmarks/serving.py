"""Measure the service beside what others would write: `python -m benchmarks.serving`.

One run, one model, one load generator (wrk). Every service has one worker on one core and wrk has another; the
cells go round over the services, so that what else the machine does hits all alike, and the best round counts.
Ours has everything on: data contract, prediction log, metrics, bearer token. The others only score, with their
access log off. Before anything is measured, each must answer with the scores of the fitted pipeline.
"""

import argparse
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a worker is one core

import msgspec
import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped]

from loop import config
from loop.config import ROOT, Serving
from loop.data.contract import learn_contract
from loop.data.sources import read_rows
from loop.data.split import resolve
from loop.deploying.assemble import assemble
from loop.deploying.check import admitted
from loop.deploying.process import LocalServer
from loop.serving.release import Served
from loop.serving.schema import Row, Schema
from loop.training.bundle import Bundle
from loop.training.compiled import TOLERANCE
from loop.training.fit import train

CONFIG = ROOT / "configs/breast_cancer.yaml"
BOOSTING = "sklearn.ensemble.HistGradientBoostingClassifier"
TOKEN = "correct-horse-battery-staple"  # noqa: S105  (of servers that live for minutes, on loopback)
CELLS = ((1, 1), (1, 16), (1, 64), (100, 1), (100, 16), (100, 64), (10_000, 1), (10_000, 16))
"""Rows a request and connections; 64 bodies of 8 MB would measure the queue, and mlflow would need 15 s to empty it."""
START_SECONDS = 120.0
MOST_SECONDS = 10
"""Of a cell whose requests take longer than it would last."""
CORES = sorted(os.sched_getaffinity(0))
SERVER, LOAD = CORES[0], CORES[-1]

OURS, ARRAYS = "this service, named objects", "this service, arrays of values"
MLFLOW, SKLEARN, ONNX = "mlflow models serve", "FastAPI + scikit-learn", "FastAPI + ONNX, no checks"
CONSTANT = "constant answer, uvicorn"
IN_PROCESS = "in process: bundle.scores"
PARSED = "in process: parse, check, score"
COMPILED = "in process: compiled.scores"
PIPELINE = "in process: parse, check, DataFrame"

WRK = """
local file = io.open("%s", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"], wrk.headers["Authorization"] = "application/json", "Bearer %s"
function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format('{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "errors": %%d}', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Cell:
    """What one service showed under one load."""

    per_second: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_us: float = 0.0
    """Of the service's processes, a request."""
    errors: int = 0


@dataclass(frozen=True)
class Service:
    """A server to be measured, and how it wants its rows."""

    name: str
    url: str
    process: psutil.Process
    encode: Callable[[list[Row]], bytes]
    scores: Callable[[Any], Any] | None
    """Finds the scores in an answer."""


@dataclass(frozen=True)
class Subject:
    """The model in every form, and rows that the contract lets in."""

    folder: Path
    served: Served
    schema: Schema
    rows: list[Row]
    table: pd.DataFrame

    def named(self, rows: list[Row]) -> bytes:
        """Return rows as most clients send them."""
        return msgspec.json.encode([dict(zip(self.schema.features, row, strict=True)) for row in rows])

    def split(self, rows: list[Row]) -> bytes:
        """Return rows as mlflow's fastest JSON wants them."""
        return msgspec.json.encode({"dataframe_split": {"columns": self.schema.features, "data": rows}})


@dataclass
class Table:
    """All cells of a run, by service, rows and connections."""

    best: dict[tuple[str, int, int], Cell] = field(default_factory=dict)
    lightest: dict[tuple[str, int, int], float] = field(default_factory=dict)
    """CPU time a request, of the round where it was least."""
    calmest: dict[tuple[str, int, int], float] = field(default_factory=dict)
    """p99 / p50, of the round where it was least: on a shared machine the rest is other people's work."""
    errors: int = 0

    def add(self, name: str, rows: int, connections: int, cell: Cell) -> None:
        """Keep a cell if it is the best of its kind."""
        key = (name, rows, connections)
        self.errors += cell.errors
        self.lightest[key] = min(cell.cpu_us, self.lightest.get(key, math.inf))
        if cell.p50_ms:
            self.calmest[key] = min(cell.p99_ms / cell.p50_ms, self.calmest.get(key, math.inf))
        if key not in self.best or cell.per_second > self.best[key].per_second:
            self.best[key] = cell

    def seconds(self, name: str, rows: int, connections: int, wanted: int) -> int:
        """Return how long a cell needs for every connection to get two answers, as far as one can wait for that."""
        alone = self.best.get((name, rows, 1))
        needed = 0.0 if alone is None else 2 * connections * alone.p50_ms / 1000
        return max(wanted, min(math.ceil(needed), MOST_SECONDS))

    def ratio(self, name: str, other: str, rows: int = 1, loads: tuple[int, ...] = (16,)) -> tuple[float, float]:
        """Return how many times more one answers than another, by the clock and by CPU time, at the better load."""
        (mine, my_cpu), (theirs, their_cpu) = self._most(name, rows, loads), self._most(other, rows, loads)
        return (mine / theirs if theirs else math.inf), their_cpu / my_cpu

    def _most(self, name: str, rows: int, loads: tuple[int, ...]) -> tuple[float, float]:
        keys = [key for connections in loads if (key := (name, rows, connections)) in self.best]
        return max(self.best[key].per_second for key in keys), min(self.lightest[key] for key in keys)


def subject(folder: Path, estimator: str) -> Subject:
    """Train the use case as the pipeline does and lay out its release."""
    changes = [] if estimator == "configured" else [f"model.estimator={estimator}", "model.params={}"]
    settings = config.load(CONFIG, changes)
    rows = read_rows(settings.data)
    rule = resolve(rows, settings.data, settings.split)
    held_out = rule.held_out(rows)
    train_rows, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    bundle = train(train_rows, learn_contract(train_rows, settings.data, settings.contract), rule, settings.recipe)
    _, note = assemble(folder, bundle, holdout, Serving(), 0.0, version=1, promoted=datetime.now(UTC))
    served = Served(folder / "release")
    if served.compiled is None:
        sys.exit(f"error: this benchmark needs a model that compiles; this one is served with {note}")
    schema = Schema(served.card, served.release.serving)
    found = admitted(schema, holdout)
    values = [row[: len(schema.features)] for row in found.values]
    return Subject(folder, served, schema, values, found.table)


def _save_for_mlflow(folder: Path, bundle: Bundle, table: pd.DataFrame) -> None:
    import mlflow.sklearn
    import skops.io

    features = table[list(bundle.card.contract.features)]
    mlflow.sklearn.save_model(
        bundle.pipeline,
        folder,
        signature=mlflow.models.infer_signature(features, bundle.pipeline.predict_proba(features)),
        pip_requirements=["scikit-learn"],
        pyfunc_predict_fn="predict_proba",
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(bundle.pipeline)),
    )


@contextmanager
def services(model: Subject) -> Iterator[list[Service]]:
    """Start every server on a free port of loopback, wait until each scores right, stop them all whatever happens."""
    with ExitStack() as stack:
        _save_for_mlflow(model.folder / "mlflow", model.served.bundle, model.table)
        stack.enter_context(_on(SERVER))
        started = [
            _spawn(stack, model, MLFLOW, "/invocations", model.split, _mlflow),
            *(
                _spawn(stack, model, name, "/predict", encode, module)
                for name, encode, module in (
                    (SKLEARN, model.named, "fastapi_sklearn"),
                    (ONNX, msgspec.json.encode, "fastapi_onnx"),
                    (CONSTANT, msgspec.json.encode, "constant"),
                )
            ),
        ]
        ours = _ours(stack, model)
        _await(started, model)
        yield [*ours, *started]


def _ours(stack: ExitStack, model: Subject) -> list[Service]:
    """Start this project's server as a deployment does."""
    release, port, server = model.served.release, _free_port(), LocalServer(model.folder / "server")
    stack.callback(server.stop)
    wanted = {"id": release.id, "folder": str(model.folder), "sha256": release.hash, "workers": 1}
    server.start({**wanted, "log": str(model.folder / "log")}, "127.0.0.1", port, TOKEN, {})
    server.switch(release.id)
    process, url = psutil.Process((server.server() or {})["pid"]), f"http://127.0.0.1:{port}/predict"
    pair = [
        Service(OURS, url, process, model.named, _scores),
        Service(ARRAYS, url, process, msgspec.json.encode, _scores),
    ]
    _await(pair, model)
    return pair


def _spawn(
    stack: ExitStack, model: Subject, name: str, path: str, encode: Callable[[list[Row]], bytes], how: Any
) -> Service:
    """Start one of the others; its process tree ends with the stack."""
    port = _free_port()
    uvicorn = ["--factory", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--loop", "uvloop",
               "--http", "httptools", "--no-access-log", "--log-level", "warning"]  # fmt: skip
    command = how(model, port) if callable(how) else ["uvicorn", f"benchmarks.services.{how}:service", *uvicorn]
    output = stack.enter_context((model.folder / f"{name.split()[0]}.{port}.txt").open("wb"))
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "BENCHMARK_RELEASE": str(model.folder / "release"),
             "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    stack.callback(_end, child)
    return Service(name, f"http://127.0.0.1:{port}{path}", psutil.Process(child.pid), encode, _SCORES[name])


def _mlflow(model: Subject, port: int) -> list[str]:
    where = ["--model-uri", str(model.folder / "mlflow"), "--host", "127.0.0.1", "--port", str(port)]
    return ["mlflow", "models", "serve", *where, "--env-manager", "local", "--workers", "1"]


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Stop a process that we started, and its children."""
    try:
        tree = [*psutil.Process(child.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
    _, alive = psutil.wait_procs(tree, timeout=5)
    for process in alive:
        process.kill()
    child.wait()


def _await(started: list[Service], model: Subject) -> None:
    """Wait until each service answers with the scores of the fitted pipeline."""
    rows, expected = model.rows[:20], model.served.bundle.scores(model.table.head(20))
    deadline = time.monotonic() + START_SECONDS
    for service in started:
        while (answer := _ask(service, rows)) is None:
            if time.monotonic() > deadline or not service.process.is_running():
                sys.exit(f"error: {service.name} does not answer at {service.url}")
            time.sleep(0.1)
        if service.scores and not np.allclose(service.scores(answer), expected, rtol=0, atol=TOLERANCE):
            sys.exit(f"error: {service.name} does not answer with the pipeline's scores: {str(answer)[:200]}")


def _ask(service: Service, rows: list[Row]) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(service.url, service.encode(rows), headers)  # noqa: S310  (http, loopback)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as err:
        sys.exit(f"error: {service.name} refuses the rows ({err.code}): {err.read().decode()[:300]}")
    except OSError:
        return None


def _scores(answer: Any) -> Any:
    return answer["scores"]


def _second_column(answer: Any) -> Any:
    return [pair[1] for pair in answer["predictions"]]


_SCORES = {MLFLOW: _second_column, SKLEARN: _scores, ONNX: _scores, CONSTANT: None}


def load(service: Service, body: Path, connections: int, seconds: int) -> Cell:
    """Put a service under load and return what it showed."""
    _settle(service.process)
    script = body.with_suffix(".lua")
    script.write_text(WRK % (body, TOKEN), encoding="utf-8")
    before = _cpu(service.process)
    arguments = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), service.url]
    with _on(LOAD):
        done = subprocess.run(["wrk", *arguments], capture_output=True, text=True, timeout=seconds + 90, check=True)  # noqa: S607
    cpu = _cpu(service.process) - before
    found = json.loads(done.stdout.splitlines()[-1])
    return Cell(
        per_second=found["requests"] / found["seconds"],
        p50_ms=found["p50"],
        p99_ms=found["p99"],
        cpu_us=1e6 * cpu / found["requests"] if found["requests"] else math.inf,
        errors=found["errors"],
    )


def _settle(process: psutil.Process, limit: float = 30.0) -> None:
    """Wait until a service has finished what the last load left behind."""
    deadline, before = time.monotonic() + limit, _cpu(process)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = _cpu(process)
        if now - before < 0.02:
            return
        before = now


def _cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and its children so far."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def in_process(model: Subject, rows: int, seconds: float) -> Iterator[tuple[str, Cell]]:
    """Measure the same work without a server; yield calls a second."""
    values, compiled = _repeat(model.rows, rows), model.served.compiled
    if compiled is None:
        raise ValueError("no compiled model")
    bundle, columns = model.served.bundle, list(model.schema.features)
    table = pd.DataFrame(values, columns=columns)
    named, arrays = model.named(values), msgspec.json.encode(values)
    calls: dict[str, Callable[[], Any]] = {
        IN_PROCESS: lambda: bundle.scores(table),
        COMPILED: lambda: compiled.scores(values),
        f"{PARSED}, named": lambda: compiled.scores(model.schema.rows(named)),
        f"{PARSED}, arrays": lambda: compiled.scores(model.schema.rows(arrays)),
        f"{PIPELINE}, named": lambda: bundle.scores(pd.DataFrame(model.schema.rows(named), columns=columns)),
    }
    for name, call in calls.items():
        call()
        count, cpu, start = 0, time.process_time(), time.perf_counter()
        while time.perf_counter() - start < seconds or count < 3:
            call()
            count += 1
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        yield name, Cell(count / wall, 1e3 * wall / count, 0.0, 1e6 * cpu / count)


def _repeat(rows: list[Row], count: int) -> list[Row]:
    return (rows * (1 + count // len(rows)))[:count]


def measure(model: Subject, started: list[Service], rounds: int, seconds: int) -> Table:
    """Fill every cell, once a round."""
    table = Table()
    bodies: dict[tuple[str, int], Path] = {}
    for service in started:
        for rows in sorted({rows for rows, _ in CELLS}):
            path = bodies[service.name, rows] = model.folder / f"body-{len(bodies)}.json"
            path.write_bytes(service.encode(_repeat(model.rows, rows)))
        load(service, bodies[service.name, 1], 16, 1)  # threads, caches and branches are warm afterwards
    for number in range(rounds):
        for rows, connections in CELLS:
            for service in started:
                lasts = table.seconds(service.name, rows, connections, seconds)
                cell = load(service, bodies[service.name, rows], connections, lasts)
                table.add(service.name, rows, connections, cell)
            if connections == 1:
                for name, cell in in_process(model, rows, seconds / 4):
                    table.add(name, rows, 1, cell)
        print(f"round {number + 1} of {rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return table


def show(table: Table) -> None:
    """Print the cells and what the project aims at."""
    names = list(dict.fromkeys(name for name, _, _ in table.best))
    for rows in sorted({rows for rows, _ in CELLS}):
        loads = [connections for count, connections in CELLS if count == rows]
        title = f"{rows:,} row{'s' if rows > 1 else ''} a request"
        print(f"{title:<40}" + "".join(f"{f'{n} connection' + ('s' if n > 1 else ''):>29}" for n in loads))
        print(f"{'':<40}" + f"{'req/s':>8}{'p50/p99 ms':>14}{'CPU µs':>7}" * len(loads))
        for name in names:
            print(f"{name:<40}" + "".join(_shown(table, name, rows, connections) for connections in loads))
        print()
    print("10,000 rows stop at 16 connections: 64 bodies of 8 MB would measure a queue.")
    print(f"errors, of all requests of all services: {table.errors}\n")
    _show_aims(table)


def _shown(table: Table, name: str, rows: int, connections: int) -> str:
    cell = table.best.get((name, rows, connections))
    if cell is None:
        return ""
    if not cell.per_second:
        return f"{'none in time':>29}"
    latency = f"{_short(cell.p50_ms)}/{_short(cell.p99_ms) if cell.p99_ms else '-'}"
    per_second = f"{cell.per_second:,.0f}" if cell.per_second >= 100 else f"{cell.per_second:.1f}"
    return f"{per_second:>8}{latency:>14}{table.lightest[name, rows, connections]:>7.0f}"


def _short(number: float) -> str:
    return f"{number:.2f}" if number < 10 else f"{number:.0f}"


def _show_aims(table: Table) -> None:
    line = "{:<40}{:>14}{:>7}{:>14}{:>7}  {}"
    print(line.format("one row, 16 connections, one worker", "named: req/s", "CPU", "arrays: req/s", "CPU", "aim"))
    for other, aim in ((MLFLOW, 25.0), (SKLEARN, 4.0), (ONNX, 1.0), (CONSTANT, None)):
        found = (*table.ratio(OURS, other), *table.ratio(ARRAYS, other))
        print(line.format(f"times {other}", *map(_short, found), _against(aim, found[0], found[2])))
    tails = [table.calmest[name, 1, 16] for name in (OURS, ARRAYS)]
    limit = " ".join(["≤ 5:", *("met" if tail <= 5 else "missed" for tail in tails)])
    print(line.format("p99 / p50", _short(tails[0]), "", _short(tails[1]), "", limit), end="\n\n")
    print(line.format("10,000 rows a request, better load, times", "named: req/s", "CPU", "arrays: req/s", "CPU", ""))
    for title, bases, least in (
        ("bundle.scores on a ready DataFrame", (IN_PROCESS, IN_PROCESS), 0.5),
        ("compiled.scores on ready values", (COMPILED, COMPILED), None),
        ("parsing, checking, scoring the same", (f"{PARSED}, named", f"{PARSED}, arrays"), None),
    ):
        pairs = zip((OURS, ARRAYS), bases, strict=True)
        shares = [ratio for mine, base in pairs for ratio in table.ratio(mine, base, 10_000, (1, 16))]
        print(line.format(title, *map(_short, shares), _against(least, shares[0], shares[2])))


def _against(aim: float | None, *found: float) -> str:
    """Say whether the numbers reach an aim, by the clock."""
    return "" if aim is None else " ".join([f"≥ {aim:g}:", *("met" if one >= aim else "missed" for one in found)])


@contextmanager
def _on(core: int) -> Iterator[None]:
    """Keep this process, and what it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _exit(*_: Any) -> None:
    sys.exit("error: stopped")


def without_servers(estimator: str, rounds: int, seconds: int) -> int:
    """Print what scoring a request costs, compiled and by the pipeline."""
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        model = subject(Path(folder) / "v1", estimator)
        for rows in (1, 100) * rounds:
            for name, cell in in_process(model, rows, seconds):
                table.add(name, rows, 1, cell)
    print(f"{model.served.card.recipe.model.estimator}, by {model.served.release.runtime}; best of {rounds} rounds")
    for (name, rows, connections), cell in sorted(table.best.items(), key=lambda item: item[0][1]):
        cpu = table.lightest[name, rows, connections]
        print(f"{rows:>4} rows  {name:<48}{cell.per_second:>9,.0f} a second{cpu:>9,.0f} µs of CPU")
    return 0


def main() -> int:
    """Print one table from one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--estimator", default=BOOSTING, help=f"dotted path, or 'configured' as in {CONFIG.name}")
    parser.add_argument("--seconds", type=int, default=3, help="a cell (default 3)")
    parser.add_argument("--rounds", type=int, default=2, help="of which the best counts (default 2)")
    parser.add_argument("--in-process", action="store_true", help="without servers, for any model that compiles")
    options = parser.parse_args()
    if options.in_process:
        return without_servers(options.estimator, options.rounds, options.seconds)
    if shutil.which("wrk") is None:
        print("error: no wrk, the load generator; apt-get install wrk", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _exit)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        model = subject(Path(folder) / "v1", options.estimator)
        if model.served.release.runtime != "onnx":
            sys.exit("error: FastAPI + ONNX needs a model that ONNX knows; this one is measured by --in-process")
        with services(model) as started:
            table = measure(model, started, options.rounds, options.seconds)
    estimator = model.served.card.recipe.model.estimator
    apart = "servers on one core, wrk on another" if SERVER != LOAD else "servers and wrk share the only core"
    print(f"{estimator}, {len(model.schema.features)} columns; one worker each; {apart}")
    print(f"best of {options.rounds} rounds of {options.seconds} s; load average {os.getloadavg()[0]:.1f};", end=" ")
    print(f"{time.monotonic() - start:.0f} s in all\n")
    show(table)
    return 1 if table.errors else 0


if __name__ == "__main__":
    sys.exit(main())
