from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets
from tables import SETTINGS

from loop.config import Data
from loop.data.checks import check_table
from loop.data.contract import learn_contract


def leaking(rows: pd.DataFrame, target: str = "y", **data: Any) -> list[str | None]:
    made = Data(source="made", target=target, **data)
    found = check_table(rows, made, SETTINGS, learn_contract(rows, made, SETTINGS))
    return [finding.column for finding in found if finding.rule == "leaking_target"]


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris", "diabetes"])
def test_honest_columns_do_not_leak_but_copies_of_the_target_do(name: str) -> None:
    rows = getattr(datasets, f"load_{name}")(as_frame=True).frame
    assert leaking(rows, "target") == []
    target = rows["target"]
    rows = rows.assign(
        copy=target,
        bent=np.exp(target / target.max()) * 3 - 1,
        unique=[f"row {i}" for i in range(len(rows))],
        noise=np.random.default_rng(0).normal(size=len(rows)),
    )
    kinds = {"unique": "categorical"}
    if name == "diabetes":
        assert leaking(rows, "target", kinds=kinds) == ["copy", "bent"]
    else:
        assert leaking(rows.assign(spelt="t" + target.astype(str)), "target", kinds=kinds) == [
            "copy",
            "bent",
            "spelt",
        ]


@pytest.mark.parametrize(
    "target",
    [
        lambda r: (r.random(3000) < 0.02) * 1,
        lambda r: r.integers(0, 20, 3000),
        lambda r: r.lognormal(0, 2, 3000),
    ],
)
def test_finds_copies_of_rare_many_and_heavy_tailed_targets(target: Callable[[Any], Any]) -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=3000), "y": target(random)})
    assert leaking(rows.assign(gaps=rows["y"].where(random.random(3000) > 0.001), copy=rows["y"]))[-1] == "copy"


def test_finds_an_answer_that_hides_in_gaps_and_forgives_repeated_rows() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=300), "y": random.choice(["no", "yes"], 300)})
    rows["closed"] = random.normal(size=300) + np.where(rows["y"] == "yes", 0, np.nan)
    rows["name"] = [f"row {i}" for i in range(300)]
    assert leaking(pd.concat([rows] * 4), kinds={"name": "categorical"}) == ["closed"]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(20, 60))
def test_chance_alone_does_not_leak(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.normal(size=(count, 5))).rename(columns=str)
    assert leaking(rows.assign(y=np.arange(count) % 2)) == []
    few = rows[:9].assign(copy=rows["0"])
    assert leaking(few.assign(y=few["copy"] > few["copy"].median())) == []
