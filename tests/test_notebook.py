"""The notebook, executed as its reader would, on the log of a small real loop."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import Cli
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from servers import free_port

from loop.config import ROOT, Monitoring
from loop.registry import champions

NOTEBOOK = ROOT / "notebooks/feedback.ipynb"
WINDOW, CLEAN, CHANGED, DELAY = 2000, 2000, 4000, 100
SMALL = ("data.rows=8000", "model.params.max_iter=20", "evaluation.resamples=200", f"monitoring.window_rows={WINDOW}")
SHOWN = """
import json
print(json.dumps({
    "version": version,
    "log": [feedback.predictions, feedback.labelled],
    "windows": [report.rows for report in reports],
    "kinds": [report.kinds for report in reports],
    "measured": [report.performance[metric].model_dump() for report in reports],
    "promised": promised,
    "psi": {name: None if np.isnan(value) else value for name, value in psi.max(axis=1).items()},
    "starts": [str(report.start) for report in reports],
    "since": str(since),
    "champion": {group.name: group.champion.value for group in groups},
    "challenger": {group.name: group.challenger.value for group in groups},
    "rows": {group.name: group.rows for group in groups},
    "flips": len(flips),
}))
"""


@pytest.fixture
def loop(cli: Cli) -> Iterator[list[str]]:
    """Train, deploy, send clean traffic and then that of another world, labels later; give the changes."""
    changes = ["name=toured", f"serving.port={free_port()}", *SMALL]
    options = ["--config", str(ROOT / "configs/fraud.yaml"), *(word for c in changes for word in ("--set", c))]
    traffic = ("--simulate", "--batch", "100", "--rows")
    try:
        for words in (
            ("--pipeline", "training"),
            ("--pipeline", "deployment"),
            (*traffic, str(CLEAN)),
            (*traffic, str(CHANGED), "--scenario", "concept", "--label-delay", str(DELAY)),
        ):
            result = cli(*words, *options)
            assert result.code == 0, result.err
        yield changes
    finally:
        cli("--stop", *options)


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(book: Any, monkeypatch: pytest.MonkeyPatch, use_case: str, changes: list[str]) -> None:
    """Run all cells in a kernel of their own, from the notebook's folder as an editor does."""
    monkeypatch.setenv("NOTEBOOK_CONFIG", f"configs/{use_case}.yaml")
    monkeypatch.setenv("NOTEBOOK_CHANGES", shlex.join(changes))
    NotebookClient(
        book, timeout=240, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()


def outputs(book: Any) -> list[Any]:
    return [output for cell in book.cells for output in cell.get("outputs", [])]


def refused(monkeypatch: pytest.MonkeyPatch, use_case: str, changes: list[str]) -> str:
    """Return the one sentence that all cells together show."""
    book = read()
    with pytest.raises(CellExecutionError, match="UserError"):
        execute(book, monkeypatch, use_case, changes)
    (output,) = outputs(book)
    assert (output.output_type, output.name) == ("stream", "stderr")
    assert output.text.startswith("error: ")
    assert len(output.text.splitlines()) == 1
    return str(output.text)


def test_it_shows_the_drift_of_a_real_log_and_what_retraining_would_change(
    loop: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    book = read()
    book.cells.append(nbformat.v4.new_code_cell(SHOWN))
    execute(book, monkeypatch, "fraud", loop)
    found = json.loads(book.cells[-1].outputs[0].text)
    assert found["version"] == 1
    assert found["log"] == [CLEAN + CHANGED, CLEAN + CHANGED - DELAY]
    assert found["windows"] == [WINDOW] * 3
    assert found["kinds"] == [[], ["concept"], ["concept"]]
    assert max(psi for psi in found["psi"].values() if psi is not None) < Monitoring().min_psi  # the inputs are as ever
    before, *after = found["measured"]
    assert before["low"] < found["promised"][0] < before["high"]
    assert all(seen["high"] < promised for seen, promised in zip(after, found["promised"][1:], strict=True))
    assert found["since"] == found["starts"][1]
    champion, challenger = found["champion"], found["challenger"]
    assert challenger["new rows"] > champion["new rows"]
    assert challenger["old rows"] < champion["old rows"]
    assert 0 < found["flips"] < found["rows"]["new rows"] < CHANGED
    assert sum("image/png" in output.get("data", {}) for output in outputs(book)) == 5
    assert not [output for output in outputs(book) if output.output_type == "error" or output.get("name") == "stderr"]
    assert not any("Warning" in output.get("text", "") for output in outputs(book))
    from loop.registry import decisions

    assert champions.history("toured")[-1].version == 1
    assert decisions.history("toured") == []  # it looks, and leaves nothing behind
    monkeypatch.setenv("SERVING_HOME", str(tmp_path / "serving"))  # where there is no log
    assert "holds 0; first: python run.py --pipeline deployment" in refused(monkeypatch, "fraud", loop)


def test_without_a_champion_it_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "first: python run.py --pipeline training" in refused(monkeypatch, "breast_cancer", ["name=nobody"])


def test_it_is_kept_without_outputs() -> None:
    for cell in read().cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
