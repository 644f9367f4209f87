"""Score rows without pandas and scikit-learn: plain values to a matrix in numpy, the estimator as an ONNX graph.

A fitted pipeline takes milliseconds for one row, nearly all for checks and copies; compiled, 30 numbers and a
logistic regression take 20 µs, with the same matrix to the bit and the same scores to `TOLERANCE`. A model of
which that cannot be shown is `NotCompilable`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from config import Kind, Section, Task, UserError
from core.bundle import Bundle, Card, sha256
from core.categories import category_of
from core.contract import Column, DataContract
from core.table import as_features, as_text

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = npt.NDArray[np.float64]
Rows = Sequence[tuple[Any, ...]]

SPEC, MODEL = "compiled.json", "model.onnx"

TOLERANCE = 1e-6
"""Largest difference in a probability, or in a value in standard deviations of the target: ten roundings to
float32 (6e-8), in which ONNX trees answer, and far below what anybody acts on."""

_LINEAR = 1e-9  # float64 noise of a sum over some thousand columns; another link function is off by far more
_OPSETS = {"": 21, "ai.onnx.ml": 3}  # ml 3 is the first with float64 trees
_PROBES, _THRESHOLDS = 256, 2000  # some thousand rows in all, which even a slow estimator scores in seconds
_EPOCH, _MICROSECOND, _DAY = datetime(1970, 1, 1), timedelta(microseconds=1), 86_400e6  # a day in µs


class NotCompilable(Exception):
    """Say in one sentence why a model can only be scored by its pipeline."""


class Scaling(Section):
    """Say how (n, d) raw numbers with gaps become (n, d + gaps) standardised columns."""

    medians: tuple[float, ...] = ()
    """What a gap becomes, by column."""
    gaps: tuple[int, ...] = ()
    """Columns followed by one that says where they had a gap; a gap elsewhere leaves no trace."""
    means: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()


class Encoding(Section):
    """Say which row of a table a category becomes."""

    rows: tuple[tuple[float, ...], ...]
    codes: dict[str, int]
    """Place of each category's row."""
    missing: int
    unseen: int


class Linear(Section):
    """Hold a linear predictor of k outputs (1 unless multiclass) over m matrix columns."""

    coefficients: tuple[tuple[float, ...], ...]
    """Shape (k, m)."""
    intercept: tuple[float, ...]
    baseline: tuple[float, ...]
    """The mean training row, from which contributions are counted."""
    sources: tuple[int, ...]
    """The feature that each matrix column comes from."""


class CompiledSpec(Section):
    """Say how raw values become the matrix, and what the scores of the ONNX file mean. JSON."""

    version: Literal[1] = 1
    """Version of this format."""
    task: Task
    features: dict[str, Kind]
    """What a row holds, in this order."""
    numbers: Scaling
    """Of the numeric and boolean features; first in the matrix."""
    encodings: tuple[Encoding, ...]
    """Of each categorical feature; in the middle."""
    times: Scaling
    """Of days, month, weekday and hour of each datetime feature; last."""
    linear: Linear | None
    """How the scores come about, if they are linear before the link function."""
    model: str
    """SHA-256 of the pickled pipeline that this stands for."""
    onnx: str
    """SHA-256 of the ONNX file."""

    def places(self, *kinds: Kind) -> tuple[int, ...]:
        """Return where a row holds its features of these kinds."""
        return tuple(place for place, kind in enumerate(self.features.values()) if kind in kinds)


@dataclass(frozen=True)
class Explanation:
    """Share the linear predictor of n rows out among F features: base + sum of contributions, exactly.

    In log-odds of the positive class (binary) or units of the target (regression), base () and contributions
    (n, F); multiclass in log-odds of every class up to a number common to all, base (k,) and (n, k, F).
    """

    features: tuple[str, ...]
    base: Floats
    """The predictor of the mean training row."""
    contributions: Floats
    """What each feature adds because it is not at its training mean."""


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


