"""Reach what the owner of this project writes in `model/`, by name; and what a model was made with, as it was then."""

import importlib
import importlib.metadata
import pickletools
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loop.config import ROOT, UserError

PACKAGE = "model"


def owned(module: str, name: str) -> Any:
    """Return what `model/<module>.py` defines under a name; a file that cannot be imported is a UserError."""
    try:
        return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)
    except AttributeError as err:
        raise UserError(f"model/{module}.py needs to define '{name}', which it does not") from err
    except (ImportError, SyntaxError, NameError) as err:
        raise UserError(f"model/{module}.py cannot be imported: {type(err).__name__}: {err}") from err


def packages(estimator: str | None = None) -> dict[str, str]:
    """Return what `model/requirements.in` names, and what an estimator comes from, with the versions that are here.

    What is not installed is left out: whoever needs it says so.
    """
    lines = (ROOT / PACKAGE / "requirements.in").read_text(encoding="utf-8").splitlines()
    names = [found[0] for line in lines if (found := re.match(r"[A-Za-z0-9][\w.-]*", line))]
    top = (estimator or "sklearn").partition(".")[0]
    if top not in ("sklearn", PACKAGE):
        names += importlib.metadata.packages_distributions().get(top, [])
    versions = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[re.sub(r"[-_.]+", "-", name).lower()] = importlib.metadata.version(name)
    return versions


def files_of(model_file: bytes) -> dict[str, str]:
    """Return the owner's files by their paths, if a pickled model refers to any of them, else nothing."""
    named = (value for _, value, _ in pickletools.genops(model_file) if isinstance(value, str))
    if not any(value.split(" ")[0].partition(".")[0] == PACKAGE for value in named):
        return {}
    return _files()


@contextmanager
def as_then(files: Mapping[str, str]) -> Iterator[None]:
    """Have `model` be these files while a model that was made with them is opened, if it is not what it was."""
    if not files or files == _files():
        yield
        return
    folder = tempfile.mkdtemp(prefix="model-")  # for as long as this process may import from it
    for name, text in files.items():
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    today = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == PACKAGE}
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(today)


def _files() -> dict[str, str]:
    paths = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}
