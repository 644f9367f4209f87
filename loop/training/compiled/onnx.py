"""Score a matrix by an ONNX graph that was proven to score as the fitted estimator does."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from loop.config import Task, UserError
from loop.training.bundle import Bundle, sha256
from loop.training.compiled.proof import TOLERANCE, difference
from loop.training.compiled.spec import SPEC, CompiledSpec, Floats, NotCompilable

if TYPE_CHECKING:
    from onnx import ModelProto

MODEL = "model.onnx"

_OPSETS = {"": 21, "ai.onnx.ml": 3}  # ml 3 is the first with float64 trees
_THRESHOLDS = 2000  # some thousand rows in all, which even a slow estimator scores in seconds


@dataclass(frozen=True)
class Onnx:
    """An estimator as an ONNX graph."""

    content: bytes
    task: Task

    def scores_of(self, matrix: Floats) -> Floats:
        """Return P(positive) (n,), class probabilities (n, k), or predicted values (n,) of prepared rows (n, m)."""
        run, name, dtype, outputs = self._session
        answer = np.asarray(run(outputs, {name: matrix.astype(dtype, copy=False)})[0], np.float64)
        if self.task == "regression":
            return answer.reshape(-1)
        return answer[:, 1] if self.task == "binary" else answer

    @classmethod
    def read(cls, folder: Path, spec: CompiledSpec) -> Self:
        """Read `model.onnx`; one with another SHA-256 than compiled is a UserError."""
        content = (folder / MODEL).read_bytes()
        if (found := sha256(content)) != spec.onnx:
            raise UserError(
                f"{folder / MODEL} is not the file that was compiled: its SHA-256 is {found[:12]}…, "
                f"{SPEC} says {str(spec.onnx)[:12]}…; compile the model again"
            )
        return cls(content, spec.task)

    @cached_property
    def _session(self) -> tuple[Callable[..., list[Any]], str, type[np.floating[Any]], list[str]]:
        """Open the ONNX file; return how to run it: function, input's name and type, output wanted."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A row is too little work to share, and a worker process has one core.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised as well
        session = onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        dtype = np.float64 if entry.type == "tensor(double)" else np.float32
        return session.run, entry.name, dtype, [session.get_outputs()[-1].name]  # a classifier's first is the label


def in_onnx(bundle: Bundle, matrix: Floats) -> Onnx:
    """Return the first graph that gives the estimator's scores, also at the thresholds of trees; else NotCompilable."""
    estimator, contract, reason = bundle.pipeline[-1], bundle.card.contract, ""
    for convert in (_in_float64, _trees_in_float64, _in_float32):
        try:
            graph = convert(estimator, matrix.shape[1])
            found = Onnx(graph.SerializeToString(), contract.task)
            probes = np.concatenate([matrix, _at_thresholds(graph, matrix)])
            apart = difference(bundle.estimate(probes), found.scores_of(probes), contract)
        except Exception as err:  # somebody else's converter of any estimator there is: it may fail in any way
            reason = " ".join(str(err).split())[:200]
            continue
        if apart <= TOLERANCE:
            return found
        reason = f"its scores differ by {apart:.1g}"
    raise NotCompilable(f"{type(estimator).__name__} has no equal in ONNX: {reason}")


def _in_float64(estimator: Any, width: int) -> "ModelProto":
    """Convert an estimator; trees fail or come out wrong, since skl2onnx keeps their thresholds in float32."""
    return _convert(estimator, width, double=True)


def _in_float32(estimator: Any, width: int) -> "ModelProto":
    """Convert an estimator; trees come out right where scikit-learn itself compares float32, as forests do."""
    return _convert(estimator, width, double=False)


def _trees_in_float64(estimator: Any, width: int) -> "ModelProto":
    """Convert histogram gradient boosting and give back what float32 cut off its thresholds and leaves.

    A value between a threshold and its rounding takes the other branch, which moved probabilities by 0.6
    (https://github.com/onnx/sklearn-onnx/issues/1192).
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = np.concatenate([tree.nodes for trees in estimator._predictors for tree in trees])
    leaf = nodes["is_leaf"].astype(bool)
    exact = {
        "nodes_values": np.where(leaf, 0.0, nodes["num_threshold"]),
        "class_weights": nodes["value"][leaf],
        "target_weights": nodes["value"][leaf],
        "base_values": estimator._baseline_prediction.ravel(),
    }
    model = _in_float32(estimator, width)
    (node,) = model.graph.node
    attributes = [attribute for attribute in node.attribute if attribute.name != "nodes_hitrates"]  # all 1, unused
    del node.attribute[:]
    for attribute in attributes:
        if attribute.name in exact:
            tensor = numpy_helper.from_array(np.ascontiguousarray(exact[attribute.name], np.float64))
            attribute = helper.make_attribute(f"{attribute.name}_as_tensor", tensor)
        node.attribute.append(attribute)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    for opset in model.opset_import:
        opset.version = _OPSETS[opset.domain]
    return model


def _convert(estimator: Any, width: int, double: bool) -> "ModelProto":
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
    from sklearn.base import is_classifier

    kind = DoubleTensorType if double else FloatTensorType
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # skl2onnx hands protobuf truth values for numbers
        model: ModelProto = convert_sklearn(
            estimator,
            "estimate",  # else a random name, and another file each time
            [("matrix", kind([None, width]))],
            options={id(estimator): {"zipmap": False}} if is_classifier(estimator) else None,
            target_opset=_OPSETS,
        )
    return model


def _at_thresholds(model: "ModelProto", matrix: Floats) -> Floats:
    """Return prepared rows with one value at, just below or just above a threshold of the model's trees."""
    from onnx import TensorProto, helper, numpy_helper

    rows = [matrix[:0]]
    for node in model.graph.node:
        found = {a.name.removesuffix("_as_tensor"): helper.get_attribute_value(a) for a in node.attribute}
        if "nodes_values" not in found:
            continue
        values, columns = found["nodes_values"], np.asarray(found["nodes_featureids"])
        values = np.asarray(numpy_helper.to_array(values) if isinstance(values, TensorProto) else values, np.float64)
        some = np.linspace(0, len(values) - 1, min(len(values), _THRESHOLDS)).astype(int)
        for value in (values, np.nextafter(values, -np.inf), np.nextafter(values, np.inf)):
            near = matrix[np.arange(len(some)) % len(matrix)]
            near[np.arange(len(some)), columns[some] % matrix.shape[1]] = value[some]
            rows.append(near)
    return np.concatenate(rows)
