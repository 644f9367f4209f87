"""Describe a compiled model in JSON: how raw values become a matrix, and what scores it."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from loop.config import Kind, Section, Task

Floats = npt.NDArray[np.float64]
Rows = Sequence[tuple[Any, ...]]

SPEC = "compiled.json"


class NotCompilable(Exception):
    """Why a model, or its estimator, can only be scored by its own code, in one sentence."""


class Filling(Section):
    """What a gap becomes."""

    values: tuple[float, ...]
    """By column."""
    gaps: tuple[int, ...]
    """Columns of which another one, behind all others, says where they had a gap; elsewhere a gap leaves no trace."""


class Arithmetic(Section):
    """One operation on each column."""

    operation: Literal["add", "subtract", "multiply", "divide"]
    by: tuple[float, ...]


class Numbers(Section):
    """Columns of a matrix that are calculated from numbers, truth values or times."""

    features: tuple[int, ...]
    """Where a row holds them."""
    times: bool
    """They are times, each first unfolded by `loop.data.times.calendar`."""
    steps: tuple[Filling | Arithmetic, ...]
    centred: bool
    """Each column's mean over the training rows is 0."""


class Encoding(Section):
    """Columns of a matrix that are looked up for a category."""

    feature: int
    """Where a row holds it."""
    rows: tuple[tuple[float, ...], ...]
    codes: dict[str, int]
    """Place of each category's row."""
    missing: int
    unseen: int


Part = Numbers | Encoding


class Linear(Section):
    """A linear predictor of k outputs (1 unless multiclass) over m matrix columns."""

    coefficients: tuple[tuple[float, ...], ...]
    """Shape (k, m)."""
    intercept: tuple[float, ...]
    baseline: tuple[float, ...]
    """The mean training row, from which contributions are counted."""
    sources: tuple[int, ...]
    """The feature that each matrix column comes from."""


class CompiledSpec(Section):
    """How raw values become the matrix, and what scores it. JSON."""

    version: Literal[2] = 2
    """Version of this format."""
    task: Task
    features: dict[str, Kind]
    """What a row holds, in this order."""
    parts: tuple[Part, ...]
    """Of the matrix, from left to right."""
    linear: Linear | None
    """How the scores come about, if they are linear before the link function."""
    model: str
    """SHA-256 of the pickled pipeline that this stands for."""
    onnx: str | None
    """SHA-256 of the ONNX file; None where the pickled estimator itself scores the matrix."""
    declined: str = ""
    """Why there is no ONNX file."""
