import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from tables import learned

import loop.log.records
from loop.config import ROOT, UserError
from loop.data.contract import encode_target
from loop.data.table import as_kind
from loop.log.records import (
    PREDICTION_ID,
    SEGMENT_SECONDS,
    LogUnavailable,
    RecordWriter,
    label_lines,
    prediction_ids,
    prediction_line,
    read_labels,
    read_predictions,
    read_refusals,
    refusal_line,
    request_ids,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
LABELS = {"kind": "labels", "model": "m"}


def header(*columns: str, classes: tuple[str, ...] = ("no", "yes"), version: int = 3) -> dict[str, Any]:
    about = {"kind": "predictions", "model": "m", "version": version, "release": f"v{version}-0123456789ab"}
    return about | {"columns": columns, "classes": classes}


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def predict(writer: RecordWriter, request_id: str, seconds: float, *rows: tuple[Any, ...]) -> None:
    rows = rows or ((1.5,),)
    writer.append(prediction_line(request_id, at(seconds), rows, [0.5] * len(rows), ["no"] * len(rows)), at(seconds))


def label(writer: RecordWriter, seconds: float, *labels: tuple[str, Any]) -> None:
    writer.append(label_lines(labels, at(seconds)), at(seconds))


def requests(log: pd.DataFrame) -> list[str]:
    return [name.rpartition("-")[0] for name in log["prediction_id"]]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def whole_lines(folder: Path) -> list[bytes]:
    contents = [path.read_bytes() for path in segments(folder)]
    assert all(content.endswith(b"\n") or not content for content in contents)
    return [line for content in contents for line in content.split(b"\n")[1:-1]]


def test_reads_back_what_a_binary_model_answered(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "made" / "here", header("age", "city", "member", "since", "gap"))
    rows = [(41, "Köln\n", True, datetime(2020, 1, 2, 3), None), (52.5, None, None, None, None)]
    times = [at(0.25), at(1)]
    writer.append(prediction_line("9f86d081884c-00000a", times[0], rows, [0.25, float("nan")], ["no", "yes"]), times[0])
    writer.append(prediction_line("9f86d081884c-00000b", times[1], rows[:1], [1], ["yes"]), times[1])
    log = read_predictions(tmp_path / "made" / "here")
    expected = {
        "prediction_id": [f"9f86d081884c-00000{name}" for name in ("a-0", "a-1", "b-0")],
        "prediction_time": pd.DatetimeIndex([times[0], times[0], times[1]]).tz_localize(None).as_unit("us"),
        "prediction_version": 3,
        "prediction_score": [0.25, np.nan, 1.0],
        "prediction_label": pd.Series(["no", "yes", "yes"], dtype=object),
        "age": [41, 52.5, 41],
        "city": ["Köln\n", None, "Köln\n"],
        "member": pd.Series([True, None, True], dtype="boolean"),
        "since": ["2020-01-02T03:00:00", None, "2020-01-02T03:00:00"],
        "gap": [np.nan, np.nan, np.nan],
    }
    assert_frame_equal(log, pd.DataFrame(expected))
    assert as_kind(log["since"], "datetime")[0] == datetime(2020, 1, 2, 3)


def test_reads_back_class_probabilities_and_plain_values(tmp_path: Path) -> None:
    multiclass = RecordWriter(tmp_path / "multiclass", header("x", classes=("a", "b", "c")))
    multiclass.append(prediction_line("r", NOON, [[1], [2]], [[0.5, 0.25, 0.25], [0, 0, 1]], ["a", "c"]), NOON)
    log = read_predictions(tmp_path / "multiclass")
    assert log.filter(like="score").to_dict("list") == {
        "prediction_score_a": [0.5, 0.0],
        "prediction_score_b": [0.25, 0.0],
        "prediction_score_c": [0.25, 1.0],
    }
    assert log["prediction_label"].tolist() == ["a", "c"]
    regression = RecordWriter(tmp_path / "regression", header("x", classes=()))
    regression.append(prediction_line("r", NOON, [[1], [2]], [-1.5, 1e300], None), NOON)
    log = read_predictions(tmp_path / "regression")
    assert log["prediction_score"].tolist() == [-1.5, 1e300]
    assert log["prediction_label"].tolist() == [None, None]


def test_rows_that_are_json_already_go_in_as_they_are(tmp_path: Path) -> None:
    rows = [[1.5, "a"], [2.5, "b\r\n"], [3.5]]
    spread = msgspec.Raw(json.dumps(rows, indent=2).replace("\n", "\r\n").encode())
    for name, given_rows in (("list", rows), ("raw", spread)):
        writer = RecordWriter(tmp_path / name, header("x", "left out"))
        writer.append(prediction_line("r", NOON, given_rows, [0, 0, 0], ["no"] * 3), NOON)
    assert len(whole_lines(tmp_path / "raw")) == 1
    log = read_predictions(tmp_path / "raw")
    assert_frame_equal(log, read_predictions(tmp_path / "list"))
    assert log["x"].tolist() == [1.5, 2.5, 3.5]
    assert log["left out"].isna().tolist() == [False, False, True]


def test_a_window_takes_its_start_and_leaves_its_end(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, header("x"), segment_seconds=1)
    for second in range(5):
        predict(writer, f"r{second}", second)
    noon_in_tokyo = at(1).astimezone(timezone(timedelta(hours=9)))
    assert requests(read_predictions(tmp_path, noon_in_tokyo, at(3))) == ["r1", "r2"]
    assert requests(read_predictions(tmp_path, at(1).replace(tzinfo=None), at(3).replace(tzinfo=None))) == ["r1", "r2"]
    assert requests(read_predictions(tmp_path, start=at(4))) == ["r4"]
    assert requests(read_predictions(tmp_path, end=at(0))) == []
    assert read_predictions(tmp_path, at(0.5), at(0.75)).columns.tolist()[-1] == "x"


def test_a_new_segment_starts_by_time_by_size_and_when_the_clock_jumps_back(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "time", header("x"), segment_seconds=60)
    for seconds, files in ((0, 1), (60, 1), (60.000001, 2), (50, 3), (50, 3), (49.999999, 4)):
        predict(writer, "r", seconds)
        assert len(segments(tmp_path / "time")) == files
    writer.close()
    predict(writer, "r", 50)
    assert len(segments(tmp_path / "time")) == 5
    writer = RecordWriter(tmp_path / "size", header("x"), segment_bytes=1000)
    for count in range(100):
        predict(writer, f"{count}", 0)
    sizes = sorted(path.stat().st_size for path in segments(tmp_path / "size"))
    assert len(sizes) > 5
    assert all(1000 <= size < 1100 for size in sizes[1:])
    assert sorted(map(int, requests(read_predictions(tmp_path / "size")))) == list(range(100))
    with pytest.raises(ValueError, match="at most"):
        RecordWriter(tmp_path, header("x"), segment_seconds=SEGMENT_SECONDS + 1)


jumps = st.floats(-1.5 * SEGMENT_SECONDS, 1.5 * SEGMENT_SECONDS) | st.sampled_from([0, 1, SEGMENT_SECONDS, -1])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(jumps, min_size=1, max_size=15),
    st.tuples(jumps, jumps),
    st.sampled_from([1, SEGMENT_SECONDS]),
    st.sampled_from([1, 400, 10**6]),
)
def test_skipping_files_by_name_loses_nothing_however_the_clock_jumps(
    steps: list[float], window: tuple[float, float], seconds: float, size: int
) -> None:
    times = [at(seconds) for seconds in accumulate(steps)]
    windows = [(time, time + timedelta(microseconds=1)) for time in times]
    with tempfile.TemporaryDirectory() as folder:
        writer = RecordWriter(Path(folder), header("x"), segment_seconds=seconds, segment_bytes=size)
        for count, time in enumerate(times):
            writer.append(prediction_line(f"{count}", time, [[1]], [0.5], ["no"]), time)
        log = read_predictions(folder)
        assert sorted(map(int, requests(log))) == list(range(len(times)))
        for start, end in [*windows, (at(window[0]), at(window[0] + window[1]))]:
            wanted = log["prediction_time"].dt.tz_localize(UTC).between(start, end, inclusive="left")
            assert requests(read_predictions(folder, start, end)) == requests(log[wanted])


