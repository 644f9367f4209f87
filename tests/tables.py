"""Tables with every kind of column, for the tests of this folder."""

from typing import Any

import numpy as np
import pandas as pd

from loop.config import Contract, Data, Recipe
from loop.data.contract import DataContract, learn_contract
from loop.data.split import resolve
from loop.training.bundle import Bundle
from loop.training.fit import train

DATA = Data(source="made", target="y", positive="yes", id=("key",), time="at", drop=("junk",))
SETTINGS = Contract()


def made(count: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "key": np.arange(count) + seed * count,
            "at": pd.date_range("2024-01-01", periods=count, freq="h"),
            "junk": 1,
            "age": random.integers(18, 90, count),
            "amount": random.lognormal(3, 1, count),
            "gap": np.where(random.random(count) < 0.2, np.nan, random.normal(size=count)),
            "member": random.random(count) < 0.3,
            "colour": random.choice(["red", "green", "blue"], count),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 1000, count), "D"),
            "y": random.choice(["no", "yes"], count),
        }
    )


ROWS = made()
CONTRACT = learn_contract(ROWS, DATA, SETTINGS)


def learned(rows: pd.DataFrame, target: str = "y", **data: Any) -> DataContract:
    return learn_contract(rows, Data(source="made", target=target, **data), SETTINGS)


def mixed(count: int = 600, seed: int = 0) -> pd.DataFrame:
    """Make rows a model can learn from: gaps in every kind of column, and names beyond ASCII."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "nummer": np.arange(count),
            "größe": random.normal(170, 10, count),
            "alter": random.integers(18, 90, count).astype(float),
            "<b>Bär</b>": [value < 0.5 if value < 0.9 else None for value in random.random(count)],
            "städte": random.choice(["Köln", "Łódź", "München", "Århus & Co", "東京"], count),
            "seit": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 1000, count), "D"),
        }
    )
    logit = (rows["größe"] - 170) / 5 + (rows["städte"] == "Köln") * 2 + (rows["seit"].dt.month > 6) - 1
    noisy = logit + random.logistic(size=count)
    rows["art"] = pd.cut(noisy, [-np.inf, -1, 1, np.inf], labels=["klein", "mittel", "groß"]).astype(str)
    rows["ja"] = np.where(noisy > 0, "ja", "nein")
    rows["preis"] = noisy * 1000
    for column in ("größe", "alter", "städte", "seit"):
        rows[column] = rows[column].where(random.random(count) > 0.1)
    return rows


def recipe(target: str = "ja", **model: Any) -> Recipe:
    """Return what to learn from `mixed` rows, by a small tree unless told otherwise."""
    others = [name for name in ("ja", "art", "preis") if name != target]
    data = {"source": "made", "target": target, "id": ["nummer"], "drop": others}
    tree = "DecisionTreeRegressor" if target == "preis" else "DecisionTreeClassifier"
    small = {"estimator": f"sklearn.tree.{tree}", "params": {"min_samples_leaf": 20}, "folds": 3}
    return Recipe.model_validate({"name": "kreuz_und_quer", "data": data, "model": small | model})


def trained(rows: pd.DataFrame, wanted: Recipe) -> tuple[Bundle, pd.DataFrame]:
    """Train as the pipeline does; return the bundle and the holdout rows."""
    rule = resolve(rows, wanted.data, wanted.split)
    held_out = rule.held_out(rows)
    train_rows, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    return train(train_rows, learn_contract(train_rows, wanted.data, wanted.contract), rule, wanted), holdout
