"""Store tables, bundles and reports, each with a hash of its content: equal content is served from cache.

ZenML's database holds that hash, and what is read is compared with it: whoever can write to the artifact store alone
changes no model, no rows and no decision.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from pydantic import BaseModel
from zenml.enums import ArtifactType, VisualizationType
from zenml.materializers import PydanticMaterializer
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.materializer_registry import materializer_registry
from zenml.materializers.pydantic_materializer import DEFAULT_FILENAME
from zenml.types import HTMLString

from loop.config import UserError
from loop.data.table import fingerprint
from loop.deploying.contract import Bento
from loop.paged import Paged
from loop.training.bundle import CARD, MODEL, Bundle, sha256
from loop.training.stand_in import FAULT, SCORES, StandIn

ABOUT, ARCHIVE = "bento.json", "release.bento"
NAMED = 100
"""Columns of a table that the dashboard names."""
MANY = ("rows", "predictions")
TABLE = "table 2 "
"""What a table's hash begins with: version 0.1.0 had another, which cannot be computed any more."""


class Table(BaseMaterializer):
    """Store a DataFrame as Parquet."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (pd.DataFrame,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Any]) -> pd.DataFrame:
        """Read the rows."""
        content = _read(self, self._path)
        try:
            rows = pd.read_parquet(io.BytesIO(content))
        except (ValueError, OSError) as err:
            raise _changed(self, "rows") from err
        if (self.expected_content_hash or "").startswith(TABLE):
            _compare(self, "rows", TABLE + fingerprint(rows))
        return rows

    def save(self, data: pd.DataFrame) -> None:
        """Write the rows."""
        with self.artifact_store.open(self._path, "wb") as file:
            data.to_parquet(file, compression="zstd")

    def compute_content_hash(self, data: pd.DataFrame) -> str:
        """Return the fingerprint of what will be read, the same however the rows came here."""
        loose = [name for name in data if data[name].dtype in ("object", "category")]
        if loose:
            file = io.BytesIO()
            data[loose].to_parquet(file)
            data = data.assign(**pd.read_parquet(file))
        return TABLE + fingerprint(data)

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
        _compare(self, "model", bundle.hash_as_read)
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
        files = {name: _read(self, f"{self.uri}/{name}") for name in (CARD, FAULT, SCORES)}
        _compare(self, "predictions", _hash(files))
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
        """Return the bento in this machine's store, brought there if it is not; `open_release` checks what is in it."""
        about, content = (_read(self, f"{self.uri}/{name}") for name in (ABOUT, ARCHIVE))
        _compare(self, "bento", sha256(about + content))
        bento = Bento.model_validate_json(about)
        if (Path(bento.path) / "src/release").is_dir():
            return bento
        import bentoml

        try:
            found = bentoml.get(bento.tag)
        except bentoml.exceptions.NotFound:
            with tempfile.TemporaryDirectory() as folder:
                archive = Path(folder) / ARCHIVE
                archive.write_bytes(content)
                found = bentoml.import_bento(str(archive))
        return bento.model_copy(update={"path": str(found.path)})

    def save(self, data: Bento) -> None:
        """Write the description and BentoML's own archive."""
        import bentoml

        with tempfile.TemporaryDirectory() as folder:
            archive = Path(bentoml.export_bento(data.tag, str(Path(folder) / ARCHIVE))).read_bytes()
        about = data.model_dump_json().encode()
        for name, content in ((ABOUT, about), (ARCHIVE, archive)):
            with self.artifact_store.open(f"{self.uri}/{name}", "wb") as file:
                file.write(content)
        self._stored = sha256(about + archive)

    def compute_content_hash(self, data: Bento) -> str:
        """Return the hash of what was written: an archive of the same release has other times."""
        return self._stored


class Values(PydanticMaterializer):
    """Store values as JSON, as ZenML does."""

    def load(self, data_type: type[Any]) -> Any:
        """Read the values and compare them with the hash that ZenML's database holds."""
        content = self._values(data_type)
        _compare(self, data_type.__name__, self._hash(content))
        return data_type.model_validate(content)

    def compute_content_hash(self, data: Any) -> str:
        """Return the hash of the JSON."""
        return self._hash(data.model_dump(mode="json"))

    def _values(self, data_type: type[Any]) -> Any:
        try:
            return json.loads(_read(self, f"{self.uri}/{DEFAULT_FILENAME}"))
        except ValueError as err:
            raise _changed(self, data_type.__name__) from err

    def _hash(self, content: Any) -> str:
        """Return the hash that ZenML gives to values, so that those of earlier versions are compared too."""
        name = type(self).__name__
        return hashlib.md5((name + json.dumps(content, sort_keys=True)).encode(), usedforsecurity=False).hexdigest()


materializer_registry.register_and_overwrite_type(BaseModel, Values)


class Report(Values):
    """Store a result as JSON and its page as HTML, which is what the dashboard shows of it."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Paged,)

    def load(self, data_type: type[Any]) -> Paged:
        """Read the result with its page; earlier versions stored no hash of the page."""
        content, page = self._values(data_type), _read(self, self._page)
        values = self._hash(content)
        if self.expected_content_hash != values:
            _compare(self, data_type.__name__, _with_page(values, page))
        result: Paged = data_type.model_validate(content)
        return result.with_page(page.decode())

    def save(self, data: Any) -> None:
        """Write the result and its page."""
        super().save(data)
        with self.artifact_store.open(self._page, "wb") as file:
            file.write(data.page.encode())

    def compute_content_hash(self, data: Any) -> str:
        """Return one hash of values and page."""
        return _with_page(super().compute_content_hash(data), data.page.encode())

    def save_visualizations(self, data: Any) -> dict[str, VisualizationType]:
        """Name the page."""
        return {self._page: VisualizationType.HTML}

    @property
    def _page(self) -> str:
        return f"{self.uri}/page.html"


class Page(BaseMaterializer):
    """Store a page that stands alone."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (HTMLString,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA_ANALYSIS

    def load(self, data_type: type[Any]) -> HTMLString:
        """Read the page and compare it with the hash that ZenML's database holds."""
        page = _read(self, self._path)
        _compare(self, "page", sha256(page))
        return HTMLString(page.decode())

    def save(self, data: HTMLString) -> None:
        """Write the page."""
        with self.artifact_store.open(self._path, "wb") as file:
            file.write(data.encode())

    def compute_content_hash(self, data: HTMLString) -> str:
        """Return the page's SHA-256."""
        return sha256(data.encode())

    def save_visualizations(self, data: HTMLString) -> dict[str, VisualizationType]:
        """Name the page."""
        return {self._path: VisualizationType.HTML}

    @property
    def _path(self) -> str:
        return f"{self.uri}/page.html"


def _read(materializer: BaseMaterializer, path: str) -> bytes:
    with materializer.artifact_store.open(path, "rb") as file:
        content: bytes = file.read()
    return content


def _compare(materializer: BaseMaterializer, what: str, found: str) -> None:
    """Refuse what is not what was stored."""
    if materializer.expected_content_hash not in (None, found):
        raise _changed(materializer, what)


def _changed(materializer: BaseMaterializer, what: str) -> UserError:
    said = "were changed after they were stored" if what in MANY else "was changed after it was stored"
    return UserError(f"the {what} stored in {materializer.uri} {said}")


def _with_page(values: str, page: bytes) -> str:
    return sha256(values.encode() + page)


def _hash(files: Mapping[str, bytes]) -> str:
    return sha256(b"".join(files.values()))
