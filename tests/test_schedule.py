"""A pipeline by the clock: what is installed by hand here runs as it stands, and an orchestrator gets one schedule."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, Trained, output, untried

from loop.cli import runs
from loop.cli.scheduling import USUAL, Job, on_calendar, read_cron
from loop.config import ROOT, UserError

SAME = ["7 * * * *", "*/15 6-18/4 * * *", "0 3 * * 1-5", "30 4 1,15 * *", "0 0 13 * 5", "5 0 * 2,8 0", "1 2 */9 * 7"]


@pytest.mark.parametrize("word", USUAL)
def test_the_usual_words_are_taken(cli: Cli, word: str) -> None:
    result = cli("--pipeline", "monitoring", "--schedule", word, "--set", f"name=by_{word[1:]}")
    assert result.code == 0, result.err
    assert f"\n{USUAL[word]} cd " in result.out
    folder = Path(re.search("written to (.*):", result.out)[1])  # type: ignore[index]
    assert {path.suffix for path in folder.glob(f"monitoring-by_{word[1:]}.*")} == {".service", ".timer"}


MALFORMED = {
    "hourly": "five fields",
    "* * * *": "five fields",
    "": "five fields",
    "60 * * * *": "minute numbers from 0 to 59",
    "* 5-2 * * *": "hour",
    "* * 0 * *": "day of the month",
    "* * * */0 *": "month",
    "* * * * mon": "day of the week",
    "*/ * * * *": "minute",
    "5/2 * * * *": "minute",
    "1-2-3 * * * *": "minute",
    "-5 * * * *": "minute",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Copy the tree, with blanks, a quote and a per cent sign in its name; its state is the tests' own."""
    folder = tmp_path / "it's a clone, a=b, 100 % mine"
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
        if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".local").mkdir()
    return folder


def test_the_printed_line_runs_monitoring_under_cron_and_never_twice_at_once(champion: Trained, clone: Path) -> None:
    name = champion.name
    typed = [sys.executable, "run.py", "--pipeline", "monitoring", "--set", f"name={name}", "--schedule", "7 * * * *"]
    shell = {key: value for key, value in os.environ.items() if key not in ("ZENML_STORE_URL", *runs.ENVIRONMENT)}
    shell |= {"SERVING_HOME": str(clone / ".local/serving")}
    printed = subprocess.run(typed, cwd=clone, env=shell, check=True, capture_output=True, text=True).stdout
    assert "nothing was installed" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("7 * * * * ")]
    command = line.removeprefix("7 * * * * ").replace(r"\%", "%")  # as cron does
    bare = ["env", "-i", f"HOME={clone}", "SHELL=/bin/sh", "PATH=/usr/bin:/bin", "/bin/sh", "-c", command]
    log = clone / ".local/schedule.log"
    with (clone / f".local/schedule/monitoring-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert subprocess.run(bare, cwd="/", timeout=60).returncode == 1
        assert log.read_text() == ""
    found = subprocess.run(bare, cwd="/", timeout=240, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", ""), log.read_text()
    assert "nothing was answered since the last window" in log.read_text()
    assert (clone / f".local/reports/{name}/window.html").exists()
    assert output("window_report").name == name


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("systemd-analyze") is None:
        untried("no systemd-analyze on this machine, the units were not verified; try: apt-get install systemd")
    folder = tmp_path / 'it\'s "a" $HOME, 100 % mine'
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(folder))
    job = Job("monitoring-fraud", ["--set", 'data.options={a: "b\'s \\\\"}'], folder / ".local")
    units = job.write_units("7 * * * *")
    verify = ["systemd-analyze", "verify", "--user", "--man=no", *map(str, units)]
    found = subprocess.run(verify, capture_output=True, text=True, env=os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)})
    blamed = [line for line in found.stderr.splitlines() if "monitoring-fraud" in line]
    assert (found.returncode, blamed) == (0, []), found.stderr


@pytest.mark.parametrize("expression", SAME)
def test_cron_and_systemd_mean_the_same_moments(zenml: None, expression: str) -> None:
    # Not above: while ZenML's filter for numbers is defined, typing's cache may still hold croniter's
    # Union[datetime, float]; it is taken for the filter's Union[float, datetime], and 1 becomes a second of 1970.
    from croniter import croniter

    base = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    expected = croniter(expression, base, implement_cron_bug=True)
    moments = [expected.get_next(datetime) for _ in range(20)]
    if shutil.which("systemd-analyze") is None:
        untried("no systemd-analyze on this machine, its calendar was not asked; try: apt-get install systemd")
    ask = ["systemd-analyze", "calendar", "--iterations=20", f"--base-time={base:%Y-%m-%d %H:%M:%S} UTC"]
    found = set()
    for calendar in on_calendar(expression):
        told = subprocess.run(
            [*ask, calendar], check=True, capture_output=True, text=True, env=os.environ | {"TZ": "UTC"}
        )
        found |= set(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told.stdout.split("Next elapse")[1]))
    assert sorted(found)[:20] == [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in moments]


@pytest.mark.parametrize("expression", MALFORMED)
def test_a_malformed_expression_is_one_sentence(expression: str) -> None:
    with pytest.raises(UserError, match=f"^--schedule needs .*{MALFORMED[expression]}.* it is '[^']*'$"):
        read_cron(expression)


def test_an_orchestrator_that_keeps_time_gets_one_schedule_which_the_next_replaces(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("--status")  # the stack is applied
    from zenml.client import Client
    from zenml.orchestrators.local.local_orchestrator import LocalOrchestrator, LocalOrchestratorConfig
    from zenml.pipelines import pipeline_definition

    submitted: list[Any] = []
    taken_back: list[str] = []
    monkeypatch.setattr(LocalOrchestratorConfig, "is_schedulable", True)
    monkeypatch.setattr(LocalOrchestrator, "delete_schedule", lambda self, schedule: taken_back.append(schedule.name))
    monkeypatch.setattr(pipeline_definition, "submit_pipeline", lambda snapshot, **_: submitted.append(snapshot))
    schedule = ("--pipeline", "monitoring", "--set", "name=timed", "--schedule")
    for expression in ("7 * * * *", "30 6 * * 1-5"):
        result = cli(*schedule, expression)
        assert result.code == 0, result.err
        (stored,) = Client().list_schedules(name="equals:monitoring-timed").items
        assert stored.cron_expression == submitted[-1].schedule.cron_expression == expression
    assert taken_back == ["monitoring-timed"]
    assert len(submitted) == 2
    assert "{time}" in submitted[-1].run_name_template  # two runs of a schedule need two names
    assert submitted[-1].pipeline_configuration.parameters["config"]["name"] == "timed"
    monkeypatch.delattr(LocalOrchestrator, "delete_schedule")
    result = cli(*schedule, "8 * * * *")
    assert (result.code, len(submitted), len(result.err.splitlines())) == (2, 2, 1)
    assert "delete it there" in result.err
