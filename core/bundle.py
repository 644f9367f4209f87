"""Keep a fitted model together with what it needs to be used, judged and trusted."""

import hashlib
import importlib.metadata
import pickle
import platform
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from config import ROOT, Recipe, UserError
from core.contract import DataContract, encode_target
from core.metrics import Predictions
from core.split import SplitRule
from core.table import as_features

CARD, MODEL = "card.json", "model.pkl"
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


@dataclass(frozen=True)
class Bundle:
    """A model file and its card; the file is opened only if its SHA-256 is the one on the card."""

    card: Card
    model_file: bytes

    @cached_property
    def pipeline(self) -> Any:
        """Return the fitted scikit-learn pipeline."""
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
                return pickle.loads(self.model_file)  # noqa: S301  (our own: its hash has just been checked)
            except InconsistentVersionWarning as err:
                raise UserError(
                    f"the model '{self.card.recipe.name}' needs scikit-learn {err.original_sklearn_version}, "
                    f"here is {err.current_sklearn_version}; install that version or train again"
                ) from err

    @property
    def fingerprint(self) -> str:
        """Return what makes two models the same: the file and how its scores are read."""
        return sha256(f"{self.card.model} {self.card.threshold!r}".encode())

    @property
    def content_hash(self) -> str:
        """Return the SHA-256 of card and model file: a stored bundle with another one was tampered with."""
        return sha256(self.card.model_dump_json().encode() + self.model_file)

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Return P(positive) (n,), class probabilities (n, k), or predicted values (n,)."""
        return self.estimate(self.prepare(rows))

    def prepare(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the matrix (n, m) that the estimator sees of rows."""
        features = as_features(rows, self.card.contract.features)
        return np.asarray(self.pipeline[:-1].transform(features))

    def estimate(self, matrix: np.ndarray) -> np.ndarray:
        """Return the scores of prepared rows, shaped as `scores`."""
        if self.card.contract.task == "regression":
            return np.asarray(self.pipeline[-1].predict(matrix), dtype=np.float64)
        probabilities = np.asarray(self.pipeline[-1].predict_proba(matrix), dtype=np.float64)
        return probabilities[:, 1] if self.card.contract.task == "binary" else probabilities

    def predictions(self, rows: pd.DataFrame) -> Predictions:
        """Return the scores of labelled rows beside their truth."""
        return self.beside(rows[self.card.contract.target], self.scores(rows))

    def beside(self, labels: pd.Series, scores: np.ndarray) -> Predictions:
        """Return scores of this model, whenever they were given, beside the labels that came."""
        threshold = self.card.recipe.model.threshold
        return Predictions(
            task=self.card.contract.task,
            truth=encode_target(labels, self.card.contract),
            scores=scores,
            threshold=self.card.threshold,
            labels=self.card.contract.classes,
            costs=(threshold.false_positive, threshold.false_negative),
        )

    def write(self, folder: Path) -> None:
        """Write `card.json` and `model.pkl` into a folder."""
        (folder / CARD).write_text(self.card.model_dump_json(indent=1), encoding="utf-8")
        (folder / MODEL).write_bytes(self.model_file)

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        """Read what `write` wrote; the model file is checked when it is opened."""
        card = Card.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
        return cls(card=card, model_file=(folder / MODEL).read_bytes())


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def code_fingerprint() -> str:
    """Return one hash of all code that can change a result; also the key under which steps are cached."""
    return hash_files("config.py", "requirements.txt", "core/**/*.py", "core/templates/*.html", "steps/*.py")


def hash_files(*patterns: str) -> str:
    """Return one hash of the names and contents of this project's files that match."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in patterns for file in ROOT.glob(pattern)):
        digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Return the versions that decide the numbers."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions}
