"""What monitoring publishes is read whole, or said to be unreadable."""

import math
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from loop.config import UserError
from loop.log.gauges import FILE, LAST_RUN, MAX_BYTES, Gauge, publish, read

NOW = datetime(2026, 11, 24, 15, tzinfo=UTC)


def psi(*samples: tuple[dict[str, str], float]) -> Gauge:
    return Gauge(name="monitoring_column_psi", help="PSI.", samples=samples)


def test_reads_what_was_published_last(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    publish(tmp_path / "log", 1, NOW, [])
    publish(str(tmp_path / "log"), 2, NOW + timedelta(hours=1), [psi(({"column": 'a "b"\n'}, 0.25))])
    found = read(tmp_path / "log")
    assert found is not None
    assert (found.version, found.time) == (2, NOW + timedelta(hours=1))
    assert found.gauges == (psi(({"column": 'a "b"\n'}, 0.25)),)
    assert [path.name for path in (tmp_path / "log").iterdir()] == [FILE]


def test_leaves_out_what_could_not_be_measured(tmp_path: Path) -> None:
    unknown = [({"column": name}, value) for name, value in (("b", math.nan), ("c", math.inf), ("d", None))]
    publish(tmp_path, 1, NOW, [psi(({"column": "a"}, 0.5), *unknown)])
    found = read(tmp_path)
    assert found is not None
    assert found.gauges == (psi(({"column": "a"}, 0.5)),)


@pytest.mark.parametrize(
    ("name", "samples"),
    [
        ("serving_requests", [({}, 1)]),
        ("monitoring_A", [({}, 1)]),
        ("monitoring_a\n", [({}, 1)]),
        (LAST_RUN, [({}, 1)]),
        ("monitoring_a", [({"model": "other"}, 1)]),
        ("monitoring_a", [({"a-b": "1"}, 1)]),
        ("monitoring_a", [({"__name__": "up"}, 1)]),
        ("monitoring_a", [({"a": "1", "b": "2"}, 1), ({"b": "2", "a": "1"}, 2)]),
    ],
)
def test_refuses_what_prometheus_would(name: str, samples: list[tuple[dict[str, str], float]]) -> None:
    with pytest.raises(ValidationError):
        Gauge(name=name, help="Any.", samples=samples)


def test_refuses_a_gauge_twice_and_a_time_without_a_zone(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="the same name"):
        publish(tmp_path, 1, NOW, [psi(), psi()])
    with pytest.raises(ValidationError, match="timezone"):
        publish(tmp_path, 1, NOW.replace(tzinfo=None), [])
    assert read(tmp_path) is None


def test_says_what_is_wrong_with_a_file_that_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / FILE
    for content in (b"", b"{", b"[]", b"\xff", b'{"version": 1, "time": "2026-11-24T15:00:00Z", "gauges": [{}]}'):
        path.write_bytes(content)
        with pytest.raises(UserError, match="run monitoring again"):
            read(tmp_path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(UserError, match="larger than"):
        read(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is no file"):
        read(tmp_path)


def test_does_not_publish_more_than_a_service_reads(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="watch fewer columns"):
        publish(tmp_path, 1, NOW, [psi(*(({"column": f"{n:0>100}"}, n) for n in range(10_000)))])
    assert read(tmp_path) is None
