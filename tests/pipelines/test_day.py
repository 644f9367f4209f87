"""A day of use on one's own table, each step the command that the one before printed."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from conftest import Cli, Result
from servers import free_port

from loop.registry import champions

ROWS = 1200
FAST = ("--set", "evaluation.resamples=200", "--set", "model.params.max_iter=20", "--set", "model.folds=3")


def customers(rows: int, seed: int) -> pd.DataFrame:
    """Return customers who leave when they spend little and complain much."""
    random = np.random.default_rng(seed)
    spend, tickets = random.gamma(2, 50, rows).round(2), random.poisson(1.5, rows)
    plan = random.choice(["basic", "plus", "pro"], rows)
    odds = 0.8 * tickets - 0.02 * spend + np.where(plan == "basic", 0.5, -0.5)
    return pd.DataFrame(
        {
            "customer_id": [f"C{seed}{number:05}" for number in range(rows)],
            "plan": plan,
            "spend": spend,
            "tickets": tickets,
            "churned": np.where(random.random(rows) < 1 / (1 + np.exp(-odds)), "yes", "no"),
        }
    )


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> Iterator[Path]:
    """Draft the config of a table of one's own; its server is stopped."""
    table = tmp_path / "shop_day.csv"
    customers(ROWS, 1).to_csv(table, index=False)
    monkeypatch.setattr("loop.cli.actions.CONFIGS", tmp_path)
    result = cli("--new-config", str(table), "--target", "churned")
    assert result.code == 0, result.err
    path = tmp_path / "shop_day.yaml"
    drafted = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"port: \d+", f"port: {free_port()}", drafted), encoding="utf-8")
    yield path
    cli("--stop", "--config", str(path))


def next_command(result: Result) -> list[str]:
    """Return the words of the last command that was printed."""
    (*_, printed) = re.findall(r"python run\.py (--.*)", result.out + result.err)
    return shlex.split(printed)


def test_a_day_from_experiments_to_a_champion_that_learns(cli: Cli, config: Path, tmp_path: Path) -> None:
    name, given = config.stem, ("--config", str(config), *FAST)

    # three experiments, which change nothing in production
    tried = (("--set", "model.params.max_iter=5"), ("--set", "model.params.learning_rate=0.3"), ())
    for changes in tried:
        result = cli("--pipeline", "training", *given, "--set", "gate.promote=off", *changes)
        assert result.code == 0, result.err
        assert champions.champion(name) is None
    assert len(champions.versions(name)) == 3
    history = cli("--history", *given)
    assert history.code == 0
    assert "learning_rate" in cli("--compare", "2", "3", *given).out

    # one of them is promoted and deployed
    result = cli("--pipeline", "training", *given)
    assert result.code == 0, result.err
    champion = champions.champion(name)
    assert champion is not None
    assert champion.version == 3
    result = cli(*next_command(result))
    assert result.code == 0, result.err
    (url,) = re.findall(r"^url +(http://\S+)", result.out, re.M)

    # traffic of one's own, whose labels come later, by one's own ids, from a CSV
    new = customers(400, 2)
    rows = new.drop(columns="churned").to_dict("records")
    assert len(httpx.post(f"{url}/predict", json=rows, timeout=60).raise_for_status().json()["ids"]) == 400
    labels = tmp_path / "labels.csv"
    new[["customer_id", "churned"]].to_csv(labels, index=False)
    result = cli("--labels", str(labels), *given)
    assert result.code == 0, result.err
    assert "400 of 400 are on record" in result.out
    result = cli(*next_command(result))
    assert result.code == 0, result.err
    assert "400 of 400 predictions are labelled" in result.out

    # the champion's recipe learns from them, whatever the config says by now
    later = [*next_command(result), "--set", "model.params.max_iter=3", "--set", "feedback.history=keep"]
    assert later[:2] == ["--pipeline", "retraining"]
    result = cli(*later)
    assert result.code == 0, result.err
    assert "as the champion; the config has" in result.out
    version = len(champions.versions(name))
    assert champions.load(name, version).card.recipe.model.params["max_iter"] == 20

    # a column that came is told, and adopted as the sentence says
    table = customers(ROWS, 1)
    table["calls"] = np.random.default_rng(3).poisson(4.0, ROWS)
    table.to_csv(tmp_path / "shop_day.csv", index=False)
    result = cli("--pipeline", "training", *given)
    assert "'calls' is new" in result.out
    key = re.search(r"(contract\.accept): \[calls\]", result.out)
    assert key is not None
    result = cli("--pipeline", "training", *given, "--set", f"{key[1]}=[calls]", "--set", "gate.margin=0.2")
    assert result.code == 0, result.err
    assert "calls" in champions.load(name, len(champions.versions(name))).card.contract.features
    adopted = champions.champion(name)
    assert adopted is not None
    assert adopted.version > 3

    # and back again
    result = cli("--rollback", "--reason", "the day is over", *given)
    assert result.code == 0, result.err
    if "still answers with version" in result.out:
        assert cli(*next_command(result)).code == 0
    back = champions.champion(name)
    assert back is not None
    assert f"version {back.version}, " in cli("--status", *given).out
