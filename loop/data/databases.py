"""Read the result of a query, and say what is wrong without ever showing a password."""

from __future__ import annotations

import re
from contextlib import suppress
from math import inf
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from loop.config import SPELLING, Data, UserError

if TYPE_CHECKING:  # the check before a run does without pandas and SQLAlchemy
    import pandas as pd
    import sqlalchemy as sa

_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_PATIENCE = 0.5  # seconds: a server that refuses does so at once, one that has to wake up may take a minute


def check_database(url: str) -> float:
    """Refuse a SQLite file that is not there, which SQLite would create; return its bytes, else infinity."""
    match = re.match(r"sqlite(?:\+pysqlite)?:///([^?]+)", url)
    if not match or match[1].startswith((":memory:", "file:")):
        return inf
    if not Path(match[1]).is_file():
        raise UserError(f"no database file '{match[1]}'; data.source starts from {Path.cwd()}")
    return Path(match[1]).stat().st_size


def check_connection(data: Data, url: str) -> None:
    """Connect and raise a UserError if that is refused; no answer in half a second is no fault yet."""
    import sqlalchemy as sa

    engine, faults = _engine(data, url), list[UserError]()

    def connect() -> None:
        with suppress(Exception):  # what else goes wrong does so again, and is told, when the rows are read
            try:
                engine.connect().close()
            except sa.exc.SQLAlchemyError as err:
                faults.append(_fault(engine.url, err))

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    for fault in faults:
        raise fault


def read_query(data: Data, url: str, query: str) -> pd.DataFrame:
    """Return at most `data.rows` rows; no exception is chained, since a driver's may hold the password.

    Values come as the driver has them: pandas would make floats of whole numbers of which one misses.
    """
    import pandas as pd
    import sqlalchemy as sa

    engine = _engine(data, url)
    options = {key: value for key, value in data.options.items() if key not in SPELLING}
    if isinstance(options.get("params"), list):  # YAML knows no tuples, and a list would mean many queries
        options["params"] = tuple(options["params"])
    try:
        # Without parameters % and : in the query are plain characters.
        with engine.connect().execution_options(no_parameters="params" not in options) as connection:
            if not options.keys() - {"params"}:
                result = connection.exec_driver_sql(query, options.get("params"))
                records = result.fetchall() if data.rows is None else result.fetchmany(data.rows)
                columns = zip(*records, strict=True) if records else ((),) * len(result.keys())
                made = [pd.Series(list(values), dtype=object) for values in columns]
                return pd.concat(made, axis=1).set_axis(list(result.keys()), axis=1)
            found: Any = pd.read_sql_query(query, connection, chunksize=data.rows, **options)
            return found if data.rows is None else next(iter(found), pd.DataFrame())
    except (sa.exc.SQLAlchemyError, pd.errors.DatabaseError) as err:
        raise _fault(engine.url, err.__cause__ if isinstance(err, pd.errors.DatabaseError) else err) from None


def _fault(url: sa.URL, err: BaseException | None) -> UserError:
    words = str(getattr(err, "orig", None) or err).strip().splitlines()[0]
    for secret in (url.password, *map(str, url.query.values())):
        words = words.replace(str(secret), "***") if secret else words
    return UserError(f"cannot read from {_address(url)}: {words[:300]}")


def _engine(data: Data, url: str) -> sa.Engine:
    import sqlalchemy as sa

    try:
        made = sa.make_url(url)
        return sa.create_engine(made, poolclass=sa.NullPool)
    except sa.exc.NoSuchModuleError:
        dialect = made.drivername
        fix = "correct it, or install the package that has it"
        if dialect == "postgres":
            fix = "write postgresql://"
        raise UserError(f"no SQLAlchemy dialect for '{dialect}://'; {fix}") from None
    except ImportError as err:
        package = _PACKAGES.get(err.name or "", err.name)
        raise UserError(f"the driver for {_address(made)} is missing; install {package}") from None
    except (sa.exc.ArgumentError, ValueError):
        fix = "write dialect://user:password@host/name and percent-encode special characters"
        raise UserError(f"'{data.shown_source}' holds no readable database URL; {fix}") from None


def _address(url: sa.URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)
