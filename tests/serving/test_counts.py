"""The numbers for Prometheus: right, summed over workers dead and alive, and no more series than at the start."""

import os
import random
import signal
import string
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import HASH_KEY, breast_cancer, fraud, in_process, model, request_rows, running

from loop.serving.app import GETS, POSTS, ROWS, TENTHS
from loop.serving.metrics import Counter, Histogram, Metrics
from loop.serving.release import check_secret

BASE = {"model": "made", "version": "1", "release": "v1-0"}
CALLS = Counter("calls", "Calls.", {"path": ("/a", "/b"), "status": ("200", "500")})
SIZES = Histogram("sizes", "Sizes.", {"path": ("/a", "/b")}, (1.0, 2.0, 4.0))
LATENCIES = Histogram("latencies", "No labels.", bounds=(0.5,))
SECONDS = 60

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    """Return each series' value by name and labels, without the labels that stand on all of them."""
    return {
        (sample.name, frozenset((k, v) for k, v in sample.labels.items() if k not in BASE)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def at(series: Series, name: str, **labels: str) -> float:
    return series[(name, frozenset(labels.items()))]


def made(folder: Path, slot: int = 0) -> Metrics:
    return Metrics(folder, slot, BASE, [CALLS, SIZES, LATENCIES])


def counts(metrics: Metrics) -> Series:
    return parsed(metrics.text().decode())


def test_counts_and_buckets_are_cumulative_sum_up_and_carry_the_model(tmp_path: Path) -> None:
    metrics = made(tmp_path)
    metrics.count("calls", "/a", "200")
    metrics.count("calls", "/a", "200", by=2)
    metrics.observe("sizes", "/b", value=2)
    metrics.observe("sizes", "/b", value=9)
    metrics.observe_all("sizes", "/b", values=np.array([0.5, 1.0, 3.0]))
    found = counts(metrics)
    assert at(found, "calls_total", path="/a", status="200") == 3
    assert at(found, "calls_total", path="/b", status="500") == 0
    buckets = [at(found, "sizes_bucket", path="/b", le=bound) for bound in ("1.0", "2.0", "4.0", "+Inf")]
    assert buckets == [2, 3, 4, 5]  # a bound belongs to its bucket
    assert at(found, "sizes_count", path="/b") == 5
    assert at(found, "sizes_sum", path="/b") == 15.5
    assert at(found, "latencies_count") == 0
    assert at(found, "serving_model_info") == 1
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    assert all('model="made",' in line and 'release="v1-0"' in line and 'version="1"' in line for line in lines)


def test_one_value_and_many_fall_into_the_same_buckets(tmp_path: Path) -> None:
    one, many = made(tmp_path / "one"), made(tmp_path / "many")
    values = np.array([0.0, 1.0, 1.5, 2.0, 4.0, 4.000001, 1e9, -3.0])
    for value in values:
        one.observe("sizes", "/a", value=float(value))
    many.observe_all("sizes", "/a", values=values)
    assert counts(one) == counts(many)


def test_workers_add_up_and_a_dead_ones_counts_stay(tmp_path: Path) -> None:
    first, second = made(tmp_path, 0), made(tmp_path, 1)
    first.count("calls", "/a", "200")
    second.count("calls", "/a", "200", by=10)
    second.observe("sizes", "/a", value=1)
    del first
    successor = made(tmp_path, 0)
    successor.count("calls", "/a", "200", by=100)
    for either in (successor, second):
        assert at(counts(either), "calls_total", path="/a", status="200") == 111
        assert at(counts(either), "sizes_sum", path="/a") == 1


def test_a_file_of_other_definitions_is_not_counted(tmp_path: Path) -> None:
    Metrics(tmp_path, 0, BASE, [CALLS]).count("calls", "/a", "200", by=5)
    (tmp_path / "1.f64").write_bytes(b"half a fi")
    metrics = made(tmp_path, 0)
    metrics.count("calls", "/a", "200")
    assert at(counts(metrics), "calls_total", path="/a", status="200") == 1


def scraped(client: httpx.Client, address: str = "") -> Series:
    response = client.get(f"{address}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return parsed(response.text)


def grown(before: Series, after: Series, *names: str) -> Series:
    """Return by how much these series have grown, without those that have not."""
    return {key: value - before[key] for key, value in after.items() if value != before[key] and key[0] in names}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_counts_requests_by_path_and_status_and_rows_by_score_and_decision(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 40)
    with in_process(tmp_path, breast_cancer(), hash_key=HASH_KEY) as (app, client):
        before = scraped(client)
        one, many = client.post("/predict", json=rows[0]).json(), client.post("/predict", json=rows).json()
        client.post("/predict", json=rows, headers={"x-check": check_secret(HASH_KEY, app.release.hash)})  # no traffic
        client.post("/explain", json=rows[0])
        client.post("/feedback", json=[{"id": name, "label": "benign"} for name in many["ids"][:3]])
        client.post("/predict", json=[])
        client.post("/predict", content="{")
        client.put("/model")
        client.get("/no/such/path")
        after = scraped(client)
    assert grown(before, after, "serving_requests_total") == {
        key("serving_requests_total", path="/predict", status="200"): 3,
        key("serving_requests_total", path="/predict", status="400"): 1,
        key("serving_requests_total", path="/predict", status="422"): 1,
        key("serving_requests_total", path="/explain", status="200"): 1,
        key("serving_requests_total", path="/feedback", status="200"): 1,
        key("serving_requests_total", path="/model", status="405"): 1,
        key("serving_requests_total", path="(other)", status="404"): 1,
        key("serving_requests_total", path="/metrics", status="200"): 1,
    }
    assert grown(before, after, "serving_labels_total") == {key("serving_labels_total"): 3}
    scores, labels = one["scores"] + many["scores"], one["labels"] + many["labels"]
    assert at(after, "serving_score_sum") == pytest.approx(sum(scores))
    for bound in map(str, TENTHS):
        assert at(after, "serving_score_bucket", le=bound) == sum(score <= float(bound) for score in scores)
    for bound in map(str, ROWS):
        assert at(after, "serving_batch_rows_bucket", le=bound) == sum(size <= float(bound) for size in (1, 40))
    for label in ("benign", "malignant"):
        assert at(after, "serving_decisions_total", label=label) == labels.count(label)
    assert at(after, "serving_request_seconds_count", path="/predict") == 5
    assert 0 < at(after, "serving_request_seconds_sum", path="/predict") < SECONDS


def test_counts_rows_outside_the_contract_by_field_refused_or_accepted(tmp_path: Path) -> None:
    row = request_rows(fraud(), 1)[0]
    far = row | {"amount": 1e6, "country": "mars", "card_since": "1900-01-01"}
    with in_process(tmp_path / "refuse", fraud()) as (_, client):
        for fault in (row | {"amount": -1}, row | {"country": "mars"}, [row, row | {"country": "venus"}], {}):
            assert client.post("/predict", json=fault).status_code == 422
        for fault in (row | {"amont": 1}, []):
            assert client.post("/predict", json=fault).status_code == 422
        refused = scraped(client)
    with in_process(tmp_path / "accept", fraud(), out_of_range="accept", unseen_category="accept") as (_, client):
        assert client.post("/predict", json=far).status_code == 200
        assert client.post("/predict", json=[far, row, row | {"country": 7}]).status_code == 200
        accepted = scraped(client)
    for found, expected in (
        (refused, {"amount": 2, "country": 2, "(body)": 2}),
        (accepted, {"amount": 2, "country": 3, "card_since": 2}),
    ):
        counted = {dict(labels)["field"]: n for (name, labels), n in found.items() if "contract_total" in name and n}
        assert counted == expected


def test_counts_the_requests_that_the_log_could_not_keep(tmp_path: Path) -> None:
    with in_process(tmp_path, breast_cancer()) as (_, client):
        (tmp_path / "log").write_text("in the way")
        assert client.post("/predict", json=request_rows(breast_cancer(), 1)[0]).status_code == 503
        assert client.post("/predict", json={}).status_code == 422
        found = scraped(client)
    assert at(found, "serving_log_errors_total") == 2
    assert at(found, "serving_requests_total", path="/predict", status="503") == 1
    assert at(found, "serving_score_count") == 0


def test_a_regression_model_has_buckets_of_its_target(tmp_path: Path) -> None:
    source = ("data.source=sklearn:diabetes", "data.target=progression", "data.positive=null", "model.threshold={}")
    trained = model("breast_cancer", *source, "model.estimator=sklearn.linear_model.Ridge", "model.params={}")
    rows = request_rows(trained, 100)
    with in_process(tmp_path, trained) as (_, client):
        scores = client.post("/predict", json=rows).json()["scores"]
        found = scraped(client)
    edges = trained.bundle.card.contract.target_statistics.edges
    assert len(edges) > 5
    for edge in edges:
        assert at(found, "serving_score_bucket", le=str(edge)) == sum(score <= edge for score in scores)
    assert at(found, "serving_score_bucket", le="+Inf") == at(found, "serving_score_count") == 100


def noise(count: int) -> Iterator[tuple[str, str]]:
    """Yield methods and paths such as a scanner tries."""
    random.seed(7)
    methods = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "REPORT")
    known = (*GETS, *POSTS, "/", "/static_content/", "/predict/", "/metrics/../admin")
    for number in range(count):
        path = "/" + "".join(random.choices(string.ascii_letters + "%/.-_{}\"'=", k=random.randint(1, 60)))
        yield random.choice(methods), random.choice(known) + path if number % 2 else path


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], dict[int, str]]]:
    """Run two workers; say under which pid and address each is asked directly."""
    with running(tmp_path_factory.mktemp("two"), breast_cancer(), workers=2) as served:
        yield lambda: {
            worker["pid"]: f"http://127.0.0.1:{worker['port']}" for worker in served.server.workers(served.release.id)
        }


