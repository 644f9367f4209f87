"""Fit a model on the training rows and choose its decision threshold there, never on the holdout."""

import difflib
import importlib.metadata
import importlib.util
import inspect
import logging
import re
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline

from loop.config import Model, Recipe, Task, Threshold, UserError, known
from loop.data.contract import DataContract, encode_target
from loop.data.split import SplitRule, folds
from loop.data.table import as_features, fingerprint
from loop.training.bundle import Bundle, Card, code_fingerprint, environment, pickled, sha256
from loop.training.features import preprocessing
from loop.training.metrics import Predictions, measure, metric_names

log = logging.getLogger(__name__)

DEFAULT: dict[Task, str] = {
    "binary": "sklearn.ensemble.HistGradientBoostingClassifier",
    "multiclass": "sklearn.ensemble.HistGradientBoostingClassifier",
    "regression": "sklearn.ensemble.HistGradientBoostingRegressor",
}
"""What is fitted where no estimator is named."""

_PARAMETER = re.compile(r"The '(\w+)' parameter of \w+ must be (.+)\. Got (.+) instead\.")
"""What scikit-learn says of a parameter that it does not take, in the name of whatever function was called first."""


def check_estimator(model: Model) -> None:
    """Refuse a dotted path or a parameter that is not there, before the rows have told the task."""
    paths = [model.estimator] if model.estimator else dict.fromkeys(DEFAULT.values())
    _check_params(model, *map(_imported, paths))


def make_estimator(model: Model, task: Task) -> BaseEstimator:
    """Import the estimator by its dotted path and build it with its params and seed."""
    path = model.estimator or DEFAULT[task]
    build = _imported(path)
    parameters = _check_params(model, build)
    takes_any = _takes_any(parameters)
    seed = {"random_state": model.seed} if takes_any or "random_state" in parameters else {}
    try:
        estimator = build(**{**seed, **model.params})
    except TypeError as err:
        raise UserError(f"model.params: {build.__name__} cannot be built with them: {err}") from err
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
    fold = folds(rows, split, recipe.model.folds)
    _check_folds(truth, fold, contract)
    estimator = make_estimator(recipe.model, contract.task)
    pipeline = Pipeline([("prepare", preprocessing(contract.features)), ("estimate", estimator)])
    scores = _fit(pipeline, features, truth, fold, contract.task)
    rule = recipe.model.threshold
    threshold = choose_threshold(truth, scores, rule) if contract.task == "binary" else None
    out_of_fold = Predictions(
        task=contract.task,
        truth=truth,
        scores=scores,
        threshold=threshold,
        labels=contract.classes,
        costs=rule.costs,
    )
    prior = np.bincount(truth.astype(int)) / len(truth) if contract.classes else [truth.mean()]
    model_file = pickled(pipeline)
    card = Card(
        recipe=recipe,
        contract=contract,
        split=split,
        threshold=threshold,
        prior=tuple(map(float, prior)),
        cross_validation={name: measure(name, out_of_fold) for name in metric_names(contract.task)},
        data=fingerprint(rows),
        code=code_fingerprint(),
        model=sha256(model_file),
        environment=environment(),
    )
    return Bundle(card=card, model_file=model_file)


def choose_threshold(truth: npt.NDArray[Any], scores: npt.NDArray[np.float64], rule: Threshold) -> float:
    """Return the score from which to answer positive, best by the rule on (n,) truth 0/1 and (n,) scores.

    Candidates are to flag the rows from any score on, or none; of equals, the fewest rows above none. The
    result lies halfway to the next score, so that rounding in another runtime does not move a decision.
    """
    if rule.by == "fixed":
        return rule.value
    ascending, place = np.unique(scores, return_inverse=True)
    ranked = ascending[::-1]
    flagged = np.append(np.bincount(place)[::-1].cumsum(), 0)  # the last candidate flags none
    found = np.append(np.bincount(place, truth)[::-1].cumsum(), 0)
    positives = truth.sum()
    false_alarms, misses = flagged - found, positives - found
    value = {
        "f1": 2 * found / (flagged + positives),
        "accuracy": -(false_alarms + misses),
        "balanced_accuracy": found / positives - false_alarms / (len(truth) - positives),
        "cost": -(rule.false_positive * false_alarms + rule.false_negative * misses),
    }[rule.by]
    best = int(np.argmax(value))
    high = np.append(ranked, np.nextafter(max(ranked[0], 1.0), np.inf))[best]
    low = np.append(ranked[1:], [0.0, ranked[0]])[best]
    return float(min(max((high + low) / 2, np.nextafter(low, np.inf)), high))


