import socket
from pathlib import Path

import pandas as pd
import pytest

from loop.cli import preflight
from loop.cli.preflight import check_rows_here
from loop.config import Config, UserError


def use_case(source: str, **data: str) -> Config:
    return Config.model_validate({"name": "t", "data": {"source": source, "target": "y", **data}})


@pytest.fixture
def one_class(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    pd.DataFrame({"a": range(50), "y": 1}).to_csv(path, index=False)
    return path


def test_accepts_a_good_table(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": range(50), "y": [0, 1] * 25}).to_parquet(path)
    check_rows_here(use_case(str(path)))


def test_a_large_table_is_not_read_twice(one_class: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="two different values"):
        check_rows_here(use_case(str(one_class)))
    monkeypatch.setattr(preflight, "SMALL", one_class.stat().st_size - 1)
    check_rows_here(use_case(str(one_class)))


@pytest.mark.parametrize("source", ["sklearn:iris", "model.fraud:card_transactions", "s3://bucket/t.csv", "t.csv.gz"])
def test_leaves_alone_what_tells_no_size(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"a": range(50), "y": 1}).to_csv("t.csv.gz", index=False)
    check_rows_here(use_case(source))


def test_a_leak_is_left_to_the_step_that_has_scikit_learn(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    pd.DataFrame({"a": range(100), "b": [0, 1] * 50, "y": [0, 1] * 50}).to_csv(path, index=False)
    check_rows_here(use_case(str(path)))


def test_a_database_that_does_not_answer_yet_is_no_fault() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        check_rows_here(use_case(f"mysql+pymysql://u@127.0.0.1:{port}/x", query="select 1"))
