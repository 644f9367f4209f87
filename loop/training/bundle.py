"""Keep a fitted model together with what it needs to be used, judged and trusted."""

import hashlib
import importlib.metadata
import io
import pickle
import platform
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from loop.config import ROOT, STORED, Recipe, UserError
from loop.data.contract import DataContract, encode_target
from loop.data.groups import groups_of
from loop.data.split import SplitRule
from loop.data.table import as_features, exact_hashes
from loop.training.metrics import Predictions
from loop.training.owner import as_then, packages

CARD, MODEL = "card.json", "model.pkl"
SHIPPED = (
    "loop/__init__.py", "loop/config.py", "loop/variables.py", "loop/paged.py", "loop/data", "loop/training",
    "loop/log", "loop/serving", "model",
)  # fmt: skip
"""What a model depends on: the engine's parts that score, and all that the owner writes. From this list follow the
cache key, the code on a card, what a bento and its image hold, and what `--reproduce` compares."""
_TOGETHER = 8
"""Rows that a matrix product takes at once: of fewer, left over at its end, it sums up in another order, and a row
alone would score otherwise, by a last bit, than among others."""

PACKAGES = ("scikit-learn", "numpy", "scipy", "pandas")


class Card(BaseModel):
    """Describe a model: how it came to be and how its scores become answers. JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    """What decided the model, as it was then."""
    contract: DataContract
    split: SplitRule
    threshold: float | None
    """Score from which a binary model answers with the positive class."""
    prior: tuple[float, ...]
    """Training class shares in the order of the contract's classes, or the training mean."""
    cross_validation: dict[str, float]
    """Metrics of out-of-fold predictions on the training rows."""
    data: str
    """Fingerprint of the training rows."""
    code: str
    """Fingerprint of this project's code."""
    model: str
    """SHA-256 of the model file."""
    environment: dict[str, str]
    """Versions of Python and of the packages that decide the numbers."""
    owner: dict[str, str] = {}
    """The files of `model/` as they were, by path, where the model refers to any: it is opened with these."""

    @property
    def fingerprint(self) -> str:
        """Return what makes two models the same: the file and how its scores are read."""
        return sha256(f"{self.model} {self.threshold!r}".encode())

    def beside(self, rows: pd.DataFrame, labels: pd.Series, scores: np.ndarray) -> Predictions:
        """Return scores of rows by this model, whenever they were given, beside the labels that came."""
        return Predictions(
            task=self.contract.task,
            truth=encode_target(labels, self.contract),
            scores=scores,
            threshold=self.threshold,
            labels=self.contract.classes,
            costs=self.recipe.model.threshold.costs,
            groups=groups_of(rows, self.recipe.data, list(self.contract.features)),
        )


