"""What the HTTP API promises: one score on every way in, refusals in one sentence, and every answer on record."""

import csv
import io
import json
import pickle
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from scipy.special import logit
from servers import HASH_KEY, TOKEN, Model, Running, breast_cancer, fraud, in_process, model, request_rows, running
from sklearn.preprocessing import FunctionTransformer

from loop.config import ROOT, Feedback, Serving, UserError
from loop.data.table import as_features
from loop.log.records import read_labels, read_predictions, read_refusals
from loop.serving.app import GETS, INLINE_ROWS, OPEN, POSTS
from loop.serving.openapi import EXAMPLE_ID
from loop.serving.release import check_secret
from loop.serving.schema import Refused, Schema
from loop.training.bundle import Bundle, pickled, sha256
from loop.training.compiled import TOLERANCE, as_values
from loop.watching.feedback import join_labels

BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON, CSV = {"content-type": "application/json"}, {"content-type": "text/csv"}
TIGHT = {"max_concurrency": 2, "timeout_seconds": 2.0, "max_bytes": 50_000}
KEY = "k" * 64
SECONDS = 30

# Models of this process, where a server would add nothing.
OTHERS = {
    "multiclass": ("data.source=sklearn:wine", "data.target=class", "data.positive=null", "model.threshold={}"),
    "regression": (
        "data.source=sklearn:diabetes", "data.target=progression", "data.positive=null", "model.threshold={}",
        "model.estimator=sklearn.linear_model.Ridge", "model.params={}",
    ),
    "not in ONNX": ("model.estimator=sklearn.neighbors.NearestCentroid", "model.params={}"),
}  # fmt: skip


RUNTIMES = {"not in ONNX": "numpy", "not compiled": "scikit-learn"}


def other(name: str) -> Model:
    if name != "not compiled":
        return model("breast_cancer", *OTHERS[name])
    bundle, holdout = breast_cancer()
    pipeline = pickle.loads(bundle.model_file)
    pipeline.steps.insert(1, ("same", FunctionTransformer()))
    content = pickled(pipeline)
    return Model(Bundle(bundle.card.model_copy(update={"model": sha256(content)}), content), holdout)


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("cancer"), breast_cancer()) as server:
        yield server


@pytest.fixture(scope="module")
def transactions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("fraud"), fraud(), token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("tight"), breast_cancer(), **TIGHT) as server:
        yield server


@pytest.fixture
def client(cancer: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cancer.url, timeout=SECONDS) as client:
        yield client


@pytest.fixture
def teller(transactions: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=transactions.url, headers=BEARER, timeout=SECONDS) as client:
        yield client


