"""Score rows of plain values by what a fitted pipeline was compiled to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from loop.config import UserError
from loop.training.bundle import Bundle, sha256
from loop.training.compiled.explanation import Explanation, explainer, linear_predictor
from loop.training.compiled.onnx import MODEL, Onnx, in_onnx
from loop.training.compiled.preparation import preparation, read_parts
from loop.training.compiled.proof import probes
from loop.training.compiled.spec import SPEC, CompiledSpec, Floats, NotCompilable, Rows


@dataclass(frozen=True)
class CompiledModel:
    """A model for rows of plain values, each a tuple in the order of the contract's features; at least one row.

    A value is None, a number, a truth value, a category (str or int) or a naive UTC datetime.
    """

    spec: CompiledSpec
    estimator: Onnx | Bundle
    """What scores the matrix: a graph, or the fitted estimator itself."""

    def scores(self, rows: Rows) -> Floats:
        """Return P(positive) (n,), class probabilities (n, k), or predicted values (n,)."""
        return self.estimator.scores_of(self.matrix(rows))

    @cached_property
    def matrix(self) -> Callable[[Rows], Floats]:
        """Return what makes of rows the same as the pipeline's preparation, to the bit: (n, m)."""
        return preparation(self.spec.parts, len(self.spec.features))

    @property
    def explainable(self) -> bool:
        """Say whether `explain` can tell exactly what each feature added."""
        return self.spec.linear is not None

    def explain(self, rows: Rows) -> Explanation:
        """Share the linear predictor of each row out among the features; only if `explainable`."""
        return self._explain(self.matrix(rows))

    @cached_property
    def _explain(self) -> Callable[[Floats], Explanation]:
        if self.spec.linear is None:
            raise ValueError("only a linear model can be explained exactly, this one is none; ask `explainable` first")
        return explainer(self.spec.linear, self.spec)

    def write(self, folder: Path) -> None:
        """Write `compiled.json`, and `model.onnx` if that scores, into a folder."""
        (folder / SPEC).write_text(self.spec.model_dump_json(indent=1), encoding="utf-8")
        if isinstance(self.estimator, Onnx):
            (folder / MODEL).write_bytes(self.estimator.content)

    @classmethod
    def read(cls, folder: Path, bundle: Bundle) -> Self:
        """Read what `write` wrote for this bundle, which scores where no ONNX file does; another one is a UserError."""
        spec = CompiledSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))
        if spec.model != bundle.card.model:
            raise UserError(
                f"{folder / SPEC} was compiled from another model file: its SHA-256 is {spec.model[:12]}…, "
                f"that of '{bundle.card.recipe.name}' is {bundle.card.model[:12]}…; compile the model again"
            )
        return cls(spec, bundle if spec.onnx is None else Onnx.read(folder, spec))


def compile_model(bundle: Bundle) -> CompiledModel:
    """Compile a fitted pipeline and prove on made-up rows that it scores as before; else NotCompilable.

    The rows hold every category, gaps and unseen values, and stand at the thresholds of trees, where a
    comparison in float32 takes the other branch. An estimator that has no equal in ONNX scores the matrix itself.
    """
    contract = bundle.card.contract
    spec = CompiledSpec(
        task=contract.task,
        features=contract.features,
        parts=read_parts(bundle.pipeline, contract),
        linear=None,
        model=bundle.card.model,
        onnx=None,
    )
    rows = probes(contract)
    matrix = np.asarray(bundle.prepare(pd.DataFrame(rows, columns=list(contract.features), dtype=object)), np.float64)
    if not np.array_equal(CompiledModel(spec, bundle).matrix(rows), matrix, equal_nan=True):
        raise NotCompilable("numpy prepares rows in another way than the pipeline")
    spec = spec.model_copy(update={"linear": linear_predictor(bundle, matrix, spec.parts)})
    try:
        onnx = in_onnx(bundle, matrix)
    except NotCompilable as err:
        return CompiledModel(spec.model_copy(update={"declined": str(err)}), bundle)
    return CompiledModel(spec.model_copy(update={"onnx": sha256(onnx.content)}), onnx)
