"""Requests of which some rows, or some columns, are not as the contract has them."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from servers import Model, breast_cancer, in_process, request_rows

from loop.log.records import LogUnavailable, read_predictions, read_refusals
from loop.training.bundle import Bundle

JSON, CSV = {"content-type": "application/json"}, {"content-type": "text/csv"}


def twenty() -> tuple[list[dict[str, Any]], list[str]]:
    """Return rows of which two are bad, and the columns."""
    rows = [dict(row) for row in request_rows(breast_cancer(), 20)]
    names = list(rows[0])
    rows[3][names[0]] = 1e9
    rows[7][names[1]] = "tall"
    return rows, names


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return pd.DataFrame(rows).to_csv(index=False).encode()


def asked(client: Any, path: str, rows: list[dict[str, Any]]) -> Any:
    if path == "/predict_csv":
        return client.post(path, content=as_csv(rows), headers=CSV)
    body = {"dataframe_records": rows} if path == "/invocations" else rows
    return client.post(path, content=json.dumps(body), headers=JSON)


@pytest.mark.parametrize("path", ["/predict", "/predict_csv", "/invocations"])
def test_the_good_rows_are_answered_where_the_config_says_so(path: str, tmp_path: Path) -> None:
    rows, names = twenty()
    good = [row for place, row in enumerate(rows) if place not in (3, 7)]
    with in_process(tmp_path, breast_cancer(), bad_rows="answer_others") as (_, client):
        expected = client.post("/predict", content=json.dumps(good), headers=JSON).json()["scores"]
        answer = asked(client, path, rows)
    assert answer.status_code == 200, answer.text
    if path == "/predict_csv":
        lines = list(csv.DictReader(io.StringIO(answer.text)))
        scores = [float(line["score"]) if line["score"] else None for line in lines]
        errors, ids = [line["error"] or None for line in lines], [line["id"] or None for line in lines]
    else:
        said = answer.json()
        scores, errors, ids = said["scores"], said["errors"], said["ids"]
        if path == "/invocations":
            assert [said["predictions"][place] for place in (3, 7)] == [None, None]
    assert [place for place, error in enumerate(errors) if error] == [3, 7]
    assert errors[3].startswith(f"row 4: '{names[0]}' needs a number from")
    assert errors[7].startswith(f"row 8: '{names[1]}' needs a number from")
    assert [score for score in scores if score is not None] == expected
    assert [place for place, score in enumerate(scores) if score is None] == [3, 7]
    kept = read_predictions(tmp_path / "log/predictions")
    assert [name for name in ids if name] == kept["prediction_id"].tolist()[-18:]
    refused = read_refusals(tmp_path / "log/refusals")
    assert refused[["path", "field", "rule", "rows", "answered"]].values.tolist() == [
        [path, names[0], "out_of_range", 1, 18],
        [path, names[1], "wrong_type", 1, 18],
    ]


def test_a_log_that_takes_no_refusals_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_process(tmp_path, breast_cancer(), bad_rows="answer_others") as (app, client):

        def full(*_: Any) -> None:
            raise LogUnavailable("no space")

        monkeypatch.setattr(app._refusals, "append", full)
        answer = asked(client, "/predict", twenty()[0])
        assert answer.status_code == 200, answer.text
        assert len([error for error in answer.json()["errors"] if error]) == 2
        assert re.search(r"^serving_log_errors_total\{.*\} 1.0$", client.get("/metrics").text, re.M)


def test_by_default_one_bad_row_refuses_its_request_and_all_its_rows_are_counted(tmp_path: Path) -> None:
    rows, names = twenty()
    with in_process(tmp_path, breast_cancer()) as (_, client):
        for path in ("/predict", "/predict_csv"):
            assert asked(client, path, rows).status_code == 422
    refused = read_refusals(tmp_path / "log/refusals")
    assert refused[["field", "rows", "answered"]].values.tolist() == [[names[0], 20, 0]] * 2
    assert read_predictions(tmp_path / "log/predictions").empty


def test_a_request_without_one_good_row_is_refused_all_the_same(tmp_path: Path) -> None:
    bad = [{**row, "mean radius": 1e9} for row in request_rows(breast_cancer(), 3)]
    with in_process(tmp_path, breast_cancer(), bad_rows="answer_others") as (_, client):
        answer = client.post("/predict", content=json.dumps(bad), headers=JSON)
    assert (answer.status_code, answer.json()["error"][:6]) == (422, "row 1:")
    assert read_refusals(tmp_path / "log/refusals")["rows"].tolist() == [3]


@pytest.mark.parametrize("path", ["/predict", "/predict_csv", "/invocations"])
def test_an_unknown_column_is_left_unread_and_told_where_the_config_says_so(path: str, tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 2)
    more = [{**row, "größe": 7} for row in rows]
    with in_process(tmp_path, breast_cancer(), extra_columns="accept") as (_, client):
        plain, told = asked(client, path, rows), asked(client, path, more)
    assert "x-ignored-columns" not in plain.headers
    assert told.status_code == 200, told.text
    assert told.headers["x-ignored-columns"] == "gr%C3%B6%C3%9Fe"
    assert "deprecation" not in told.headers
    if path != "/predict_csv":
        assert told.json()["scores"] == plain.json()["scores"]


def test_an_unknown_column_of_a_split_table_is_told_too(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 2)
    split = {"columns": [*rows[0], "extra"], "data": [[*row.values(), 1] for row in rows]}
    with in_process(tmp_path, breast_cancer(), extra_columns="accept") as (_, client):
        answer = client.post("/invocations", content=json.dumps({"dataframe_split": split}), headers=JSON)
    assert (answer.status_code, answer.headers["x-ignored-columns"]) == (200, "extra")


def test_a_column_that_an_earlier_version_used_is_still_taken_and_told_to_be_deprecated(tmp_path: Path) -> None:
    bundle, holdout = breast_cancer()
    contract = bundle.card.contract.model_copy(update={"left_out": {**bundle.card.contract.left_out, "plan": "gone"}})
    after = Model(Bundle(bundle.card.model_copy(update={"contract": contract}), bundle.model_file), holdout)
    rows = request_rows(after, 2)
    with in_process(tmp_path, after) as (app, client):
        plain = client.post("/predict", content=json.dumps(rows), headers=JSON)
        for path in ("/predict", "/predict_csv", "/invocations"):
            old = asked(client, path, [{**row, "plan": "pro"} for row in rows])
            assert (old.status_code, old.headers["x-ignored-columns"]) == (200, "plan"), old.text
            assert old.headers["deprecation"] == f"@{int(app.release.promoted.timestamp())}"
        assert client.get("/model").json()["gone"] == ["plan"]
    assert "deprecation" not in plain.headers
    assert "plan" not in read_predictions(tmp_path / "log/predictions")
