"""Metrics that the owner writes: a function of truth and what was said, with an interval like the others'."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from loop.config import UserError

if TYPE_CHECKING:
    from loop.training.metrics import Predictions

COPIES = 4
"""Rows that stand for each row of a resample, on average, where a function takes no weights."""


@dataclass(frozen=True)
class Own:
    """A metric of the owner's: `function(truth, said)`, with `sample_weight` if it takes that, as scikit-learn's do.

    Truth and decisions are 0 and 1 with 1 the positive class, codes of the classes, or numbers; scores are
    P(positive) (n,), probabilities (n, k), or numbers. Its interval asks for it thousands of times, the more often the
    more models have been judged on the same rows: scikit-learn's take a millisecond each, one of plain numpy a tenth.
    """

    function: Callable[..., float]
    of: Literal["decision", "score"] = "decision"
    greater_is_better: bool = True
    bounded: bool = True
    """Whether one row can make it only so much worse."""
    tasks: tuple[Literal["binary", "multiclass", "regression"], ...] = ("binary",)

    def check(self, name: str) -> None:
        """Refuse a function that takes no truth and prediction."""
        try:
            inspect.signature(self.function).bind(np.zeros(1), np.zeros(1))
        except TypeError as err:
            raise UserError(f"model/metrics.py: '{name}' needs a function of truth and {self.of}: {err}") from err

    def values(self, predictions: "Predictions", weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the metric under each row of weights, (B, n) to (B,)."""
        return np.array([self.value(predictions, each) for each in weights])

    def value(self, predictions: "Predictions", weights: npt.NDArray[np.float64]) -> float:
        """Return the metric under weights (n,); for a function that takes none, rows are repeated in proportion."""
        truth, said = predictions.truth, predictions.decisions if self.of == "decision" else predictions.scores
        if np.ptp(weights) == 0:
            return float(self.function(truth, said))
        if _takes_weights(self.function):
            return float(self.function(truth, said, sample_weight=weights))
        ends = np.cumsum(weights)
        size = COPIES * len(weights)
        chosen = np.searchsorted(ends, (np.arange(size) + 0.5) * ends[-1] / size)
        return float(self.function(truth[chosen], said[chosen]))


@cache
def _takes_weights(function: Callable[..., Any]) -> bool:
    return "sample_weight" in inspect.signature(function).parameters
