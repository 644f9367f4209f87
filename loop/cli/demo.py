"""Show the whole loop on one screen: `make demo`. Each line says what happened, and is checked.

A model of the fraud stream is trained and deployed under a name of its own, gets clean traffic, then traffic from a
world where fraud works differently, with labels that come late. Monitoring has to stay silent, alarm, retrain, and fall
silent again; the server has to answer every request, also while it changes models.
"""

import contextlib
import io
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from loop.cli import commandline, environment, runs
from loop.config import ROOT, Config, load

CONFIG = ROOT / "configs/fraud.yaml"
ROWS = 10_000
"""Of each piece of traffic, which is one window; 2 % are frauds, so fewer rows would teach little."""
LABEL_DELAY = 1000


class Failed(Exception):
    """Something that the loop promises did not happen."""


class Loop:
    """One model's loop, driven by the same commands that a user types."""

    def __init__(self, name: str, log: Path) -> None:
        self.changes = [
            f"name={name}",
            f"serving.port={_free_port()}",
            f"monitoring.window_rows={ROWS}",
            "monitoring.report=alarm",
            "policy.mode=act",
            "policy.labels=5000",
        ]
        self.log, self.begun = log, time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("", encoding="utf-8")

    @property
    def config(self) -> Config:
        """Return the use case as it is run."""
        return load(CONFIG, self.changes)

    def do(self, *arguments: str) -> str:
        """Run a command as `python run.py` would, keep what it prints in the log file, and return it."""
        sets = [word for change in self.changes for word in ("--set", change)]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = commandline.main([*arguments, "--config", str(CONFIG), *sets])
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"$ python run.py {' '.join(arguments)}\n{printed.getvalue()}\n")
        if code:
            raise Failed(f"'python run.py {' '.join(arguments)}' ended with {code}; see {self.log}")
        return printed.getvalue()

    def say(self, stage: str, found: str, holds: bool = True) -> None:
        """Print a line of the timeline; raise Failed if it is not as it should be."""
        seconds = time.monotonic() - self.begun
        print(f"{seconds // 60:2.0f}:{seconds % 60:04.1f}  {'✓' if holds else '✗'} {stage:<11}{found}", flush=True)
        if not holds:
            raise Failed(f"{stage}: {found}")


def play(name: str, log: Path) -> None:
    """Go round the loop once; raise Failed at the first thing that is not as promised."""
    loop = Loop(name, log)
    loop.do("--pipeline", "training")
    from loop.registry import champions

    first = champions.champion(name)
    loop.say("train", f"version 1 of {name} is champion", first is not None)
    loop.do("--pipeline", "deployment")
    try:
        loop.say("deploy", f"it answers at 127.0.0.1:{loop.config.serving.port}")
        _go_round(loop, name)
    finally:
        loop.do("--stop")


def _go_round(loop: Loop, name: str) -> None:
    from loop.registry import champions, decisions

    _traffic(loop, "none")
    loop.do("--pipeline", "monitoring")
    seen = decisions.history(name)[-1]
    loop.say("monitor", f"silent on clean traffic ({seen.rows:,} rows)", not seen.alarms)

    _traffic(loop, "concept")
    loop.do("--pipeline", "monitoring")
    seen = decisions.history(name)[-1]
    loop.say("monitor", f"alarm: {'; '.join(a.sentence for a in seen.alarms)}", seen.kinds == ("concept",))
    loop.say("policy", f"{seen.action}: {seen.against}", seen.action == "wait")

    _traffic(loop, "concept")
    with _clients(loop) as asked:
        loop.do("--pipeline", "monitoring")  # which retrains, judges and deploys, since the policy says act
        asked.wait_for(2)
    seen, begun = decisions.history(name)[-2:]
    loop.say("monitor", f"alarm: {', '.join(seen.kinds)}; policy: {seen.action}", seen.action == "retrain")
    loop.say("feedback", f"retraining began with {begun.labels:,} new labels", begun.by == "feedback")
    second = champions.champion(name)
    promoted = second is not None and second.version == 2
    loop.say("gate", f"version 2 is champion: {second.reasons[0] if second else 'no'}", promoted)
    versions = ", ".join(f"{count:,} by version {v}" for v, count in sorted(asked.versions.items()))
    switched = not asked.failed and set(asked.versions) == {1, 2}
    loop.say("switch", f"{asked.failed} of {asked.sent:,} requests failed while it changed ({versions})", switched)

    _traffic(loop, "concept")
    loop.do("--pipeline", "monitoring")
    seen = decisions.history(name)[-1]
    now, low, high = _recovered(loop.config, seen.run)
    inside = low <= now <= high
    loop.say(
        "recovered", f"roc_auc on new traffic is {now:.3f}; a model of the new world: {low:.3f} to {high:.3f}", inside
    )
    loop.say("monitor", f"silent again on the new world ({seen.rows:,} rows, version {seen.version})", not seen.alarms)


