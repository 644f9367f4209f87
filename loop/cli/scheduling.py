"""Have a pipeline run by the clock: by an orchestrator that keeps time, else by what this machine has."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loop.cli.environment import PLACES
from loop.config import ROOT, UserError

USUAL = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
"""The words that cron takes, as crontab(5) spells them out."""
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")


def read_cron(expression: str) -> list[list[int]]:
    """Return the values of each of the five fields, Sunday as 0; anything malformed is a UserError."""
    words = expression.split()
    if len(words) != len(FIELDS):
        names, usual = ", ".join(name for name, _, _ in FIELDS), ", ".join(USUAL)
        raise UserError(
            f"--schedule needs five fields ({names}) such as '7 * * * *', or one of {usual}; it is '{expression}'"
        )
    found = []
    for word, (name, low, high) in zip(words, FIELDS, strict=True):
        try:
            values = {value for part in word.split(",") for value in _values(part, low, high)}
        except ValueError as err:
            forms = f"numbers from {low} to {high}, as in *, */{max(high // 4, 2)}, {low + 1}-{low + 3} or {low},{high}"
            raise UserError(f"--schedule needs for the {name} {forms}; it is '{word}'") from err
        found.append(sorted({value % 7 for value in values} if high == 7 else values))
    return found


def on_calendar(expression: str) -> list[str]:
    """Return what means the same in systemd, one `OnCalendar=` each.

    Where both the day of the month and that of the week are given, cron takes either, and systemd both.
    """
    minutes, hours, days, months, weekdays = read_cron(expression)
    clock = f"{_listed(hours, 24)}:{_listed(minutes, 60)}:00"
    month, day = _listed(months, 12), _listed(days, 31)
    week = f"{','.join(DAYS[day] for day in weekdays)} " if len(weekdays) < 7 else ""
    _, _, day_word, _, week_word = expression.split()
    if day_word.startswith("*") or week_word.startswith("*"):
        return [f"{week}*-{month}-{day} {clock}"]
    return [f"*-{month}-{day} {clock}", f"{week}*-{month}-* {clock}"]


class Job:
    """A command of this project that something else starts: the same one, from the same folder, on the same state."""

    def __init__(self, name: str, options: Sequence[str], local: Path) -> None:
        self.name, self.folder, self.log = name, local / "schedule", local / "schedule.log"
        self.words = [sys.executable, str(ROOT / "run.py"), *options]
        self.places = {place: os.environ[place] for place in PLACES if place in os.environ}

    def crontab_line(self, expression: str) -> str:
        """Return one line for `crontab -e`; a run that still goes on is not started twice."""
        settings = "".join(f"{key}={shlex.quote(value)} " for key, value in self.places.items())
        lock = ["flock", "-n", str(self.folder / f"{self.name}.lock")]
        command = settings + shlex.join([*lock, *self.words])
        line = f"cd {shlex.quote(str(Path.cwd()))} && {command} >> {shlex.quote(str(self.log))} 2>&1"
        return f"{' '.join(expression.split())} " + line.replace("%", r"\%")  # cron ends a line at a bare one

    def write_units(self, expression: str) -> tuple[Path, Path]:
        """Write a service and a timer for systemd; it never starts a service that still runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = "".join(f"Environment={_quoted(f'{key}={value}')}\n" for key, value in self.places.items())
        shell = ["/bin/sh", "-c", 'exec "$0" "$@"']  # systemd starts no program with a quote in its path
        service = (
            f"[Unit]\nDescription={self.name} of {ROOT}\n\n[Service]\nType=oneshot\n"
            f"WorkingDirectory={str(Path.cwd()).replace('%', '%%')}\n{settings}"
            f"EnvironmentFile=-{str(self.folder / 'environment').replace('%', '%%')}\n"
            f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in (*shell, *self.words))}\n"
            f"StandardOutput=append:{str(self.log).replace('%', '%%')}\nStandardError=inherit\n"
        )
        calendar = "".join(f"OnCalendar={when}\n" for when in on_calendar(expression))
        timer = f"[Unit]\nDescription={self.name} by the clock\n\n[Timer]\n{calendar}Persistent=true\n"
        timer += "\n[Install]\nWantedBy=timers.target\n"
        paths = self.folder / f"{self.name}.service", self.folder / f"{self.name}.timer"
        for path, text in zip(paths, (service, timer), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    def instructions(self, expression: str) -> str:
        """Return what to install here, by cron or by systemd; nothing is installed."""
        service, timer = (shlex.quote(str(path)) for path in self.write_units(expression))
        return (
            "nothing was installed, since the orchestrator of this stack cannot keep time; install one of these\n\n"
            f"cron, by 'crontab -e':\n{self.crontab_line(expression)}\n\n"
            f"systemd, whose service and timer were written to {self.folder}:\n"
            f"systemctl --user link {service}\nsystemctl --user enable --now {timer}\n\n"
            f"what it prints goes to {self.log}; more in monitoring/README.md"
        )


def submit(pipeline: Any, config: Any, name: str, expression: str) -> None:
    """Hand a pipeline to the active stack's orchestrator, in place of what was scheduled under the same name."""
    from zenml.client import Client
    from zenml.config.schedule import Schedule

    client = Client()
    orchestrator = client.active_stack.orchestrator
    for before in client.list_schedules(name=f"equals:{name}").items:
        if not orchestrator.supports_schedule_deletion:
            raise UserError(
                f"{name} is scheduled already, and the {orchestrator.flavor} orchestrator takes nothing back; delete "
                f"it there, then: zenml pipeline schedule delete {name}"
            )
        client.delete_schedule(before.id)
    run_name = f"{name}-{{date}}-{{time}}"  # ZenML fills them in at each run
    when = Schedule(name=name, cron_expression=expression)
    pipeline.with_options(run_name=run_name, schedule=when)(config=config)


def _values(part: str, low: int, high: int) -> range:
    """Return the values of `*`, `n`, `n-m`, and each `/step` of them; ValueError for anything else."""
    span, _, step = part.partition("/")
    first, _, last = ("", "", "") if span == "*" else span.partition("-")
    if not all(word.isascii() and word.isdigit() for word in (first, last, step) if word):
        raise ValueError(part)
    start = low if span == "*" else int(first)
    end = high if span == "*" else int(last) if last else start
    malformed = part.endswith(("-", "/")) or (step and span != "*" and not last)
    if malformed or not low <= start <= end <= high or step == "0":
        raise ValueError(part)
    return range(start, end + 1, int(step or 1))


def _listed(values: Sequence[int], every: int) -> str:
    return "*" if len(values) == every else ",".join(f"{value:02}" for value in values)


def _quoted(word: str) -> str:
    """Quote a word as systemd wants it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if re.search(r"[^\w@%+=:,./-]", word) else escaped