@dataclass(frozen=True)
class Bundle:
    """A model file and its card; the file is opened only if its SHA-256 is the one on the card."""

    card: Card
    model_file: bytes

    @property
    def pipeline(self) -> Any:
        """Return the fitted scikit-learn pipeline; one that the libraries here refuse is a UserError."""
        pipeline, fault = self._opened
        if fault:
            raise UserError(f"the model '{self.card.recipe.name}' {fault}; install what it needs or train again")
        return pipeline

    @property
    def fault(self) -> str:
        """Say why the libraries here refuse the model: `needs scikit-learn 1.9.1, here is 1.9.2`; empty if not."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """Return the fitted pipeline, or why the libraries refuse it; a file that was changed is a UserError."""
        from sklearn.exceptions import InconsistentVersionWarning

        found = sha256(self.model_file)
        if found != self.card.model:
            raise UserError(
                f"the model file of '{self.card.recipe.name}' is not the one that was trained: "
                f"its SHA-256 is {found[:12]}…, its card says {self.card.model[:12]}…"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("error", InconsistentVersionWarning)
            try:
                with as_then(self.card.owner):
                    return pickle.loads(self.model_file), ""  # noqa: S301  (our own: its hash has just been checked)
            except InconsistentVersionWarning as err:
                needed, here = err.original_sklearn_version, err.current_sklearn_version
                return None, f"needs scikit-learn {needed}, here is {here}"
            except Exception as err:  # the file is as it was written, so the packages it was written with are not here
                said = f"{type(err).__name__}: {' '.join(str(err).split())[:200]}"
                return None, f"needs the packages it was trained with, here it ends in {said}"

    @property
    def fingerprint(self) -> str:
        """Return what makes two models the same."""
        return self.card.fingerprint

    @property
    def content_hash(self) -> str:
        """Return the SHA-256 of card and model file."""
        return sha256(self.card.model_dump_json().encode() + self.model_file)

    @property
    def hash_as_read(self) -> str:
        """Return the content hash that it was stored under; with another one it was tampered with.

        A card of an earlier version has no values for fields that came later, and had none when it was hashed.
        """
        return sha256(self.card.model_dump_json(exclude_unset=True).encode() + self.model_file)

    def unseen(self, rows: pd.DataFrame, by: SplitRule) -> npt.NDArray[np.bool_]:
        """Return which rows, held out by a rule, the model has not learned from, shape (rows,)."""
        return self.card.split.unseen(rows, by)

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Return P(positive) (n,), class probabilities (n, k), or predicted values (n,)."""
        return self.scores_of(self.prepare(rows))

    def scores_of(self, matrix: np.ndarray) -> np.ndarray:
        """Return the scores of prepared rows, of a row alone as among others, shaped as `scores`."""
        matrix = np.ascontiguousarray(matrix)
        whole = len(matrix) - len(matrix) % _TOGETHER
        parts = [matrix[:whole]] if whole or not len(matrix) else []
        if whole < len(matrix):
            parts.append(matrix[np.minimum(np.arange(whole, whole + _TOGETHER), len(matrix) - 1)])
        return np.concatenate([self.estimate(part) for part in parts])[: len(matrix)]

    def prepare(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the matrix (n, m) that the estimator sees of rows."""
        contract = self.card.contract
        features = as_features(rows, contract.features, contract.categories)
        return np.asarray(self.pipeline[:-1].transform(features))

    def estimate(self, matrix: np.ndarray) -> np.ndarray:
        """Return the scores of prepared rows taken together, shaped as `scores`."""
        if self.card.contract.task == "regression":
            return np.asarray(self.pipeline[-1].predict(matrix), dtype=np.float64)
        probabilities = np.asarray(self.pipeline[-1].predict_proba(matrix), dtype=np.float64)
        return probabilities[:, 1] if self.card.contract.task == "binary" else probabilities

    def predictions(self, rows: pd.DataFrame) -> Predictions:
        """Return the scores of labelled rows beside their truth; a feature that they lack is missing in each."""
        gone = [name for name in self.card.contract.features if name not in rows]
        return self.card.beside(rows, rows[self.card.contract.target], self.scores(rows.assign(**dict.fromkeys(gone))))

    def write(self, folder: Path) -> None:
        """Write `card.json` and `model.pkl` into a folder."""
        (folder / CARD).write_text(self.card.model_dump_json(indent=1), encoding="utf-8")
        (folder / MODEL).write_bytes(self.model_file)

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read what `write` wrote; the model file is checked when it is opened."""
        try:
            card = Card.model_validate_json((folder / CARD).read_text(encoding="utf-8"), context=STORED)
        except ValidationError as err:
            raise UserError(f"{folder / CARD} was changed, or written by a later version of this project") from err
        return cls(card=card, model_file=(folder / MODEL).read_bytes())


@dataclass(frozen=True)
class Remembering(Bundle):
    """A model that told rows apart by columns which have changed since: it is known by the others what it has seen."""

    seen: pd.DataFrame
    """The rows it learned from, with the columns that have not changed."""

    def unseen(self, rows: pd.DataFrame, by: SplitRule) -> npt.NDArray[np.bool_]:
        """Return which rows the model has not learned from, shape (rows,)."""
        columns = list(self.seen.columns)
        return ~np.isin(exact_hashes(rows, columns), exact_hashes(self.seen, columns))


class _ByValue(pickle._Pickler):
    """Pickles equal texts and dtypes as one object: which of them are one is a matter of what else the process did."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=4)  # 5 trips over two empty arrays, whose bytes are one object
        self._first: dict[Any, Any] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, str | np.dtype):
            obj = self._first.setdefault((type(obj), obj), obj)
        super().save(obj, save_persistent_id)  # type: ignore[misc]  # typeshed leaves it out


def pickled(model: object) -> bytes:
    """Return the pickle of a model, the same for the same fit, whatever the process unpickled before."""
    file = io.BytesIO()
    _ByValue(file).dump(model)
    return file.getvalue()


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def cache_key() -> str:
    """Return the key under which steps are cached: all code and all packages that can change a result or its page."""
    return sha256(f"{code_fingerprint()} {hash_files('loop/pages', 'steps')} {environment()}".encode())


def code_fingerprint() -> str:
    """Return one hash of all code that can change a result."""
    return hash_files(*SHIPPED, "requirements.txt")


def hash_files(*places: str) -> str:
    """Return one hash of the names and contents of files, and of all files in folders, of this project."""
    digest = hashlib.sha256()
    for file in shipped_files(*places):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def shipped_files(*places: str) -> list[Path]:
    """Return the files that are meant by names of files and folders of this project, by name."""
    found = (file for place in places for file in (ROOT / place, *(ROOT / place).rglob("*")))
    return sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)


def environment(estimator: str | None = None) -> dict[str, str]:
    """Return the versions that decide the numbers, of the packages too that the owner or an estimator adds."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions, **packages(estimator)}