@dataclass(frozen=True)
class CompiledModel:
    """Score rows of plain values, each a tuple in the order of the contract's features; at least one row.

    A value is None, a number, a truth value, a category (str or int) or a naive UTC datetime.
    """

    spec: CompiledSpec
    onnx: bytes

    def scores(self, rows: Rows) -> Floats:
        """Return P(positive) (n,), class probabilities (n, k), or predicted values (n,)."""
        return self.estimate(self.matrix(rows))

    def matrix(self, rows: Rows) -> Floats:
        """Return what the pipeline's preparation makes of the rows, to the bit: (n, m)."""
        return np.concatenate([block(rows) for block in self._blocks], axis=1)

    def estimate(self, matrix: Floats) -> Floats:
        """Return the scores of prepared rows (n, m), shaped as `scores`."""
        run, name, dtype, outputs = self._session
        answer = np.asarray(run(outputs, {name: matrix.astype(dtype, copy=False)})[0], np.float64)
        if self.spec.task == "regression":
            return answer.reshape(-1)
        return answer[:, 1] if self.spec.task == "binary" else answer

    @property
    def explainable(self) -> bool:
        """Say whether `explain` can tell exactly what each feature added."""
        return self.spec.linear is not None

    def explain(self, rows: Rows) -> Explanation:
        """Share the linear predictor of each row out among the features; only if `explainable`."""
        baseline, weights, base = self._predictor
        added = (self.matrix(rows) - baseline) @ weights
        if self.spec.task == "multiclass":
            return Explanation(tuple(self.spec.features), base, added.swapaxes(0, 1))
        return Explanation(tuple(self.spec.features), np.asarray(base[0]), added[0])

    def write(self, folder: Path) -> None:
        """Write `compiled.json` and `model.onnx` into a folder."""
        (folder / SPEC).write_text(self.spec.model_dump_json(indent=1), encoding="utf-8")
        (folder / MODEL).write_bytes(self.onnx)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote; an ONNX file with another SHA-256 than compiled is a UserError."""
        spec = CompiledSpec.model_validate_json((folder / SPEC).read_text(encoding="utf-8"))
        onnx = (folder / MODEL).read_bytes()
        if (found := sha256(onnx)) != spec.onnx:
            raise UserError(
                f"{folder / MODEL} is not the file that was compiled: its SHA-256 is {found[:12]}…, "
                f"{SPEC} says {spec.onnx[:12]}…; compile the model again"
            )
        return cls(spec, onnx)

    @cached_property
    def _blocks(self) -> list[Callable[[Rows], Floats]]:
        """Return what makes each part of the matrix, from left to right."""
        numbers, times = self.spec.places("numeric", "boolean"), self.spec.places("datetime")
        encoded = zip(self.spec.places("categorical"), self.spec.encodings, strict=True)
        return [
            *([_scaled_numbers(numbers, len(self.spec.features), self.spec.numbers)] if numbers else []),
            *(_encoded(place, encoding) for place, encoding in encoded),
            *([_scaled_times(times, self.spec.times)] if times else []),
        ]

    @cached_property
    def _predictor(self) -> tuple[Floats, Floats, Floats]:
        """Return the mean training row (m,), what a step away from it adds (k, m, F), and its predictor (k,)."""
        linear = self.spec.linear
        if linear is None:
            raise ValueError("only a linear model can be explained exactly, this one is none; ask `explainable` first")
        coefficients, baseline = np.array(linear.coefficients), np.array(linear.baseline)
        owner = np.eye(len(self.spec.features))[list(linear.sources)]
        return baseline, coefficients[:, :, None] * owner, coefficients @ baseline + linear.intercept

    @cached_property
    def _session(self) -> tuple[Callable[..., list[Any]], str, type[np.floating[Any]], list[str]]:
        """Open the ONNX file; return how to run it: function, input's name and type, output wanted."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A row is too little work to share, and a worker process has one core.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised as well
        session = onnxruntime.InferenceSession(self.onnx, options, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        dtype = np.float64 if entry.type == "tensor(double)" else np.float32
        return session.run, entry.name, dtype, [session.get_outputs()[-1].name]  # a classifier's first is the label


def compile_model(bundle: Bundle) -> CompiledModel:
    """Compile a fitted pipeline and prove on made-up rows that it scores as before; else NotCompilable.

    The rows hold every category, gaps and unseen values, and stand at the thresholds of trees, where a
    comparison in float32 takes the other branch.
    """
    contract, pipeline = bundle.card.contract, bundle.pipeline
    draft = CompiledModel(_learn(bundle), b"")
    rows = _probes(contract)
    table = pd.DataFrame(rows, columns=list(contract.features), dtype=object)
    features = as_features(table, contract.features, contract.categories)
    matrix = np.asarray(pipeline[:-1].transform(features), np.float64)
    if not np.array_equal(draft.matrix(rows), matrix):
        raise NotCompilable("the pipeline prepares rows in another way than core.features does")
    linear = _linear(pipeline[-1], matrix, draft.spec, contract)
    return _equal(pipeline[-1], matrix, draft.spec.model_copy(update={"linear": linear}), contract)


def parity(bundle: Bundle, compiled: CompiledModel, rows: pd.DataFrame) -> Parity:
    """Compare the compiled scores of a table's rows, and the answers they give, with those of the pipeline."""
    expected = bundle.scores(rows)
    found = compiled.scores(as_values(rows, bundle.card.contract))
    differ = _answers(bundle.card, expected) != _answers(bundle.card, found)
    return Parity(len(rows), difference(expected, found, bundle.card.contract), int(differ.sum()))


def as_values(rows: pd.DataFrame, contract: DataContract) -> list[tuple[Any, ...]]:
    """Return a table's rows as `CompiledModel` wants them; values mean what they mean to the pipeline."""
    features = as_features(rows, contract.features, contract.categories)
    return list(zip(*(_values(features[name], kind) for name, kind in contract.features.items()), strict=True))


def _values(coerced: pd.Series, kind: Kind) -> list[Any]:
    """Return a coerced column as plain values: datetime64 becomes datetime, a truth value is one, a gap None."""
    values = (coerced == 1 if kind == "boolean" else coerced).to_numpy().astype(object)
    values[coerced.isna()] = None
    return list(values)


def _learn(bundle: Bundle) -> CompiledSpec:
    """Read off a fitted pipeline how it prepares rows."""
    try:
        prepare = bundle.pipeline["prepare"]
        steps = {name: step for name, step, columns in prepare.transformers_ if len(columns)}
        return CompiledSpec(
            task=bundle.card.contract.task,
            features=bundle.card.contract.features,
            numbers=_scaling(steps["numbers"]) if "numbers" in steps else Scaling(),
            encodings=_encodings(steps["categories"]) if "categories" in steps else (),
            times=_scaling(steps["times"]) if "times" in steps else Scaling(),
            linear=None,
            model=bundle.card.model,
            onnx=sha256(b""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise NotCompilable(f"the pipeline is not built as core.features builds it: {err}") from err


def _scaling(step: Any) -> Scaling:
    impute, scale = step[-2], step[-1]
    return Scaling(
        medians=impute.statistics_.tolist(),
        gaps=impute.indicator_.features_.tolist(),
        means=scale.mean_.tolist(),
        scales=scale.scale_.tolist(),
    )


def _encodings(step: Any) -> tuple[Encoding, ...]:
    """Push each category, an unseen one and a gap through the fitted step; keep what comes out."""
    encoder = step[-1]
    known = [list(map(str, categories)) for categories in encoder.categories_]
    depth = max(map(len, known)) + 2
    columns = [[*texts, _unseen(texts), *[None] * (depth - len(texts) - 1)] for texts in known]
    names = step[0].feature_names_in_
    encoded = step.transform(pd.DataFrame(dict(zip(names, columns, strict=True)), dtype=object))
    rare = [0 if texts is None else len(texts) for texts in encoder.infrequent_categories_]
    widths = [len(texts) - max(count - 1, 0) for texts, count in zip(known, rare, strict=True)]
    blocks = np.split(encoded, np.cumsum(widths)[:-1], axis=1)
    return tuple(
        Encoding(
            rows=block[: len(texts) + 2].tolist(),
            codes={text: code for code, text in enumerate(texts)},
            unseen=len(texts),
            missing=len(texts) + 1,
        )
        for texts, block in zip(known, blocks, strict=True)
    )


def _equal(estimator: Any, matrix: Floats, spec: CompiledSpec, contract: DataContract) -> CompiledModel:
    """Return the first compiled model that gives the estimator's scores, also at the thresholds of trees."""
    reason = ""
    for convert in (_in_float64, _trees_in_float64, _in_float32):
        try:
            graph = convert(estimator, matrix.shape[1])
            content = graph.SerializeToString()
            compiled = CompiledModel(spec.model_copy(update={"onnx": sha256(content)}), content)
            probes = np.concatenate([matrix, _at_thresholds(graph, matrix)])
            apart = difference(_scores(estimator, probes, spec.task), compiled.estimate(probes), contract)
        except Exception as err:  # somebody else's converter of any estimator there is: it may fail in any way
            reason = " ".join(str(err).split())[:200]
            continue
        if apart <= TOLERANCE:
            return compiled
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


def _linear(estimator: Any, matrix: Floats, spec: CompiledSpec, contract: DataContract) -> Linear | None:
    """Return the linear predictor, if with the link of its task it gives the estimator's scores."""
    from scipy.special import expit, softmax

    if not (hasattr(estimator, "coef_") and hasattr(estimator, "intercept_")):
        return None
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, np.float64))
    outputs = len(contract.classes) if spec.task == "multiclass" else 1
    if coefficients.shape != (outputs, matrix.shape[1]):
        return None
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), outputs)
    predictor = matrix @ coefficients.T + intercept
    linked = softmax(predictor, axis=1) if outputs > 1 else predictor[:, 0]
    if spec.task == "binary":
        linked = expit(linked)
    if difference(_scores(estimator, matrix, spec.task), linked, contract) > _LINEAR:
        return None
    return Linear(
        coefficients=coefficients.tolist(),
        intercept=intercept.tolist(),
        baseline=_baseline(spec, contract).tolist(),
        sources=_sources(spec),
    )


