import pickle
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from tables import mixed, recipe, trained

from loop.config import UserError
from loop.data.table import as_features
from loop.training.bundle import Bundle, sha256
from loop.training.compiled import (
    MODEL,
    SPEC,
    TOLERANCE,
    CompiledModel,
    NotCompilable,
    as_values,
    compile_model,
    parity,
)
from loop.training.compiled.proof import Parity
from loop.training.compiled.spec import Arithmetic
from loop.training.features import CalendarParts, Categories

LINEAR, BOOSTED, FOREST = (
    "sklearn.linear_model.",
    "sklearn.ensemble.HistGradientBoosting",
    "sklearn.ensemble.RandomForest",
)
FEW = (("max_iter", 20),)
TREES = (("n_estimators", 10),)


class Unknown(LogisticRegression):
    """An estimator that no converter knows."""


class UnknownRidge(Ridge):
    """Another one, for values."""


def rich() -> pd.DataFrame:
    """Make rows with every trouble: gaps, rare and whole-number categories, a column of one value, far times."""
    rows, random = mixed(), np.random.default_rng(1)
    count = len(rows)
    rows["rare"] = np.where(random.random(count) < 0.02, random.choice(["a", "b", "c", "d"], count), "z")
    rows["zone"] = random.integers(1, 4, count)
    rows["once"] = np.where(random.random(count) < 0.5, 7.0, np.nan)
    rows["whole"] = random.normal(size=count)
    rows["truth"] = np.where(random.random(count) < 0.5, "true", "false")
    rows["rank"] = np.where(random.random(count) < 0.5, "1.0", "2.0")
    return rows.assign(until=np.where(random.random(count) < 0.9, "9999-12-31", "0001-01-01T01:02:03.000004"))


@cache
def fitted(target: str, estimator: str, params: tuple[tuple[str, Any], ...] = ()) -> tuple[Bundle, pd.DataFrame]:
    wanted = recipe(target, estimator=estimator, params=dict(params))
    kinds = {**dict.fromkeys(("zone", "truth", "rank"), "categorical"), "until": "datetime"}
    data = wanted.data.model_copy(update={"kinds": kinds})
    return trained(rich(), wanted.model_copy(update={"data": data}))


@cache
def compiled(target: str, estimator: str, params: tuple[tuple[str, Any], ...] = ()) -> CompiledModel:
    return compile_model(fitted(target, estimator, params)[0])


MODELS = [
    ("ja", f"{LINEAR}LogisticRegression", ()),
    ("art", f"{LINEAR}LogisticRegression", ()),
    ("preis", f"{LINEAR}Ridge", ()),
    ("ja", f"{BOOSTED}Classifier", FEW),
    ("art", f"{BOOSTED}Classifier", FEW),
    ("preis", f"{BOOSTED}Regressor", FEW),
    ("ja", f"{FOREST}Classifier", TREES),
    ("art", f"{FOREST}Classifier", TREES),
    ("preis", f"{FOREST}Regressor", TREES),
]
LOGISTIC, SOFTMAX, RIDGE, BOOSTING, *_ = MODELS


