"""Score rows without pandas: plain values to a matrix in numpy, the estimator as an ONNX graph or as it is.

A fitted pipeline takes milliseconds for one row, nearly all for checks and copies; compiled, 30 numbers and a
logistic regression take 20 µs, with the same matrix to the bit and the same scores to `TOLERANCE`. A model of
which that cannot be shown is `NotCompilable`.
"""

from loop.training.compiled.model import CompiledModel, compile_model
from loop.training.compiled.onnx import MODEL
from loop.training.compiled.proof import TOLERANCE, as_values, difference, parity
from loop.training.compiled.spec import SPEC, NotCompilable

__all__ = [
    "MODEL",
    "SPEC",
    "TOLERANCE",
    "CompiledModel",
    "NotCompilable",
    "as_values",
    "compile_model",
    "difference",
    "parity",
]
