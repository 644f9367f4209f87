"""Odd and real traffic: answers without a score, labels of another model, few groups, a service that is stuck."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from loop.config import Config, Data, Model
from loop.data.contract import learn_contract
from loop.data.split import resolve
from loop.log.records import TRUTH
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.watching.monitor import Window, WindowReport, examine

NO_REFUSALS = pd.DataFrame({name: [] for name in ("time", "path", "field", "rule", "rows", "answered", "version")})


def config(**data: Any) -> Config:
    logistic = Model(estimator="sklearn.linear_model.LogisticRegression")
    return Config(name="made", data=Data(source="made", target="y", id=("id",), **data), model=logistic)


def made(n: int, seed: int, first: int = 0, groups: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.normal(size=(n, 3)), columns=list("abc"))
    truth = rows["a"] + rows["b"] + random.logistic(size=n) > 0
    return rows.assign(id=np.arange(n) + first, g=random.integers(0, groups, n), y=truth.astype(int))


@cache
def trained(groups: int = 200) -> tuple[Bundle, pd.DataFrame, Config]:
    use_case = config(**({"group": ("g",)} if groups < 200 else {"drop": ("g",)}))
    rows = made(4000, 0, groups=groups)
    rule = resolve(rows, use_case.data, use_case.split)
    held_out = rule.held_out(rows)
    seen, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    contract = learn_contract(seen, use_case.data, use_case.contract)
    return train(seen, contract, rule, use_case.recipe), holdout, use_case


def look(bundle: Bundle, holdout: pd.DataFrame, use_case: Config, rows: pd.DataFrame, **answers: Any) -> WindowReport:
    """Examine a window of answers to rows, each labelled; `answers` replace what was logged."""
    logged = pd.DataFrame(
        {
            "prediction_id": [f"9f86d081884c-{place:08x}-0" for place in range(len(rows))],
            "prediction_time": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(rows)), "s"),
            "prediction_version": 1,
            "prediction_score": bundle.scores(rows),
        }
    )
    logged = pd.concat([logged, rows.drop(columns="y")], axis=1).assign(**answers)
    judged = logged.assign(**{TRUTH: answers.get(TRUTH, rows["y"].astype(str).astype(object))})
    return examine(
        Window(logged.drop(columns=TRUTH, errors="ignore"), judged, NO_REFUSALS, 0), bundle, 1, holdout, {}, use_case
    )


def test_answers_that_are_all_the_same_are_an_alarm_and_no_estimate() -> None:
    report = look(*trained(), made(2000, 1, 10_000), prediction_score=0.001)
    assert "schema" in report.kinds
    assert "all 2,000 answers are the same" in report.alarms[0].sentence
    assert report.estimated == {}
    assert look(*trained(), made(2000, 1, 10_000)).kinds == ()


def test_answers_without_a_score_are_left_out_and_said() -> None:
    rows = made(2000, 1, 10_000)
    scores = pd.Series(trained()[0].scores(rows)).where(np.arange(2000) >= 40)
    report = look(*trained(), rows, prediction_score=scores)
    assert "40 answers hold no score and are left out" in report.notes
    assert (report.kinds, report.labelled) == ((), 1960)
    few = look(*trained(), rows, prediction_score=scores.where(np.arange(2000) >= 1990))
    assert not few.enough


def test_a_label_that_the_model_does_not_know_ends_no_window() -> None:
    rows = made(2000, 1, 10_000)
    told = rows["y"].astype(str).astype(object).where(np.arange(2000) >= 3, "maybe")
    report = look(*trained(), rows, **{TRUTH: told})
    assert "3 labels are none of 0, 1 and are left out; send the right ones to /feedback" in report.notes
    assert (report.kinds, report.labelled) == ((), 1997)


@pytest.mark.parametrize(("groups", "judged"), [(4, False), (60, True)])
def test_labels_of_few_groups_are_not_judged_and_said(groups: int, judged: bool) -> None:
    rows = made(2000, 1, 10_000, groups)
    report = look(*trained(groups), rows.assign(y=1 - rows["y"]))
    assert ("concept" in report.kinds) == judged
    said = [note for note in report.notes if "label and concept drift are not judged" in note]
    assert bool(said) != judged, report.notes
    assert all("even ones" in note and "10 are needed" in note for note in said)