def test_files_of_other_hours_are_not_opened(tmp_path: Path) -> None:
    for name in ("20261124T105959.999999Z-00000000.jsonl", "20261124T130000.000000Z-00000000.jsonl"):
        (tmp_path / name).write_text("not a log\n")
    predict(RecordWriter(tmp_path, header("x")), "r", 0)
    assert requests(read_predictions(tmp_path, at(0), at(3600))) == ["r"]
    for window in ((at(-0.000001), at(3600)), (at(0), at(3600.000001))):
        with pytest.raises(UserError, match="line 1"):
            read_predictions(tmp_path, *window)


def test_what_releases_with_other_columns_logged_stands_in_one_table(tmp_path: Path) -> None:
    old = RecordWriter(tmp_path, header("count", "city", "flag", "gone", version=1))
    predict(old, "r1", 1, (1, "Ulm", True, "x"), (2, None, False, "y"))
    new = RecordWriter(tmp_path, header("new", "flag", "count", "city", version=2))
    predict(new, "r2", 2, (0.5, None, None, None))
    newest = RecordWriter(tmp_path, header("city", "count", classes=("a", "b", "c"), version=3))
    newest.append(prediction_line("r3", at(3), [["Bonn", 7]], [[1, 0, 0]], ["a"]), at(3))
    log = read_predictions(tmp_path)
    assert log.columns.tolist()[3:] == [
        *("prediction_score_a", "prediction_score_b", "prediction_score_c", "prediction_score", "prediction_label"),
        *("city", "count", "new", "flag", "gone"),
    ]
    assert log["prediction_version"].tolist() == [1, 1, 2, 3]
    assert log["count"].dtype == log["new"].dtype == "float64"
    assert log["count"].fillna(-1).tolist() == [1, 2, -1, 7]
    assert log["new"].fillna(-1).tolist() == [-1, -1, 0.5, -1]
    assert log["city"].fillna("").tolist() == ["Ulm", "", "", "Bonn"]
    assert log["flag"].isna().tolist() == [False, False, True, True]
    assert read_predictions(tmp_path, at(1), at(2))["count"].dtype == "int64"


