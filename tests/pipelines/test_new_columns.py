"""A table that changes its columns: the run says how the next version takes them, and that is followed."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, Cli, Result, output

from loop.registry import champions

ROWS = 600


def customers() -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "customer": [f"c{number}" for number in range(ROWS)],
            "spend": random.normal(50, 10, ROWS).round(2),
            "tickets": random.integers(0, 9, ROWS),
            "plan": random.choice(["basic", "plus", "pro"], ROWS),
        }
    )
    rows["calls"] = rows["tickets"] * 2 + random.integers(0, 3, ROWS)
    risk = (rows["spend"] - 50) / 10 + 0.3 * (rows["tickets"] - 4) + random.normal(0, 0.7, ROWS)
    return rows.assign(churned=np.where(risk > 0, "yes", "no"))


@pytest.fixture
def trained(cli: Cli, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Result]:
    """Train on a table by a config of its own; each test has a model of its own."""
    config = tmp_path / "churn.yaml"

    def call(rows: pd.DataFrame, name: str, *changes: str) -> Result:
        rows.to_csv(tmp_path / "churn.csv", index=False)
        config.write_text(
            f"name: {name}\ndata: {{source: {tmp_path}/churn.csv, target: churned}}\n"
            "model: {estimator: sklearn.linear_model.LogisticRegression}\n"
        )
        sets = [word for change in changes for word in ("--set", change)]
        return cli("--pipeline", "training", "--config", str(config), *QUICK, *sets)

    return call


def test_a_new_column_is_adopted_by_following_the_advice(trained: Callable[..., Result]) -> None:
    rows = customers()
    assert trained(rows.drop(columns="calls"), "grows").code == 0
    told = trained(rows, "grows")
    said = " ".join(told.out.split())
    advice = re.search(r"column 'calls' is new and not used; contract\.accept: (\[calls\]) has", said)
    assert advice is not None, said
    assert "it is the same model as champion v1" in said
    before = output("holdout_rows")
    assert trained(rows, "grows", f"contract.accept={advice[1]}").code == 0
    verdict, contract = output("verdict"), output("contract")
    assert "calls" in contract.features
    assert verdict.decision in ("promote", "hold")
    (against,) = [c for c in verdict.conditions if c.name == "not_worse_than_champion"]
    assert np.isfinite([against.value, against.low, against.high]).all()
    assert against.n == len(before), "no row has changed side, though the table names no id"
    assert output("holdout_rows")["customer"].tolist() == before["customer"].tolist()
    assert champions.champion("grows").version == (2 if verdict.decision == "promote" else 1)


def test_a_column_is_given_up_by_following_the_advice(trained: Callable[..., Result]) -> None:
    rows = customers()
    assert trained(rows, "shrinks").code == 0
    seen = set(output("train_rows")["customer"])
    refused = trained(rows.drop(columns="plan"), "shrinks")
    assert refused.code == 2
    advice = re.search(r"contract\.accept: (\[plan\])", refused.err)
    assert advice is not None, refused.err
    assert trained(rows.drop(columns="plan"), "shrinks", f"contract.accept={advice[1]}").code == 0
    verdict, holdout = output("verdict"), output("holdout_rows")
    (against,) = [c for c in verdict.conditions if c.name == "not_worse_than_champion"]
    assert np.isfinite([against.value, against.low, against.high]).all()
    assert against.n == (~holdout["customer"].isin(seen)).sum(), "it is judged on what the champion never saw"
