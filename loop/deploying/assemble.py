"""Lay out a release and the code that serves it in a folder, from which a bento is built, and open one that was."""

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pandas as pd

from loop.config import ROOT, Serving, UserError
from loop.deploying.contract import Bento
from loop.serving.release import Release, Served, shipped_code
from loop.serving.schema import check_personal
from loop.training.bundle import SHIPPED, Bundle, hash_files, sha256, shipped_files
from loop.training.compiled import NotCompilable, compile_model, parity
from loop.training.metrics import Estimate

PACKAGES = (
    "bentoml", "fsspec", "httptools", "msgspec", "numpy", "onnxruntime", "pandas", "prometheus-client", "pydantic",
    "pyyaml", "scikit-learn", "scipy", "uvicorn", "uvloop",
)  # fmt: skip
"""What the code of a server imports."""


def serving_code() -> str:
    """Return one hash of all code that can change an answer or a bento; also the key under which bentos are cached."""
    return hash_files(*SHIPPED, "requirements.txt", "loop/deploying/assemble.py", "steps/build_bento.py")


def assemble(
    context: Path,
    bundle: Bundle,
    rows: pd.DataFrame,
    serving: Serving,
    audit: float,
    *,
    version: int,
    promoted: datetime,
    reasons: tuple[str, ...] = (),
    metrics: Mapping[str, Estimate] | None = None,
) -> tuple[Release, str]:
    """Write `release/` and the code that serves it into a folder; return the release and how it scores.

    The model is compiled if the compiled one answers the rows as the original does, within training.compiled.TOLERANCE.
    """
    check_personal(bundle.card.contract, serving)
    folder = context / "release"
    folder.mkdir(parents=True)
    bundle.write(folder)
    note = _compile(bundle, rows, folder)
    for file in shipped_files(*SHIPPED):
        copy = context / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    release = Release(
        name=bundle.card.recipe.name,
        version=version,
        fingerprint=bundle.fingerprint,
        promoted=promoted,
        reasons=reasons,
        metrics=dict(metrics or {}),
        serving=serving,
        audit=audit,
        code=serving_code(),
        shipped=shipped_code(context),
        files={path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())},
    )
    release.write(folder)
    return release, note


def open_release(bento: Bento) -> Served:
    """Open the release in a bento, if it and the code beside it are what was built."""
    source = Path(bento.path) / "src"
    served = Served(source / "release", bento.sha256)
    for compiled in source.rglob("__pycache__"):
        shutil.rmtree(compiled, ignore_errors=True)  # Python would believe it, and makes it again
    if shipped_code(source) != served.release.shipped:
        raise UserError(
            f"the code in {source} was changed after the bento was built; delete {bento.path} and deploy again with "
            "--no-cache"
        )
    return served


def _compile(bundle: Bundle, rows: pd.DataFrame, folder: Path) -> str:
    """Write the compiled model if it answers as the original does; say what was found."""
    try:
        compiled = compile_model(bundle)
    except NotCompilable as err:
        return f"scikit-learn, since the model does not compile: {err}"
    found = parity(bundle, compiled, rows)
    alike = f"{found.rows - found.decisions:,} of {found.rows:,} holdout rows answered alike"
    sentence = f"{alike}, scores {found.difference:.1g} apart at most"
    if not found.ok:
        return f"scikit-learn, since the compiled model differs: {sentence}"
    compiled.write(folder)
    if compiled.spec.declined:
        return f"numpy and the estimator itself, compared with the pipeline: {sentence}; {compiled.spec.declined}"
    return f"onnx, compared with scikit-learn: {sentence}"
