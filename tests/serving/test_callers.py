"""Whose pages may ask, under which name, and in which encodings."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest
from servers import TOKEN, breast_cancer, in_process, request_rows

from loop.config import ROOT, UserError, load
from loop.log.records import read_predictions
from loop.serving.app import GETS, POSTS
from loop.serving.encodings import inflated
from loop.serving.schema import Refused

CSV = {"content-type": "text/csv"}
OWN = {
    "a program": {},
    "another address": {"host": "192.168.7.7:3000"},
    "IPv6": {"host": "[::1]:3000"},
    "localhost": {"host": "localhost:3000"},
    "a listed name": {"host": "app.example.com"},
    "its own page": {"origin": "http://localhost", "sec-fetch-site": "same-origin"},
    "a listed page": {"origin": "https://app.example.com", "sec-fetch-site": "cross-site"},
}
FOREIGN = {
    "another page": {"origin": "https://evil.example"},
    "a page that hides": {"origin": "null"},
    "a page beside it": {"origin": "http://localhost:8000", "sec-fetch-site": "same-site"},
    "a listed name without its scheme": {"origin": "http://app.example.com"},
    "another site": {"sec-fetch-site": "cross-site"},
    "a form of another site": {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "frame"},
    "another name": {"host": "evil.example:3000"},
    "a name that looks like an address": {"host": "127.0.0.1.evil.example"},
    "a name like localhost": {"host": "localhost.evil.example"},
    "another name of a listed page": {"host": "evil.example", "origin": "https://app.example.com"},
    "no name": {"host": "["},
}


def test_without_a_token_pages_and_names_that_nobody_listed_are_refused(tmp_path: Path) -> None:
    row = request_rows(breast_cancer(), 1)[0]
    with in_process(tmp_path, breast_cancer(), origins=["https://app.example.com"]) as (_, client):
        for who, headers in OWN.items():
            assert client.post("/predict", json=row, headers=headers).status_code == 200, who
        for who, headers in FOREIGN.items():
            for method, path in [*(("GET", path) for path in GETS), *(("POST", path) for path in POSTS)]:
                answer = client.request(method, path, json=row, headers=headers)
                assert answer.status_code == 403, (who, path)
                assert "list it in serving.origins, or set SERVING_TOKEN" in answer.json()["error"]
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/", headers=link).status_code == 200
        assert client.post("/predict", json=row, headers=link).status_code == 403
    assert len(read_predictions(tmp_path / "log/predictions")) == len(OWN)


def test_with_a_token_the_token_decides_and_listed_pages_may_send_it(tmp_path: Path) -> None:
    row, bearer = request_rows(breast_cancer(), 1)[0], {"authorization": f"Bearer {TOKEN}"}
    page, other = {"origin": "https://app.example.com"}, {"origin": "https://evil.example", "host": "ml.example.com"}
    wants = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    with in_process(tmp_path, breast_cancer(), token=TOKEN, origins=[page["origin"]]) as (_, client):
        preflight = client.options("/predict", headers=page | wants)
        assert (preflight.status_code, preflight.content) == (200, b"")
        assert preflight.headers["access-control-allow-origin"] == page["origin"]
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert set(wants["access-control-request-headers"].split(",")) <= {
            name.strip() for name in preflight.headers["access-control-allow-headers"].split(",")
        }
        for headers, status in ((page | bearer, 200), (page, 401)):
            answer = client.post("/predict", json=row, headers=headers)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, page["origin"])
            assert answer.headers["vary"] == "origin"
        refused = client.options("/predict", headers=other | wants)
        assert refused.status_code == 403
        assert "pages of 'https://evil.example' may not ask" in refused.json()["error"]
        answered = client.post("/predict", json=row, headers=other | bearer)
        assert answered.status_code == 200
        assert "access-control-allow-origin" not in answered.headers
        assert client.options("/predict", headers=page).status_code == 405  # no preflight


def test_nobody_is_told_of_origins_where_none_is_listed(tmp_path: Path) -> None:
    with in_process(tmp_path, breast_cancer()) as (_, client):
        assert not {"vary", "access-control-allow-origin"} & {*client.get("/livez").headers}


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("serving.origins=[https://app.example.com/]", "no path, not 'https://app.example.com/'"),
        ("serving.origins=[app.example.com]", "needs a scheme"),
        ("serving.origins=['*']", "needs a scheme and a host"),
        ("serving.prefix=fraud", "needs a path such as /fraud"),
        ("serving.prefix=/fraud/", "without a slash at its end, not '/fraud/'"),
        ("serving.prefix=/../x", "needs a path"),
    ],
)
def test_origins_and_prefix_that_no_browser_would_send_are_refused_in_one_sentence(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=r"'serving.(origins|prefix)': needs") as refused:
        load(ROOT / "configs/breast_cancer.yaml", [setting])
    assert words in str(refused.value)


def test_a_gzip_body_is_answered_as_it_is_without(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 300)
    table = pd.DataFrame(rows).to_csv(index=False).encode()
    with in_process(tmp_path, breast_cancer()) as (_, client):
        plain = client.post("/predict", json=rows).json()
        for coding in ("gzip", "x-gzip", "GZIP", "identity, gzip"):
            body = gzip.compress(json.dumps(rows).encode())
            answer = client.post("/predict", content=body, headers={"content-encoding": coding}).json()
            assert answer["scores"] == plain["scores"]
        for path, body in (("/predict_csv", table), ("/invocations", table)):
            headers = {**CSV, "content-encoding": "gzip"}
            assert client.post(path, content=gzip.compress(body), headers=headers).status_code == 200
        label = gzip.compress(json.dumps({"id": plain["ids"][0], "label": "benign"}).encode())
        assert client.post("/feedback", content=label, headers={"content-encoding": "gzip"}).json() == {"accepted": 1}
    assert len(read_predictions(tmp_path / "log/predictions")) == 7 * len(rows)


def test_a_body_that_is_no_gzip_or_too_large_inside_is_refused(tmp_path: Path) -> None:
    row = json.dumps(request_rows(breast_cancer(), 1)[0]).encode()
    packed = gzip.compress(row)
    faults = {
        "no gzip": (row, 400, "the body is not gzip"),
        "cut off": (packed[:-1], 400, "its end is missing"),
        "damaged": (packed[:-8] + bytes(8), 400, "the body is not gzip"),
        "twice": (packed * 2, 400, "something follows its end"),
        "nothing": (b"", 400, "its end is missing"),
        "a bomb": (gzip.compress(bytes(10**7)), 413, "at most 20,000 bytes (serving.max_bytes)"),
    }
    with in_process(tmp_path, breast_cancer(), max_bytes=20_000) as (_, client):
        for fault, (body, status, words) in faults.items():
            answer = client.post("/predict", content=body, headers={"content-encoding": "gzip"})
            assert (answer.status_code, words in answer.json()["error"]) == (status, True), fault
            assert "accept-encoding" not in answer.headers
        assert client.post("/predict", content=packed, headers={"content-encoding": "gzip"}).status_code == 200


def test_a_bomb_takes_no_more_memory_than_a_request_may(tmp_path: Path) -> None:
    bomb, limit = gzip.compress(bytes(50_000_000)), 2**20
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            inflated(bomb, limit)
        assert tracemalloc.get_traced_memory()[1] < 3 * limit
    finally:
        tracemalloc.stop()
