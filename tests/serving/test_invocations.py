"""Clients of `mlflow models serve` are answered as it answers them, by the scores of /predict."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from servers import TOKEN, Model, breast_cancer, in_process, model, request_rows

from loop.log.records import read_predictions, read_refusals

OTHERS = {
    "multiclass": ("data.source=sklearn:wine", "data.target=class", "data.positive=null", "model.threshold={}"),
    "regression": (
        "data.source=sklearn:diabetes", "data.target=progression", "data.positive=null", "model.threshold={}",
        "model.estimator=sklearn.linear_model.Ridge", "model.params={}",
    ),
}  # fmt: skip


def fraud() -> Model:
    return model("fraud", "data.rows=1500", "model.params.max_iter=5", "model.folds=2")


def other(name: str) -> Model:
    return breast_cancer() if name == "binary" else model("breast_cancer", *OTHERS[name])


def formats(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return rows in every shape that MLflow's four formats have."""
    names, lines = list(rows[0]), [list(row.values()) for row in rows]
    return {
        "split": {"dataframe_split": {"columns": names, "index": [*range(len(rows))], "data": lines}},
        "split, another order": {"dataframe_split": {"columns": names[::-1], "data": [line[::-1] for line in lines]}},
        "records": {"dataframe_records": rows, "params": {"unknown": 1}},
        "instances, rows": {"instances": rows},
        "instances, columns": {"instances": pd.DataFrame(rows).to_dict(orient="list")},
        "inputs, rows": {"inputs": rows},
        "inputs, columns": {"inputs": pd.DataFrame(rows).to_dict(orient="list")},
    }


@pytest.mark.parametrize("name", ["binary", *OTHERS])
def test_answers_as_mlflow_models_serve_does_with_the_scores_of_predict(tmp_path: Path, name: str) -> None:
    import mlflow
    import skops.io
    from mlflow.pyfunc.scoring_server import invocations

    trained, rows = other(name), request_rows(other(name), 30)
    pipeline, card = trained.bundle.pipeline, trained.bundle.card
    mlflow.sklearn.save_model(
        pipeline, tmp_path / "mlflow", pip_requirements=[], pyfunc_predict_fn="predict",
        signature=mlflow.models.infer_signature(trained.holdout[list(card.contract.features)].astype(float)),
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(pipeline)),
    )  # fmt: skip
    pyfunc = mlflow.pyfunc.load_model(str(tmp_path / "mlflow"))
    with in_process(tmp_path, trained) as (_, client):
        if name == "binary":  # MLflow does not know the threshold
            scores = client.post("/predict", json=rows).json()["scores"]
            rows = [row for row, at in zip(rows, scores, strict=True) if (at >= 0.5) == (at >= card.threshold)]
        plain = client.post("/predict", json=rows).json()
        bodies = {**formats(rows), "CSV": pd.DataFrame(rows).to_csv(index=False)}
        for shape, body in bodies.items():
            media, text = (
                ("text/csv", body) if shape == "CSV" else ("application/json; charset=utf-8", json.dumps(body))
            )
            answer = client.post("/invocations", content=text, headers={"content-type": media})
            assert answer.headers["content-type"] == "application/json"
            ours = answer.json()
            assert (ours["scores"], ours["labels"]) == (plain["scores"], plain["labels"]), shape
            theirs = invocations(text, media, pyfunc, pyfunc.metadata.get_input_schema())
            expected = json.loads(theirs.response)["predictions"]
            if name == "regression":
                np.testing.assert_allclose(ours["predictions"], expected)
            else:
                assert ours["predictions"] == expected, shape
                assert [card.contract.classes[place] for place in expected] == plain["labels"]
    logged = read_predictions(tmp_path / "log/predictions")
    assert logged["prediction_id"].tolist()[-len(rows) :] == ours["ids"]
    assert len(logged) == (len(bodies) + 1) * len(rows) + (30 if name == "binary" else 0)


