"""What was changed in the artifact store is refused by name, in one line, whatever kind of thing it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Cli, Trained
from test_decisions import weighed
from zenml.types import HTMLString

from loop.config import UserError
from loop.data.split import SplitRule
from loop.registry import champions, decisions
from loop.registry.materializers import Page, Report, Table, Values
from loop.training.gate import Verdict

VERDICT = Verdict(
    decision="hold", reasons=("it is the same model",), champion_version=1, rows=3, conditions=(), groups=()
).with_page("<p>a page of \r\n two lines</p>")
ROWS = pd.DataFrame({"age": [30, 40, None], "city": ["a", "b", "c"]})
KINDS: dict[str, tuple[Any, type[Any], str]] = {
    "rows": (ROWS, Table, "rows.parquet"),
    "values": (SplitRule(identity=("age",), holdout=0.2, seed=0), Values, "data_v2.json"),
    "result": (VERDICT, Report, "data_v2.json"),
    "page of a result": (VERDICT, Report, "page.html"),
    "page": (HTMLString("<p>nothing has drifted</p>"), Page, "page.html"),
}


@contextmanager
def changed(file: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    stored = file.read_bytes()
    assert change(stored) != stored
    file.write_bytes(change(stored))
    try:
        yield
    finally:
        file.write_bytes(stored)


def save(content: Any, name: str, materializer: type[Any]) -> Any:
    from zenml import save_artifact

    return save_artifact(content, name, materializer=materializer)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_changed_is_refused_by_name_and_what_was_not_is_read(cli: Cli, kind: str) -> None:
    cli("--status")
    content, materializer, name = KINDS[kind]
    stored = save(content, f"trusted {kind}", materializer)
    read = stored.load()
    assert read.equals(content) if kind == "rows" else read == content
    for change in (lambda b: b.replace(b"a", b"b", 1), lambda b: b[:-9], lambda b: b"", lambda b: b"\xff" + b):
        with changed(Path(stored.uri) / name, change), pytest.raises(UserError, match=f"stored in {stored.uri} w"):
            stored.load()
    if hasattr(content, "page"):
        assert read.page == content.page


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, 2, None], dtype="category"),
        pd.Series([1, 2.5, None], dtype=object),
        pd.Series([[1, 2], [3], None], dtype=object),
        pd.Series([b"a", None, b"c"], dtype=object),
        pd.Series([None, None, None], dtype=object),
        pd.Series([True, None, False], dtype=object),
        pd.Series([datetime(2026, 1, 1).date(), None, None], dtype=object),
        pd.Series([], dtype=object),
        pd.Series([np.inf, np.nan, -0.0], dtype="float32"),
    ],
    ids=lambda values: f"{values.dtype}-{values.iloc[:1].tolist()}",
)
def test_a_table_of_any_type_is_read_as_it_was_stored(cli: Cli, values: pd.Series) -> None:
    cli("--status")
    stored = save(pd.DataFrame({"x": values, "n": range(len(values))}), "trusted types", Table)
    assert len(stored.load()) == len(values)


def uri(name: str, artifact: str) -> Path:
    from zenml.client import Client

    found = Client().get_model_version(name, 1).get_artifact(artifact)
    assert found is not None
    return Path(found.uri)


DEPLOY, REPRODUCE = ("--pipeline", "deployment"), ("--reproduce", "1")


@pytest.mark.parametrize(
    ("artifact", "file", "asked"),
    [
        ("scorecard", "data_v2.json", DEPLOY),
        ("scorecard", "page.html", DEPLOY),
        ("holdout_rows", "rows.parquet", DEPLOY),
        ("train_rows", "rows.parquet", REPRODUCE),
    ],
)
def test_what_belongs_to_a_champion_is_refused_where_it_is_used(
    cli: Cli, champion: Trained, artifact: str, file: str, asked: tuple[str, ...]
) -> None:
    folder = uri(champion.name, artifact)
    with changed(folder / file, lambda stored: stored.replace(b"0", b"1")):
        result = cli(*asked, "--set", f"name={champion.name}")
        assert result.code == 2
        assert str(folder) in result.err
        assert len(result.err.splitlines()) == 1


def entries(log: str) -> list[Any]:
    from zenml.client import Client

    return Client().list_artifact_versions(artifact=log, sort_by="asc:version_number").items


@pytest.mark.parametrize("change", [("alone", "forged"), ('"version": 1', '"version": 7'), ("{", "")])
def test_an_entry_of_the_promotion_log_that_was_changed_is_refused(cli: Cli, change: tuple[str, str]) -> None:
    name = "entry"
    cli("--status")
    if not champions.history(name):
        champions.promote(name, 1, "0" * 64, replaces=None, reasons=("alone",))
    (entry,) = entries(f"{name}_promotion")
    before, after = (word.encode() for word in change)
    with changed(Path(entry.uri) / "data_v2.json", lambda stored: stored.replace(before, after)):
        result = cli("--history", "--set", f"name={name}")
        assert result.code == 2
        assert "entry_promotion" in result.err
        assert "was changed after it was" in result.err
        assert len(result.err.splitlines()) == 1
    assert cli("--history", "--set", f"name={name}").code == 0


def test_an_entry_that_is_gone_is_one_line_and_a_way_on(cli: Cli) -> None:
    name = "missed"
    cli("--status")
    champions.promote(name, 1, "0" * 64, replaces=None, reasons=("alone",))
    (entry,) = entries(f"{name}_promotion")
    folder = Path(entry.uri)
    folder.rename(kept := folder.with_name("kept"))
    for asked in (("--history",), ("--rollback",), DEPLOY):
        result = cli(*asked, "--set", f"name={name}")
        assert result.code == 2
        assert result.err.startswith(f"error: entry 1 of the log '{name}_promotion' is gone from {folder}; ")
        assert len(result.err.splitlines()) == 1
    assert cli("--history", "--set", f"name={name}2").err.count("Traceback") == 0
    kept.rename(folder)
    assert cli("--history", "--set", f"name={name}").code == 0


def test_an_entry_that_an_earlier_version_appended_is_compared_too(cli: Cli) -> None:
    from zenml.materializers import PydanticMaterializer

    from loop.registry import ledger

    cli("--status")
    champions.promote("earlier", 1, "0" * 64, replaces=None, reasons=("alone",))
    entry = champions.history("earlier")[0].model_copy(update={"number": 2})
    ledger.append("earlier_promotion", entry, 2, materializer=PydanticMaterializer)
    assert champions.history("earlier")[-1] == entry
    stored = Path(entries("earlier_promotion")[-1].uri) / "data_v2.json"
    for before, after in ((b"alone", b"forged"), (b"{", b""), (b'"kind"', b'"sort"')):
        with (
            changed(stored, lambda content, old=before, new=after: content.replace(old, new)),  # type: ignore[misc]
            pytest.raises(UserError, match="entry 2 of the log 'earlier_promotion' was changed"),
        ):
            champions.champion("earlier")


@pytest.mark.parametrize("file", ["data_v2.json", "page.html"])
def test_a_decision_that_was_changed_is_refused(cli: Cli, file: str) -> None:
    cli("--status")
    name = f"decided {file}"
    decisions.append(name, weighed(name, 0), Report)
    (entry,) = entries(f"{name}_decision")
    with (
        changed(Path(entry.uri) / file, lambda stored: stored.replace(b"5", b"6")),
        pytest.raises(UserError, match=r"the Decision stored in .* was changed"),
    ):
        decisions.history(name)
