"""Fit a model on the training rows and choose its decision threshold there, never on the holdout."""

import importlib
import inspect
import logging
import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline

from config import Model, Recipe, Task, Threshold, UserError, known
from core.bundle import Bundle, Card, code_fingerprint, environment, sha256
from core.contract import DataContract, encode_target
from core.features import preprocessing
from core.metrics import Predictions, measure, metric_names
from core.split import SplitRule, folds
from core.table import as_features, fingerprint

log = logging.getLogger(__name__)

DEFAULT = {
    "binary": "sklearn.ensemble.HistGradientBoostingClassifier",
    "multiclass": "sklearn.ensemble.HistGradientBoostingClassifier",
    "regression": "sklearn.ensemble.HistGradientBoostingRegressor",
}


def make_estimator(model: Model, task: Task) -> BaseEstimator:
    """Import the estimator by its dotted path and build it with its params and seed."""
    path = model.estimator or DEFAULT[task]
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as err:
        raise UserError(f"model.estimator: no module '{module_name}' ({err})") from err
    if not hasattr(module, name):
        raise UserError(f"model.estimator: no '{name}'; {known(module_name, _estimators(module), name)}")
    build = getattr(module, name)
    accepted = inspect.signature(build).parameters
    for key in model.params:
        if key not in accepted:
            raise UserError(f"model.params: no '{key}'; {known(name, accepted, key)}")
    seed = {"random_state": model.seed} if "random_state" in accepted and "random_state" not in model.params else {}
    estimator = build(**model.params, **seed)
    wanted, fits = ("regressor", is_regressor) if task == "regression" else ("classifier", is_classifier)
    if not fits(estimator) or (wanted == "classifier" and not hasattr(estimator, "predict_proba")):
        needs = "a regressor" if wanted == "regressor" else "a classifier with predict_proba"
        raise UserError(f"model.estimator: a {task} target needs {needs}, {path} with these params is not one")
    return estimator


def train(rows: pd.DataFrame, contract: DataContract, split: SplitRule, recipe: Recipe) -> Bundle:
    """Fit preprocessing and estimator on the training rows and seal the result in a bundle.

    Folds come from the same hash as the split, so duplicates share a fold and nothing is random here.
    """
    features = as_features(rows, contract.features)
    truth = encode_target(rows[contract.target], contract)
    pipeline = Pipeline(
        [("prepare", preprocessing(contract.features)), ("estimate", make_estimator(recipe.model, contract.task))]
    )
    fold = folds(rows, split, recipe.model.folds)
    _check_folds(truth, fold, contract)
    method = "predict" if contract.task == "regression" else "predict_proba"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            scores = cross_val_predict(pipeline, features, truth, cv=PredefinedSplit(fold), method=method)
            pipeline.fit(features, truth)
    except (ValueError, TypeError) as err:
        raise UserError(f"{_name(pipeline)} cannot be fitted: {' '.join(str(err).split())[:300]}") from err
    if any(issubclass(w.category, ConvergenceWarning) for w in caught):
        log.warning("%s did not converge; raise model.params.max_iter", _name(pipeline))
    if contract.task == "binary":
        scores = scores[:, 1]
    threshold = choose_threshold(truth, scores, recipe.model.threshold) if contract.task == "binary" else None
    held_back = Predictions(
        task=contract.task,
        truth=truth,
        scores=scores,
        threshold=threshold,
        labels=contract.classes,
        costs=(recipe.model.threshold.false_positive, recipe.model.threshold.false_negative),
    )
    classes = contract.classes
    shares = np.bincount(truth.astype(int), minlength=len(classes)) / len(truth) if classes else [truth.mean()]
    model_file = pickle.dumps(pipeline, protocol=5)
    card = Card(
        recipe=recipe,
        contract=contract,
        split=split,
        threshold=threshold,
        prior=tuple(float(share) for share in shares),
        cross_validation={name: float(measure(name, held_back)) for name in metric_names(contract.task)},
        data=fingerprint(rows),
        code=code_fingerprint(),
        model=sha256(model_file),
        environment=environment(),
    )
    return Bundle(card=card, model_file=model_file)


def choose_threshold(truth: np.ndarray, scores: np.ndarray, rule: Threshold) -> float:
    """Return the score from which to answer positive, best by the rule on (n,) truth 0/1 and (n,) scores.

    Every distinct score is a candidate. The result lies halfway to the next lower score, so that rounding in
    another runtime does not move a decision.
    """
    if rule.by == "fixed":
        return rule.value
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], truth[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # the last row of each group of equal scores
    found, flagged = np.cumsum(hits)[last], np.arange(1, len(hits) + 1)[last]
    positives, negatives = truth.sum(), len(truth) - truth.sum()
    false_alarms, misses = flagged - found, positives - found
    value = {
        "f1": 2 * found / (flagged + positives),
        "accuracy": -(false_alarms + misses),
        "balanced_accuracy": found / positives - false_alarms / negatives,
        "cost": -(rule.false_positive * false_alarms + rule.false_negative * misses),
    }[rule.by]
    candidates = ranked[last]
    best = int(np.argmax(value))
    below = candidates[best + 1] if best + 1 < len(candidates) else 0.0
    return float((candidates[best] + below) / 2)


def _check_folds(truth: np.ndarray, fold: np.ndarray, contract: DataContract) -> None:
    """Refuse training rows in which a class fills only one fold: the other folds could not learn it."""
    for code, label in enumerate(contract.classes):
        rows = truth == code
        if len(np.unique(fold[rows])) < 2:
            raise UserError(
                f"class '{label}' has {rows.sum()} training rows, all in one cross-validation fold; "
                "it needs some in at least two: gather more or lower split.holdout"
            )


def _estimators(module: Any) -> list[str]:
    return [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, BaseEstimator)]


def _name(pipeline: Pipeline) -> str:
    return type(pipeline[-1]).__name__
