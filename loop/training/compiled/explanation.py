"""Share what a linear model scores out among the features, exactly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loop.data.contract import Column, DataContract
from loop.training.bundle import Bundle
from loop.training.compiled.preparation import sources
from loop.training.compiled.proof import difference
from loop.training.compiled.spec import CompiledSpec, Encoding, Floats, Linear, Part

_LINEAR = 1e-9  # float64 noise of a sum over some thousand columns; another link function is off by far more


@dataclass(frozen=True)
class Explanation:
    """Linear predictors of n rows, shared out among F features: base + sum of contributions, exactly.

    In log-odds of the positive class (binary) or units of the target (regression), base () and contributions
    (n, F); multiclass in log-odds of every class up to a number common to all, base (k,) and (n, k, F).
    """

    features: tuple[str, ...]
    base: Floats
    """The predictor of the mean training row."""
    contributions: Floats
    """What each feature adds because it is not at its training mean."""


def explainer(linear: Linear, spec: CompiledSpec) -> Callable[[Floats], Explanation]:
    """Return what explains prepared rows (n, m)."""
    coefficients, baseline = np.array(linear.coefficients), np.array(linear.baseline)
    owner = np.eye(len(spec.features))[list(linear.sources)]
    weights, base = coefficients[:, :, None] * owner, coefficients @ baseline + linear.intercept

    def explain(matrix: Floats) -> Explanation:
        added = (matrix - baseline) @ weights
        if spec.task == "multiclass":
            return Explanation(tuple(spec.features), base, added.swapaxes(0, 1))
        return Explanation(tuple(spec.features), np.asarray(base[0]), added[0])

    return explain


def linear_predictor(bundle: Bundle, matrix: Floats, parts: Sequence[Part]) -> Linear | None:
    """Return the linear predictor, if with the link of its task it gives the estimator's scores."""
    from scipy.special import expit, softmax

    estimator, contract = bundle.pipeline[-1], bundle.card.contract
    if not (hasattr(estimator, "coef_") and hasattr(estimator, "intercept_")):
        return None
    baseline = None if np.isnan(matrix).any() else _baseline(parts, contract)  # a sum with a gap in it is none
    coefficients = np.atleast_2d(np.asarray(estimator.coef_, np.float64))
    outputs = len(contract.classes) if contract.task == "multiclass" else 1
    if baseline is None or coefficients.shape != (outputs, matrix.shape[1]):
        return None
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, np.float64), outputs)
    predictor = matrix @ coefficients.T + intercept
    linked = softmax(predictor, axis=1) if outputs > 1 else predictor[:, 0]
    if contract.task == "binary":
        linked = expit(linked)
    if difference(bundle.estimate(matrix), linked, contract) > _LINEAR:
        return None
    return Linear(
        coefficients=coefficients.tolist(),
        intercept=intercept.tolist(),
        baseline=baseline.tolist(),
        sources=sources(parts),
    )


def _baseline(parts: Sequence[Part], contract: DataContract) -> Floats | None:
    """Return the mean training row (m,), if it is known: 0 where centred, else how often each category came."""
    means = []
    for part in parts:
        if isinstance(part, Encoding):
            means.append(_mean_row(contract.columns[part.feature], part))
        elif part.centred:
            means.append(np.zeros(len(sources([part]))))
        else:
            return None
    return np.concatenate(means)


def _mean_row(column: Column, encoding: Encoding) -> Floats:
    weights = np.zeros(len(encoding.rows))
    weights[encoding.missing] = column.missing
    for category, share in zip(column.categories, column.shares, strict=True):
        weights[encoding.codes[category]] = share * (1 - column.missing)
    return np.asarray(weights @ np.array(encoding.rows))