def prepared(bundle: Bundle, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
    contract = bundle.card.contract
    return np.asarray(bundle.pipeline[0].transform(as_features(rows, contract.features, contract.categories)))


def test_the_matrix_is_that_of_the_pipeline_to_the_bit() -> None:
    bundle, holdout = fitted(*LOGISTIC)
    assert set(bundle.card.contract.features.values()) == {"numeric", "boolean", "categorical", "datetime"}
    strange = holdout.assign(whole=None, städte="Atlantis", zone=9, seit=None, rare="c", once=np.inf)
    for rows in (rich(), strange, holdout.assign(städte=None, zone=3.0, rare="(missing)")):
        found = compiled(*LOGISTIC).matrix(as_values(rows, bundle.card.contract))
        np.testing.assert_array_equal(found, prepared(bundle, rows))


kinds_of_values = {
    "numeric": st.one_of(st.floats(-1e12, 1e12), st.just(np.inf), st.integers(-(10**20), 10**20)),
    "boolean": st.booleans(),
    "categorical": st.one_of(
        st.sampled_from(["Köln", "東京", "a", "z", "3", "(missing)", "", "TRUE", True, False, 1, 2.0]),
        st.integers(),
        st.text(),
    ),
    "datetime": st.datetimes(),
}


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_row_is_prepared_as_by_the_pipeline(data: st.DataObject) -> None:
    bundle, _ = fitted(*LOGISTIC)
    features = bundle.card.contract.features
    row = st.tuples(*(st.none() | kinds_of_values[kind] for kind in features.values()))
    rows = data.draw(st.lists(row, min_size=1, max_size=5))
    table = pd.DataFrame(rows, columns=list(features), dtype=object)
    np.testing.assert_array_equal(compiled(*LOGISTIC).matrix(rows), prepared(bundle, table))


@pytest.mark.parametrize("model", MODELS)
def test_scores_and_answers_are_those_of_the_pipeline(model: tuple[Any, ...]) -> None:
    bundle, _ = fitted(*model)
    found = parity(bundle, compiled(*model), rich())
    assert found.ok
    assert found.rows == len(rich())


@pytest.mark.parametrize("model", [LOGISTIC, SOFTMAX, RIDGE, BOOSTING])
def test_a_row_scores_the_same_alone(model: tuple[Any, ...]) -> None:
    bundle, holdout = fitted(*model)
    rows = as_values(holdout[:30], bundle.card.contract)
    alone = np.concatenate([compiled(*model).scores([row]) for row in rows])
    np.testing.assert_allclose(alone, compiled(*model).scores(rows), rtol=1e-6)
    assert alone.shape == bundle.scores(holdout[:30]).shape


@pytest.mark.parametrize("columns", [["größe"], ["größe", "alter"], ["städte"], ["seit"], ["<b>Bär</b>", "städte"]])
def test_a_table_may_lack_columns_of_any_kind(columns: list[str]) -> None:
    bundle, holdout = trained(mixed()[["nummer", "ja", "art", "preis", *columns]], recipe())
    assert parity(bundle, compile_model(bundle), holdout).ok


@pytest.mark.parametrize("model", [BOOSTING, MODELS[5], MODELS[6]])
def test_values_beside_a_threshold_take_the_branch_they_take_in_the_pipeline(model: tuple[Any, ...]) -> None:
    bundle, holdout = fitted(*model)
    estimator = bundle.pipeline[-1]
    if hasattr(estimator, "estimators_"):
        trees = [(tree.tree_.feature, tree.tree_.threshold) for tree in estimator.estimators_]
    else:
        trees = [(tree.nodes["feature_idx"], tree.nodes["num_threshold"]) for (tree,) in estimator._predictors]
    columns, thresholds = map(np.concatenate, zip(*trees, strict=True))
    columns, thresholds = columns[columns >= 0], thresholds[columns >= 0]
    rows = np.resize(prepared(bundle, holdout), (3 * len(columns), estimator.n_features_in_))
    beside = [thresholds, np.nextafter(thresholds, -np.inf), np.nextafter(thresholds, np.inf)]
    rows[np.arange(len(rows)), np.tile(columns, 3)] = np.concatenate(beside)
    regression = bundle.card.contract.task == "regression"
    expected = estimator.predict(rows) if regression else estimator.predict_proba(rows)[:, 1]
    unit = bundle.card.contract.target_statistics.std if regression else 1
    np.testing.assert_allclose(compiled(*model).estimator.scores_of(rows), expected, rtol=0, atol=TOLERANCE * unit)


def test_categories_and_measures_may_be_whole_numbers_and_truth_values_numbers() -> None:
    bundle, holdout = fitted(*LOGISTIC)
    names = list(bundle.card.contract.features)
    row = dict(zip(names, as_values(holdout[:1], bundle.card.contract)[0], strict=True))
    plain = {**row, "zone": "2", "größe": 170.0, "<b>Bär</b>": True}
    whole = {**row, "zone": 2, "größe": 170, "<b>Bär</b>": 1}
    first, second = compiled(*LOGISTIC).scores([tuple(plain.values()), tuple(whole.values())])
    assert first == second


def test_a_category_is_the_same_in_all_its_spellings_to_the_pipeline_and_compiled() -> None:
    bundle, holdout = fitted(*LOGISTIC)
    names = list(bundle.card.contract.features)
    row = dict(zip(names, as_values(holdout[:1], bundle.card.contract)[0], strict=True))
    for name, category, *spellings in (
        ("truth", "true", True, "TRUE"),
        ("rank", "1.0", 1, 1.0, "1"),
        ("städte", None, ""),
    ):
        rows = [tuple((row | {name: value}).values()) for value in (category, *spellings)]
        scores = compiled(*LOGISTIC).scores(rows).tolist()
        assert scores == [scores[0]] * len(rows)
        expected = bundle.scores(pd.DataFrame(rows, columns=names, dtype=object))
        np.testing.assert_allclose(expected, scores, rtol=1e-9)
    for name, spellings in (("truth", ("true", 1)), ("rank", ("1.0", "1.00"))):
        one, other = compiled(*LOGISTIC).scores([tuple((row | {name: value}).values()) for value in spellings])
        assert one != other


def test_truth_values_are_given_to_a_service_as_truth_values() -> None:
    bundle, holdout = fitted(*LOGISTIC)
    place = list(bundle.card.contract.features).index("<b>Bär</b>")
    assert {row[place] for row in as_values(holdout, bundle.card.contract)} == {True, False, None}
    assert {type(row[place]) for row in as_values(holdout, bundle.card.contract)} == {bool, type(None)}


def test_is_the_same_after_writing_and_reading_and_each_time_it_is_compiled(tmp_path: Path) -> None:
    bundle, holdout = fitted(*BOOSTING)
    compiled(*BOOSTING).write(tmp_path)
    again = CompiledModel.read(tmp_path, bundle)
    assert again == compiled(*BOOSTING) == compile_model(bundle)
    rows = as_values(holdout, bundle.card.contract)
    np.testing.assert_array_equal(again.matrix(rows), prepared(bundle, holdout))
    np.testing.assert_array_equal(again.scores(rows), compiled(*BOOSTING).scores(rows))


def test_a_tampered_onnx_file_is_refused(tmp_path: Path) -> None:
    compiled(*LOGISTIC).write(tmp_path)
    boosting = fitted(*BOOSTING)[0]
    with pytest.raises(UserError, match=r"compiled\.json was compiled from another model file: .*; compile the model"):
        CompiledModel.read(tmp_path, boosting)
    (tmp_path / MODEL).write_bytes(compiled(*BOOSTING).estimator.content)
    with pytest.raises(UserError, match=r"model\.onnx is not the file that was compiled: .*; compile the model again"):
        CompiledModel.read(tmp_path, fitted(*LOGISTIC)[0])


OWN = [("ja", "Unknown"), ("art", "Unknown"), ("preis", "UnknownRidge")]


@pytest.mark.parametrize(("target", "estimator"), OWN)
def test_an_estimator_without_an_equal_in_onnx_scores_the_matrix_itself(
    target: str, estimator: str, tmp_path: Path
) -> None:
    bundle, holdout = fitted(target, f"test_compiled.{estimator}")
    compile_model(bundle).write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [SPEC]
    model = CompiledModel.read(tmp_path, bundle)
    assert model.spec.declined.startswith(f"{estimator} has no equal in ONNX: Unable to find a shape calculator")
    assert parity(bundle, model, holdout) == Parity(len(holdout), 0, 0)
    values = as_values(holdout, bundle.card.contract)
    alone = np.concatenate([model.scores([row]) for row in values[:9]])
    np.testing.assert_array_equal(alone, bundle.scores(holdout)[:9])
    assert model.explainable


def test_an_estimator_that_onnx_scores_otherwise_scores_the_matrix_itself() -> None:
    wrapped = (("estimator", HistGradientBoostingClassifier(max_iter=5)), ("n_estimators", 2))
    model = compiled("ja", "sklearn.ensemble.BaggingClassifier", wrapped)
    # skl2onnx rounds the thresholds of its trees to float32
    assert model.spec.declined.startswith("BaggingClassifier has no equal in ONNX: its scores differ by 0.")
    assert model.estimator == fitted("ja", "sklearn.ensemble.BaggingClassifier", wrapped)[0]


def test_prepares_a_row_without_pandas_and_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, holdout = fitted("ja", "test_compiled.Unknown")
    model, values = compile_model(bundle), as_values(holdout, bundle.card.contract)
    monkeypatch.setattr(pd.DataFrame, "__init__", None)
    monkeypatch.setattr(ColumnTransformer, "transform", None)
    assert len(model.scores(values)) == len(holdout)


def changed(bundle: Bundle, pipeline: Pipeline) -> Bundle:
    content = pickle.dumps(pipeline)
    return Bundle(bundle.card.model_copy(update={"model": sha256(content)}), content)


def prepared_by(
    bundle: Bundle, holdout: pd.DataFrame, *branches: tuple[Any, ...], estimator: Any = DummyClassifier
) -> Bundle:
    """Give a model another preparation: steps, then the kinds of columns they are for."""
    contract = bundle.card.contract
    columns = [[name for name, kind in contract.features.items() if kind in kinds] for _, *kinds in branches]
    places = enumerate(zip(branches, columns, strict=True))
    prepare = ColumnTransformer([(str(place), step, names) for place, ((step, *_), names) in places])
    features = as_features(holdout, contract.features, contract.categories)
    pipeline = Pipeline([("any", prepare), ("name", estimator())])
    return changed(bundle, pipeline.fit(features, holdout["ja"] == "ja"))


NUMBERS, DENSE = ("numeric", "boolean"), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
IMPUTE = SimpleImputer(add_indicator=True, keep_empty_features=True)
ORDINAL = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
PREPARATIONS: dict[str, list[tuple[Any, ...]]] = {
    "categories first": [(make_pipeline(Categories(), DENSE), "categorical"), (IMPUTE, *NUMBERS)],
    "robust": [(make_pipeline(SimpleImputer(strategy="mean"), RobustScaler()), *NUMBERS)],
    "between 0 and 1": [(make_pipeline(MinMaxScaler(), IMPUTE), *NUMBERS), (ORDINAL, "categorical")],
    "by the target": [(make_pipeline(SimpleImputer(strategy="most_frequent"), TargetEncoder()), "categorical")],
    "times": [(make_pipeline(CalendarParts(), MaxAbsScaler(), IMPUTE), "datetime"), ("drop", *NUMBERS)],
    "as it is": [("passthrough", "boolean"), (IMPUTE, "numeric")],
}


@pytest.mark.parametrize("name", PREPARATIONS)
def test_any_preparation_of_well_known_steps_is_read_off(name: str) -> None:
    bundle, holdout = fitted(*LOGISTIC)
    other = prepared_by(bundle, holdout, *PREPARATIONS[name])
    rows = holdout.assign(städte="Atlantis", zone=9, rare=None)
    for table in (holdout, rows):
        found = compile_model(other).matrix(as_values(table, bundle.card.contract))
        np.testing.assert_array_equal(found, prepared(other, table))


def test_an_estimator_that_refuses_gaps_scores_rows_without_them_itself() -> None:
    bundle, holdout = fitted(*LOGISTIC)
    whole = holdout.dropna()
    other = prepared_by(bundle, whole, (StandardScaler(), *NUMBERS), estimator=LogisticRegression)
    model = compile_model(other)
    assert "Input X contains NaN" in model.spec.declined
    assert parity(other, model, whole) == Parity(len(whole), 0, 0)


class Capped(StandardScaler):
    """A step of one's own."""


STRANGE: dict[str, tuple[tuple[Any, ...], str]] = {
    "own step": ((make_pipeline(IMPUTE, Capped()), *NUMBERS), "Capped, as it is set, has no equal in numpy"),
    "beyond the range": ((make_pipeline(IMPUTE, MinMaxScaler(clip=True)), *NUMBERS), "MinMaxScaler, as it is set"),
    "another gap": (
        (SimpleImputer(missing_values=-1, keep_empty_features=True), "boolean"),
        "SimpleImputer, as it",
    ),
    "function": (
        (make_pipeline(IMPUTE, FunctionTransformer(np.square)), *NUMBERS),
        "FunctionTransformer, as it",
    ),
    "own encoding": (
        (make_pipeline(Categories(), FunctionTransformer(), DENSE), "categorical"),
        "FunctionTransformer, as it is",
    ),
    "kinds": ((DENSE, "categorical", "boolean"), "OneHotEncoder is given boolean, categorical columns"),
    "times": ((DENSE, "datetime"), "OneHotEncoder is given datetime columns"),
    "unseen": ((OneHotEncoder(sparse_output=False), "categorical"), "cannot be read: ValueError: Found unknown categ"),
    "uncentred": ((make_pipeline(IMPUTE, StandardScaler(with_mean=False)), *NUMBERS), "prepares rows in another way"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_preparation_of_other_steps_is_not_compiled(name: str) -> None:
    bundle, holdout = fitted(*LOGISTIC)
    branch, words = STRANGE[name]
    other = prepared_by(bundle, holdout.dropna(subset="<b>Bär</b>"), branch)
    with pytest.raises(NotCompilable, match=words):
        compile_model(other)


def test_a_preparation_of_several_steps_is_not_compiled() -> None:
    bundle, _ = fitted(*LOGISTIC)
    prepare, estimator = pickle.loads(bundle.model_file)
    squared = Pipeline([("prepare", prepare), ("square", FunctionTransformer(np.square)), ("estimate", estimator)])
    with pytest.raises(NotCompilable, match="prepared by ColumnTransformer, FunctionTransformer, not by one Col"):
        compile_model(changed(bundle, squared))
    with pytest.raises(NotCompilable, match="prepared by nothing, not by one ColumnTransformer"):
        compile_model(changed(bundle, Pipeline([("estimate", estimator)])))


def test_parity_sees_another_score() -> None:
    bundle, holdout = fitted(*RIDGE)
    model = compiled(*RIDGE)
    numbers, *others = model.spec.parts
    moved = numbers.model_copy(update={"steps": (*numbers.steps, Arithmetic(operation="add", by=(1e-3,)))})
    found = parity(bundle, replace(model, spec=model.spec.model_copy(update={"parts": (moved, *others)})), holdout)
    assert found.difference > TOLERANCE
    assert not found.ok


def test_parity_sees_another_answer() -> None:
    bundle, holdout = fitted(*BOOSTING)
    model = compiled(*BOOSTING)
    scores, ours = bundle.scores(holdout), model.scores(as_values(holdout, bundle.card.contract))
    at = scores[scores > ours][0]  # the pipeline answers yes, a score rounded down answers no
    split = replace(bundle, card=bundle.card.model_copy(update={"threshold": at}))
    found = parity(split, model, holdout)
    assert found.difference <= TOLERANCE
    assert found.decisions > 0
    assert not found.ok


@pytest.mark.parametrize("model", [LOGISTIC, SOFTMAX, RIDGE])
def test_contributions_sum_to_the_score_and_are_counted_from_the_mean_training_row(model: tuple[Any, ...]) -> None:
    bundle, _ = fitted(*model)
    assert compiled(*model).explainable
    rows = rich()
    estimator = bundle.pipeline[-1]
    predict = estimator.predict if model == RIDGE else estimator.decision_function
    predictor = predict(prepared(bundle, rows))
    found = compiled(*model).explain(as_values(rows, bundle.card.contract))
    assert found.features == tuple(bundle.card.contract.features)
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=-1), predictor, rtol=1e-9, atol=1e-9)
    trained_on = ~bundle.card.split.held_out(rows)
    np.testing.assert_allclose(found.contributions[trained_on].mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.base, predictor[trained_on].mean(axis=0))
    if model == LOGISTIC:
        np.testing.assert_allclose(1 / (1 + np.exp(-predictor)), bundle.scores(rows))


def test_a_feature_adds_nothing_but_its_own() -> None:
    bundle, holdout = fitted(*LOGISTIC)
    here, there = (
        compiled(*LOGISTIC).explain(as_values(rows, bundle.card.contract)).contributions
        for rows in (holdout, holdout.assign(städte="Köln", seit=datetime(2024, 5, 6)))
    )
    touched = [name in ("städte", "seit") for name in bundle.card.contract.features]
    assert (here != there).any(axis=0).tolist() == touched


@pytest.mark.parametrize("model", [BOOSTING, ("art", f"{LINEAR}SGDClassifier", (("loss", "log_loss"),))])
def test_only_what_is_linear_up_to_its_link_is_explained(model: tuple[Any, ...]) -> None:
    bundle, holdout = fitted(*model)
    assert not compiled(*model).explainable
    with pytest.raises(ValueError, match="only a linear model can be explained exactly"):
        compiled(*model).explain(as_values(holdout, bundle.card.contract))
