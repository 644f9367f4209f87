"""What monitoring found stands beside the service's own numbers, whatever state its file is in."""

import os
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import breast_cancer, in_process

from loop.log.gauges import FILE, LAST_RUN, READABLE, Gauge, publish

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def monitored(client: httpx.Client) -> Series:
    text = client.get("/metrics").text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("monitoring_")
    }


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset({"model": "breast_cancer", **labels}.items())


def test_shows_what_monitoring_published_last_under_its_version(tmp_path: Path) -> None:
    psi = [({"column": "mean radius"}, 0.5), ({"column": 'odd "name"\\\n'}, 0.25)]
    with in_process(tmp_path, breast_cancer()) as (_, client):
        assert monitored(client) == {}
        publish(tmp_path / "log", 1, NOW, [Gauge(name="monitoring_column_psi", help="PSI.", samples=psi)])
        assert monitored(client) == {
            key(READABLE): 1,
            key(LAST_RUN, version="1"): NOW.timestamp(),
            **{key("monitoring_column_psi", version="1", **labels): value for labels, value in psi},
        }
        publish(tmp_path / "log", 2, NOW, [])
        assert monitored(client) == {key(READABLE): 1, key(LAST_RUN, version="2"): NOW.timestamp()}
        (tmp_path / "log" / FILE).unlink()
        assert monitored(client) == {}


@pytest.mark.parametrize("content", [b"", b'{"version": 1', b"\xff" * 100, b'"' + b"a" * 2**24 + b'"', None])
def test_a_broken_file_is_one_number_and_breaks_nothing(tmp_path: Path, content: bytes | None) -> None:
    with in_process(tmp_path, breast_cancer()) as (_, client):
        before = client.get("/metrics").text
        (tmp_path / "log").mkdir(exist_ok=True)
        if content is None:
            os.mkfifo(tmp_path / "log" / FILE)
        else:
            (tmp_path / "log" / FILE).write_bytes(content)
        assert monitored(client) == {key(READABLE): 0}
        assert "serving_model_info" in before
        assert "serving_model_info" in client.get("/metrics").text
        (tmp_path / "log" / FILE).unlink()
        publish(tmp_path / "log", 1, NOW, [])
        assert monitored(client)[key(READABLE)] == 1


def test_says_how_long_a_row_may_take(tmp_path: Path) -> None:
    with in_process(tmp_path, breast_cancer(), latency_budget_ms=250) as (_, client):
        (line,) = [x for x in client.get("/metrics").text.splitlines() if x.startswith("serving_latency_budget_sec")]
    assert line.endswith(" 0.25")