def _baseline(spec: CompiledSpec, contract: DataContract) -> Floats:
    """Return the mean training row (m,): zero where standardised, else how often each category came."""
    columns = [contract.columns[place] for place in spec.places("categorical")]
    shares = [_mean_row(column, encoding) for column, encoding in zip(columns, spec.encodings, strict=True)]
    return np.concatenate([np.zeros(len(spec.numbers.means)), *shares, np.zeros(len(spec.times.means))])


def _mean_row(column: Column, encoding: Encoding) -> Floats:
    weights = np.zeros(len(encoding.rows))
    weights[encoding.missing] = column.missing
    for category, share in zip(column.categories, column.shares, strict=True):
        weights[encoding.codes[category]] = share * (1 - column.missing)
    return np.asarray(weights @ np.array(encoding.rows))


def _sources(spec: CompiledSpec) -> tuple[int, ...]:
    """Return the feature that each matrix column comes from."""
    from core.features import CALENDAR

    numbers = spec.places("numeric", "boolean")
    times = [place for place in spec.places("datetime") for _ in CALENDAR]
    encoded = zip(spec.places("categorical"), spec.encodings, strict=True)
    return (
        *numbers,
        *(numbers[column] for column in spec.numbers.gaps),
        *(place for place, encoding in encoded for _ in encoding.rows[0]),
        *times,
        *(times[column] for column in spec.times.gaps),
    )


