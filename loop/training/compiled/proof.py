"""Show on made-up rows and on a holdout that a compiled model scores as its pipeline does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Kind
from loop.data.contract import Column, DataContract
from loop.data.table import as_features
from loop.training.bundle import Bundle, Card
from loop.training.compiled.spec import Floats, Rows

if TYPE_CHECKING:
    from loop.training.compiled.model import CompiledModel

TOLERANCE = 1e-6
"""Largest difference in a probability, or in a value in standard deviations of the target: ten roundings to
float32 (6e-8), in which ONNX trees answer, and far below what anybody acts on."""

_PROBES = 256


@dataclass(frozen=True)
class Parity:
    """How far compiled scores are from those of the pipeline."""

    rows: int
    difference: float
    """The largest, in probability or in standard deviations of the target."""
    decisions: int
    """Rows with another answer."""

    @property
    def ok(self) -> bool:
        """Say whether the compiled model may stand in for the pipeline."""
        return self.difference <= TOLERANCE and self.decisions == 0


def parity(bundle: Bundle, compiled: "CompiledModel", rows: pd.DataFrame) -> Parity:
    """Compare the compiled scores of a table's rows, and the answers they give, with those of the pipeline."""
    expected = bundle.scores(rows)
    found = compiled.scores(as_values(rows, bundle.card.contract))
    differ = _answers(bundle.card, expected) != _answers(bundle.card, found)
    return Parity(len(rows), difference(expected, found, bundle.card.contract), int(differ.sum()))


def difference(expected: Floats, found: Floats, contract: DataContract) -> float:
    """Return the largest difference, of a regression in standard deviations of the target."""
    unit = contract.target_statistics.std if contract.task == "regression" else None
    return float(np.abs(expected - found).max() / (unit or 1.0))


def as_values(rows: pd.DataFrame, contract: DataContract) -> list[tuple[Any, ...]]:
    """Return a table's rows as `CompiledModel` wants them; values mean what they mean to the pipeline."""
    features = as_features(rows, contract.features, contract.categories)
    return list(zip(*(_values(features[name], kind) for name, kind in contract.features.items()), strict=True))


def probes(contract: DataContract) -> Rows:
    """Make rows that hold every category, values over the whole range of training, gaps and unseen values."""
    random = np.random.default_rng(0)
    values = [_typical(column, random.random(_PROBES).tolist()) for column in contract.columns]
    count = max(map(len, values))
    mixed = [[some[i % len(some)] for i in random.permutation(count)] for some in values]
    return list(zip(*mixed, strict=True))


def unseen(texts: Sequence[str]) -> str:
    """Return a category that is none of these."""
    return max(texts, key=len, default="") + "?"


def _typical(column: Column, shares: Sequence[float]) -> list[Any]:
    """Return a gap and values of one column, numbers and times at these shares of its range."""
    if column.kind == "categorical":
        return [None, unseen(column.categories), *column.categories]
    if column.kind == "boolean":
        return [None, False, True]
    low, high = column.bounds(slack=0)
    return [None, *(low + share * (high - low) for share in shares)]


def _values(coerced: pd.Series, kind: Kind) -> list[Any]:
    """Return a coerced column as plain values: datetime64 becomes datetime, a truth value is one, a gap None."""
    values = (coerced == 1 if kind == "boolean" else coerced).to_numpy().astype(object)
    values[coerced.isna()] = None
    return list(values)


def _answers(card: Card, scores: Floats) -> npt.NDArray[Any]:
    """Return what a model answers: the class, or nothing to compare where the value is the answer."""
    if card.threshold is not None:
        return np.asarray(scores >= card.threshold)
    return scores.argmax(axis=1) if scores.ndim == 2 else np.zeros(0)
