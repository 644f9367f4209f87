"""A release is opened only with the code that was built with it."""

import py_compile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from servers import breast_cancer, release

from loop.config import UserError
from loop.deploying.assemble import open_release
from loop.deploying.contract import Bento

CHANGES: dict[str, Callable[[Path], Any]] = {
    "changed": lambda source: (source / "loop/serving/app.py").write_text("raise SystemExit"),
    "added": lambda source: (source / "numpy.py").write_text("raise SystemExit"),
    "removed": lambda source: (source / "loop/log/gauges.py").unlink(),
    "renamed": lambda source: (source / "loop/log/gauges.py").rename(source / "loop/log/other.py"),
    "made a template": lambda source: (source / "loop/serving/new.html").write_text("<script>"),
}


@pytest.fixture
def bento(tmp_path: Path) -> Bento:
    made = release(tmp_path / "src", breast_cancer())
    about = {"tag": "m:v1", "path": str(tmp_path), "runtime": "onnx", "note": ""}
    return Bento(name="m", version=1, release=made.id, sha256=made.hash, **about)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", CHANGES)
def test_a_bento_whose_code_was_changed_is_refused(bento: Bento, change: str) -> None:
    assert open_release(bento).release.name == "breast_cancer"
    CHANGES[change](Path(bento.path) / "src")
    with pytest.raises(UserError, match=f"the code in {bento.path}/src was changed after the bento was built"):
        open_release(bento)


def test_what_python_compiled_of_other_code_is_thrown_away(bento: Bento) -> None:
    other = Path(bento.path) / "other.py"
    other.write_text("raise SystemExit")
    compiled = Path(bento.path) / "src/loop/serving/__pycache__/app.cpython-311.pyc"
    py_compile.compile(str(other), str(compiled))
    open_release(bento)
    assert not compiled.exists()
