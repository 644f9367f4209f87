"""Show a run while it goes on and what came of it."""

import csv
import json
import re
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

from config import Recipe, command, printable
from core.compare import differences, settings
from core.metrics import default_metric
from core.report import number

MARKS = {
    "completed": ("✓", "green"),
    "cached": ("=", "cyan"),
    "failed": ("✗", "red"),
    "running": ("›", "yellow"),
}
WARNINGS = 20  # printed; more scroll the verdict away
COMMAND = re.compile(r"\b(python run\.py|make|curl|docker|kubectl) ")
_LONGEST = 80  # characters of a value, such as a thousand dropped columns
WAITING = ("·", "dim")
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


def show_training(run: Any, name: str, folder: Path) -> None:
    """Print verdict, metrics, where the pages are, and what to do next; copy the pages into the folder."""
    from zenml.utils.dashboard_utils import get_run_url

    seen = get_run_url(run) or "make dashboard"  # a server has a page of the run
    then = f"{seen}, then {command('--pipeline deployment')}"
    print()
    fields(_training(run, name, folder, then))


def _training(run: Any, name: str, folder: Path, then: str) -> list[tuple[str, str]]:
    outputs = {k: v[0] for step in run.steps.values() for k, v in step.outputs.items()}
    scorecard, report = outputs["scorecard"].load(), outputs["contract_report"].load()
    verdict, dry = outputs["verdict"].load(), "registration" not in outputs
    if dry:
        said, champion, own = "in a dry run", verdict.champion_version, "dry-run"
    else:
        registration = outputs["registration"].load()
        said, champion = f"version {registration.version} of {name}", registration.champion
        own = f"v{registration.version}"
    pages = {"evaluation": scorecard.page, "contract": report.page, "verdict": verdict.page}
    # A later run that holds the same model leaves the pages that tell how it was decided.
    settled = not dry and verdict.decision != "promote" and (folder / own / "verdict.html").exists()
    keep_pages(pages, folder, own, champion, settled=settled)
    promoted, shown = verdict.decision == "promote" and not dry, _shown(folder)
    pairs = [("verdict", f"{verdict.decision}, {said}")]
    pairs += [("", reason) for reason in verdict.reasons]
    pairs += [("champion", f"version {champion}" if champion else "none yet")]
    for index, (metric, e) in enumerate(scorecard.estimates.items()):
        value = f"{metric:<18}{number(e.value):>8}   ({number(e.low)} – {number(e.high)})"
        pairs.append(("" if index else f"holdout {100 * e.confidence:g} %", value))
    warnings = few([finding.sentence for finding in report.warnings], f"{shown}/contract.html")
    pairs += [("" if index else "warnings", sentence) for index, sentence in enumerate(warnings)]
    kept = "" if settled else f"; kept in {own}/"
    pairs += [("report", f"{shown}/evaluation.html, also verdict.html and contract.html{kept}")]
    return [*pairs, ("next", then if promoted else f"read {shown}/verdict.html")]


def keep_pages(pages: dict[str, str], folder: Path, version: str, champion: int | None, *, settled: bool) -> None:
    """Write pages as the latest, each with a link to the champion's, and unless they are settled into the version's."""
    own = folder / version
    own.mkdir(parents=True, exist_ok=True)
    for place, up in ((folder, ""), *(() if settled else ((own, "../"),))):
        for page, text in pages.items():
            if champion and version != f"v{champion}" and (folder / f"v{champion}/{page}.html").exists():
                link = f'<p><a href="{up}v{champion}/{page}.html">this page of the champion, version {champion}</a></p>'
                text = text.replace("</h1>", f"</h1>\n{link}", 1)
            (place / f"{page}.html").write_text(text, encoding="utf-8")