def _fit(
    pipeline: Pipeline, features: pd.DataFrame, truth: npt.NDArray[Any], fold: npt.NDArray[Any], task: Task
) -> npt.NDArray[np.float64]:
    """Fit the pipeline; return its out-of-fold P(positive), class probabilities or predicted values."""
    method = "predict" if task == "regression" else "predict_proba"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            scores = cross_val_predict(pipeline, features, truth, cv=PredefinedSplit(fold), method=method)
            pipeline.fit(features, truth)
    except (ValueError, TypeError) as err:
        said = " ".join(str(err).split())[:300]
        if unfit := _PARAMETER.fullmatch(said):
            name, needed, given = unfit.groups()
            raise UserError(f"model.params.{name} of {_name(pipeline)} must be {needed}, it is {given}") from err
        raise UserError(f"{_name(pipeline)} cannot be fitted: {said}") from err
    for words in dict.fromkeys(map(_words, caught)):
        log.warning("%s %s", _name(pipeline), words)
    return np.asarray(scores[:, 1] if task == "binary" else scores, np.float64)


def _check_folds(truth: npt.NDArray[Any], fold: npt.NDArray[Any], contract: DataContract) -> None:
    """Refuse training rows that fill one fold, as a class or in all: the other folds could not learn them."""
    groups = {f"class '{label}'": truth == code for code, label in enumerate(contract.classes)}
    for name, rows in (groups or {"the table": np.ones(len(truth), bool)}).items():
        if len(np.unique(fold[rows])) < 2:
            raise UserError(
                f"{name} has {rows.sum()} training rows, all in one cross-validation fold; "
                "it needs some in at least two: gather more or lower split.holdout"
            )


def _imported(path: str) -> Any:
    """Return the class of an estimator."""
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, OSError) as err:  # a library that a package needs may be missing
        raise UserError(f"model.estimator: cannot import '{module_name}': {_missing(err)}") from err
    build = getattr(module, name, None)
    if not (inspect.isclass(build) and hasattr(build, "fit")):
        raise UserError(f"model.estimator: no '{name}'; {known(module_name, _estimators(module), name)}")
    return build


def _missing(err: ImportError | OSError) -> str:
    """Say what cannot be imported, and how to get it."""
    package = (err.name or "").partition(".")[0] if isinstance(err, ModuleNotFoundError) else ""
    if not package or importlib.util.find_spec(package):
        return " ".join(str(err).split())[:200]
    near = difflib.get_close_matches(package, importlib.metadata.packages_distributions(), n=1, cutoff=0.8)
    fix = f"did you mean '{near[0]}'?" if near else f"pip install {package} -c requirements.txt"
    return f"the package '{package}' is not installed; {fix}"


def _check_params(model: Model, *builds: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of one of these classes; an argument that none takes is a UserError."""
    parameters = {name: each for build in builds for name, each in inspect.signature(build).parameters.items()}
    for key in model.params:
        if key not in parameters and not _takes_any(parameters):
            raise UserError(f"model.params: no '{key}'; {known(builds[0].__name__, parameters, key)}")
    return parameters


def _takes_any(parameters: dict[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


def _estimators(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if inspect.isclass(value) and hasattr(value, "fit")]


def _words(warning: warnings.WarningMessage) -> str:
    if issubclass(warning.category, ConvergenceWarning):
        return "did not converge; raise model.params.max_iter"
    return f"warns: {str(warning.message).splitlines()[0]}"


def _name(pipeline: Pipeline) -> str:
    return type(pipeline[-1]).__name__