@pytest.fixture
def served(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> Iterator[tuple[Model, httpx.Client]]:
    """Give the model of this name, and a client of its service."""
    if name == "breast_cancer":
        yield breast_cancer(), request.getfixturevalue("client")
    elif name == "fraud":
        yield fraud(), request.getfixturevalue("teller")
    else:
        with in_process(tmp_path, other(name)) as (_, client):
            yield other(name), client


def admitted(trained: Model) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return the holdout rows that the contract lets in, as JSON, and their offline scores."""
    schema, rows, places = Schema(trained.bundle.card, Serving()), [], []
    for place, values in enumerate(as_values(trained.holdout, trained.bundle.card.contract)):
        row = json.loads(json.dumps(dict(zip(schema.features, values, strict=True)), default=str))
        try:
            schema.rows(json.dumps(row).encode())
        except Refused:
            continue
        rows.append(row)
        places.append(place)
    return rows, trained.bundle.scores(trained.holdout)[places]


def table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def assert_refused(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (sentence,) = response.json().values()
    for word in words:
        assert word in sentence
    for leak in ("Traceback", ".py", "\n", str(ROOT), "/tmp"):
        assert leak not in sentence


def wait(until: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := until()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("name", ["breast_cancer", "fraud", *OTHERS, "not compiled"])
def test_a_holdout_row_has_the_offline_score_on_every_way_in(served: tuple[Model, httpx.Client], name: str) -> None:
    trained, client = served
    card = trained.bundle.card
    rows, offline = admitted(trained)
    repeats = -(-1200 // len(rows))
    rows, offline = rows * repeats, np.concatenate([offline] * repeats)
    assert len(json.dumps([list(row.values()) for row in rows])) > 100 * INLINE_ROWS  # scored in a thread

    at_once = client.post("/predict", json=rows).json()
    assert client.get("/model").json()["runtime"] == RUNTIMES.get(name, "onnx")
    one_by_one = [client.post("/predict", json=row).json() for row in rows[:100]]
    tolerance = TOLERANCE * (offline.std() if card.contract.task == "regression" else 1)
    np.testing.assert_allclose(at_once["scores"], offline, rtol=0, atol=tolerance)
    np.testing.assert_allclose([one["scores"][0] for one in one_by_one], offline[:100], rtol=0, atol=tolerance)

    arrays = client.post("/predict", json=[list(row.values()) for row in rows]).json()
    assert arrays["scores"] == at_once["scores"]
    lines = list(csv.DictReader(io.StringIO(client.post("/predict_csv", content=table(rows), headers=CSV).text)))
    shown = [max(score) if card.contract.task == "multiclass" else score for score in at_once["scores"]]
    assert [float(line["score"]) for line in lines] == shown

    decisions = None
    if card.contract.classes:
        codes = offline.argmax(axis=1) if offline.ndim == 2 else (offline >= card.threshold).astype(int)
        decisions = [card.contract.classes[code] for code in codes]
        assert [line["label"] for line in lines] == decisions
        assert [one["labels"][0] for one in one_by_one] == decisions[:100]
    assert at_once["labels"] == arrays["labels"] == decisions
    ids = [*at_once["ids"], *arrays["ids"], *(line["id"] for line in lines), *(one["ids"][0] for one in one_by_one)]
    assert len(set(ids)) == 3 * len(rows) + 100


def test_answers_asked_for_at_the_same_time_are_not_mixed_up(teller: httpx.Client) -> None:
    rows, offline = admitted(fraud())
    parts = [slice(start, start + 40) for start in range(0, 800, 40)]

    def ask(part: slice) -> list[float]:
        if part.start % 80:
            return teller.post("/predict", json=rows[part] * 10).json()["scores"][:40]
        return [teller.post("/predict", json=row).json()["scores"][0] for row in rows[part]]

    with ThreadPoolExecutor(8) as pool:
        for part, scores in zip(parts, pool.map(ask, parts), strict=True):
            np.testing.assert_allclose(scores, offline[part], rtol=0, atol=TOLERANCE)


def changed(**values: Any) -> Callable[[dict[str, Any]], str]:
    """Return a good row with other values; `...` takes a field away."""
    return lambda row: json.dumps({name: value for name, value in (row | values).items() if value is not ...})


def raw(value: str) -> Callable[[dict[str, Any]], str]:
    """Return a good row whose amount is written as given."""
    return lambda row: json.dumps(row | {"amount": "VALUE"}).replace('"VALUE"', value)


def truth(**values: Any) -> str:
    return json.dumps({"id": EXAMPLE_ID, "label": 1} | values)


# Each: path, body (or what makes it of a good row), headers, status, words of the sentence.
REFUSED: dict[str, tuple[Any, ...]] = {
    "empty body": ("/predict", b"", JSON, 400, "not JSON"),
    "broken JSON": ("/predict", lambda row: json.dumps(row)[:-1], JSON, 400, "not JSON"),
    "deep nesting": ("/predict", b"[" * 20_000, JSON, 400, "too deep"),
    "deep nesting, in a thread": ("/predict", b"[" * 200_000, JSON, 400, "too deep"),
    "invalid UTF-8": ("/predict", b'{"\xff": 1}', JSON, 400, "not UTF-8"),
    "empty list": ("/predict", b"[]", JSON, 422, "at least one row"),
    "too many rows": ("/predict", lambda row: json.dumps([row] * 10_001), JSON, 413, "10,000 rows"),
    "unknown field": ("/predict", changed(amont=1), JSON, 422, "row 1: no field 'amont'", "did you mean 'amount'?"),
    "missing field": ("/predict", changed(amount=...), JSON, 422, "row 1: field 'amount' is missing"),
    "ill-typed field": ("/predict", changed(amount="much"), JSON, 422, "row 1: 'amount' needs a number", "'much'"),
    "null where none was": ("/predict", changed(amount=None), JSON, 422, "row 1: 'amount' needs", "it is null"),
    "NaN": ("/predict", raw("NaN"), JSON, 422, "row 1: 'amount' needs", "it is NaN"),
    "Infinity": ("/predict", raw("Infinity"), JSON, 422, "row 1: 'amount' needs", "it is Infinity"),
    "-Infinity": ("/predict", raw("-Infinity"), JSON, 422, "row 1: 'amount' needs", "it is -Infinity"),
    "1e999": ("/predict", raw("1e999"), JSON, 422, "row 1: 'amount' needs", "it is Infinity"),
    "huge integer": ("/predict", raw("9" * 400), JSON, 422, "row 1: 'amount' needs"),
    "5,000 digits": ("/predict", raw("9" * 5000), JSON, 422, "row 1: 'amount' needs"),
    "out of range": ("/predict", changed(amount=-1), JSON, 422, "row 1: 'amount' needs a number from 0 to", "it is -1"),
    "unseen category": ("/predict", changed(country="mars"), JSON, 422, "row 1: 'country' needs one of home", "'mars'"),
    "no time": ("/predict", changed(card_since="soon"), JSON, 422, "row 1: 'card_since' needs a time", "'soon'"),
    "a later row": (
        "/predict", lambda row: json.dumps([row] * 999 + [row | {"hour": 99}]), JSON, 422, "row 1000: 'hour' needs",
    ),
    "wrong content type": ("/predict", changed(), {"content-type": "text/plain"}, 415, "takes application/json"),
    "content encoding": ("/predict", changed(), {**JSON, "content-encoding": "br"}, 415, "needs gzip or identity"),
    "JSON for CSV": ("/predict_csv", changed(), JSON, 415, "takes text/csv"),
    "no CSV": ("/predict_csv", b"", CSV, 422, "a header and at least one row"),
    "ragged CSV": ("/predict_csv", lambda row: table([row]).rstrip() + "," * 3, CSV, 422, "row 1 needs 9 cells"),
    "short CSV": ("/predict_csv", lambda row: table([row]) + "1,2", CSV, 422, "row 2 needs 9 cells"),
    "another header": ("/predict_csv", "a,b\n1,2\n", CSV, 422, "row 1: no field 'a'"),
    "nan in CSV": ("/predict_csv", lambda row: table([row | {"amount": "nan"}]), CSV, 422, "'amount' needs", "'nan'"),
    "no label": ("/feedback", "[]", JSON, 422, "at least one label"),
    "another id": ("/feedback", truth(id="42"), JSON, 422, "label 1: '42' is not a prediction id"),
    "unknown class": ("/feedback", truth(label="maybe"), JSON, 422, "label 1: 'fraud' needs one of 0, 1", "'maybe'"),
    "label NaN": ("/feedback", truth(label=float("nan")), JSON, 400, "not JSON"),
    "label 1e999": ("/feedback", truth().replace("1}", "1e999}"), JSON, 422, "label 1 needs"),
    "no explainer": ("/explain", changed(), JSON, 404, "no explainer"),
    "unknown path": ("/predicts", changed(), JSON, 404, "no such path", "/predict, /predict_csv"),
    "a path below": ("/predict/1", changed(), JSON, 404, "no such path"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_refuses_in_one_sentence_and_leaves_no_record(teller: httpx.Client, transactions: Running, fault: str) -> None:
    path, content, headers, status, *words = REFUSED[fault]
    row = request_rows(fraud(), 1)[0]
    before = len(read_predictions(transactions.log / "predictions"))
    content = content(row) if callable(content) else content
    assert_refused(teller.post(path, content=content, headers=headers), status, *words)
    assert len(read_predictions(transactions.log / "predictions")) == before
    assert teller.post("/predict", json=row).status_code == 200


def test_a_body_that_is_not_compressed_may_say_so_and_one_in_another_encoding_is_told_what_goes(
    teller: httpx.Client,
) -> None:
    row, identity = request_rows(fraud(), 1)[0], {"content-encoding": "identity"}
    assert teller.post("/predict", json=row, headers=identity).status_code == 200
    for coding in ("br", "zstd", "gzip, gzip"):
        refused = teller.post("/predict", content=b"", headers={**JSON, "content-encoding": coding})
        assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "gzip, identity")
    other = teller.post("/predict", content=b"", headers={"content-type": "text/plain"})
    assert (other.status_code, "accept-encoding" in other.headers) == (415, False)  # the encoding is not its fault


@pytest.mark.parametrize("path", [*GETS, *POSTS])
def test_another_method_is_told_which_one_goes(client: httpx.Client, path: str) -> None:
    allowed = {"POST"} if path in POSTS else {"GET", "HEAD"}
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"} - allowed:
        response = client.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == allowed
        assert method == "HEAD" or "takes" in response.json()["error"]
    if "HEAD" in allowed:
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")


def begin(url: str, header: str, body: str) -> socket.socket:
    """Send a request whose body is not complete."""
    place = urlsplit(url)
    begun = socket.create_connection((place.hostname, place.port), timeout=SECONDS)
    begun.sendall(f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n{body}".encode())
    return begun


def hold(url: str, body: str) -> socket.socket:
    """Send a request but for the last byte of its body."""
    return begin(url, f"Content-Type: application/json\r\nContent-Length: {len(body)}", body[:-1])


def last_words(begun: socket.socket) -> str:
    """Return all that comes until the server closes the connection."""
    with begun.makefile("rb") as stream:
        return stream.read().decode()


@pytest.mark.parametrize(
    ("header", "body"),
    [("Content-Length: 50001", ""), ("Transfer-Encoding: chunked", 11 * f"1388\r\n{5000 * ' '}\r\n")],
    ids=["as its length says", "whose length nobody says"],
)
def test_a_body_above_the_limit_is_refused_before_it_is_complete(tight: Running, header: str, body: str) -> None:
    with begin(tight.url, header, body) as begun:
        answer = last_words(begun)
    assert answer.startswith("HTTP/1.1 413 ")
    assert "connection: close" in answer
    assert answer.endswith('{"error":"one request takes at most 50,000 bytes (serving.max_bytes)"}')
    assert_refused(httpx.post(f"{tight.url}/predict", content=b" " * 60_000, headers=JSON), 413, "50,000 bytes")


def test_a_body_that_does_not_arrive_in_time_is_given_up(tight: Running) -> None:
    with hold(tight.url, "{" + " " * 1000 + "}") as slow:
        start = time.monotonic()
        answer = last_words(slow)
    assert answer.startswith("HTTP/1.1 408 ")
    assert "connection: close" in answer
    assert answer.endswith('{"error":"the body did not arrive within 2 s (serving.timeout_seconds)"}')
    assert 1.5 < time.monotonic() - start < 10


def test_one_request_too_many_is_told_to_come_back_and_the_server_recovers(
    tmp_path: Path,
) -> None:
    rows, go_on = request_rows(breast_cancer(), 200), Event()
    with in_process(tmp_path, breast_cancer(), **TIGHT | {"max_bytes": 10**6}) as (app, client):
        answer = app._predict

        def slow(body: bytes, check: bool) -> bytes:
            go_on.wait(SECONDS)
            return answer(body, check)

        app._posts["/predict"] = dict.fromkeys(app._posts["/predict"], slow)
        with ThreadPoolExecutor(2) as pool:
            try:
                held = [pool.submit(client.post, "/predict", json=rows) for _ in range(TIGHT["max_concurrency"])]
                wait(lambda: app._busy == 2)
                response = client.post("/predict", json=rows[0])
                assert_refused(response, 503, "2 requests are under way")
                assert response.headers["retry-after"] == "1"
                assert [client.get(path).status_code for path in GETS] == [200] * len(GETS)
            finally:
                go_on.set()
            assert [one.result().status_code for one in held] == [200, 200]
        assert client.post("/predict", json=rows[0]).status_code == 200


def test_a_client_that_leaves_before_its_body_is_complete_gives_its_place_back(tight: Running) -> None:
    body = json.dumps(request_rows(breast_cancer(), 1)[0])
    for _ in range(2 * TIGHT["max_concurrency"]):
        hold(tight.url, body).close()
    wait(lambda: httpx.post(f"{tight.url}/predict", content=body, headers=JSON).status_code == 200)


TOKENS = {
    "none": {},
    "wrong": {"Authorization": f"Bearer {TOKEN}x"},
    "its beginning": {"Authorization": f"Bearer {TOKEN[:-1]}"},
    "the scheme alone": {"Authorization": "Bearer"},
    "another scheme": {"Authorization": f"Basic {TOKEN}"},
    "no scheme": {"Authorization": TOKEN},
    "another case": {"Authorization": f"Bearer {TOKEN.upper()}"},
    "no ASCII": {"Authorization": "Bearer süß".encode()},
    "another header": {"X-Token": TOKEN},
}


@pytest.mark.parametrize("token", TOKENS)
def test_nothing_but_the_probes_answers_without_the_token(transactions: Running, token: str) -> None:
    with httpx.Client(base_url=transactions.url, headers=TOKENS[token]) as client:
        for method, paths in (("GET", GETS), ("POST", POSTS)):
            for path in paths:
                response = client.request(method, path)
                if path in OPEN:
                    assert response.status_code == 200
                else:
                    assert_refused(response, 401, "'Authorization: Bearer TOKEN' is missing or wrong")
                    assert response.headers["www-authenticate"] == "Bearer"


def test_the_token_stands_nowhere_that_others_can_read(teller: httpx.Client, transactions: Running) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(transactions.url).port)) as broken:
        broken.sendall(f"BREW /{TOKEN} HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        assert b"400 Bad Request" in broken.recv(1000)
    for method, path in (("GET", f"/{TOKEN}"), ("DELETE", "/predict"), ("POST", "/feedback")):
        assert TOKEN not in teller.request(method, path).text
    assert all(TOKEN not in teller.get(path).text for path in GETS)

    supervisor = transactions.server.server()
    assert supervisor is not None
    processes = [supervisor, *transactions.server.workers(transactions.release.id)]
    assert len(processes) == 2
    for process in processes:
        assert TOKEN.encode() not in Path(f"/proc/{process['pid']}/cmdline").read_bytes()
    files = [path for path in transactions.log.parent.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in files)
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_labels_come_one_or_many_late_repeated_and_corrected_and_the_latest_counts(
    client: httpx.Client, cancer: Running
) -> None:
    first, second, third = client.post("/predict", json=request_rows(breast_cancer(), 3)).json()["ids"]
    late = "0123456789ab-00beef-7"  # of a server that has stopped since

    def tell(*labels: tuple[str, str]) -> None:
        body = [{"id": prediction, "label": label} for prediction, label in labels]
        response = client.post("/feedback", json=body if len(body) > 1 else body[0])
        assert response.json() == {"accepted": len(labels)}

    tell((first, "benign"))
    tell((second, "malignant"), (third, "benign"), (late, "malignant"))
    tell((second, "malignant"))
    tell((first, "malignant"), (third, "malignant"), (third, "benign"))

    labels = read_labels(cancer.log / "labels").set_index("prediction_id")["label"]
    assert labels[[first, second, third, late]].tolist() == ["malignant", "malignant", "benign", "malignant"]
    history = read_labels(cancer.log / "labels", history=True)
    assert history[history["prediction_id"] == third]["label"].tolist() == ["benign", "malignant", "benign"]
    assert (history["prediction_id"] == second).sum() == 2


def test_labels_are_believed_from_whoever_names_a_prediction_and_others_are_unknown(tmp_path: Path) -> None:
    rows = request_rows(fraud(), 1)
    with in_process(tmp_path, fraud()) as (_, client):
        (one,), (other,) = (client.post("/predict", json=rows).json()["ids"] for _ in range(2))
        assert one[:12] != other[:12]  # what one client is answered tells nothing of the next
        labels = [{"id": name, "label": 1} for name in (one, EXAMPLE_ID)]
        assert client.post("/feedback", json=labels).json() == {"accepted": 2}
    log = tmp_path / "log"
    answered, told = read_predictions(log / "predictions"), read_labels(log / "labels", history=True)
    joined, report = join_labels(answered, told, Feedback())
    assert joined["prediction_id"].tolist() == [one]
    assert (report.labelled, report.unknown) == (1, 1)


def test_says_which_model_answers(client: httpx.Client, cancer: Running) -> None:
    card, found = breast_cancer().bundle.card, client.get("/model").json()
    assert (found["name"], found["version"], found["release"]) == ("breast_cancer", 1, cancer.release.id)
    assert found["promoted"] == cancer.release.model_dump(mode="json")["promoted"]
    assert found["fingerprint"] == breast_cancer().bundle.fingerprint
    assert found["threshold"] == card.threshold
    assert found["contract"] == card.contract.model_dump(mode="json")


def test_probes_say_that_it_lives_and_what_it_serves(client: httpx.Client, cancer: Running) -> None:
    assert client.get("/livez").json() == {"alive": True}
    assert client.get("/readyz").json() == {"ready": True, "release": cancer.release.id}


def test_an_explanation_adds_up_to_the_score(client: httpx.Client) -> None:
    rows = request_rows(breast_cancer(), 20)
    scores = client.post("/predict", json=rows).json()["scores"]
    answer = client.post("/explain", json=rows).json()
    assert answer["features"] == list(rows[0])
    np.testing.assert_allclose(answer["base"] + np.sum(answer["contributions"], axis=1), logit(scores), rtol=1e-6)
    assert_refused(client.post("/explain", json=rows * 13), 413, "at most 256 rows")


@pytest.mark.parametrize("server", ["cancer", "transactions"])
def test_the_page_for_people_opens_and_finds_its_description(server: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(server).url
    page = httpx.get(url)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    files = [httpx.get(f"{url}/{path}") for path in re.findall(r'(?:src|href)="\./(\S+?)"', page.text)]
    assert [file.status_code for file in files] == [200, 200]
    assert "http" not in page.text  # it asks nobody else for anything
    (description,) = re.findall(r'url: "\./(.+?)"', page.text)
    found = httpx.get(f"{url}/{description}", headers=BEARER)
    assert found.json() == httpx.get(f"{url}/openapi.json", headers=BEARER).json()


def test_the_log_holds_exactly_what_was_answered(tmp_path: Path) -> None:
    rows = request_rows(fraud(), 300)
    with in_process(tmp_path, fraud(), hash_key=HASH_KEY) as (app, client):
        answers = [client.post("/predict", json=rows[0]), client.post("/predict", json=rows)]
        for fault in ([], rows[0] | {"amount": -1}, [*rows, {}], "x"):
            assert client.post("/predict", json=fault).status_code == 422
        assert client.post("/predict_csv", content=table(rows) + "1", headers=CSV).status_code == 422
        secret = check_secret(HASH_KEY, app.release.hash)
        check = {"x-check": secret}
        assert client.post("/predict", json=rows, headers=check).status_code == 200
        assert client.post("/predict_csv", content=table(rows), headers=CSV | check).status_code == 200
        for wrong in (app.release.hash, secret[:-1], secret.upper(), "", "1"):
            answers.append(client.post("/predict", json=rows[1], headers={"x-check": wrong}))
        lines = list(csv.DictReader(io.StringIO(client.post("/predict_csv", content=table(rows), headers=CSV).text)))

    found = [answer.json() for answer in answers]
    logged = read_predictions(tmp_path / "log/predictions")
    expected = {
        "prediction_id": [one for answer in found for one in answer["ids"]] + [line["id"] for line in lines],
        "prediction_score": [one for answer in found for one in answer["scores"]] + [float(x["score"]) for x in lines],
        "prediction_label": [one for answer in found for one in answer["labels"]] + [line["label"] for line in lines],
    }
    assert {name: logged[name].tolist() for name in expected} == expected
    assert set(logged["prediction_version"]) == {1}
    sent = pd.DataFrame([rows[0], *rows, *[rows[1]] * 5, *rows])
    features = fraud().bundle.card.contract.features
    assert_frame_equal(as_features(logged, features), as_features(sent, features))


def test_the_log_says_what_was_refused_and_nothing_that_the_client_sent(tmp_path: Path) -> None:
    row = request_rows(fraud(), 1)[0]
    with in_process(tmp_path, fraud(), hash_key=HASH_KEY) as (app, client):
        secret = check_secret(HASH_KEY, app.release.hash)
        for fault in (row | {"amount": -1}, [row, row | {"country": "Ada"}], row | {"Ada": 1}, []):
            assert client.post("/predict", json=fault).status_code == 422
        assert client.post("/predict_csv", content=table([row | {"hour": ""}]), headers=CSV).status_code == 422
        assert client.post("/feedback", json={"id": EXAMPLE_ID, "label": "Ada"}).status_code == 422
        assert client.post("/predict", content=b"{").status_code == 400
        assert client.post("/predict", json=[], headers={"x-check": secret}).status_code == 422
        assert client.post("/predict", json=row).status_code == 200
    found = read_refusals(tmp_path / "log/refusals").drop(columns=["time", "version"])
    assert list(found.itertuples(index=False, name=None)) == [
        ("/predict", "amount", "out_of_range", 1, 0),
        ("/predict", "country", "unseen_category", 2, 0),
        ("/predict", None, "extra_column", 1, 0),
        ("/predict", None, "other", 1, 0),
        ("/predict_csv", "hour", "new_nulls", 1, 0),
    ]
    assert b"Ada" not in b"".join(path.read_bytes() for path in (tmp_path / "log").rglob("*.jsonl"))


def test_the_log_keeps_known_columns_that_are_no_features_but_not_dropped_ones(tmp_path: Path) -> None:
    trained = model("breast_cancer", "data.id=[mean area]", "data.drop=[mean radius]")
    row = request_rows(trained, 1)[0]
    assert not {"mean area", "mean radius"} & set(row)
    more = {"mean area": "700.5", "mean radius": "private"}  # an id with fractions is a text
    with in_process(tmp_path, trained) as (_, client):
        assert client.post("/predict", json=row | more).status_code == 200
        assert client.post("/predict_csv", content=table([row | more]), headers=CSV).status_code == 200
        assert client.post("/predict", json=row).status_code == 200
    logged = read_predictions(tmp_path / "log/predictions")
    assert pd.to_numeric(logged["mean area"]).tolist()[:2] == [700.5, 700.5]
    assert pd.isna(logged["mean area"][2])
    assert "mean radius" not in logged
    assert b"private" not in b"".join(path.read_bytes() for path in (tmp_path / "log").rglob("*.jsonl"))


def test_personal_columns_are_logged_as_a_keyed_hash_or_not_at_all(tmp_path: Path) -> None:
    rows = [row | {"transaction_id": 7_000_111_222_333} for row in request_rows(fraud(), 40)]
    personal = {"merchant": "hash", "transaction_id": "hash", "distance_km": "hash", "card_since": "omit"}
    logged = {}
    for folder, key in (("one", KEY), ("again", KEY), ("another", "z" * 64)):
        with in_process(tmp_path / folder, fraud(), hash_key=key, personal=personal) as (_, client):
            assert client.post("/predict", json=rows).status_code == 200
            assert client.post("/predict_csv", content=table(rows[:1]), headers=CSV).status_code == 200
        logged[folder] = read_predictions(tmp_path / folder / "log/predictions")
        content = b"".join(path.read_bytes() for path in (tmp_path / folder / "log").rglob("*.jsonl"))
        personal_words = ("7000111222333", rows[0]["merchant"], rows[0]["card_since"])
        assert not [word for word in personal_words if word.encode() in content]
    one, again, another = logged.values()
    assert "card_since" not in one
    assert one["country"].tolist() == [row["country"] for row in [*rows, rows[0]]]
    for column in ("merchant", "transaction_id", "distance_km"):
        values = [row[column] for row in [*rows, rows[0]]]
        hashes = one[column].tolist()
        assert one[column].isna().tolist() == [value is None for value in values]
        assert len(set(zip(hashes, values, strict=True))) == len(set(hashes)) == len(set(values))
        assert again[column].equals(one[column])
        assert not set(another[column].dropna()) & set(one[column].dropna())


def test_does_not_start_without_the_key_for_its_hashes(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="SERVING_HASH_KEY"),
        in_process(tmp_path, fraud(), personal={"merchant": "hash"}),
    ):
        pass


def test_answers_nothing_that_it_cannot_keep_and_goes_on_when_it_can(tmp_path: Path) -> None:
    row = request_rows(breast_cancer(), 1)[0]
    with in_process(tmp_path, breast_cancer()) as (_, client):
        (tmp_path / "log").write_text("in the way")
        for path, body in (("/predict", row), ("/feedback", {"id": EXAMPLE_ID, "label": "benign"})):
            response = client.post(path, json=body)
            assert_refused(response, 503, "cannot keep its record", "try again")
            assert response.headers["retry-after"] == "1"
        assert_refused(client.post("/predict", json={}), 422, "is missing")  # the client's fault stays its fault
        (tmp_path / "log").unlink()
        (answered,) = client.post("/predict", json=row).json()["ids"]
    assert read_predictions(tmp_path / "log/predictions")["prediction_id"].tolist() == [answered]


def test_a_bug_is_a_500_that_gives_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rows: Any) -> Any:
        raise RuntimeError(f"hunter2 in {ROOT}/serving/app.py")

    with in_process(tmp_path, breast_cancer()) as (app, client):
        monkeypatch.setattr(app, "_scores", broken)
        response = client.post("/predict", json=request_rows(breast_cancer(), 1)[0])
        assert_refused(response, 500, "its log says why")
        assert "hunter2" not in response.text
        assert client.get("/livez").status_code == 200
    assert read_predictions(tmp_path / "log/predictions").empty


def test_a_request_that_waited_too_long_is_told_to_come_back_and_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = request_rows(breast_cancer(), 200)
    with in_process(tmp_path, breast_cancer(), timeout_seconds=0.2) as (app, client):
        score = app._scores
        monkeypatch.setattr(app, "_scores", lambda rows: time.sleep(0.5) or score(rows))
        with ThreadPoolExecutor(2) as pool:
            responses = list(pool.map(lambda _: client.post("/predict", json=rows), range(2)))
    answered, refused = sorted(responses, key=lambda response: response.status_code)
    assert answered.status_code == 200
    assert_refused(refused, 503, "larger requests were before this one for 0.2 s")
    assert read_predictions(tmp_path / "log/predictions")["prediction_id"].tolist() == answered.json()["ids"]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", ["breast_cancer", *RUNTIMES])
def test_never_answers_a_score_that_is_no_number(tmp_path: Path, name: str) -> None:
    trained = breast_cancer() if name == "breast_cancer" else other(name)
    rows = request_rows(trained, 2)
    far = {field: (-1) ** place * 1e308 for place, field in enumerate(rows[0])}
    with in_process(tmp_path, trained, out_of_range="accept") as (_, client):
        assert_refused(client.post("/predict", json=[rows[0], far]), 422, "so far out of range that the model finds no")
        assert client.post("/predict", json=rows).status_code == 200
    assert len(read_predictions(tmp_path / "log/predictions")) == 2


def test_a_server_that_stops_sends_its_clients_away(tmp_path: Path) -> None:
    with in_process(tmp_path, breast_cancer()) as (app, client):
        app.draining = True
        assert_refused(client.get("/readyz"), 503, "stopping")
        last = client.post("/predict", json=request_rows(breast_cancer(), 1)[0])
        assert (last.status_code, last.headers["connection"]) == (200, "close")
        assert client.get("/livez").status_code == 200


def test_an_estimator_that_scores_itself_uses_the_one_core_of_its_worker(tmp_path: Path) -> None:
    spreading = ("model.estimator=sklearn.semi_supervised.LabelSpreading", "model.params={n_jobs: 2, kernel: knn}")
    with in_process(tmp_path, model("breast_cancer", *spreading)) as (app, _):
        assert app.release.runtime == "numpy"
        assert app.served.bundle.pipeline[-1].n_jobs == 1


def test_a_worker_starts_without_what_only_training_needs() -> None:
    code = "import sys, loop.serving.worker; print({'zenml', 'mlflow', 'sklearn', 'scipy', 'onnx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
