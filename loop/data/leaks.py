"""Find columns that hold the answer: each alone predicts the target almost perfectly."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Kind, Task
from loop.data.contract import DataContract, encode_target
from loop.data.table import as_kind, exact_hashes, row_hashes

_ROWS = 10_000  # more rows change the score by less than its distance from the limit
_LEAVES = 64  # enough to follow a copy of a number: 64 steps leave 1 / 64² of its variance
_LEAVES_PER_CLASS = 4  # enough for a few intervals, too few to learn noise by heart
_MIN_ROWS, _MIN_CLASS = 20, 5  # with fewer, some column separates the classes by chance
_MEASURE = {"binary": "ROC AUC", "multiclass": "balanced accuracy", "regression": "R² of ranks"}


def find_leaks(
    rows: pd.DataFrame, contract: DataContract, limit: float, group: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield, with a sentence, each column that scores `limit` or more on rows of other groups than it was fitted to."""
    sample = rows.sample(_ROWS, random_state=0) if len(rows) > _ROWS else rows
    target = encode_target(sample[contract.target], contract)
    smallest = len(target) if contract.task == "regression" else int(np.bincount(target.astype(int)).min())
    if len(target) < _MIN_ROWS or smallest < _MIN_CLASS:
        return
    if contract.task == "regression":  # ranks, so that a few huge values do not hide a copy
        target = np.unique(target, return_inverse=True)[1].astype(np.float64)
    same = row_hashes(sample, group) if group else exact_hashes(sample, list(contract.features))
    fold = same % np.uint64(2) == 0  # rows of one group share a fold, and duplicates do
    for name, kind in contract.features.items():
        score = _score_alone(as_kind(sample[name], kind), kind, target, fold, contract.task)
        if score >= limit:
            predicts = f"'{name}' alone predicts '{contract.target}' with {_MEASURE[contract.task]} {score:.3f}"
            yield name, f"{predicts}, so it probably holds the answer"


def _score_alone(
    values: pd.Series, kind: Kind, target: npt.NDArray[Any], fold: npt.NDArray[np.bool_], task: Task
) -> float:
    """Score two-fold predictions of the target from one column: level means for categories, else a tree."""
    from sklearn import config_context, metrics
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    leaves = _LEAVES if task == "regression" else _LEAVES_PER_CLASS * len(np.unique(target))
    predicted = np.zeros(len(target))
    codes, levels = pd.factorize(values, sort=True)  # ranks: the tree works in float32
    ranks = np.where(codes < 0, np.nan, codes)[:, None]
    for test in (fold, ~fold):
        if test.all() or not test.any():
            return 0.0
        if kind == "categorical":
            predicted[test] = _by_level(codes[~test], target[~test], len(levels), task)[codes[test]]
        else:
            Tree = DecisionTreeClassifier if task == "multiclass" else DecisionTreeRegressor
            with config_context(skip_parameter_validation=True):  # a third of the time, over thousands of columns
                tree = Tree(max_leaf_nodes=leaves, random_state=0).fit(ranks[~test], target[~test])
                predicted[test] = tree.predict(ranks[test])
    score = {
        "binary": metrics.roc_auc_score,
        "multiclass": metrics.balanced_accuracy_score,
        "regression": metrics.r2_score,
    }
    return float(score[task](target, predicted))


def _by_level(
    codes: npt.NDArray[np.intp], target: npt.NDArray[Any], levels: int, task: Task
) -> npt.NDArray[np.float64]:
    """Return the mean target (multiclass: most frequent class) per level, missing last; overall if unseen."""
    outcome = pd.DataFrame(np.eye(int(target.max()) + 1)[target] if task == "multiclass" else target)
    means = outcome.groupby(codes).mean().reindex([*range(levels), -1]).fillna(outcome.mean()).to_numpy()
    return np.asarray(means.argmax(axis=1) if task == "multiclass" else means[:, 0], np.float64)