BIG = 9_007_199_254_760_001  # beyond 2**53, where float64 holds every other whole number


@pytest.mark.parametrize(
    ("logged", "read", "dtype"),
    [
        ([BIG, BIG + 1, BIG + 2], [BIG, BIG + 1, BIG + 2], "int64"),
        ([BIG, None, BIG + 1], [BIG, None, BIG + 1], "Int64"),
        ([BIG, 1.5, BIG + 1], [str(BIG), "1.5", str(BIG + 1)], "str"),
        ([BIG, "abc", BIG + 1], [str(BIG), "abc", str(BIG + 1)], "str"),
        ([BIG, True, None], [str(BIG), "True", None], "str"),
        ([1, None, 2.5], [1, None, 2.5], "float64"),
        ([2**60, 0.5, -1], [2.0**60, 0.5, -1], "float64"),
        ([True, None, False], [True, None, False], "boolean"),
        (["a", "", "b"], ["a", None, "b"], "str"),
        ([None, None, None], [None, None, None], "float64"),
    ],
)
@pytest.mark.parametrize("releases", [1, 3])
def test_no_value_is_rounded_whatever_stands_beside_it(
    tmp_path: Path, logged: list[Any], read: list[Any], dtype: str, releases: int
) -> None:
    writers = [RecordWriter(tmp_path, header("x", version=version)) for version in range(releases)]
    for place, value in enumerate(logged):
        predict(writers[place % releases], f"r{place}", place, (value,))
    found = read_predictions(tmp_path)["x"]
    assert found.dtype == dtype
    assert [None if pd.isna(value) else value for value in found] == read


def test_a_copied_segment_counts_once_and_equal_times_keep_their_order(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, header("x"))
    for count in (3, 1, 2):
        predict(writer, f"r{count}", 0)
    predict(writer, "r0", 1, (1,), (2,))
    (path,) = segments(tmp_path)
    shutil.copy(path, tmp_path / "a copy.jsonl")
    assert requests(read_predictions(tmp_path)) == ["r3", "r1", "r2", "r0", "r0"]