def show_deployment(run: Any, name: str, folder: Path) -> None:
    """Print what serves now and what it showed before it got traffic; keep the page and a request that works."""
    outputs = {k: v[0] for step in run.steps.values() for k, v in step.outputs.items()}
    found = outputs["deployment"].load()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "deployment.html").write_text(found.page, encoding="utf-8")
    request = json.dumps(found.example, indent=1, ensure_ascii=False)
    (folder / "request.json").write_text(f"{request}\n", encoding="utf-8")
    with (folder / "request.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([found.example, found.example.values()])
    if found.changed:
        after = f", in place of {found.replaced}" if found.replaced else ""
        released = f"version {found.bento.version} of {name}, release {found.bento.release}{after}"
        pairs = [("deployed" if found.url else "written", released)]
    else:
        pairs = [("unchanged", f"release {found.bento.release} of {name} was serving already; nothing was done")]
    pairs += [("url", found.url or "none: nothing was started"), ("runtime", found.bento.note)]
    for place, check in enumerate(found.checks):
        speed = f"p50 {check.p50_ms:.2f} ms, p99 {check.p99_ms:.2f} ms"
        shown = f"{check.rows} rows, scores {check.difference:.2g} apart at most, {speed}"
        pairs.append(("" if place else "checked", shown))
    pairs += [("report", f"{_shown(folder)}/deployment.html")]
    if found.files:
        bento, manifests = outputs["bento"].load(), Path(found.process.rpartition(" ")[2])
        if not manifests.is_dir():  # they were written in a container that is gone
            manifests = folder.parents[1] / "manifests" / name
            manifests.mkdir(parents=True, exist_ok=True)
            for file, text in found.files.items():
                (manifests / file).write_text(text, encoding="utf-8")
        pairs += [("image", f"docker build -f {bento.path}/src/serving/Dockerfile -t {found.image} {bento.path}")]
        pairs += [("", f"docker push {found.image}")]
        pairs += [("next", f"kubectl apply -f {_shown(manifests)}")]
        print()
        return fields(pairs)
    request = f"curl -s {found.url}/predict -d @{_shown(folder)}/request.json"
    pairs += [("next", request if found.url else found.process)]
    print()
    return fields(pairs)


def show_inference(run: Any, name: str, folder: Path) -> None:
    """Print how many rows were scored and where the scores are."""
    report = next(s.outputs["batch_report"][0].load() for s in run.steps.values() if "batch_report" in s.outputs)
    pairs = [("scored", f"{report.rows:,} rows of {len(report.files)} files, {report.positive:,} decided positive")]
    warned = [f"{file.name}: {finding.sentence}" for file in report.read for finding in file.findings]
    pairs += [("" if place else "warnings", sentence) for place, sentence in enumerate(warned[:10])]
    pairs += [("", f"and {len(warned) - 10} more, in the artifact batch_report")] if len(warned) > 10 else []
    pairs += [("scores", f"{report.files[0].rpartition('/')[0]}/*.parquet")]
    print()
    fields(pairs)


def show_monitoring(run: Any, name: str, folder: Path) -> None:
    """Print what was found in the window and what was decided; keep the pages."""
    outputs = {k: v[0] for step in run.steps.values() for k, v in step.outputs.items()}
    report, decision, alert = (outputs[key].load() for key in ("window_report", "decision", "alert"))
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"window": report.page, "decision": decision.page, "drift": outputs["drift_report"].load()}
    for page, content in pages.items():
        (folder / f"{page}.html").write_text(content, encoding="utf-8")
    span = f", {report.start:%Y-%m-%d %H:%M:%S} to {report.end:%H:%M:%S} UTC" if report.start else ""
    pairs = [("window", f"{report.rows:,} rows that version {report.version} of {name} answered{span}")]
    pairs += [("", note) for note in report.notes]
    for place, alarm in enumerate(report.alarms):
        pairs += [("" if place else "alarm", f"{alarm.title}: {alarm.sentence}"), ("", f"what helps: {alarm.helps}")]
    if report.enough and not report.alarms:
        pairs.append(("alarm", "none"))
    for place, (metric, e) in enumerate(report.performance.items()):
        before = report.before.get(metric)
        then = f"   was {number(before.value)}" if before else ""
        value = f"{metric:<18}{number(e.value):>8}   ({number(e.low)} – {number(e.high)}){then}"
        pairs.append(("" if place else "on labels", value))
    pairs += [("decision", decided(decision))]
    pairs += [("alert", alert["sent"])]
    pairs += [("report", f"{_shown(folder)}/window.html, also decision.html and drift.html (Evidently)")]
    if decision.action == "advise":
        pairs += [("next", command("--pipeline feedback"))]
    print()
    fields(pairs)


def decided(decision: Any) -> str:
    """Return what a policy's decision means, in words."""
    return {
        "retrain": "retraining is due and begins, as policy.mode is act",
        "advise": "retraining is due; policy.mode is advise, so nothing was started",
        "wait": f"retraining waits: {decision.against}",
        "nothing": "retraining is not due",
    }[str(decision.action)]


def show_feedback(run: Any, name: str, folder: Path) -> None:
    """Print which labels came and whether the model is trained again."""
    outputs = {k: v[0] for step in run.steps.values() for k, v in step.outputs.items()}
    joined, decision = outputs["feedback_report"].load(), outputs["retraining_decision"].load()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "feedback.html").write_text(decision.page, encoding="utf-8")
    pairs = [("" if place else "labels", sentence) for place, sentence in enumerate(joined.sentences)]
    against = f"no: {decision.against}; a person may all the same: {command('--pipeline retraining')}"
    pairs += [("retrain", "yes" if decision.action == "retrain" else against)]
    pairs += [("report", f"{_shown(folder)}/feedback.html")]
    print()
    fields(pairs)


def show_retraining(run: Any, name: str, folder: Path) -> None:
    """Print what the new rows changed, then what a training prints."""
    outputs = {k: v[0] for step in run.steps.values() for k, v in step.outputs.items()}
    pairs = [("" if n else "labels", line) for n, line in enumerate(outputs["feedback_report"].load().sentences)]
    history = outputs["history"].load()
    pairs += [("", history.unusable)] if history.unusable else []
    pairs += [("old rows", history.sentence)]
    print()
    fields(pairs + _training(run, name, folder, "its deployment, which begins now"))


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
                f"{d.what}: {_cut(d.second)}" + ("" if best in (None, card) else f" (the champion: {_cut(d.first)})")
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
        lines = [f"{row.what}: {_cut(row.first)} → {_cut(row.second)}" for row in rows]
        pairs += [("" if n else title, line) for n, line in enumerate(few(lines, str(_shown(page))) or ["the same"])]
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
    fields([*pairs, ("report", f"{_shown(page)}")])


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


def few(sentences: list[str], page: str) -> list[str]:
    """Return the sentences; of many, as a table of thousands of columns has, the first and where the rest are."""
    more = len(sentences) - WARNINGS
    return sentences if more <= 0 else [*sentences[:WARNINGS], f"and {more:,} more: {page}"]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _shown(folder: Path) -> Path:
    """Return a folder as one would type it here."""
    return folder.relative_to(Path.cwd()) if Path.cwd() in folder.parents else folder


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