def _probes(contract: DataContract) -> Rows:
    """Make rows that hold every category, values over the whole range of training, gaps and unseen values."""
    random = np.random.default_rng(0)
    values = [_typical(column, random.random(_PROBES).tolist()) for column in contract.columns]
    count = max(map(len, values))
    mixed = [[some[i % len(some)] for i in random.permutation(count)] for some in values]
    return list(zip(*mixed, strict=True))


def _typical(column: Column, shares: Sequence[float]) -> list[Any]:
    """Return a gap and values of one column, numbers and times at these shares of its range."""
    if column.kind == "categorical":
        return [None, _unseen(column.categories), *column.categories]
    if column.kind == "boolean":
        return [None, False, True]
    low, high = column.bounds(slack=0)
    return [None, *(low + share * (high - low) for share in shares)]


def _unseen(texts: Sequence[str]) -> str:
    return max(texts, key=len, default="") + "?"


def _scores(estimator: Any, matrix: Floats, task: Task) -> Floats:
    if task == "regression":
        return np.asarray(estimator.predict(matrix), np.float64)
    probabilities = np.asarray(estimator.predict_proba(matrix), np.float64)
    return probabilities[:, 1] if task == "binary" else probabilities


def difference(expected: Floats, found: Floats, contract: DataContract) -> float:
    """Return the largest difference, of a regression in standard deviations of the target."""
    unit = contract.target_statistics.std if contract.task == "regression" else None
    return float(np.abs(expected - found).max() / (unit or 1.0))


