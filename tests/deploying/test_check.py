"""What is checked of a model before it gets traffic, and before it is promoted."""

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from servers import HASH_KEY, TOKEN, Model, in_process, running

from loop.config import Data, Recipe, Serving
from loop.data.contract import learn_contract
from loop.data.split import resolve
from loop.deploying.check import admitted, check_server, undeployable
from loop.log.records import read_predictions
from loop.serving.release import Served, check_secret
from loop.serving.schema import Schema
from loop.training.compiled import TOLERANCE
from loop.training.fit import train

COUNT = 400
BIG = 9_007_199_254_760_001


def rows(more: str | None) -> pd.DataFrame:
    """Make rows with a column of each kind, and of each way in which a source may hold it."""
    random = np.random.default_rng(0)
    chance = random.random(COUNT)
    return pd.DataFrame(
        {
            "id": np.arange(COUNT) + BIG,
            "when": pd.date_range("2025-01-01", periods=COUNT, freq="h").as_unit("us"),
            "note": [f"note {place}" for place in range(COUNT)],
            "fixed": True,
            "smoker": chance < 0.5,
            "ill": pd.array([None if value > 0.9 else value < 0.4 for value in chance], "boolean"),
            "member": random.random(COUNT) < 0.5,
            "plan": random.choice(["true", "false"], COUNT),
            "code": random.choice(["007", "12", "NA"], COUNT),
            "rank": random.integers(1, 4, COUNT),
            "level": random.choice([1.0, 2.5, np.nan], COUNT),
            "since": pd.Timestamp("2020-01-01").as_unit("us") + pd.to_timedelta(random.integers(0, 999, COUNT), "D"),
            "size": random.normal(size=COUNT),
            "label": random.choice(["a", "b"], COUNT),
            'naïve "x"': random.normal(size=COUNT),
            "two\nlines": random.integers(0, 9, COUNT),
            "y": np.where(chance + random.normal(0, 0.2, COUNT) < 0.5, "yes\r", "no"),
            **({} if more is None else {more: 1.5 * np.arange(COUNT)}),
        }
    )


@cache
def trained(more: str | None = None) -> Model:
    kinds = dict.fromkeys(("member", "rank", "level"), "categorical")
    data = Data(source="made", target="y", positive="yes\r", id=("id",), time="when", kinds=kinds)
    tree = {"estimator": "sklearn.tree.DecisionTreeClassifier", "params": {"min_samples_leaf": 20}, "folds": 3}
    recipe = Recipe.model_validate({"name": "kinds", "data": data, "model": tree})
    table = rows(more)
    rule = resolve(table, data, recipe.split)
    held_out = rule.held_out(table)
    train_rows, holdout = (table[side].reset_index(drop=True) for side in (~held_out, held_out))
    return Model(train(train_rows, learn_contract(train_rows, data, recipe.contract), rule, recipe), holdout)


def test_rows_are_sent_as_the_source_holds_them() -> None:
    found = admitted(Schema(trained().bundle.card, Serving()), trained().holdout)
    assert found.left_out < 10
    sent, table = found.sent[0], found.table.iloc[0]
    assert (sent["smoker"], sent["member"], sent["fixed"]) == (bool(table["smoker"]), bool(table["member"]), True)
    assert {type(row["ill"]) for row in found.sent} == {bool, type(None)}
    assert sent["id"] == table["id"] >= BIG
    assert (sent["since"], sent["when"]) == (table["since"].isoformat(), table["when"].isoformat())
    assert [sent[name] for name in ("plan", "code", "rank")] == [table["plan"], table["code"], table["rank"]]
    assert "y" not in sent
    assert len(found.sent) == len(found.values) == len(found.table)


def test_a_model_with_every_kind_of_column_can_be_deployed() -> None:
    assert undeployable(*trained(), Serving()) is None