def test_the_latest_label_counts(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, LABELS)
    label(writer, 100, ("late", "yes"), ("twice", "no"), ("same time", "first"))
    label(writer, 100, ("same time", "second"))
    label(writer, 90, ("twice", "older, came later"))
    label(writer, 5 * 86400, ("late", "corrected"), ("number", 1.5), ("truth", True), ("whole", 3))
    labels = read_labels(tmp_path)
    assert labels["label"].dtype == object
    assert dict(zip(labels["prediction_id"], labels["label"], strict=True)) == {
        "twice": "no",
        "same time": "second",
        "late": "corrected",
        "number": 1.5,
        "truth": True,
        "whole": 3,
    }
    assert labels["label_time"].is_monotonic_increasing
    assert labels["label_time"].dtype == "datetime64[us]"
    history = read_labels(tmp_path, history=True)
    assert history["label"].tolist()[:5] == ["older, came later", "yes", "no", "first", "second"]
    assert len(history) == 9
    early = read_labels(tmp_path, at(100), at(101))
    assert early["label"].tolist() == ["yes", "no", "second"]


def test_a_refusal_of_an_earlier_version_counts_as_one_row(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, {"kind": "refusals", "model": "m"})
    writer.append(b'["2026-11-24T15:00:00Z","/predict","amount","out_of_range"]', at(0))
    assert read_refusals(tmp_path)[["rule", "rows", "answered"]].values.tolist() == [["out_of_range", 1, 0]]


def test_reads_back_what_was_refused_and_what_for(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, {"kind": "refusals", "model": "m", "version": 7})
    refused = [(9, "/predict", "amount", "out_of_range", 20, 180), (1, "/predict_csv", None, "extra_column", 20, 0)]
    for seconds, *what in refused:
        writer.append(refusal_line(at(seconds), *what), at(seconds))
    found = read_refusals(tmp_path)
    assert found.dtypes.astype(str).tolist() == ["datetime64[us]", "str", "object", "str", *["int64"] * 3]
    naive = [(at(seconds).replace(tzinfo=None), *what, 7) for seconds, *what in refused]
    assert list(found.itertuples(index=False, name=None)) == naive[::-1]
    assert read_refusals(tmp_path, at(1), at(9))["rule"].tolist() == ["extra_column"]
    path = segments(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-20:-1])
    assert_frame_equal(read_refusals(tmp_path), found)
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1].replace(b"extra_column", b"no such rule"))
    with pytest.raises(UserError, match=f"{path} line 3 is not a record"):
        read_refusals(tmp_path)
    with pytest.raises(UserError, match="holds refusals, not labels; name the folder of the labels"):
        read_labels(tmp_path)


def test_labels_join_predictions_and_become_a_target(tmp_path: Path) -> None:
    predict(RecordWriter(tmp_path / "predictions", header("x")), "9f86d081884c-00000a", 0, (1,), (2,), (3,))
    ids = prediction_ids("9f86d081884c-00000a", 3)
    label(RecordWriter(tmp_path / "labels", LABELS), 9, (ids[2], 1), (ids[0], "0"), (ids[1], True))
    joined = read_predictions(tmp_path / "predictions").merge(read_labels(tmp_path / "labels"), on="prediction_id")
    contract = learned(pd.DataFrame({"x": [1.0, 2, 3], "y": [0, 1, 0]}))
    assert encode_target(joined["label"], contract).tolist() == [0, 1, 1]