def _answers(card: Card, scores: Floats) -> npt.NDArray[Any]:
    """Return what a model answers: the class, or nothing to compare where the value is the answer."""
    if card.threshold is not None:
        return np.asarray(scores >= card.threshold)
    return scores.argmax(axis=1) if scores.ndim == 2 else np.zeros(0)


def _scaled_numbers(places: Sequence[int], width: int, scaling: Scaling) -> Callable[[Rows], Floats]:
    pick, scaled, picky = itemgetter(*places), _scaler(scaling), len(places) < width

    def block(rows: Rows) -> Floats:
        values = np.array([pick(row) for row in rows] if picky else rows, np.float64)  # None becomes NaN
        return scaled(values.reshape(len(rows), -1))

    return block


def _scaled_times(places: Sequence[int], scaling: Scaling) -> Callable[[Rows], Floats]:
    scaled = _scaler(scaling)

    def block(rows: Rows) -> Floats:
        parts = [[part for place in places for part in _calendar(row[place])] for row in rows]
        return scaled(np.array(parts, np.float64))

    return block


def _encoded(place: int, encoding: Encoding) -> Callable[[Rows], Floats]:
    table, codes = np.array(encoding.rows), _Codes(encoding)
    return lambda rows: table[[codes[row[place]] for row in rows]]


def _scaler(scaling: Scaling) -> Callable[[Floats], Floats]:
    """Return scikit-learn's imputing and scaling, in its own order of operations; it may write on its input."""
    medians, means, scales = map(np.array, (scaling.medians, scaling.means, scaling.scales))
    gaps = list(scaling.gaps)

    def scaled(values: Floats) -> Floats:
        present = np.isfinite(values)
        if not present.all():
            values = np.where(present, values, medians)
        if gaps:
            values = np.concatenate([values, ~present[:, gaps]], axis=1)
        values -= means
        values /= scales
        return values

    return scaled


class _Codes(dict[Any, int]):
    """Find a category's code: strings at once, other spellings of it and unseen ones on a second look."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding.codes)
        self[None] = self[""] = encoding.missing
        self.unseen = encoding.unseen

    def __missing__(self, value: Any) -> int:
        return self.get(category_of(as_text(value), self), self.unseen)


def _calendar(moment: datetime | None) -> tuple[float, float, float, float]:
    """Return days since 1970, month, weekday and hour, as `core.features.CalendarParts` does."""
    if moment is None:
        return (np.nan,) * 4
    days = ((moment - _EPOCH) // _MICROSECOND) / _DAY
    return days, moment.month, moment.weekday(), moment.hour
