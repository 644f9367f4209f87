"""Put the model, its code and its settings into a bento."""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Serving, UserError
from loop.deploying.assemble import PACKAGES, assemble
from loop.deploying.contract import Bento
from loop.registry.champions import Promotion
from loop.registry.materializers import BentoArchive
from loop.serving.release import RELEASE, Release
from loop.training.bundle import Bundle, sha256
from loop.training.metrics import Scorecard


@step(output_materializers=BentoArchive)
def build_bento(
    promoted_model: Bundle,
    promotion: Promotion,
    promoted_scorecard: Scorecard,
    check_rows: pd.DataFrame,
    serving: Serving,
    audit: float,
) -> Annotated[Bento, "bento"]:
    """Compile the model where that changes no answer, and build the bento unless the same one is there."""
    with tempfile.TemporaryDirectory() as folder:
        release, note = assemble(
            Path(folder),
            promoted_model,
            check_rows,
            serving,
            audit,
            version=promotion.version,
            promoted=promotion.time,
            reasons=promotion.reasons,
            metrics=promoted_scorecard.estimates,
        )
        tag, path = _build(Path(folder), release)
    return Bento(
        name=release.name,
        version=release.version,
        release=release.id,
        sha256=release.hash,
        tag=tag,
        path=path,
        runtime=release.runtime,
        note=note,
    )


def _build(context: Path, release: Release) -> tuple[str, str]:
    import bentoml

    tag = f"{release.name}:{release.id}"
    try:
        bento = bentoml.get(tag)
    except bentoml.exceptions.NotFound:
        bento = bentoml.build(
            "loop.serving.service:Predictor",
            name=release.name,
            version=release.id,
            build_ctx=str(context),
            labels={"model_version": str(release.version), "fingerprint": release.fingerprint[:32]},
            include=["loop/**", "model/**", "release/**"],
            python={"packages": [f"{p}=={importlib.metadata.version(p)}" for p in PACKAGES], "lock_packages": False},
        )
    path = Path(bento.path)
    if sha256((path / "src/release" / RELEASE).read_bytes()) != release.hash:
        raise UserError(f"the bento {tag} was changed after it was built; delete {path}, and deploy again")
    return tag, str(path)
