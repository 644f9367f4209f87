"""Make SQLite files whole or not at all: under another name first, and moved into place when all is in them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

MADE_HERE = 1
"""`user_version` of a file that was moved into place, so that nobody has to look for what may be missing in it."""


def is_whole(path: Path, evidence: str) -> bool:
    """Say whether a file was made to its end: it bears our mark, or a query finds what only a whole one holds."""
    if not path.exists():
        return False
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] == MADE_HERE:
            return True
        try:
            return connection.execute(evidence).fetchone() is not None
        except sqlite3.OperationalError as err:
            if "no such table" in str(err):
                return False
            raise


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """Give another name to make a file under; it is moved to `path` when the block ends well.

    What an earlier attempt has left is removed, and a half-made file at `path` is put aside as `NAME.half`.
    """
    new = path.with_name(f"{path.name}.new")
    _remove(new)
    new.parent.mkdir(parents=True, exist_ok=True)
    yield new
    with closing(sqlite3.connect(new)) as connection:
        connection.execute(f"PRAGMA user_version={MADE_HERE}")
        connection.execute("PRAGMA journal_mode=DELETE")  # all is in the one file that is moved
        connection.commit()
    if path.exists():
        path.replace(path.with_name(f"{path.name}.half"))
    _remove(path)  # a write-ahead log of another file would be played into this one
    new.replace(path)


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
