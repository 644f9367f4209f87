"""Let a run say what came of it: its last result has a summary to print, and names the pipeline that follows.

A pipeline of one's own may return a result as well, such as `class Counted(Result, BaseModel)`; one that does not is
summed up by what its last step returns.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from loop.config import command
from loop.deploying.check import Check
from loop.deploying.contract import Bento
from loop.paged import Paged
from loop.pages.report import number
from loop.training import gate
from loop.training.batch import ShardReport
from loop.training.metrics import Estimate
from loop.watching.policy import Decision

Lines = list[tuple[str, str]]
"""Names and values; an empty name continues the value above it."""

WARNINGS = 20
"""Printed of each kind; more scroll the verdict away."""
LONGEST = 80
"""Characters printed of a value, such as a thousand dropped columns."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended, as its result needs it to say what came of it."""

    name: str
    """Of the use case."""
    folder: Path
    """Where its pages are kept for people."""
    seen: str
    """Where a dashboard shows the run, or the command that opens one."""
    outputs: Mapping[str, Any]
    """ZenML's artifacts by name, in the order of the steps; loaded when asked for."""

    def load(self, *names: str) -> list[Any]:
        """Return outputs of the run."""
        return [self.outputs[name].load() for name in names]

    def keep(self, pages: Mapping[str, str]) -> None:
        """Write pages where people look for the latest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for page, text in pages.items():
            (self.folder / f"{page}.html").write_text(text, encoding="utf-8")


class Result:
    """What a pipeline's last step returns."""

    @property
    def follows(self) -> str | None:
        """Return the pipeline that this result asks for, if it asks for one."""
        return None

    def summary(self, run: Finished) -> Lines:
        """Return what to print of it; pages for people are kept on the way."""
        return [(name, brief(value)) for name, value in vars(self).items()]


class Registration(Result, BaseModel):
    """What became of a model that was trained."""

    model_config = ConfigDict(frozen=True)

    version: int
    decision: gate.Decision
    reasons: tuple[str, ...]
    champion: int | None
    """The version in charge after this run."""
    then: str | None
    """The pipeline that follows a promotion."""

    @property
    def follows(self) -> str | None:
        """Return what is to be done with a new champion."""
        return self.then if self.decision == "promote" else None

    def summary(self, run: Finished) -> Lines:
        """Return what new rows changed, where there are any, the verdict, and what to do next."""
        own = f"v{self.version}"
        # A later run that holds the same model leaves the pages that tell how it was decided.
        settled = self.decision != "promote" and (run.folder / own / "verdict.html").exists()
        said = f"version {self.version} of {run.name}"
        lines = [*_learned_from(run), *_judged(run, said, own, self.champion, settled=settled)]
        if self.follows:
            return [*lines, ("next", f"its {self.follows}, which begins now")]
        if self.decision == "promote":
            return [*lines, ("next", f"{run.seen}, then {command('--pipeline deployment')}")]
        return [*lines, _read_verdict(run)]


class Foreseen(Result, gate.Verdict):
    """What would become of a model, in a dry run."""

    def summary(self, run: Finished) -> Lines:
        """Return the verdict."""
        lines = _judged(run, "in a dry run", "dry-run", self.champion_version, settled=False)
        return [*lines, _read_verdict(run)]


