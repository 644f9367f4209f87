"""Say what a server runs: one model, how it is served, and the hashes of every file it may open.

A release is a folder: `release.json`, the bundle (`card.json`, `model.pkl`) and, where the model compiles,
`compiled.json` and mostly `model.onnx`. Whoever starts a server names the SHA-256 of `release.json` that was deployed;
`release.json` holds the hashes of the other files, so nothing that was changed since is ever opened.
"""

import hashlib
import hmac
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from loop.config import Section, Serving, UserError
from loop.training.bundle import Bundle, Card, sha256
from loop.training.compiled import MODEL, SPEC, CompiledModel
from loop.training.metrics import Estimate

RELEASE = "release.json"
Runtime = Literal["onnx", "numpy", "scikit-learn"]
"""What scores rows: a graph, the estimator itself over a matrix prepared in numpy, or the whole pipeline."""


class Release(Section):
    """One version of a model, ready to be served."""

    name: str
    version: int
    """Of the model in the registry."""
    fingerprint: str
    """Of the bundle, as it stands in the promotion log."""
    promoted: datetime
    reasons: tuple[str, ...]
    metrics: dict[str, Estimate]
    """On the holdout, with intervals."""
    serving: Serving
    audit: float
    """Share of predictions that are marked as to be labelled."""
    code: str
    """Hash of the project's code that made it."""
    shipped: str
    """Hash of the code beside it, which serves it."""
    files: dict[str, str]
    """SHA-256 of each file beside `release.json`."""

    @cached_property
    def id(self) -> str:
        """Return the name of this release: the same model, code and settings give the same."""
        return f"v{self.version}-{self.hash[:12]}"

    @property
    def hash(self) -> str:
        """Return the SHA-256 of `release.json`."""
        return sha256(self.model_dump_json(indent=1).encode())

    @property
    def runtime(self) -> Runtime:
        """Return what prepares and scores rows."""
        return "onnx" if MODEL in self.files else "numpy" if SPEC in self.files else "scikit-learn"

    def write(self, folder: Path) -> None:
        """Write `release.json` beside the files it names."""
        (folder / RELEASE).write_text(self.model_dump_json(indent=1), encoding="utf-8")


class Served:
    """Open a release's files, each only if it is the one that was deployed."""

    def __init__(self, folder: Path, expected: str | None = None) -> None:
        """Check every file; `expected` is the SHA-256 of `release.json`, any fault is a UserError."""
        content = _read(folder, RELEASE)
        if expected not in (None, sha256(content)):
            raise UserError(_changed(RELEASE, sha256(content), str(expected)))
        self.release = Release.model_validate_json(content)
        for file, wanted in self.release.files.items():
            if (found := sha256(_read(folder, file))) != wanted:
                raise UserError(_changed(file, found, wanted))
        self.bundle = Bundle.read(folder)
        if self.bundle.fingerprint != self.release.fingerprint:
            raise UserError(f"version {self.release.version} is not the model that was promoted; deploy it again")
        self.compiled = CompiledModel.read(folder, self.bundle) if SPEC in self.release.files else None
        if self.release.runtime != "onnx":  # opened now, or the first request would wait for it
            estimator = self.bundle.pipeline[-1]
            if "n_jobs" in estimator.get_params(deep=False):
                estimator.set_params(n_jobs=1)  # a worker has one core; to share a row out costs more than the row

    @property
    def card(self) -> Card:
        """Return what the model is."""
        return self.bundle.card


def shipped_code(source: Path) -> str:
    """Return one hash of all files of a bento's source but the release and BentoML's own."""
    digest = hashlib.sha256()
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source)
        if name.parts[0] not in ("release", "bentofile.yaml") and "__pycache__" not in name.parts:
            digest.update(f"{name.as_posix()} {sha256(file.read_bytes())}\n".encode())
    return digest.hexdigest()


def check_secret(hash_key: str, release: str) -> str:
    """Return what marks a request to a release, named by its hash, as a check that is not on record.

    Whoever deploys and the server itself have the key; it stands in no command line.
    """
    return hmac.new(hash_key.encode(), release.encode(), "sha256").hexdigest()


def _read(folder: Path, file: str) -> bytes:
    try:
        return (folder / file).read_bytes()
    except OSError as err:
        raise UserError(f"the release in {folder} lacks {file} ({err.strerror}); deploy it again") from err


def _changed(file: str, found: str, wanted: str) -> str:
    return (
        f"{file} was changed after the model was deployed: its SHA-256 is {found[:12]}…, deployed was {wanted[:12]}…; "
        "deploy it again"
    )