def test_a_scan_of_random_paths_and_methods_adds_no_series(workers: Callable[[], dict[int, str]]) -> None:
    with httpx.Client(timeout=SECONDS) as client:
        first, second = workers().values()
        before = {address: set(scraped(client, address)) for address in (first, second)}
        for number, (method, path) in enumerate(noise(500)):
            assert client.request(method, (first, second)[number % 2] + path).status_code < 500
        for address in (first, second):
            found = scraped(client, address)
            assert set(found) == before[address] == before[first]
            assert at(found, "serving_requests_total", path="(other)", status="404") > 300


def test_two_workers_add_up_also_when_one_dies(workers: Callable[[], dict[int, str]]) -> None:
    rows, started = request_rows(breast_cancer(), 3), workers()

    def predicted() -> list[tuple[float, float]]:
        found = [scraped(client, address) for address in workers().values()]
        requests = [at(one, "serving_requests_total", path="/predict", status="200") for one in found]
        return list(zip(requests, [at(one, "serving_score_count") for one in found], strict=True))

    with httpx.Client(timeout=SECONDS) as client:
        for address, requests in zip(started.values(), (20, 5), strict=True):
            for _ in range(requests):
                assert client.post(f"{address}/predict", json=rows).status_code == 200
        assert predicted() == [(25, 75)] * 2

        victim = min(started)
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + SECONDS
        while victim in workers() or len(workers()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert predicted() == [(25, 75)] * 2
        for address in workers().values():
            assert client.post(f"{address}/predict", json=rows).status_code == 200
        assert predicted() == [(27, 81)] * 2
