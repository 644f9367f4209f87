"""Windows of a whole log, and the rows that another model decides otherwise."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tables import mixed, recipe, trained

from loop.config import Monitoring, UserError
from loop.log.records import TRUTH, RecordWriter, label_lines, prediction_line, refusal_line
from loop.watching.lookback import changed_decisions, cut_windows

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def written(log: Path, rows: int, version: int = 1) -> None:
    """Answer a row a minute; every second one gets a label, and each hour one request is refused."""
    header = {"kind": "predictions", "version": version, "columns": ["x"], "classes": ["no", "yes"]}
    answers = RecordWriter(log / "predictions", header)
    labels = RecordWriter(log / "labels", {"kind": "labels"})
    refusals = RecordWriter(log / "refusals", {"kind": "refusals"})
    for place in range(rows):
        now, name = NOON + timedelta(minutes=place), f"{version:012x}-{place:06x}"
        answers.append(prediction_line(name, now, [[place]], [0.5], ["no"]), now)
        if place % 2:
            labels.append(label_lines([(f"{name}-0", "yes")], now), now)
        if place % 60 == 30:
            refusals.append(refusal_line(now, "/predict", "x", "wrong_type"), now)
    for writer in (answers, labels, refusals):
        writer.close()


def test_windows_follow_one_another_each_with_its_labels_and_refusals(tmp_path: Path) -> None:
    written(tmp_path, 250, version=2)
    written(tmp_path, 40, version=1)
    windows = cut_windows(str(tmp_path), 2, Monitoring(window_rows=120, min_rows=30))
    assert [len(window.rows) for window in windows] == [120, 120]
    assert np.concatenate([window.rows["x"] for window in windows]).tolist() == list(range(240))
    assert [int(window.judged[TRUTH].notna().sum()) for window in windows] == [60, 60]
    assert all(TRUTH not in window.rows for window in windows)
    assert [len(window.refusals) for window in windows] == [3, 2]  # the first holds one of version 1 as well
    (whole,) = cut_windows(str(tmp_path), 2, Monitoring(window_rows=None, min_rows=30))
    assert len(whole.rows) == 250


def test_too_little_traffic_is_one_sentence(tmp_path: Path) -> None:
    written(tmp_path, 40)
    with pytest.raises(UserError, match=r"needs 500 rows that version 1 answered, .* holds 40; first: python run.py"):
        cut_windows(str(tmp_path), 1, Monitoring())
    with pytest.raises(UserError, match="holds 0"):
        cut_windows(str(tmp_path / "nothing"), 1, Monitoring())


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_changed_decisions_are_those_that_differ_the_largest_change_first(target: str) -> None:
    rows = mixed()
    now, holdout = trained(rows, recipe(target))
    then, _ = trained(rows, recipe(target, params={"max_depth": 1}))
    assert changed_decisions(holdout, now, now).empty
    changed = changed_decisions(holdout, now, then)
    expected = now.predictions(holdout).decisions != then.predictions(holdout).decisions
    assert 0 < len(changed) == expected.sum()
    assert list(changed)[:4] == ["now", "then", target, "change"]
    assert set(changed["nummer"]) == set(holdout["nummer"][expected])
    assert changed["change"].abs().is_monotonic_decreasing
    assert (changed["now"] != changed["then"]).all()
    if target != "preis":
        assert set(changed["then"]) <= set(rows[target])
