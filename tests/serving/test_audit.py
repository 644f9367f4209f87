"""The service marks the predictions that are to be labelled, and lists those without a label."""

import csv
import io
import json
import threading
from pathlib import Path

import pytest
from servers import breast_cancer, in_process, request_rows

from loop.log.labels import audit_table, write_labels
from loop.log.records import in_audit
from loop.serving.app import AUDIT, MOST_AUDITED

CSV = {"content-type": "text/csv"}
SHARE = 0.3


def test_answers_mark_the_predictions_of_the_sample_and_each_is_listed_until_it_has_a_label(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 60)
    label = breast_cancer().bundle.card.contract.classes[1]
    with in_process(tmp_path, breast_cancer(), audit=SHARE) as (_, client):
        assert client.get("/audit").json() == {"share": SHARE, "waiting": 0, "ids": []}
        answers = [client.post("/predict", json=part).json() for part in (rows[:30], rows[30:])]
        invoked = client.post("/invocations", json={"dataframe_records": rows}).json()
        for answer in (*answers, invoked):
            assert answer["audit"] == in_audit(answer["ids"], SHARE).tolist()
        chosen = [
            {name for name, mark in zip(answer["ids"], answer["audit"], strict=True) if mark}
            for answer in (*answers, invoked)
        ]
        assert 0 < len(chosen[0]) < 30
        found = client.get("/audit").json()
        assert (found["waiting"], set(found["ids"])) == (len(set.union(*chosen)), set.union(*chosen))
        assert set(found["ids"][: len(chosen[2])]) == chosen[2]  # the newest first
        table, _ = audit_table(str(tmp_path / "log"), [], SHARE)
        assert set(table["prediction_id"]) == set(found["ids"])

        listed = client.get("/audit_csv")
        assert listed.headers["content-type"] == "text/csv"
        assert listed.text.splitlines() == ["prediction_id,label", *(f"{name}," for name in found["ids"])]
        first, *others = found["ids"]
        filled = f"prediction_id,label\n{first},{label}\n"
        assert client.post("/feedback_csv", content=filled, headers=CSV).text.splitlines()[1].startswith("1,0,")
        write_labels(str(tmp_path / "log"), "breast_cancer", [(others[0], label)])  # as --labels does
        assert client.get("/audit").json()["ids"] == others[1:]
        assert client.head("/audit").content == b""


def test_a_csv_of_predictions_has_a_column_of_marks(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 40)
    rows[3] = {**rows[3], next(iter(rows[3])): None}
    body = io.StringIO()
    writer = csv.DictWriter(body, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with in_process(tmp_path, breast_cancer(), audit=SHARE, bad_rows="answer_others") as (_, client):
        answer = client.post("/predict_csv", content=body.getvalue(), headers=CSV)
    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert list(found[0]) == ["id", "score", "label", "audit", "error"]
    assert (found[3]["audit"], found[3]["error"] != "") == ("", True)
    good = [row for row in found if not row["error"]]
    marks = in_audit([row["id"] for row in good], SHARE)
    assert [row["audit"] for row in good] == ["true" if mark else "false" for mark in marks]


def test_a_list_longer_than_a_thousand_is_cut_and_says_how_many_wait(tmp_path: Path) -> None:
    with in_process(tmp_path, breast_cancer(), audit=1.0) as (_, client):
        for _ in range(3):
            newest = client.post("/predict", json=request_rows(breast_cancer(), 500)).json()["ids"]
        found = client.get("/audit").json()
        assert (found["waiting"], len(found["ids"])) == (1500, MOST_AUDITED)
        assert set(found["ids"][:500]) == set(newest)
        assert len(client.get("/audit_csv").text.splitlines()) == 1 + MOST_AUDITED


@pytest.mark.parametrize("path", AUDIT)
def test_without_a_sample_nothing_is_marked_and_nothing_listed(tmp_path: Path, path: str) -> None:
    with in_process(tmp_path, breast_cancer()) as (_, client):
        answer = client.post("/predict", json=request_rows(breast_cancer(), 2))
        assert list(answer.json()) == ["version", "ids", "scores", "labels"]
        assert "audit" not in json.dumps(client.get("/openapi.json").json()["components"])
        listed = client.get(path)
    empty = {"/audit": '{"share":0.0,"waiting":0,"ids":[]}', "/audit_csv": "prediction_id,label\n"}
    assert listed.text == empty[path]


def test_the_log_is_read_beside_the_loop_that_answers_and_counts_as_under_way(tmp_path: Path) -> None:
    seen = []

    def look() -> bytes:
        seen.append((threading.current_thread() is threading.main_thread(), app._busy))
        return b"{}"

    with in_process(tmp_path, breast_cancer(), audit=SHARE) as (app, client):
        app._gets["/audit"] = look
        assert client.get("/audit").status_code == 200
    assert seen == [(False, 1)]
