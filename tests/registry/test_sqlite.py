"""A SQLite file that is whole or not there."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Cli

from loop.cli import runs
from loop.config import Data
from loop.data.sources import read_rows
from loop.registry.sqlite import is_whole, made_whole

EVIDENCE = "SELECT 1 FROM runs"


def write(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_what_was_made_to_its_end_is_in_place_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder/a.db"
    with made_whole(path) as new:
        write(new, "CREATE TABLE runs (id)")
        assert not path.exists()
    assert is_whole(path, EVIDENCE)
    assert [file.name for file in path.parent.iterdir()] == ["a.db"]


def test_what_was_interrupted_is_not_there_and_is_made_again_from_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    def interrupted() -> None:
        with made_whole(path) as new:
            write(new, "CREATE TABLE half (id)")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_whole(path, EVIDENCE)
    with made_whole(path) as new:
        write(new, "CREATE TABLE half (id)")  # would be there already
    assert is_whole(path, EVIDENCE)


@pytest.mark.parametrize("statements", [(), ("CREATE TABLE half (id)",), ("CREATE TABLE runs (id)",)])
def test_a_half_made_file_of_before_is_put_aside_and_its_log_is_not_played_into_the_new_one(
    tmp_path: Path, statements: tuple[str, ...]
) -> None:
    path = tmp_path / "a.db"
    write(path, *statements)
    (tmp_path / "a.db-wal").write_bytes(b"of another file")
    assert not is_whole(path, EVIDENCE)
    with made_whole(path) as new:
        write(new, "CREATE TABLE runs (id)")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "a.db.half"]


def test_a_file_that_others_made_and_used_is_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.db", "CREATE TABLE runs (id)", "INSERT INTO runs VALUES (1)")
    assert is_whole(tmp_path / "a.db", EVIDENCE)


def test_the_flavor_that_tells_a_whole_database_is_the_last_that_zenml_registers(zenml: None) -> None:
    from zenml.stack.flavor_registry import FlavorRegistry

    from loop.places import apply

    assert f"'{FlavorRegistry().integration_flavors[-1]().name}'" in apply.WHOLE


def journal(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def test_a_source_keeps_its_journal_and_may_be_read_only(cli: Cli, tmp_path: Path) -> None:
    cli("--status")  # from then on ZenML's and MLflow's files are written ahead
    path = tmp_path / "source.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE seen (x, y); INSERT INTO seen VALUES (1, 2)")
    for address in (str(path), f"file:{path}?mode=ro&uri=true"):
        data = Data(source=f"sqlite:///{address}", query="SELECT * FROM seen", target="y")
        assert read_rows(data).to_numpy().tolist() == [[1, 2]]
    assert journal(path) == "delete"
    assert journal(runs.LOCAL / "zenml/local_stores/default_zen_store/zenml.db") == "wal"
