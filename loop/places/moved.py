"""Put a clone right that was moved or copied: ZenML and MLflow keep whole paths of its files."""

import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import yaml

DATABASE = "local_stores/default_zen_store/zenml.db"


def follow(home: Path) -> None:
    """Replace the folder that the databases of this ZenML home name by the one they lie in, and say so.

    The databases must be this home's own, and nobody else be at work on them.
    """
    database = home / DATABASE
    if os.environ.get("ZENML_STORE_URL") != f"sqlite:///{database}" or not database.exists():
        return
    before = _recorded(database)
    if before is None or before == str(home):
        return
    for path in home.glob("local_stores/*/*.db"):
        _replace(path, f"{before}/", f"{home}/")
    settings = home / "config.yaml"
    if settings.exists():
        known = yaml.safe_load(settings.read_text(encoding="utf-8"))
        store = known.get("store") or {}
        for key in ("backup_directory", "database", "url"):
            if isinstance(store.get(key), str):
                store[key] = store[key].replace(f"{before}/", f"{home}/")
        settings.write_text(yaml.safe_dump(known), encoding="utf-8")
    print(f"this clone's state was at {before} and is at {home} now; its databases follow", file=sys.stderr)


def _recorded(database: Path) -> str | None:
    """Return the home that the newest local artifact was stored under."""
    newest = "select uri from artifact_version where uri like '/%/local_stores/%' order by created desc limit 1"
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        try:
            found = connection.execute(newest).fetchone()
        except sqlite3.OperationalError:  # no table yet
            return None
    return None if found is None else str(found[0]).partition("/local_stores/")[0]


def _replace(database: Path, before: str, after: str) -> None:
    """Replace a path wherever it stands in a text of a database, all at once."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in connection.execute(f'pragma table_info("{table}")').fetchall():
                if kind.startswith(("VARCHAR", "TEXT", "CHAR")):
                    connection.execute(
                        f'update "{table}" set "{column}" = replace("{column}", ?, ?) where instr("{column}", ?)',  # noqa: S608  (names of the database's own)
                        (before, after, before),
                    )
