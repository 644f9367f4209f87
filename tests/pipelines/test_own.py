"""A pipeline of one's own: what came of it is said, what it asks for follows, and its mistakes are told like ours."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli, last_run

import pipelines

OWN = '''
from typing import Annotated

import pandas as pd
from pydantic import BaseModel
from zenml import pipeline, step

from loop.config import Config, UserError
from loop.registry.results import Finished, Lines, Result


class Counted(Result, BaseModel):
    rows: int
    then: str | None

    @property
    def follows(self) -> str | None:
        return self.then


class Told(Counted):
    def summary(self, run: Finished) -> Lines:
        (table,) = run.load("table")
        return [("counted", f"{self.rows} rows of {run.name}, {len(table)} of them in a table")]


class NoRows(UserError):
    """A mistake of the user's, by another name."""


@step
def read_rows() -> tuple[Annotated[pd.DataFrame, "table"], Annotated[str, "word"]]:
    return pd.DataFrame({"a": [1, 2, 3]}), "spoken\\x1b[2J" + "." * 100


@step
def count_rows(table: pd.DataFrame, then: str | None) -> Annotated[Counted, "counted"]:
    return Counted(rows=len(table), then=then)


@step
def tell_rows(table: pd.DataFrame) -> Annotated[Told, "told"]:
    return Told(rows=len(table), then="counts")


@step
def note_rows(table: pd.DataFrame) -> Annotated[int, "noted"]:
    return len(table)


@step
def miss_rows(known: bool) -> None:
    raise NoRows("no row in claims.csv") if known else ValueError("a fault of ours")


@pipeline(enable_cache=False)
def plain(config: Config) -> None:
    read_rows()


@pipeline(enable_cache=False)
def counts(config: Config) -> None:
    count_rows(read_rows()[0], None)


@pipeline(enable_cache=False)
def tells(config: Config) -> None:
    table, _ = read_rows()
    told = tell_rows(table)
    note_rows(table, after=told)


@pipeline(enable_cache=False)
def misses(config: Config) -> None:
    miss_rows(True)


@pipeline(enable_cache=False)
def breaks(config: Config) -> None:
    miss_rows(False)
'''
NAMES = ("plain", "counts", "tells", "misses", "breaks")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put pipelines beside ours, a module each."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(OWN, encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"pipelines.{name}", raising=False)
    monkeypatch.setattr(pipelines, "__path__", [*pipelines.__path__, str(tmp_path)])
    monkeypatch.setattr("loop.cli.runs.pipelines", lambda: list(NAMES))


def lines(out: str) -> list[str]:
    return [" ".join(line.split()) for line in out.splitlines()]


def test_outputs_of_its_last_step_are_summed_up_where_no_result_speaks(cli: Cli) -> None:
    said = cli("--pipeline", "plain")
    assert said.code == 0, said.err
    assert "table DataFrame of 3 × 1" in lines(said.out)
    assert rf"word spoken\x1b[2J{'.' * 70}…" in lines(said.out)
    assert f"/runs/{last_run().id}" in said.out


def test_its_result_says_what_came_of_it_and_which_pipeline_follows(cli: Cli) -> None:
    said = cli("--pipeline", "tells")
    assert said.code == 0, said.err
    told = lines(said.out)
    assert "counted 3 rows of breast_cancer, 3 of them in a table" in told
    assert told.index("tells of breast_cancer on stack local") < told.index("counts of breast_cancer on stack local")
    assert told[-3:-1] == ["rows 3", "then None"]  # a result without words of its own
    assert not any(line.startswith("noted") for line in told)
    assert last_run().tags[0].name.startswith("after tells-breast_cancer-")


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_a_mistake_of_the_users_is_one_line_whatever_its_class_is_called(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "elsewhere":
        monkeypatch.setattr("loop.cli.runs.start", start_elsewhere)
    said = cli("--pipeline", "misses")
    assert (said.code, said.err) == (2, "error: no row in claims.csv\n")


def test_a_fault_elsewhere_is_its_traceback_and_exit_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loop.cli.runs.start", start_elsewhere)
    said = cli("--pipeline", "breaks")
    assert said.code == 1
    assert "ValueError: a fault of ours" in said.err


def start_elsewhere(pipeline: Any, use_case: Any, *_: Any) -> None:
    """Let what fails be on record alone, as it is where another process runs the steps."""
    with suppress(Exception):
        pipeline(config=use_case)


def test_a_file_that_python_cannot_read_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text("def plain(:\n", encoding="utf-8")
    said = cli("--pipeline", "plain")
    assert said.code == 2
    assert said.err == "error: Python cannot read plain.py, line 1: invalid syntax; mend it and run it again\n"
    (tmp_path / "counts.py").write_text("from steps.nothing import count\n", encoding="utf-8")
    said = cli("--pipeline", "counts")
    assert (said.code, said.err) == (
        2,
        "error: pipelines/counts.py cannot be imported: No module named 'steps.nothing'\n",
    )
