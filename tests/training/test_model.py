import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import datasets
from sklearn.base import clone
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from tables import mixed, recipe, trained

from loop.config import ROOT, Model, Recipe, Task, Threshold, UserError
from loop.data.contract import DataContract, encode_target, learn_contract
from loop.data.split import folds, resolve
from loop.data.table import as_features
from loop.training.fit import check_estimator, choose_threshold, make_estimator, train
from loop.training.metrics import measure

RULES = [
    Threshold(by="f1"),
    Threshold(by="accuracy"),
    Threshold(by="balanced_accuracy"),
    Threshold(by="cost", false_positive=1, false_negative=10),
    Threshold(by="cost", false_positive=7, false_negative=1),
    Threshold(by="cost", false_positive=1, false_negative=0),
]


def worth(rule: Threshold, truth: list[int], flagged: list[bool]) -> float:
    pairs = list(zip(truth, flagged, strict=True))
    right, alarms, misses = pairs.count((1, True)), pairs.count((0, True)), pairs.count((1, False))
    if rule.by == "f1":
        return 2 * right / (2 * right + alarms + misses)
    if rule.by == "accuracy":
        return -(alarms + misses)
    if rule.by == "cost":
        return -(rule.false_positive * alarms + rule.false_negative * misses)
    return (right / truth.count(1) + pairs.count((0, False)) / truth.count(0)) / 2


probabilities = st.one_of(st.sampled_from([0.0, 0.25, 0.5, np.nextafter(0.5, 1), 1.0]), st.floats(0, 1))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), probabilities), max_size=12), st.sampled_from(RULES))
@example([(0, 1.0)], RULES[1])
def test_no_threshold_is_better_than_the_chosen_one(rows: list[tuple[int, float]], rule: Threshold) -> None:
    truth, scores = map(list, zip((0, 0.5), (1, 0.5), *rows, strict=True))
    chosen = choose_threshold(np.array(truth), np.array(scores, dtype=float), rule)
    found = worth(rule, truth, [score >= chosen for score in scores])
    for threshold in (*scores, np.inf):
        assert found >= worth(rule, truth, [score >= threshold for score in scores]) - 1e-12


@pytest.mark.parametrize(
    ("scores", "rule", "threshold"),
    [
        ([0.2, 0.6], Threshold(), 0.4),
        ([0.2, 0.6], Threshold(by="fixed", value=0.9), 0.9),
        ([0.6, 0.2], Threshold(by="cost", false_positive=7), 0.8),  # to flag none is best
        ([0.6, 0.2], Threshold(by="f1"), 0.1),  # to flag all is best
    ],
)
def test_the_threshold_lies_halfway_between_two_scores(scores: list[float], rule: Threshold, threshold: float) -> None:
    assert choose_threshold(np.array([0, 1]), np.array(scores), rule) == pytest.approx(threshold)