def test_gaps_times_and_texts_of_a_data_frame_arrive_as_they_do_at_predict(tmp_path: Path) -> None:
    from mlflow.utils.proto_json_utils import dump_input_data

    rows = request_rows(fraud(), 200)
    rows[0] |= {"distance_km": None}
    frame = pd.DataFrame(rows).assign(card_since=lambda found: pd.to_datetime(found["card_since"]))
    body = dump_input_data(frame)
    assert "NaN" in body  # as Python writes a gap, and JSON does not
    with in_process(tmp_path, fraud()) as (_, client):
        expected = client.post("/predict", json=rows).json()
        answer = client.post("/invocations", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["scores"] == expected["scores"]
    logged = read_predictions(tmp_path / "log/predictions").drop(columns=["prediction_id", "prediction_time"])
    pd.testing.assert_frame_equal(logged[:200], logged[200:].reset_index(drop=True))


BROKEN: dict[str, tuple[Any, int, str]] = {
    "no object": ([], 422, "needs an object with one of dataframe_split, dataframe_records, instances, inputs"),
    "no format": ({"rows": []}, 422, "it has none"),
    "two formats": ({"instances": [], "inputs": []}, 422, "it has instances and inputs"),
    "no row": ({"inputs": []}, 422, "at least one row"),
    "no column": ({"inputs": {}}, 422, "is missing"),
    "a number": ({"inputs": 1}, 422, "row 1 needs an object"),
    "columns of other lengths": ({"inputs": {"amount": [1], "hour": [1, 2]}}, 422, "they have 1 to 2"),
    "a column twice": ({"dataframe_split": {"columns": ["hour", "hour"], "data": []}}, 422, "names 'hour' twice"),
    "another column": ({"dataframe_split": {"columns": ["hours"], "data": [[1]]}}, 422, "did you mean 'hour'?"),
    "a short line": ({"dataframe_split": {"columns": ["hour"], "data": [[1], []]}}, 422, "row 2 needs 1 cells"),
    "another key": ({"dataframe_split": {"columns": ["hour"], "data": [], "rows": 1}}, 422, "'rows'"),
    "broken JSON": ('{"inputs": [', 400, "not JSON"),
    "deep nesting": ('{"inputs": ' + "[" * 20_000, 400, "too deep"),
    "an open text": ('{"inputs": "NaN' + '\\"' * 100_000, 400, "not JSON"),
}


def test_what_is_none_of_the_formats_or_breaks_the_contract_is_refused_and_on_record(tmp_path: Path) -> None:
    row = request_rows(fraud(), 1)[0]
    json_media = {"content-type": "application/json"}
    with in_process(tmp_path, fraud()) as (_, client):
        for fault, (body, status, words) in BROKEN.items():
            text = body if isinstance(body, str) else json.dumps(body)
            answer = client.post("/invocations", content=text, headers=json_media)
            assert (answer.status_code, words in answer.json()["error"]) == (status, True), (fault, answer.text)
        text = json.dumps({"inputs": [row | {"country": '"NaN\\', "distance_km": float("nan")}]})
        answer = client.post("/invocations", content=text, headers=json_media)
        came = f"it is {json.loads(text)['inputs'][0]['country']!r} (serving.unseen_category governs this)"
        assert answer.json()["error"].endswith(came)
        for shape, body in formats([row, row | {"amount": float("-inf")}]).items():
            answer = client.post("/invocations", content=json.dumps(body), headers=json_media)
            assert answer.status_code == 422
            assert "row 2: 'amount' needs a number" in answer.json()["error"], shape
            assert answer.json()["error"].endswith("it is -Infinity (data.kinds governs this)")
        answer = client.post("/invocations", content=b"", headers={"content-type": "application/vnd.apache.parquet"})
        assert answer.status_code == 415
        assert answer.json()["error"] == "/invocations takes application/json or text/csv"
    assert read_predictions(tmp_path / "log/predictions").empty
    refusals = read_refusals(tmp_path / "log/refusals")
    assert set(refusals["path"]) == {"/invocations"}
    assert refusals["field"].tolist()[-8:] == ["country", *["amount"] * 7]


def test_probes_of_mlflow_need_no_token_and_invocations_does(tmp_path: Path) -> None:
    row = request_rows(breast_cancer(), 1)[0]
    with in_process(tmp_path, breast_cancer(), token=TOKEN) as (app, client):
        assert [client.get(path).text for path in ("/ping", "/health")] == ["\n", "\n"]
        assert client.post("/invocations", json={"inputs": [row]}).status_code == 401
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/invocations", json={"inputs": [row]}, headers=bearer).status_code == 200
        app.draining = True
        assert client.get("/ping").status_code == 503