class Deployment(Result, Paged):
    """What came of a deployment."""

    changed: bool
    """False: this very release was serving already."""
    url: str
    """Empty where nothing was started."""
    process: str
    """What serves it; where nothing was started, what to run."""
    bento: Bento
    replaced: str | None
    """The release that had the traffic before; the same one if nothing changed."""
    checks: tuple[Check, ...]
    example: dict[str, Any]
    """A row that the service takes."""
    files: dict[str, str]
    """What was written in place of starting something, by name."""

    @property
    def image(self) -> str:
        """Return the image that the written manifests run."""
        (deployment,) = (yaml.safe_load(text) for name, text in self.files.items() if "-deployment." in name)
        return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    def summary(self, run: Finished) -> Lines:
        """Return what serves now and what it showed before it got traffic; keep the page and a request that works."""
        run.keep({"deployment": self.page})
        request = json.dumps(self.example, indent=1, ensure_ascii=False)
        (run.folder / "request.json").write_text(f"{request}\n", encoding="utf-8")
        with (run.folder / "request.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([self.example, self.example.values()])
        release = f"release {self.bento.release}"
        if self.changed:
            after = f", in place of {self.replaced}" if self.replaced else ""
            released = f"version {self.bento.version} of {run.name}, {release}{after}"
            lines = [("deployed" if self.url else "written", released)]
        else:
            lines = [("unchanged", f"{release} of {run.name} was serving already; nothing was done")]
        lines += [("url", self.url or "none: nothing was started"), ("runtime", self.bento.note)]
        lines += under("checked", [check.sentence for check in self.checks])
        lines += [("report", f"{shown(run.folder)}/deployment.html")]
        if self.files:
            return [*lines, *self._to_be_applied(run)]
        request = f"curl -s {self.url}/predict -d @{shown(run.folder)}/request.json"
        return [*lines, ("next", request if self.url else self.process)]

    def _to_be_applied(self, run: Finished) -> Lines:
        """Return the commands that build and apply what was written."""
        (bento,) = run.load("bento")  # which brings it to this machine
        manifests = Path(self.process.rpartition(" ")[2])
        if not manifests.is_dir():  # they were written in a container that is gone
            manifests = run.folder.parents[1] / "manifests" / run.name
            manifests.mkdir(parents=True, exist_ok=True)
            for file, text in self.files.items():
                (manifests / file).write_text(text, encoding="utf-8")
        return [
            ("image", f"docker build -f {bento.path}/src/loop/serving/Dockerfile -t {self.image} {bento.path}"),
            ("", f"docker push {self.image}"),
            ("next", f"kubectl apply -f {shown(manifests)}"),
        ]


class Batch(Result, ShardReport):
    """What a batch scored."""

    def summary(self, run: Finished) -> Lines:
        """Return how many rows were scored and where the scores are."""
        warned = [f"{file.name}: {finding.sentence}" for file in self.read for finding in file.findings]
        more = [f"and {len(warned) - 10} more, in the artifact batch_report"] if len(warned) > 10 else []
        return [
            ("scored", f"{self.rows:,} rows of {len(self.files)} files, {self.positive:,} decided positive"),
            *under("warnings", warned[:10] + more),
            ("scores", f"{self.files[0].rpartition('/')[0]}/*.parquet"),
        ]


class Watched(Result, Decision):
    """What was decided about a window of traffic."""

    @property
    def follows(self) -> str | None:
        """Return what begins a retraining, if the policy may."""
        return "feedback" if self.action == "retrain" else None

    def summary(self, run: Finished) -> Lines:
        """Return what was found in the window and what was decided; keep the pages."""
        report, alert, drift = run.load("window_report", "alert", "drift_report")
        run.keep({"window": report.page, "decision": self.page, "drift": drift})
        span = f", {report.start:%Y-%m-%d %H:%M:%S} to {report.end:%H:%M:%S} UTC" if report.start else ""
        lines = [("window", f"{report.rows:,} rows that version {report.version} of {run.name} answered{span}")]
        lines += [("", note) for note in report.notes]
        for place, alarm in enumerate(report.alarms):
            lines += [("" if place else "alarm", f"{alarm.title}: {alarm.sentence}")]
            lines += [("", f"what helps: {alarm.helps}")]
        if report.enough and not report.alarms:
            lines += [("alarm", "none")]
        measured = []
        for metric, estimate in report.performance.items():
            before = report.before.get(metric)
            measured.append(_interval(metric, estimate) + (f"   was {number(before.value)}" if before else ""))
        lines += under("on labels", measured)
        lines += [("decision", decided(self)), ("alert", alert["sent"])]
        lines += [("report", f"{shown(run.folder)}/window.html, also decision.html and drift.html (Evidently)")]
        return lines + ([("next", command("--pipeline feedback"))] if self.action == "advise" else [])


class Weighed(Result, Decision):
    """What was decided about the labels that came."""

    @property
    def follows(self) -> str | None:
        """Return the retraining, if it is due."""
        return "retraining" if self.action == "retrain" else None

    def summary(self, run: Finished) -> Lines:
        """Return which labels came and whether the model is trained again."""
        (joined,) = run.load("feedback_report")
        run.keep({"feedback": self.page})
        against = f"no: {self.against}; a person may all the same: {command('--pipeline retraining')}"
        return [
            *under("labels", joined.sentences),
            ("retrain", "yes" if self.action == "retrain" else against),
            ("report", f"{shown(run.folder)}/feedback.html"),
        ]


def decided(decision: Decision) -> str:
    """Return what a policy's decision means, in words."""
    return {
        "retrain": "retraining is due and begins, as policy.mode is act",
        "advise": "retraining is due; policy.mode is advise, so nothing was started",
        "wait": f"retraining waits: {decision.against}",
        "nothing": "retraining is not due",
    }[decision.action]


def _learned_from(run: Finished) -> Lines:
    """Return which labels a retraining had, and what became of the rows of before."""
    if "history" not in run.outputs:
        return []
    joined, history = run.load("feedback_report", "history")
    unusable = [("", history.unusable)] if history.unusable else []
    return [*under("labels", joined.sentences), *unusable, ("old rows", history.sentence)]


def _judged(run: Finished, said: str, own: str, champion: int | None, *, settled: bool) -> Lines:
    """Return verdict, metrics, and where the pages are; keep them, also in a folder of the version's own."""
    scorecard, report, verdict = run.load("scorecard", "contract_report", "verdict")
    pages = {"evaluation": scorecard.page, "contract": report.page, "verdict": verdict.page}
    keep_pages(pages, run.folder, own, champion, settled=settled)
    here, kept = shown(run.folder), "" if settled else f"; kept in {own}/"
    estimates = scorecard.estimates
    level = f"{100 * next(iter(estimates.values())).confidence:g} %"
    return [
        ("verdict", f"{verdict.decision}, {said}"),
        *(("", reason) for reason in verdict.reasons),
        ("champion", f"version {champion}" if champion else "none yet"),
        *under(f"holdout {level}", [_interval(metric, estimate) for metric, estimate in estimates.items()]),
        *under("warnings", few([finding.sentence for finding in report.warnings], f"{here}/contract.html")),
        ("report", f"{here}/evaluation.html, also verdict.html and contract.html{kept}"),
    ]


def _read_verdict(run: Finished) -> tuple[str, str]:
    return ("next", f"read {shown(run.folder)}/verdict.html")


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


def _interval(metric: str, estimate: Estimate) -> str:
    return f"{metric:<18}{number(estimate.value):>8}   ({number(estimate.low)} – {number(estimate.high)})"


def under(name: str, values: Sequence[str]) -> Lines:
    """Return values under one name, which stands at the first."""
    return [("" if place else name, value) for place, value in enumerate(values)]


def few(sentences: list[str], page: str) -> list[str]:
    """Return the sentences; of many, as a table of thousands of columns has, the first and where the rest are."""
    more = len(sentences) - WARNINGS
    return sentences if more <= 0 else [*sentences[:WARNINGS], f"and {more:,} more: {page}"]


def brief(value: Any) -> str:
    """Say in a few words what a value is: a table by its size, text by how it begins."""
    if size := getattr(value, "shape", ()):
        return f"{type(value).__name__} of {' × '.join(map(str, size))}"
    return cut(str(value))


def cut(text: str) -> str:
    """Return text, or how a long one begins."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def shown(folder: Path) -> Path:
    """Return a folder as one would type it here."""
    return folder.relative_to(Path.cwd()) if Path.cwd() in folder.parents else folder
