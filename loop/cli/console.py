"""Show a run while it goes on and what came of it."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from loop.config import Recipe, UserError, printable
from loop.pages.report import number
from loop.registry.results import Finished, Result, brief, cut, few, shown
from loop.training.compare import differences, settings
from loop.training.metrics import default_metric

MARKS = {
    "completed": ("✓", "green"),
    "cached": ("=", "cyan"),
    "failed": ("✗", "red"),
    "running": ("›", "yellow"),
}
COMMAND = re.compile(r"\b(python run\.py|make|curl|docker|kubectl) ")
WAITING = ("·", "dim")
PORT, PORTS = 8237, 100
"""ZenML's own for the dashboard; where it is taken, the next free one of so many is it."""
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
States = dict[str, tuple[str, float | None, float | None]]
"""Of each step its state, its own seconds, and those with its container."""


@contextmanager
def progress(run_name: str, title: str, *, contained: bool = False) -> Iterator[None]:
    """Show each step's state until the block ends: a live table on a terminal, a line a finished step elsewhere.

    It asks ZenML for the steps' states now and then, so it shows a remote run just as a local one. Where steps are
    `contained`, one after the other, it also shows what each took together with its container.
    """
    console, done, shown = Console(), threading.Event(), set[str]()
    console.print(title, style="bold", highlight=False)

    def lines(states: States) -> None:
        for step, state in states.items():
            if state[0] in ("completed", "cached", "failed") and step not in shown:
                shown.add(step)
                console.print(_line(step, *state), highlight=False)

    def watch(show: Any) -> None:
        with suppress(Exception):  # what keeps a step's state from being shown is told by the run itself
            while not done.wait(POLL_SECONDS):
                show(_states(run_name, contained))

    with Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else _nothing() as live:

        def show(states: States) -> None:
            if live is None:
                lines(states)
            else:
                live.update(Group(*(_line(step, *state) for step, state in states.items())), refresh=True)

        watcher = threading.Thread(target=watch, args=(show,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join(PATIENCE_SECONDS)  # a server that was away is asked again at growing intervals, for minutes
            lines(_states(run_name, contained))


def show(run: Any, name: str, folder: Path) -> str | None:
    """Print what came of a run, and return the pipeline that it asks for.

    The last result among its outputs says both; a run without one is summed up by what its last step returned.
    """
    from zenml.utils.dashboard_utils import get_run_url
    from zenml.utils.source_utils import load

    last: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    results = []
    for step in run.steps.values():
        last = {output: artifacts[0] for output, artifacts in step.outputs.items()} or last
        outputs |= last
        results += [artifact for artifact in last.values() if issubclass(load(artifact.data_type), Result)]
    result = results[-1].load() if results else None
    seen = get_run_url(run) or "make dashboard"  # a server has a page of the run
    if result is not None:
        lines = result.summary(Finished(name, folder, seen, outputs))
    else:
        lines = [(output, brief(artifact.load())) for output, artifact in last.items()]
    print()
    if lines:
        fields(lines)
    print(f"run      {run_url(run)}")  # whole, so that a terminal opens it
    return result.follows if result is not None else None


def run_url(found: Any) -> str:
    """Return where a dashboard shows a run: the server's, this clone's, or the one that `make dashboard` would open."""
    from zenml.utils.dashboard_utils import get_run_url

    if url := get_run_url(found):
        return url
    running = dashboard_port()
    url = f"http://127.0.0.1:{running or free_port(PORT)}/projects/{found.project.name}/runs/{found.id}"
    return url if running else f"{url} (after make dashboard)"


def dashboard_port() -> int | None:
    """Return the port of this clone's ZenML dashboard, if it runs."""
    from zenml.utils.server_utils import get_local_server

    server: Any = get_local_server()
    return server.config.port if server is not None and server.is_running else None


def free_port(first: int) -> int:
    """Return the first free port from there on."""
    for port in range(first, first + PORTS):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                tried.bind(("127.0.0.1", port))
                return port
    raise UserError(f"no port from {first} to {first + PORTS - 1} is free on this machine")


def show_versions(versions: list[Any], champion: int | None, metric: str | None) -> None:
    """Print a block a version: what was decided, how it did, who trained it, and how its recipe differs.

    It differs from the champion's; of the champion, or where there is none, what is not a default is shown.
    """
    cards = {version.number: version.card for version in versions}
    best: Any = cards.get(champion)
    for version in versions:
        card = version.card
        name = metric or (default_metric(card.contract.task) if card else "")
        said = version.decision or "its run stopped before it was judged"
        pairs = [(f"version {version.number}", said + (", the champion" if version.number == champion else ""))]
        if version.look is not None:
            how = "passed" if version.passed else "not passed"
            pairs += [("look", f"{version.look:.3g} at its holdout rows, {how}")]
        if (e := version.estimates.get(name)) is not None:
            pairs += [(f"{name} {100 * e.confidence:g} %", f"{number(e.value)}   ({number(e.low)} – {number(e.high)})")]
        if card is not None:
            other = Recipe(name="default", data=card.recipe.data) if best in (None, card) else best.recipe
            changed = differences(settings(other), settings(card.recipe))
            lines = [
                f"{d.what}: {cut(d.second)}" + ("" if best in (None, card) else f" (the champion: {cut(d.first)})")
                for d in changed
            ]
            pairs += [("" if n else "recipe", line) for n, line in enumerate(lines or ["as the champion's"])]
        pairs += [("trained", f"{version.time:%Y-%m-%d %H:%M:%S} UTC by {version.user}")]
        fields(pairs)
        print()


def show_comparison(found: Any, page: Path) -> None:
    """Print what differs between two versions."""
    pairs = []
    for title, rows in (("config", found.config), ("data", found.data)):
        lines = [f"{row.what}: {cut(row.first)} → {cut(row.second)}" for row in rows]
        pairs += [("" if n else title, line) for n, line in enumerate(few(lines, str(shown(page))) or ["the same"])]
    pairs += [("note", found.note)] if found.note else []
    first, second = found.versions
    if found.metrics:
        level = f"{100 * found.metrics[0].lead.confidence:g} %"
        ahead = f"a lead is positive where version {second} is better"
        pairs += [("rows", f"{found.rows:,} that neither learned from; {ahead}")]
        head = f"{'':<18}{f'v{first}':>8}{f'v{second}':>9}   lead, {level}"
        pairs += [("metrics", head)]
    for pair in found.metrics:
        lead = f"{number(pair.lead.value)} ({number(pair.lead.low)} – {number(pair.lead.high)})"
        both = f"{number(pair.first.value):>8}{number(pair.second.value):>9}"
        pairs += [("", f"{pair.metric:<18}{both}   {lead}")]
    pairs += [("" if n else "slices", f"version {v}, {group.sentence}") for n, (v, group) in enumerate(found.slices)]
    fields([*pairs, ("report", f"{shown(page)}")])


def show_status(status: Any) -> None:
    """Print one deployment."""
    pairs = [(status.name, f"{status.state}, version {status.version}, release {status.release}")]
    if status.since is not None:
        pairs += [("since", f"{status.since:%Y-%m-%d %H:%M:%S} UTC"), ("url", status.url), ("process", status.process)]
    fields([(name, value) for name, value in pairs if value])


@contextmanager
def replaying() -> Iterator[Callable[[Any], None]]:
    """Give what is told of a replay that goes on; on a terminal it moves a bar until the block ends."""
    bar = Progress(*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn(), transient=True)
    if not bar.console.is_terminal:
        yield lambda replayed: None
        return
    with bar:
        task = bar.add_task("rows", total=None)
        yield lambda replayed: bar.update(task, total=replayed.rows, completed=len(replayed.ids))


def show_replay(replayed: Any) -> None:
    """Print what a replay was answered, and how to repeat it."""
    answered = f"{replayed.answered:,} of {replayed.rows:,} rows in {replayed.seconds:.1f} s"
    pairs = [("answered", answered)]
    if replayed.stopped:
        pairs += [("stopped", f"{replayed.stopped}, after {len(replayed.ids):,} rows")]
    for name, of, counts in (
        ("refused", "rows", replayed.refused),
        ("refused", "labels", replayed.refused_labels),
        ("failed", "requests", replayed.failed),
    ):
        if counts:
            pairs += [(name, f"{counts.total():,} {of}, most of all:")]
            pairs += [("", f"{count:,} × {sentence}") for sentence, count in counts.most_common(5)]
    late = f", {replayed.due:,} not due before the last row" if replayed.due else ""
    pairs += [("labels", f"{replayed.labels:,} sent{late}"), ("repeat", f"the same rows with --start {replayed.start}")]
    fields(pairs)


def fields(pairs: list[tuple[str, str]]) -> None:
    """Print names and values in two columns; a name that is empty continues the value above it.

    What holds a command, or a path longer than a line, is one line however long, so that it can be copied.
    """
    console, width = Console(), max(len(printable(name)) for name, _ in pairs)
    room = console.width - width - 2
    for name, value in pairs:
        name = printable(name).ljust(width)
        if COMMAND.search(value) or any(len(word) > room for word in value.split()):
            console.print(Text.assemble((name, "bold"), "  ", printable(value)), soft_wrap=True)
            continue
        table = Table.grid(padding=(0, 2))
        table.add_row(Text(name, style="bold"), Text(printable(value), overflow="fold"))
        console.print(table)


def _states(run_name: str, contained: bool) -> States:
    """Return what is known of each step that has begun, in order."""
    from zenml.client import Client

    client = Client()
    runs = client.list_pipeline_runs(name=f"equals:{run_name}", size=1).items
    if not runs:
        return {}
    found, states = client.list_run_steps(pipeline_run_id=runs[0].id, sort_by="asc:created", size=100).items, States()
    before = runs[0].created
    for step in found:
        whole = _seconds(before, step.end_time) if contained else None
        states[step.name] = (step.status.value, _seconds(step.start_time, step.end_time), whole)
        before = step.end_time or before
    return states


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()


def _line(step: str, state: str, seconds: float | None, whole: float | None) -> Text:
    mark, style = MARKS.get(state, WAITING)
    time = "cached" if state == "cached" else "" if seconds is None else f"{seconds:.1f} s"
    if state != "cached" and whole is not None:
        time = f"{time:>8} of {whole:.1f} s with its container"
    return Text.assemble((f"  {mark} ", style), f"{step:<18}", (f"{time:>8}", "dim"))


@contextmanager
def _nothing() -> Iterator[None]:
    yield None
