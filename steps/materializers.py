"""Store tables, bundles and reports, each with a hash of its content: equal content is served from cache."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers import PydanticMaterializer
from zenml.materializers.base_materializer import BaseMaterializer

from config import UserError
from core.bundle import CARD, MODEL, Bundle, sha256
from core.paged import Paged
from core.stand_in import FAULT, SCORES, StandIn
from core.table import fingerprint
from serving.deployment import Bento

ARCHIVE = "release.bento"
NAMED = 100
"""Columns of a table that the dashboard names."""


class Table(BaseMaterializer):
    """Store a DataFrame as Parquet."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (pd.DataFrame,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Any]) -> pd.DataFrame:
        """Read the rows."""
        with self.artifact_store.open(self._path, "rb") as file:
            return pd.read_parquet(file)

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows."""
        with self.artifact_store.open(self._path, "wb") as file:
            data.to_parquet(file, compression="zstd")

    def compute_content_hash(self, data: pd.DataFrame) -> str:
        """Return the table's fingerprint, the same however the rows came here."""
        return fingerprint(data)

    def extract_metadata(self, data: pd.DataFrame) -> dict[str, Any]:
        """Show the size in the dashboard."""
        names = list(map(str, data.columns))
        shown = names if len(names) <= NAMED else [*names[:NAMED], f"and {len(names) - NAMED:,} more"]
        return {"rows": len(data), "columns": shown}

    @property
    def _path(self) -> str:
        return f"{self.uri}/rows.parquet"


class ModelBundle(BaseMaterializer):
    """Store a bundle as its two files; one whose content is not what was stored is refused."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Bundle,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def load(self, data_type: type[Any]) -> Bundle:
        """Read the bundle and compare it with the hash that ZenML's database holds."""
        with tempfile.TemporaryDirectory() as folder:
            for name in (CARD, MODEL):
                with self.artifact_store.open(f"{self.uri}/{name}", "rb") as source:
                    (Path(folder) / name).write_bytes(source.read())
            bundle = Bundle.read(Path(folder))
        if self.expected_content_hash not in (None, bundle.hash_as_read):
            raise UserError(f"the model stored in {self.uri} was changed after it was stored")
        return bundle

    def save(self, data: Bundle) -> None:
        """Write the bundle's two files."""
        with tempfile.TemporaryDirectory() as folder:
            data.write(Path(folder))
            for name in (CARD, MODEL):
                with self.artifact_store.open(f"{self.uri}/{name}", "wb") as target:
                    target.write((Path(folder) / name).read_bytes())

    def compute_content_hash(self, data: Bundle) -> str:
        """Return the hash of card and model file."""
        return data.content_hash

    def extract_metadata(self, data: Bundle) -> dict[str, Any]:
        """Show in the dashboard what decides the model."""
        card = data.card
        return {
            "fingerprint": data.fingerprint,
            "data": card.data,
            "code": card.code,
            "environment": card.environment,
        }


class Record(BaseMaterializer):
    """Store what a model said of its holdout rows; a record that was changed since is refused."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (StandIn,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Any]) -> StandIn:
        """Read the record and compare it with the hash that ZenML's database holds."""
        files = {}
        for name in (CARD, FAULT, SCORES):
            with self.artifact_store.open(f"{self.uri}/{name}", "rb") as source:
                files[name] = source.read()
        if self.expected_content_hash not in (None, _hash(files)):
            raise UserError(f"the predictions stored in {self.uri} were changed after they were stored")
        return StandIn.read(files)

    def save(self, data: StandIn) -> None:
        """Write the record's files."""
        for name, content in data.files().items():
            with self.artifact_store.open(f"{self.uri}/{name}", "wb") as target:
                target.write(content)

    def compute_content_hash(self, data: StandIn) -> str:
        """Return one hash of all files."""
        return _hash(data.files())


class BentoArchive(BaseMaterializer):
    """Store a bento whole, so that a step on another machine has it too."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Bento,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def load(self, data_type: type[Any]) -> Bento:
        """Return the bento in this machine's store, brought there if it is not; whoever uses it checks its hash."""
        with self.artifact_store.open(f"{self.uri}/bento.json", "r") as file:
            bento = Bento.model_validate_json(file.read())
        if (Path(bento.path) / "src/release").is_dir():
            return bento
        import bentoml

        try:
            found = bentoml.get(bento.tag)
        except bentoml.exceptions.NotFound:
            with tempfile.TemporaryDirectory() as folder:
                archive = Path(folder) / ARCHIVE
                with self.artifact_store.open(f"{self.uri}/{ARCHIVE}", "rb") as source:
                    archive.write_bytes(source.read())
                found = bentoml.import_bento(str(archive))
        return bento.model_copy(update={"path": str(found.path)})

    def save(self, data: Bento) -> None:
        """Write the description and BentoML's own archive."""
        import bentoml

        with tempfile.TemporaryDirectory() as folder:
            archive = Path(bentoml.export_bento(data.tag, str(Path(folder) / ARCHIVE)))
            with self.artifact_store.open(f"{self.uri}/{ARCHIVE}", "wb") as target:
                target.write(archive.read_bytes())
        with self.artifact_store.open(f"{self.uri}/bento.json", "w") as file:
            file.write(data.model_dump_json())

    def compute_content_hash(self, data: Bento) -> str:
        """Return the hash of what the release holds."""
        return data.sha256


class Report(PydanticMaterializer):
    """Store a result as JSON and its page as HTML, which is what the dashboard shows of it."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Paged,)

    def load(self, data_type: type[Any]) -> Paged:
        """Read the result with its page."""
        result: Paged = super().load(data_type)
        with self.artifact_store.open(self._page, "r") as file:
            return result.with_page(file.read())

    def save(self, data: Any) -> None:
        """Write the result and its page."""
        super().save(data)
        with self.artifact_store.open(self._page, "w") as file:
            file.write(data.page)

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """Name the page."""
        return {self._page: VisualizationType.HTML}

    @property
    def _page(self) -> str:
        return f"{self.uri}/page.html"


def _hash(files: Mapping[str, bytes]) -> str:
    return sha256(b"".join(files.values()))
