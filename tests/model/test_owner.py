"""The door between the engine and what its owner writes: derived columns, metrics, packages, and code as it was."""

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import fbeta_score, mean_absolute_error, roc_auc_score
from tables import mixed, recipe, trained

from loop.config import ROOT, Evaluation, Gate, UserError
from loop.training import metrics, owner
from loop.training.bundle import Bundle, code_fingerprint
from loop.training.features import derived_kinds
from loop.training.metrics import Predictions, check_gate, estimate, metrics_of
from loop.training.own import Own

ROWS = pd.DataFrame({"a": [1.0, 2.0, np.nan, 4.0], "b": ["x", None, "y", "x"]})
QUICK = Evaluation(resamples=400)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give `model/` of a clone to edit."""
    shutil.copytree(ROOT / "model", tmp_path / "model")
    shutil.copytree(ROOT / "loop", tmp_path / "loop", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    for module in (owner, sys.modules["loop.training.bundle"]):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "model"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    forget()


def edit(clone: Path, file: str, before: str, after: str) -> None:
    path = clone / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    forget()


def forget() -> None:
    """Have `model` imported anew, from where it is then."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "model"]:
        del sys.modules[name]


def test_derived_columns_have_the_kind_of_their_values() -> None:
    def derive(rows: pd.DataFrame) -> pd.DataFrame:
        big = rows["a"] > 1
        return pd.DataFrame(
            {"double": rows["a"] * 2, "big": big, "b too": rows["b"], "day": pd.Timestamp("2024-01-01")}
        )

    assert derived_kinds(derive, ROWS) == {
        "double": "numeric", "big": "boolean", "b too": "categorical", "day": "datetime"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("derive", "said"),
    [
        (
            lambda rows: pd.DataFrame({"c": rows["aa"]}),
            "derive needs column 'aa'; this use case has a, b; did you mean",
        ),
        (lambda rows: rows["a"], "needs to return a DataFrame"),
        (lambda rows: pd.DataFrame({"c": rows["a"].dropna()}), "needs to return a DataFrame"),
        (lambda rows: rows[["a"]], "'a' is a column already"),
        (
            lambda rows: pd.DataFrame({"c": rows["a"] - rows["a"].mean()}),
            "'c' of a row differs when the row comes alone",
        ),
    ],
)
def test_what_cannot_be_derived_of_a_row_alone_is_refused(derive: Callable[[pd.DataFrame], Any], said: str) -> None:
    with pytest.raises(UserError, match=f"model/features.py: .*{said}"):
        derived_kinds(derive, ROWS)


def fitted() -> tuple[Bundle, pd.DataFrame]:
    return trained(mixed(), recipe(estimator="sklearn.linear_model.LogisticRegression", params={"max_iter": 1000}))


def test_a_model_answers_by_the_code_it_was_made_with_whatever_became_of_it(clone: Path) -> None:
    plain, rows = fitted()
    assert plain.card.owner == {}  # nothing of model/ is in it
    code = code_fingerprint()
    edit(
        clone,
        "model/features.py",
        "return pd.DataFrame(index=rows.index)",
        'return pd.DataFrame({"c": rows["alter"] * 2.0})',
    )
    assert code_fingerprint() != code
    doubled, _ = fitted()
    before = doubled.scores(rows)
    assert "c" in doubled.pipeline["prepare"].feature_names_in_
    edit(clone, "model/features.py", 'rows["alter"] * 2.0', 'rows["alter"] * -7.0')
    again = Bundle(card=doubled.card, model_file=doubled.model_file)
    np.testing.assert_array_equal(again.scores(rows), before)
    today = owner.owned("features", "derive")(rows.head(1))
    assert today["c"].tolist() == [rows["alter"].iloc[0] * -7.0]
    changed, _ = fitted()
    assert changed.card.model != doubled.card.model


def test_a_file_of_the_owner_that_cannot_be_used_is_told_by_name(clone: Path) -> None:
    edit(clone, "model/features.py", "def derive", "def derived")
    with pytest.raises(UserError, match=r"model/features\.py needs to define 'derive'"):
        owner.owned("features", "derive")
    edit(clone, "model/features.py", "def derived", "def derive((")
    with pytest.raises(UserError, match=r"model/features\.py cannot be imported: SyntaxError"):
        owner.owned("features", "derive")


def test_packages_of_the_owner_are_named_with_their_versions(clone: Path) -> None:
    assert owner.packages() == {}
    with (clone / "model/requirements.in").open("a") as file:
        file.write("PyYAML>=6  # for what\nnosuchthing\n-r other.in\n")
    assert list(owner.packages()) == ["pyyaml"]
    assert list(owner.packages("pandas.Estimator")) == ["pyyaml", "pandas"]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> dict[str, Own]:
    """Put metrics among those of the owner."""
    table: dict[str, Own] = {}
    monkeypatch.setattr(metrics, "owned", lambda *_: table)
    metrics_of.cache_clear()
    yield table
    metrics_of.cache_clear()


def said(n: int = 400) -> Predictions:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, n)
    return Predictions("binary", truth, np.clip(0.5 * truth + random.normal(0.25, 0.25, n), 0, 1))


def test_an_own_metric_has_the_interval_of_the_same_built_in_one(own: dict[str, Own]) -> None:
    def area(truth: np.ndarray, scores: np.ndarray) -> float:
        return float(roc_auc_score(truth, scores))

    own["f1_too"] = Own(partial(fbeta_score, beta=1))
    own["mae_too"] = Own(lambda truth, scores: mean_absolute_error(truth, scores), of="score", greater_is_better=False)
    own["area"] = Own(area, of="score")
    found = estimate(said(), ("f1", "f1_too", "area", "roc_auc", "mae_too"), QUICK)
    assert found["f1_too"].value == pytest.approx(found["f1"].value, abs=1e-12)
    assert found["area"].value == pytest.approx(found["roc_auc"].value, abs=1e-12)
    for one, other in (("f1_too", "f1"), ("area", "roc_auc")):
        assert found[one].low == pytest.approx(found[other].low, abs=0.01)
        assert found[one].high == pytest.approx(found[other].high, abs=0.01)
    assert found["mae_too"].low < found["mae_too"].value < found["mae_too"].high


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (partial(fbeta_score, beta=2), r"'f2' needs to be Own\(…\)"),
        (Own(lambda truth: 1.0), "'f2' needs a function of truth"),
    ],
)
def test_what_is_no_metric_is_told_by_its_name(own: dict[str, Own], given: Any, said: str) -> None:
    own["f2"] = given
    with pytest.raises(UserError, match=rf"model/metrics\.py: {said}"):
        metrics_of("binary")


def test_names_of_metrics_are_checked_before_anything_is_trained(own: dict[str, Own]) -> None:
    own["f2"] = Own(partial(fbeta_score, beta=2))
    check_gate(Gate(metric="f2", minimum={"f2": 0.5, "roc_auc": 0.5}))
    with pytest.raises(UserError, match=r"gate: no metric 'f3'; .* did you mean 'f"):
        check_gate(Gate(metric="f3"))
    own["f1"] = Own(partial(fbeta_score, beta=1))
    metrics_of.cache_clear()
    with pytest.raises(UserError, match=r"model/metrics\.py: 'f1' is a metric already"):
        metrics_of("binary")
