"""Labels by the ids a business has: by CSV to the server, and from a file."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from servers import Model, in_process, model

from loop.config import Serving
from loop.log.labels import read_label_table, write_labels
from loop.log.own_ids import TAKEN_FOR, OwnIds
from loop.log.records import RecordWriter, prediction_line, read_labels
from loop.serving.schema import Refused, Schema

CSV, JSON = {"content-type": "text/csv"}, {"content-type": "application/json"}
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Train on customers with an id of their own, spelt with zeros before it."""
    random, path = np.random.default_rng(0), tmp_path_factory.mktemp("shop") / "shop.csv"
    rows = pd.DataFrame({"customer": [f"{n:05}" for n in range(400)], "spend": random.normal(50, 10, 400).round(2)})
    rows["churned"] = np.where(rows["spend"] + random.normal(0, 5, 400) > 50, "yes", "no")
    rows.to_csv(path, index=False)
    changes = (
        f"data.source={path}", "data.target=churned", "data.positive=null", "data.id=[customer]", "name=shop",
    )  # fmt: skip
    return model("breast_cancer", *changes)


@pytest.fixture
def client(shop: Model, tmp_path: Path) -> Iterator[httpx.Client]:
    with in_process(tmp_path, shop) as (_, client):
        yield client


def predict(client: httpx.Client, *customers: str) -> list[str]:
    rows = [{"customer": customer, "spend": 50.0} for customer in customers]
    answer = client.post("/predict", content=json.dumps(rows), headers=JSON)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["ids"])


def labels(tmp_path: Path) -> dict[str, Any]:
    found = read_labels(tmp_path / "log/labels")
    return dict(zip(found["prediction_id"], found["label"], strict=True))


def test_a_csv_of_labels_by_own_ids_is_taken_for_the_newest_prediction_of_each(
    client: httpx.Client, tmp_path: Path
) -> None:
    predict(client, "00007", "00008")
    newest = predict(client, "00007")
    body = "segment,customer,churned\nold,00007,yes\nnew,99999,no\n"
    answer = client.post("/feedback_csv", content=body, headers=CSV)
    assert answer.status_code == 200, answer.text
    assert answer.text == f'accepted,unknown,taken_for\n1,1,"{TAKEN_FOR}"\n'
    assert labels(tmp_path) == {newest[0]: "yes"}
    later = predict(client, "99999")
    assert client.post("/feedback_csv", content=body, headers=CSV).text.splitlines()[1].startswith("2,0,")
    assert labels(tmp_path) == {newest[0]: "yes", later[0]: "no"}


def test_semicolons_and_prediction_ids_are_taken_too(client: httpx.Client, tmp_path: Path) -> None:
    (first,) = predict(client, "00007")
    answer = client.post("/feedback_csv", content=f"prediction_id;label\n{first};no\n", headers=CSV)
    assert answer.text.splitlines()[1] == "1,0,the prediction of each id"
    assert labels(tmp_path) == {first: "no"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("customer,churned\n00007,maybe\n", "label 1: 'churned' needs one of no, yes, it is 'maybe'"),
        ("customer,churned\n,yes\n", "label 1 has no customer"),
        ("customer,churned\n00007\n", "label 1 needs 2 cells, as many as the header, it has 1"),
        ("name,churned\nx,yes\n", "labels need the columns 'customer' or 'prediction_id', and 'churned' or 'label'; "),
        ("customer,churned,date\n7,yes,soon\n", "label 1: 'date' needs ISO 8601, it is 'soon'"),
        ("id,label\n7,yes\n", "label 1: '7' is not a prediction id, such as"),
        ("customer,churned\n", "the body needs at least one label, it holds none"),
    ],
)
def test_a_csv_of_labels_is_refused_in_one_sentence(client: httpx.Client, body: str, said: str) -> None:
    answer = client.post("/feedback_csv", content=body, headers=CSV)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(said)


def test_hashed_ids_find_their_prediction_and_omitted_ones_cannot(shop: Model, tmp_path: Path) -> None:
    body = "customer,churned\n00007,yes\n"
    with in_process(tmp_path, shop, hash_key="k" * 64, personal={"customer": "hash"}) as (_, client):
        (first,) = predict(client, "00007")
        assert client.post("/feedback_csv", content=body, headers=CSV).text.splitlines()[1].startswith("1,0,")
    assert labels(tmp_path) == {first: "yes"}
    with in_process(tmp_path / "other", shop, personal={"customer": "omit"}) as (_, client):
        answer = client.post("/feedback_csv", content=body, headers=CSV)
    assert (answer.status_code, "serving.personal" in answer.json()["error"]) == (422, True)


def test_a_dated_label_belongs_to_the_newest_prediction_before_its_date(tmp_path: Path) -> None:
    header = {"kind": "predictions", "model": "m", "version": 1, "columns": ["x", "customer"], "classes": ["a", "b"]}
    writer = RecordWriter(tmp_path, header)
    for day in range(3):
        at = NOON + timedelta(days=day)
        writer.append(prediction_line(f"00000000000{day}-000000", at, [[1.0, 7], [1.0]], [0.5, 0.5], ["a", "a"]), at)
    writer.close()
    own = OwnIds(tmp_path, ["customer"])
    key, noon = ("7",), NOON.replace(tzinfo=None)
    asked = [(key, "b", None), (key, "a", noon + timedelta(days=1, hours=1)), (key, "a", noon - timedelta(hours=1))]
    assert own.resolve(asked) == ([("000000000001-000000-0", "a"), ("000000000002-000000-0", "b")], 1)


def test_of_two_labels_for_one_prediction_the_later_date_counts(client: httpx.Client, tmp_path: Path) -> None:
    (first,) = predict(client, "00007")
    body = "customer,churned,date\n00007,yes,2098-01-01\n00007,no,2097-01-01\n"
    client.post("/feedback_csv", content=body, headers=CSV)
    assert labels(tmp_path) == {first: "yes"}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_of_labels_is_read_as_the_table_is(shop: Model, tmp_path: Path, ending: str) -> None:
    card = shop.bundle.card
    table = pd.DataFrame({"customer": ["00007", "00008"], "churned": ["yes", "no"], "date": ["2026-11-24", None]})
    path = tmp_path / f"labels.{ending}"
    if ending == "csv":
        table.to_csv(path, index=False, sep=";")
    else:
        table.to_parquet(path)
    names, found = Schema(card, Serving()).label_table(*read_label_table(path, card.recipe.data, card.contract))
    assert names == ("customer",)
    assert found == [(("00007",), "yes", datetime(2026, 11, 24)), (("00008",), "no", None)]
    write_labels(str(tmp_path / "log"), "shop", [("000000000001-000000-0", "yes")])
    assert labels(tmp_path) == {"000000000001-000000-0": "yes"}


def test_numbers_are_labels_of_a_regression() -> None:
    card = model(
        "breast_cancer", "data.source=sklearn:diabetes", "data.target=progression", "data.positive=null",
        "model.threshold={}", "model.estimator=sklearn.linear_model.Ridge", "model.params={}",
    ).bundle.card  # fmt: skip
    schema, key = Schema(card, Serving()), "9f86d081884c-7d659a2feaa0-0"
    assert schema.label_table(["id", "progression"], [[key, "1.5"]]).found == [((key,), 1.5, None)]
    with pytest.raises(Refused, match="label 1: 'progression' needs a number, it is 'many'"):
        schema.label_table(["id", "progression"], [[key, "many"]])