def test_an_unfinished_last_line_was_never_answered(tmp_path: Path) -> None:
    predict(RecordWriter(tmp_path, header("x")), "r", 0)
    (path,) = segments(tmp_path)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert requests(read_predictions(tmp_path)) == []
        path.write_bytes(whole + whole[first : first + cut // 2])
        assert requests(read_predictions(tmp_path)) == ["r"]
    path.write_bytes(whole + bytes(100))  # what a power cut may leave
    assert requests(read_predictions(tmp_path)) == ["r"]


@pytest.mark.parametrize(
    "broken",
    [
        b'["r", "2026-11-24T12:00:00Z", [[1',
        b"\xff\xfe",
        b'["r", "2026-11-24T12:00:00Z", [[1], [2]], [0.5], ["no"]]',
        b'["r", "2026-11-24T12:00:00Z", [[1]], [0.5], []]',
        b'["r", "2026-11-24T12:00:00Z", [[1, 2]], [0.5], ["no"]]',
        b'["r", "2026-11-24T12:00:00Z", [[1]], [[0.5, 0.5]], ["no"]]',
        b'["r", "2026-11-24T12:00:00", [[1]], [0.5], ["no"]]',
        b'["r", "noon", [[1]], [0.5], ["no"]]',
    ],
)
def test_any_other_line_that_cannot_be_read_is_named(tmp_path: Path, broken: bytes) -> None:
    writer = RecordWriter(tmp_path, header("x"))
    for line in (prediction_line("a", NOON, msgspec.Raw(b"[[1],\r\n[]]"), [0.5, 0.5], ["no", "no"]), broken):
        writer.append(line, NOON)
    predict(writer, "b", 0)
    (path,) = segments(tmp_path)
    with pytest.raises(UserError, match=f"{path} line 3 is not a record: .*; repair or remove the line"):
        read_predictions(tmp_path)
    path.write_bytes(path.read_bytes().replace(broken + b"\n", b""))
    assert requests(read_predictions(tmp_path)) == ["a", "a", "b"]


def test_a_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for line, complaint in (
        ('{"format": 2, "kind": "answers", "columns": {}}', "has format 2, this code reads 1"),
        ('{"format": 1, "kind": "labels", "model": "m"}', "holds labels, not predictions"),
        ('{"kind": "predictions"}', "line 1 is not the header of a log"),
        ('["a-0", "yes", "2026-11-24T12:00:00Z"]', "line 1 is not the header of a log"),
    ):
        path.write_text(line + "\n")
        with pytest.raises(UserError, match=f"{path} {complaint}"):
            read_predictions(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_predictions(tmp_path)
    with pytest.raises(UserError, match="the log 'nowhere://log' cannot be read"):
        read_labels("nowhere://log")


def test_a_folder_with_nothing_in_it_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not of the log")
    for source in (tmp_path, tmp_path / "missing", "memory://missing"):
        log, labels, refusals = read_predictions(source), read_labels(source), read_refusals(source)
        assert len(log) == len(labels) == len(refusals) == 0
        assert refusals.dtypes.astype(str).tolist() == ["datetime64[us]", "str", "object", "str", *["int64"] * 3]
        assert log.dtypes.astype(str).tolist() == ["str", "datetime64[us]", "int64", "float64", "object"]
        assert labels.dtypes.astype(str).tolist() == ["str", "object", "datetime64[us]"]


def test_reads_wherever_fsspec_reaches(tmp_path: Path) -> None:
    predict(RecordWriter(tmp_path, header("x")), "r", 0)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/records", recursive=True)
    try:
        assert_frame_equal(read_predictions("memory://records"), read_predictions(f"file://{tmp_path}"))
        assert requests(read_predictions("memory://records", at(0), at(1))) == ["r"]
    finally:
        memory.rm("/records", recursive=True)


def test_a_column_must_not_take_a_name_of_the_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column 'prediction_time' .* rename it"):
        RecordWriter(tmp_path, header("x", "prediction_time"))
    with pytest.raises(UserError, match="column 'prediction_score_b'"):
        RecordWriter(tmp_path, header("prediction_score_b", classes=("a", "b", "c")))


CHILD = """
import os, sys
from datetime import UTC, datetime
from itertools import accumulate, islice
from pathlib import Path
from loop.log.records import RecordWriter, prediction_line, request_ids

folder, requests, rows = Path(sys.argv[1]), *map(int, sys.argv[2:])
header = {"kind": "predictions", "model": "m", "version": 1, "release": "v1", "columns": ["x"], "classes": []}
writer = RecordWriter(folder, header, segment_bytes=2**20)
for request_id in islice(request_ids(), requests):
    now = datetime.now(UTC)
    writer.append(prediction_line(request_id, now, [[0.1]] * rows, [0.5] * rows, None), now)
    os.write(1, request_id.encode() + b"\\n")
"""


@contextmanager
def child(folder: Path, requests: int, rows: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", CHILD, str(folder), str(requests), str(rows)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_killed_process_loses_no_answered_record(tmp_path: Path, rows: int) -> None:
    with child(tmp_path, 10**9, rows) as writer:
        answered = list(islice(writer.stdout, 2000 // rows + 5))
        writer.send_signal(signal.SIGKILL)
        answered += [line for line in writer.stdout if line.endswith(b"\n")]
    logged = read_predictions(tmp_path)["prediction_id"]
    wanted = {name for line in answered for name in prediction_ids(line.decode().strip(), rows)}
    assert wanted <= set(logged)
    assert len(logged) - len(wanted) in (0, rows)  # one record may have been kept and not yet answered


def test_two_processes_share_a_folder_and_no_id(tmp_path: Path) -> None:
    with child(tmp_path, 5000, 1) as one, child(tmp_path, 5000, 1) as other:
        answered = one.communicate()[0].split() + other.communicate()[0].split()
    log = read_predictions(tmp_path)
    assert sorted(requests(log)) == sorted(line.decode() for line in answered)
    assert len(log) == 10_000
    assert log["prediction_time"].is_monotonic_increasing


def test_threads_share_a_writer(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, header("x"), segment_bytes=5000)

    def work(name: str) -> None:
        for count in range(300):
            predict(writer, f"{name}{count}", 0)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(requests(read_predictions(tmp_path))) == sorted(f"{name}{n}" for name in "abcd" for n in range(300))


def append_until_full(writer: RecordWriter, name: str) -> list[str]:
    """Return the requests that were kept, out of so many that the log becomes unavailable."""
    kept: list[str] = []
    for count in range(300):
        with suppress(LogUnavailable):
            predict(writer, f"{name}{count}", count, *[(0.1,)] * 50)
            kept.append(f"{name}{count}")
    assert len(kept) < 300
    return kept


def test_a_full_disk_keeps_whole_lines_and_works_again_once_there_is_space(small_disk: Path) -> None:
    ballast, folder = small_disk / "ballast", small_disk / "log"
    ballast.write_bytes(bytes(64 * 1024))
    writer = RecordWriter(folder, header("x"))
    kept = append_until_full(writer, "a")
    assert len(whole_lines(folder)) == len(kept) > 10
    ballast.unlink()
    predict(writer, "b", 1000)
    kept += ["b", *append_until_full(writer, "c")]
    assert len(whole_lines(folder)) == len(kept)
    assert set(requests(read_predictions(folder))) == set(kept)


def test_a_disk_that_is_full_from_the_start_is_no_log_yet(small_disk: Path) -> None:
    ballast, folder = small_disk / "ballast", small_disk / "log"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(256 * 1024))
    writer = RecordWriter(folder, header("x"))
    assert append_until_full(writer, "a") == []
    assert len(read_predictions(folder)) == 0
    ballast.unlink()
    predict(writer, "b", 0)
    assert requests(read_predictions(folder)) == ["b"]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let the kernel cut short what is written beyond this size of a file; Python ignores SIGXFSZ."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_cut_short_is_taken_back(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, header("x"))
    with file_limit(10_000):
        kept = append_until_full(writer, "a")
    assert len(whole_lines(tmp_path)) == len(kept) > 5
    predict(writer, "b", 1000)
    assert len(segments(tmp_path)) == 1
    assert requests(read_predictions(tmp_path)) == [name for name in kept for _ in range(50)] + ["b"]


def test_a_line_that_cannot_be_taken_back_ends_its_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, size: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", refuse)
    writer = RecordWriter(tmp_path, header("x"))
    with file_limit(10_000):
        predict(writer, "kept", 0)
        with pytest.raises(LogUnavailable):
            predict(writer, "cut short", 1, *[(0.1,)] * 5000)
    predict(writer, "later", 2)
    assert requests(read_predictions(tmp_path)) == ["kept", "later"]


def test_a_folder_that_cannot_be_made_leaves_the_log_unavailable(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    writer = RecordWriter(tmp_path / "log", header("x"))
    with pytest.raises(LogUnavailable, match=f"^the log in {tmp_path}/log cannot be written: File exists$"):
        predict(writer, "r", 0)
    (tmp_path / "log").unlink()
    predict(writer, "r", 0)
    assert requests(read_predictions(tmp_path / "log")) == ["r"]


def replace(segment: Path) -> None:
    """Let another file of the same name stand there."""
    segment.rename(segment.with_name("moved.jsonl"))
    segment.write_bytes(b"")


FATES: dict[str, Callable[[Path], Any]] = {
    "segment deleted": Path.unlink,
    "segment moved": lambda segment: segment.rename(segment.with_name("moved.jsonl")),
    "segment replaced": replace,
    "folder deleted": lambda segment: shutil.rmtree(segment.parent),
    "folder moved": lambda segment: segment.parent.rename(segment.parent.with_name("moved")),
    "emptied": lambda segment: segment.write_bytes(b""),
}


@pytest.mark.parametrize("fate", FATES)
def test_what_is_answered_after_the_log_is_gone_is_on_disk_in_its_place(
    tmp_path: Path, fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.log.records, "LOOK_SECONDS", 0.0)
    writer = RecordWriter(tmp_path / "log", header("x"))
    predict(writer, "before", 0)
    FATES[fate](next((tmp_path / "log").iterdir()))
    predict(writer, "after", 1)
    predict(writer, "later", 2)
    found = requests(read_predictions(tmp_path / "log"))
    assert [name for name in found if name != "before"] == ["after", "later"]
    if "moved" in fate or "replaced" in fate:  # the file that was moved holds what it held, and nothing else
        (moved,) = tmp_path.rglob("moved*")
        kept = requests(read_predictions(moved if moved.is_dir() else moved.parent))
        assert kept[0] == "before"
        assert moved.is_file() or kept == ["before"]


def test_no_record_is_lost_that_is_answered_while_the_log_is_moved_and_deleted(tmp_path: Path) -> None:
    folder, answered, refused = tmp_path / "log", list[str](), list[str]()
    writer, done = RecordWriter(folder, header("x")), threading.Event()

    def answer() -> None:
        for count in itertools.count():
            if done.is_set():
                return
            try:
                predict(writer, f"r{count}", count / 1000)
                answered.append(f"r{count}")
            except LogUnavailable:  # the folder went between its making and its first file
                refused.append(f"r{count}")

    def wait_for_more() -> None:
        enough, until = len(answered) + 50, time.monotonic() + 30
        while len(answered) < enough and time.monotonic() < until:
            time.sleep(0.001)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        for turn in range(10):
            wait_for_more()
            folder.rename(tmp_path / f"moved {turn}")
        wait_for_more()
        shutil.rmtree(folder, ignore_errors=True)  # a new segment may come meanwhile
        lost = len(answered)
        wait_for_more()
    finally:
        done.set()
        thread.join()
    on_disk = {name for path in tmp_path.iterdir() for name in requests(read_predictions(path))}
    assert on_disk.isdisjoint(refused)
    assert set(answered[lost + 1 :]) <= on_disk  # the one that was answered as the folder went is not in the count
    last_moved = requests(read_predictions(tmp_path / "moved 9"))[-1]
    assert set(answered[: answered.index(last_moved) + 1]) <= on_disk


def test_a_log_that_vanishes_at_each_write_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    writer = RecordWriter(tmp_path, header("x"))
    with pytest.raises(LogUnavailable, match="removed as fast as they are made"):
        predict(writer, "r", 0)
    assert len(read_predictions(tmp_path)) == 0


def test_ids_are_unique_and_look_like_ids() -> None:
    ids = [*islice(request_ids(), 100_000), *islice(request_ids(), 100_000)]
    assert len(set(ids)) == 200_000
    assert all(PREDICTION_ID.search(name) for request_id in ids[::997] for name in prediction_ids(request_id, 11))
    digits = [name[:12] + name[13:] for name in ids]
    assert all(len({name[place] for name in digits}) == 16 for place in range(24))  # each digit may be any: none counts
    good = "9f86d081884c-00000a-0"
    assert PREDICTION_ID.search(good)
    for bad in ("", good[:-2], good[1:], good + "\n", good + " ", "x" + good, good.upper(), good + "-1", good + "0"):
        assert not PREDICTION_ID.search(bad)