def test_the_threshold_comes_from_scores_of_rows_the_model_was_not_fitted_to() -> None:
    rows = mixed()
    wanted = recipe()
    bundle, holdout = trained(rows, wanted)
    train_rows = rows[~bundle.card.split.held_out(rows)].reset_index(drop=True)
    assert len(train_rows) + len(holdout) == len(rows)
    features = as_features(train_rows, bundle.card.contract.features)
    truth = encode_target(train_rows["ja"], bundle.card.contract)
    fold, scores = folds(train_rows, bundle.card.split, wanted.model.folds), np.zeros(len(truth))
    for k in range(wanted.model.folds):
        fitted = clone(bundle.pipeline).fit(features[fold != k], truth[fold != k])
        scores[fold == k] = fitted.predict_proba(features[fold == k])[:, 1]
    assert bundle.card.threshold == choose_threshold(truth, scores, wanted.model.threshold)
    assert bundle.card.threshold != choose_threshold(truth, bundle.scores(train_rows), wanted.model.threshold)


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        ({"estimator": "sklearn.linear_model.LogisticRegresion"}, "binary", "mean 'LogisticRegression'?"),
        (
            {"estimator": "sklearn.linear_modl.LogisticRegression"},
            "binary",
            "cannot import 'sklearn.linear_modl': No module named",
        ),
        ({"estimator": "sklaern.svm.SVC"}, "binary", "the package 'sklaern' is not installed; did you mean 'sklearn'?"),
        ({"estimator": "sklearn.metrics.accuracy_score"}, "binary", "no 'accuracy_score'; sklearn.metrics"),
        ({"estimator": "numpy.pi"}, "binary", "no 'pi'; numpy has nothing"),
        ({"params": {"max_itr": 1}}, "regression", "no 'max_itr'; among"),
        ({"params": {"max_itr": 1}}, "regression", "did you mean 'max_iter'?"),
        ({"estimator": "sklearn.ensemble.VotingClassifier"}, "multiclass", "'estimators'"),
        ({"estimator": "sklearn.linear_model.Ridge"}, "binary", "a binary target needs a classifier with"),
        ({"estimator": "sklearn.svm.LinearSVC"}, "multiclass", "a classifier with predict_proba"),
        ({"estimator": "sklearn.tree.DecisionTreeClassifier"}, "regression", "needs a regressor"),
        ({"estimator": "sklearn.preprocessing.StandardScaler"}, "regression", "needs a regressor"),
    ],
)
def test_says_in_one_sentence_why_it_cannot_build_an_estimator(model: dict[str, Any], task: Task, words: str) -> None:
    with pytest.raises(UserError) as refused:
        make_estimator(Model.model_validate(model), task)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "import nosuchboost",
            "the package 'nosuchboost' is not installed; pip install nosuchboost -c requirements.txt",
        ),
        ("raise OSError('libgomp.so.1: cannot open')", "cannot import 'own_estimator': libgomp.so.1: cannot open"),
    ],
)
def test_says_what_an_own_estimator_lacks(
    content: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_estimator.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as refused:
        check_estimator(Model(estimator="own_estimator.Best"))
    assert words in str(refused.value)


def test_params_win_over_the_seed() -> None:
    assert make_estimator(Model(seed=3), "binary").random_state == 3
    assert make_estimator(Model(seed=3, params={"random_state": 5}), "binary").random_state == 5


def test_says_what_the_estimator_says_of_bad_values(caplog: pytest.LogCaptureFixture) -> None:
    needed = r"^model.params.max_depth of DecisionTreeClassifier must be an int .* or None, it is -1$"
    with pytest.raises(UserError, match=needed):
        trained(mixed(200), recipe(params={"max_depth": -1}))
    trained(mixed(200), recipe(estimator="sklearn.linear_model.LogisticRegression", params={"max_iter": 2}))
    assert caplog.messages == ["LogisticRegression did not converge; raise model.params.max_iter"]


@pytest.mark.parametrize(
    ("name", "metric", "floor", "estimator"),
    [
        ("breast_cancer", "roc_auc", 0.97, "sklearn.linear_model.LogisticRegression"),
        ("wine", "accuracy", 0.9, "sklearn.ensemble.ExtraTreesClassifier"),
        ("diabetes", "r2", 0.35, "sklearn.linear_model.Ridge"),
    ],
)
def test_every_task_trains_on_the_bundled_sets(name: str, metric: str, floor: float, estimator: str) -> None:
    rows = getattr(datasets, f"load_{name}")(as_frame=True).frame
    wanted = {
        "name": name,
        "data": {"source": f"sklearn:{name}", "target": "target"},
        "model": {"estimator": estimator},
    }
    bundle, holdout = trained(rows, Recipe.model_validate(wanted))
    assert measure(metric, bundle.predictions(holdout)) > floor
    assert bundle.card.cross_validation[metric] > floor


@pytest.mark.parametrize(
    ("target", "metric", "floor"), [("ja", "roc_auc", 0.75), ("art", "accuracy", 0.45), ("preis", "r2", 0.2)]
)
def test_every_task_trains_on_a_mixed_table(target: str, metric: str, floor: float) -> None:
    bundle, holdout = trained(mixed(), recipe(target, estimator=None, params={"max_iter": 20}))
    assert measure(metric, bundle.predictions(holdout)) > floor
    assert sum(bundle.card.prior) == pytest.approx(1) or target == "preis"
    assert (bundle.card.threshold is None) == (target != "ja")


def test_a_fold_may_lack_all_values_of_a_column_and_times_may_be_far_away() -> None:
    first, last = np.array(["0001-01-01", "9999-12-31"], dtype="datetime64[us]")
    rare = np.isin(np.arange(300), [3, 150])
    rows = mixed(300).assign(selten=np.where(rare, 1, np.nan), offen=np.where(rare, first, last))
    wanted = recipe()
    rule = resolve(rows, wanted.data, wanted.split)
    contract = learn_contract(rows, wanted.data, wanted.contract)
    assert {"selten", "offen"} <= contract.features.keys()
    bundle, holdout = train(rows, contract, rule, wanted), rows[:20]
    assert np.isfinite(bundle.scores(holdout.assign(offen="5000-01-01T00:00:00", selten=7))).all()


def test_the_same_rows_and_recipe_give_the_same_model_bytes(tmp_path: Path) -> None:
    rows = mixed(200).rename(columns={"alter": "median", "städte": "times"})
    rows["times"] = rows["times"].replace("Köln", "median")  # a name that scikit-learn's objects hold too
    wanted = recipe(estimator=None, params={"max_iter": 3})
    rule = resolve(rows, wanted.data, wanted.split)
    contract = learn_contract(rows, wanted.data, wanted.contract)
    model = train(rows, contract, rule, wanted)
    rows.to_parquet(tmp_path / "rows.parquet")
    read = pd.read_parquet(tmp_path / "rows.parquet")
    stored = DataContract.model_validate_json(contract.model_dump_json())
    for again, known in ((read, stored), (read, contract), (rows, stored)):
        assert train(again, known, rule, wanted).model_file == model.model_file
    names = pd.Index([sys.intern(str(name)) for name in rows], dtype="object")
    values = [sys.intern(value) if isinstance(value, str) else None for value in rows["times"]]
    shared = rows.set_axis(names, axis=1).assign(times=pd.Series(values, dtype=object))
    contract = learn_contract(shared, wanted.data, wanted.contract)
    assert train(shared, contract, rule, wanted).model_file == model.model_file
    assert model.pipeline  # what has been unpickled shares its texts in another way with what comes later
    assert train(rows, contract, rule, wanted).model_file == model.model_file

    (tmp_path / "recipe.json").write_text(wanted.model_dump_json())
    code = """
from pathlib import Path
import pandas as pd
from loop.config import Recipe
from loop.data.contract import learn_contract
from loop.training.fit import train
from loop.data.split import resolve
rows, wanted = pd.read_parquet("rows.parquet"), Recipe.model_validate_json(Path("recipe.json").read_text())
contract = learn_contract(rows, wanted.data, wanted.contract)
print(train(rows, contract, resolve(rows, wanted.data, wanted.split), wanted).card.model)
"""
    threads = str(_openmp_effective_n_threads())  # the number of them is in the file
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == model.card.model


def test_refuses_a_class_or_a_table_that_fills_only_one_fold() -> None:
    rows, wanted = mixed(200), recipe()
    rule = resolve(rows, wanted.data, wanted.split)
    fold = folds(rows, rule, wanted.model.folds)
    contract = learn_contract(rows, wanted.data, wanted.contract)
    with pytest.raises(UserError, match=r"class 'ja' has .* all in one cross-validation fold"):
        train(rows.assign(ja=np.where(fold == 1, rows["ja"], "nein")), contract, rule, wanted)
    prices = recipe("preis")
    contract = learn_contract(rows, prices.data, prices.contract)
    with pytest.raises(UserError, match=r"the table has .* all in one cross-validation fold"):
        train(rows[fold == 1], contract, rule, prices)
