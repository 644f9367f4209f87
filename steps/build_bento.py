"""Put the model, its code and its settings into a bento."""

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Annotated

import pandas as pd
from zenml import step

from config import Serving, UserError
from core.bundle import MODULES, Bundle, sha256
from core.metrics import Scorecard
from registry import Promotion
from serving.assemble import PACKAGES, assemble
from serving.deployment import Bento
from serving.release import RELEASE, Release
from steps.materializers import BentoArchive


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
            "serving.service:Predictor",
            name=release.name,
            version=release.id,
            build_ctx=str(context),
            labels={"model_version": str(release.version), "fingerprint": release.fingerprint[:32]},
            include=[*MODULES, "core/**", "serving/**", "release/**"],
            python={"packages": [f"{p}=={importlib.metadata.version(p)}" for p in PACKAGES], "lock_packages": False},
        )
    path = Path(bento.path)
    if sha256((path / "src/release" / RELEASE).read_bytes()) != release.hash:
        raise UserError(f"the bento {tag} was changed after it was built; delete {path}, and deploy again")
    return tag, str(path)