def test_says_why_a_model_could_not_be_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, holdout = trained()
    said = undeployable(bundle, holdout.assign(size=1e9), Serving())
    assert said is not None
    assert said.startswith(f"none of {len(holdout)} holdout rows is within the contract, so nothing can be checked: ")
    assert ": 'size' needs a number from" in said
    said = undeployable(bundle, holdout, Serving(personal={"sise": "omit"}))
    assert "no column 'sise'" in str(said)
    said = undeployable(*trained("prediction_score"), Serving())
    assert said == "column 'prediction_score' has a name that the prediction log needs itself; rename it"
    taken = Schema.rows

    def others(self: Schema, body: bytes) -> list[Any]:
        place = self.columns.index("smoker")
        return [(*row[:place], not row[place], *row[place + 1 :]) for row in taken(self, body)]

    monkeypatch.setattr(Schema, "rows", others)
    assert "would score holdout rows otherwise, by up to" in str(undeployable(bundle, holdout, Serving()))


def test_any_column_is_served_checked_and_logged(tmp_path: Path) -> None:
    model = trained()
    with running(tmp_path, model, token=TOKEN) as server:
        served = Served(tmp_path / "v1/release")
        secret = check_secret(HASH_KEY, served.release.hash)
        check = check_server(server.url.removeprefix("http://"), served, model.holdout, TOKEN, secret)
        assert check.difference <= TOLERANCE
        assert check.rows > 50
        found = admitted(Schema(model.bundle.card, Serving()), model.holdout)
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            answer = client.post("/predict", json=found.sent).json()
            np.testing.assert_allclose(answer["scores"], model.bundle.scores(found.table), atol=TOLERANCE)
            page = client.get("/openapi.json").json()
            metrics = client.get("/metrics").text
    assert set(page["components"]["schemas"]["Row"]["properties"]) == set(found.sent[0])
    assert r'field="naïve \"x\""' in metrics
    assert r'field="two\nlines"' in metrics
    logged = read_predictions(server.log / "predictions")
    assert logged["id"].tolist() == found.table["id"].tolist()
    for name in ("smoker", "label", 'naïve "x"', "two\nlines"):
        assert logged[name].tolist() == found.table[name].tolist()


def test_the_log_holds_what_a_value_means_however_it_was_spelt(tmp_path: Path) -> None:
    model = trained()
    found = admitted(Schema(model.bundle.card, Serving()), model.holdout)
    known = {"member": True, "plan": "true", "level": 1}
    plain = next(row for row in found.sent if row["ill"] is not None and row.items() >= known.items())
    more = {"ill": "", "id": str(plain["id"]), "level": "1.0"}
    odd = plain | {"member": "TRUE", "plan": True, "rank": float(plain["rank"]), **more}
    names = list(Schema(model.bundle.card, Serving()).columns)
    with in_process(tmp_path, model) as (_, client):
        as_array = [[row[name] for name in names] for row in (plain | {"ill": None}, odd)]
        answers = [client.post("/predict", json=[plain | {"ill": None}, odd]), client.post("/predict", json=as_array)]
    for answer in answers:
        assert len(set(answer.json()["scores"])) == 1
    logged = read_predictions(tmp_path / "log/predictions")
    assert logged["ill"].isna().all()
    for name in ("id", "rank", "plan", "level"):
        assert logged[name].nunique() == 1
    assert {str(value) for value in logged["member"]} == {"True"}


def test_a_label_that_ends_in_a_carriage_return_is_one_cell(tmp_path: Path) -> None:
    found = admitted(Schema(trained().bundle.card, Serving()), trained().holdout)
    with in_process(tmp_path, trained()) as (_, client):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(found.sent[0]))
        writer.writeheader()
        writer.writerows(found.sent)
        answer = client.post("/predict_csv", content=text.getvalue(), headers={"content-type": "text/csv"})
        named = client.post("/predict", json=found.sent).json()
    lines = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [line["label"] for line in lines] == named["labels"]
    assert set(named["labels"]) == {"no", "yes\r"}
    assert [float(line["score"]) for line in lines] == named["scores"]