def _traffic(loop: Loop, scenario: str) -> None:
    loop.do("--simulate", "--scenario", scenario, "--rows", str(ROWS), "--label-delay", str(LABEL_DELAY))
    loop.say("traffic", f"{ROWS:,} rows of the world '{scenario}', labels {LABEL_DELAY:,} rows later")


@dataclass
class _Asked:
    """What clients asked and got."""

    sent: int = 0
    failed: int = 0
    versions: Counter[int] = field(default_factory=Counter)

    def wait_for(self, version: int) -> None:
        """Return when this version has answered some requests, or after ten seconds."""
        until = time.monotonic() + 10
        while self.versions[version] < 20 and time.monotonic() < until:
            time.sleep(0.05)


@contextlib.contextmanager
def _clients(loop: Loop) -> Iterator[_Asked]:
    """Ask the server for single rows, over one connection, until the block ends."""
    import httpx

    from loop.cli.traffic import stream_rows

    asked, done = _Asked(), threading.Event()
    data = loop.config.data
    rows = stream_rows(data, 500, scenario="concept", start=1_000_000).drop(columns=[data.target])
    bodies = [row.encode() for row in rows.to_json(orient="records", lines=True, date_format="iso").splitlines()]

    def ask() -> None:
        url = f"http://127.0.0.1:{loop.config.serving.port}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            while not done.wait(0.05):
                asked.sent += 1
                try:
                    answer = client.post("/predict", content=bodies[asked.sent % len(bodies)])
                    version = answer.raise_for_status().json()["version"]
                except httpx.HTTPError:
                    asked.failed += 1
                else:
                    asked.versions[version] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join()


def _recovered(config: Config, run_name: str) -> tuple[float, float, float]:
    """Return the ROC AUC of a window, and the interval on it of a model that only ever saw the new world."""
    from zenml.client import Client

    from loop.cli.traffic import stream_rows
    from loop.data.contract import encode_target, learn_contract
    from loop.data.split import resolve
    from loop.log.records import TRUTH
    from loop.training.fit import train
    from loop.training.metrics import Predictions, estimate, measure

    steps = Client().get_pipeline_run(run_name).steps
    rows = steps["collect_window"].outputs["judged_rows"][0].load()
    rows = rows[rows[TRUTH].notna()].reset_index(drop=True)
    world = stream_rows(config.data, config.data.rows or ROWS, scenario="concept", start=2_000_000)
    rule = resolve(world, config.data, config.split)
    world = world[~rule.held_out(world)].reset_index(drop=True)
    model = train(world, learn_contract(world, config.data, config.contract), rule, config.recipe)
    truth = encode_target(rows[TRUTH].rename(config.data.target), model.card.contract)
    then = estimate(Predictions("binary", truth, model.scores(rows)), ["roc_auc"], config.evaluation)["roc_auc"]
    return measure("roc_auc", Predictions("binary", truth, rows["prediction_score"].to_numpy())), then.low, then.high


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> int:
    """Play the loop once under a new name; return 1 if it does not hold."""
    environment.settle()
    name = f"demo_{datetime.now():%Y%m%d_%H%M%S}"
    log = runs.LOCAL / "reports" / name / "demo.log"
    print(f"the loop of {name}, about three minutes; what each command prints goes to {log}")
    try:
        play(name, log)
    except Failed as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    print(f"next: make dashboard, for its runs; NOTEBOOK_CHANGES=name={name} make notebook, for its log")
    return 0


if __name__ == "__main__":
    sys.exit(main())
