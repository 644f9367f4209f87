"""Read a table from wherever `data.source` says, with honest types and errors that name the fix."""

from __future__ import annotations

import csv
import difflib
import importlib
import importlib.util
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from config import ROOT, Data, UserError, known

if TYPE_CHECKING:  # the check before a run does without pandas
    import pandas as pd

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_SUPPORTED = "it needs .csv, .tsv, .parquet, .jsonl, .ndjson or .json (text also .gz, .bz2, .xz, .zst, .zip)"
_ENDING = re.compile(r"\.(?:(parquet|pq)|(csv|tsv|jsonl|ndjson|json)(?:\.(gz|bz2|xz|zst|zip))?)$", re.I)
_CODECS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd", "zip": "zip"}
_MAGIC = re.compile(r"[*?\[]")
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
# What the pandas readers take that is ours to give, or that makes them return something else than a table.
_OURS = {"filepath_or_buffer", "path_or_buf", "path", "sql", "con", "typ", "chunksize", "iterator"}
# With these options the first line of a CSV file need not be its header.
_HIDES_HEADER = {"header", "names", "skiprows", "comment", "dialect", "compression"}
_PACKAGES = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_SHOWN = 12  # names in a message; more cannot be read
_ISO = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
# Dots put the day first everywhere; of / and - both orders are tried, and one of them must fail.
_DAYS = ["%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y"]
_FORMATS = [day + clock for day in _DAYS for clock in ("", " %H:%M", " %H:%M:%S")]


def read_rows(data: Data) -> pd.DataFrame:
    """Return the rows of `data.source`, at most `data.rows`, under a fresh index; any fault is a UserError.

    Types are int, float, bool (nullable `boolean` where values miss), str and datetime64[us]: they survive
    Parquet. Strings that are all dates, in ISO 8601 or one other format that leaves no doubt about day and
    month, become datetimes; a time zone is converted to UTC and dropped; a time span becomes seconds.
    Numbers held as strings stay strings. Column names lose surrounding whitespace only.
    """
    import pandas as pd

    name, read = _reader(data)
    rows = read()
    if not isinstance(rows.index, pd.RangeIndex):
        rows = rows.reset_index(drop=all(level is None for level in rows.index.names))
    columns = [str(column).strip() for column in rows.columns]
    _check_columns(data, columns, name)
    if rows.empty:
        raise UserError(f"{name} is empty: it has columns and no rows")
    rows = rows.set_axis(columns, axis=1).head(data.rows or len(rows))
    return pd.DataFrame({c: _plain(rows[c], data.kinds.get(c)) for c in columns}).reset_index(drop=True)


def check_source(data: Data) -> None:
    """Refuse what cannot be read, in milliseconds and without pandas.

    Local files are opened (ending, size, header, magic bytes), modules are found but not run, databases and
    remote files are left alone. Any fault is a UserError.
    """
    _reader(data)


def _reader(data: Data) -> tuple[str, Callable[[], pd.DataFrame]]:
    """Make every check that is cheap; return the source's name for messages, and what reads it."""
    source = _expand(data.source, "data.source")
    if source.startswith("sklearn:") or _FUNCTION.fullmatch(source):
        place, _, item = source.rpartition(":")
        if place != "sklearn":
            _check_module(place)
        elif item not in _BUNDLED:
            raise UserError(f"no data set '{item}'; {known('sklearn:', _BUNDLED, item)}")
        read = partial(_read_bundled, data, item) if place == "sklearn" else partial(_call, data, place, item)
    elif "://" in source and not _is_file_url(source):
        query = _expand(data.query or "", "data.query")
        if not query.strip():
            raise UserError(
                f"data.query is missing; the database '{_shown(data.source)}' needs the SQL to run"
            )
        _check_sqlite_file(source)
        return "the query's result", partial(_read_database, data, source, query)
    elif "://" in source and not source.startswith(("file://", "local://")):
        read = partial(_read_files, data, source)
    else:
        with _explained(_shown(data.source), is_local=True):
            files = _find_files(data, source)
        for file in files:
            _check_file(data, file)
        read = partial(_read_files, data, source, files)
    if data.query is not None:
        raise UserError(f"data.query needs a database URL as data.source, that is '{_shown(data.source)}'")
    return _shown(data.source).rstrip("/").rpartition("/")[2] or data.source, read


def _expand(text: str, key: str) -> str:
    """Fill in `${NAME}`, which `config.Data` holds as `$(NAME)`."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise UserError(f"{key} needs the environment variable {name}, which is not set")
        return os.environ[name]

    return re.sub(r"\$(?:\{(\w+)\}|\((\w+)\))", value, text)


def _is_file_url(source: str) -> bool:
    import fsspec

    return re.split(r"::|://", source)[0].lower() in fsspec.available_protocols()


def _shown(source: str) -> str:
    """Return a source as the user wrote it, without a URL's query string: it may be signed."""
    source = re.sub(r"\$\((\w+)\)", r"${\1}", source)
    return source.split("?")[0] if "://" in source else source


def _known(what: str, options: Iterable[str], given: str) -> str:
    """Say as `config.known` what there is, with the nearest names when there are too many for a message."""
    options = list(dict.fromkeys(options))
    near = difflib.get_close_matches(given, options, n=_SHOWN, cutoff=0.5)
    if len(options) > _SHOWN:
        what = f"among {len(options)} names {what}"
    return known(what, [*near, *(option for option in options if option not in near)][:_SHOWN], given)


def _check_columns(data: Data, columns: Sequence[str], name: str) -> None:
    twice = {column for column in columns if column and columns.count(column) > 1}
    if twice:
        raise UserError(f"{name} has column '{min(twice)}' more than once; give each column its own name")
    wanted = [(data.target, ""), *((column, " (data.id)") for column in data.id)]
    wanted += [(column, " (data.time)") for column in (data.time,) if column]
    wanted += [(column, " (data.drop)") for column in data.drop]
    wanted += [(column, " (data.kinds)") for column in data.kinds]
    for column, key in wanted:
        if column not in columns:
            raise UserError(f"no column '{column}'{key} in {name}; {_known('it', columns, column)}")


def _check_options(what: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if not what.startswith("pandas.") and any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    allowed = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in _OURS]
    for option in options:
        if option not in allowed:
            raise UserError(f"no option '{option}' (data.options); {_known(what, allowed, option)}")


@dataclass(frozen=True)
class _File:
    """One data file: where it is and what its path says about it."""

    system: Any  # an fsspec file system
    path: str
    name: str
    ending: str
    codec: str | None
    partitions: dict[str, str]

    @property
    def is_local(self) -> bool:
        return "file" in self.system.protocol

    def open(self, mode: str = "rb", plain: bool = False, **text: Any) -> Any:
        return self.system.open(self.path, mode, compression=None if plain else self.codec, **text)


def _find_files(data: Data, source: str) -> list[_File]:
    """List the data files of a path, glob, folder or URL in sorted order; skip what `_` or `.` hides."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(source, **data.options.get("storage_options", {}))
    folder = path.rpartition("/")[0]
    if "https" in system.protocol:  # one file: to list an HTTP server means to load its pages
        paths = [path]
    elif system.isdir(path):
        folder, paths = path.rstrip("/"), system.find(path)
    elif system.exists(path):
        paths = [path]
    elif magic := _MAGIC.search(path):
        folder = path[: magic.start()].rpartition("/")[0]
        paths = [file for match in system.glob(path) for file in system.find(match)]
    else:
        items = system.ls(folder, detail=False) if system.isdir(folder) else []
        there = [item.rpartition("/")[2] for item in items if _ENDING.search(item) or system.isdir(item)]
        there = sorted(name for name in there if not name.startswith("."))
        what = _known(f"{folder}/", there, path.rpartition("/")[2])
        raise UserError(
            f"no file '{_shown(data.source)}'; {what if items else f'there is no folder {folder}/'}"
        )
    files = []
    for path in sorted(paths):
        below = _shown(path).removeprefix(folder).lstrip("/")
        match = _ENDING.search(below)
        if match and (len(paths) == 1 or not re.search(r"(^|/)[_.]", below)):
            pairs = (part.split("=", 1) for part in below.split("/")[:-1] if "=" in part)
            partitions = {unquote(key): unquote(value) for key, value in pairs}
            ending, codec = (match[2] or "parquet").lower(), _CODECS.get((match[3] or "").lower())
            files.append(_File(system, path, below, ending, codec, partitions))
    if not files:
        raise UserError(f"no data file at data.source '{_shown(data.source)}'; {_SUPPORTED}")
    if len(endings := sorted({file.ending for file in files})) > 1:
        kinds = " and ".join(f".{ending}" for ending in endings)
        raise UserError(f"'{_shown(data.source)}' holds {kinds} files; choose by a glob such as 'data/*.csv'")
    return files


def _check_file(data: Data, file: _File) -> None:
    with _explained(file.name, file.is_local):
        size = file.system.size(file.path)
        if size == 0:
            raise UserError(f"{file.name} is empty")
        if file.ending == "parquet" and file.is_local:
            with file.open() as handle:
                head = handle.read(4)
                handle.seek(max(size - 4, 0))
                if head != b"PAR1" or handle.read(4) != b"PAR1":
                    raise UserError(
                        f"{file.name} is not a whole Parquet file; was it cut off, or is it something else?"
                    )
        elif file.ending in ("csv", "tsv") and not data.options.keys() & _HIDES_HEADER:
            separator, options = _separator(data, file)
            if isinstance(separator, str) and len(separator) == 1:
                _check_header(data, file, separator, options)


def _separator(data: Data, file: _File) -> tuple[Any, dict[str, Any]]:
    """Return the CSV separator and the other reader options."""
    options = {key: value for key, value in data.options.items() if key != "storage_options"}
    default = "\t" if file.ending == "tsv" else ","
    return options.pop("sep", options.pop("delimiter", default)), options


def _check_header(data: Data, file: _File, separator: str, options: dict[str, Any]) -> None:
    """Hold a CSV file's header against the config, before pandas renames columns that stand twice."""
    encoding, errors = options.get("encoding") or "utf-8-sig", options.get("encoding_errors", "strict")
    with file.open("rt", encoding=encoding, errors=errors, newline="") as handle:
        lines = csv.reader(handle, delimiter=separator, quotechar=options.get("quotechar", '"'))
        columns = [column.strip() for column in next(filter(None, lines), [])]
    if not columns:
        raise UserError(f"{file.name} is empty")
    other = next((s for s in ";\t|," if s in columns[0] and len(columns) == 1), None)
    if other and data.target != columns[0]:
        raise UserError(f"{file.name} has one column, {columns[0]!r}; set data.options.sep: {other!r}")
    _check_columns(data, [*columns, *file.partitions], file.name)


@contextmanager
def _explained(name: str, is_local: bool) -> Iterator[None]:
    """Turn whatever a reader raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError as err:
        fix = "utf-16" if err.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1"
        raise UserError(
            f"{name} is not in {err.encoding}; set data.options.encoding to what it is, such as {fix}"
        ) from err
    # pandas, pyarrow, the codecs and fsspec's plug-ins share no base class, and a user has to fix the file.
    except Exception as err:
        raise UserError(f"cannot read {name}: {_reason(err, is_local)}") from (err if is_local else None)


def _reason(err: Exception, is_local: bool) -> str:
    line = next(iter(str(err).splitlines()), "") or type(err).__name__
    if ragged := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(err)):
        return (
            f"line {ragged[2]} has {ragged[3]} fields instead of {ragged[1]}; repair it, "
            "or set data.options.on_bad_lines: skip"
        )
    if isinstance(err, ImportError) or "Compression type" in line:
        return f"a package is not installed: {line}"
    # A plug-in's own words may hold a signed URL.
    return line[:200] if is_local else f"{type(err).__name__}; look at the address and the credentials"


def _read_files(data: Data, source: str, files: Sequence[_File] = ()) -> pd.DataFrame:
    import pandas as pd

    if not files:
        with _explained(_shown(data.source), is_local=False):
            files = _find_files(data, source)
        for file in files:
            _check_file(data, file)
    frames: list[pd.DataFrame] = []
    left = data.rows
    for file in files:
        with _explained(file.name, file.is_local):
            frame = _read_file(data, file, left)
        frame = frame.assign(**{k: v for k, v in file.partitions.items() if k not in frame.columns})
        if frames and (odd := sorted(map(str, set(frame.columns) ^ set(frames[0].columns)))):
            raise UserError(f"{file.name} and {files[0].name} differ: only one has {', '.join(odd[:_SHOWN])}")
        frames.append(frame)
        if left is not None and (left := left - len(frame)) <= 0:
            break
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=len(frames) > 1)
    for key in files[0].partitions:
        if rows[key].astype(str).str.fullmatch(r"0|[1-9]\d{0,17}").all():
            rows[key] = rows[key].astype("int64")
    return rows


def _read_file(data: Data, file: _File, rows: int | None) -> pd.DataFrame:
    import pandas as pd

    separator, options = _separator(data, file)
    readers: dict[str, Any] = {"parquet": pd.read_parquet, "csv": pd.read_csv, "tsv": pd.read_csv}
    reader = readers.get(file.ending, pd.read_json)
    _check_options(f"pandas.{reader.__name__}", reader, options)
    with file.open(plain="compression" in options) as handle:
        if file.ending == "parquet":
            if rows and options.keys() <= {"columns"}:
                return _parquet_head(handle, rows, options.get("columns"))
            return pd.read_parquet(handle, **options).iloc[:rows]
        if file.ending in ("csv", "tsv"):
            # Types must not depend on how the reader cuts a file into pieces.
            is_plain = isinstance(separator, str) and len(separator) == 1 and "engine" not in options
            engine: dict[str, Any] = {"low_memory": False} if is_plain else {"engine": "python"}
            table: pd.DataFrame = pd.read_csv(
                handle, **{"sep": separator, "nrows": rows, **engine, **options}
            )
            if not isinstance(table.index, pd.RangeIndex) and "index_col" not in options:
                raise UserError(
                    f"{file.name} has lines with more fields than its header; repair it, "
                    "or set data.options.index_col: 0 if the first field numbers the rows"
                )
            return table
        is_array = file.ending == "json" and handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
        handle.seek(0)
        lines = {"lines": not is_array, **({} if is_array else {"nrows": rows})}
        # pandas would read "007" as 7 and guess dates by a column's name.
        honest = {"dtype": False, "convert_dates": False, "convert_axes": False}
        table = pd.read_json(handle, **{**lines, **honest, **options})
        if not len(table.columns):
            raise UserError(f"{file.name} is empty")
        return table


def _parquet_head(handle: Any, rows: int, columns: list[str] | None) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file, batches, count = pq.ParquetFile(handle), [], 0
    for batch in file.iter_batches(min(rows, 65_536), columns=columns):
        batches.append(batch)
        count += len(batch)
        if count >= rows:
            break
    table = pa.Table.from_batches(batches) if batches else file.schema_arrow.empty_table()
    head: pd.DataFrame = table.slice(0, rows).to_pandas()
    return head


def _check_sqlite_file(source: str) -> None:
    """SQLite would create the missing file, and then miss the table."""
    match = re.match(r"sqlite(?:\+pysqlite)?:///([^?]+)", source)
    if match and not match[1].startswith((":memory:", "file:")) and not Path(match[1]).is_file():
        raise UserError(f"no database file '{match[1]}'; data.source starts from {Path.cwd()}")


def _read_database(data: Data, source: str, query: str) -> pd.DataFrame:
    """Run the query; no exception is chained, since a driver's may hold the password."""
    import pandas as pd
    import sqlalchemy as sa

    try:
        url = sa.make_url(source)
        address = url.set(query={}).render_as_string(hide_password=True)
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except sa.exc.NoSuchModuleError:
        dialect = url.drivername
        fix = (
            "write postgresql://"
            if dialect == "postgres"
            else "correct it, or install the package that has it"
        )
        raise UserError(f"no SQLAlchemy dialect for '{dialect}://'; {fix}") from None
    except ImportError as err:
        package = _PACKAGES.get(err.name or "", err.name)
        raise UserError(f"the driver for {address} is missing; install {package}") from None
    except (sa.exc.ArgumentError, ValueError):
        fix = "write dialect://user:password@host/name and percent-encode special characters"
        raise UserError(f"'{_shown(data.source)}' holds no readable database URL; {fix}") from None
    _check_options("pandas.read_sql_query", pd.read_sql_query, data.options)
    options = dict(data.options)
    if isinstance(options.get("params"), list):  # YAML knows no tuples, and a list would mean many queries
        options["params"] = tuple(options["params"])
    try:
        # Without parameters % and : in the query are plain characters.
        with engine.connect().execution_options(no_parameters="params" not in options) as connection:
            if data.rows is None:
                table: pd.DataFrame = pd.read_sql_query(query, connection, **options)
                return table
            chunks = pd.read_sql_query(query, connection, chunksize=data.rows, **options)
            return next(iter(chunks), pd.DataFrame())
    except (sa.exc.SQLAlchemyError, pd.errors.DatabaseError) as err:
        fault = err.__cause__ if isinstance(err, pd.errors.DatabaseError) else err
        words = str(getattr(fault, "orig", None) or fault).strip().splitlines()[0]
        for secret in (url.password, *map(str, url.query.values())):
            words = words.replace(str(secret), "***") if secret else words
        raise UserError(f"cannot read from {address}: {words[:300]}") from None


def _read_bundled(data: Data, name: str) -> pd.DataFrame:
    import numpy as np
    from sklearn import datasets

    if data.options:
        raise UserError(f"sklearn:{name} takes no data.options, it got {', '.join(data.options)}")
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    rows: pd.DataFrame = bunch.frame.rename(columns={"target": data.target})
    classes = np.asarray(bunch.get("target_names", []))
    if classes.dtype.kind == "U":
        rows[data.target] = classes[rows.pop(data.target)].astype(object)
    if data.rows and data.rows < len(rows):  # some sets are sorted by class: their first rows hold only one
        rows = rows.sample(data.rows, random_state=0).sort_index()
    return rows


def _check_module(name: str) -> None:
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        paths = [path.relative_to(ROOT) for path in (*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/[a-z]*.py"))]
        there = sorted(".".join(path.with_suffix("").parts) for path in paths)
        raise UserError(f"no module '{name}'; {_known('the project', there, name)}")


def _call(data: Data, module_name: str, name: str) -> pd.DataFrame:
    """Call the function; what it raises itself is its author's to read, and passes."""
    import pandas as pd

    try:
        module = importlib.import_module(module_name)
    except ImportError as err:
        raise UserError(f"module '{module_name}' cannot be imported: {err}") from err
    function = getattr(module, name, None)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and key[0] != "_"]
        raise UserError(f"no function '{name}' in module {module_name}; {_known('it', there, name)}")
    _check_options(f"{module_name}:{name}", function, data.options)
    parameters = inspect.signature(function).parameters
    options = {"rows": data.rows, **data.options} if data.rows and "rows" in parameters else data.options
    try:
        inspect.signature(function).bind(**options)
    except TypeError as err:
        raise UserError(f"{module_name}:{name} cannot be called with data.options: {err}") from err
    rows = function(**options)
    if not isinstance(rows, pd.DataFrame):
        raise UserError(f"{module_name}:{name} must return a DataFrame, it returned {type(rows).__name__}")
    return rows


def _plain(values: pd.Series, kind: str | None) -> pd.Series:
    """Return the column as one of the plain types that `read_rows` promises."""
    import numpy as np
    import pandas as pd

    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        return values
    if isinstance(values.dtype, np.dtype) and values.dtype.kind == "M":
        return pd.Series(values.dt.as_unit("us"))
    if not isinstance(values.dtype, pd.StringDtype):
        values = values.astype(object).where(values.notna(), None)
        holds = pd.api.types.infer_dtype(values, skipna=True)
        if holds in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
            numbers = pd.to_numeric(values)
            if numbers.dtype != object:  # else whole numbers beyond 64 bits
                return numbers
        if holds == "boolean":
            return values.astype("boolean" if values.isna().any() else "bool")
        if holds in ("datetime", "datetime64", "date"):
            return pd.to_datetime(values, utc=True).dt.tz_localize(None).dt.as_unit("us")
        if holds in ("timedelta", "timedelta64"):
            return pd.to_timedelta(values).dt.total_seconds()
        values = values.map(str, na_action="ignore")
    values = values.astype("str")
    dates = _dates(values) if kind in (None, "datetime") else None
    return values if dates is None else dates


def _dates(values: pd.Series) -> pd.Series | None:
    """Return strings as datetime64[us] if every one is a date and exactly one format fits, else None."""
    import pandas as pd

    start = values.dropna().head(1).str.strip()
    if not start.str.match(r"\d+[./-]").any():
        return None
    texts = values.str.strip()
    formats = _FORMATS
    if start.str.fullmatch(_ISO).any():
        formats = ["ISO8601"] if texts.dropna().str.fullmatch(_ISO).all() else []

    def parsed(texts: pd.Series, layout: str) -> pd.Series | None:
        try:
            return pd.to_datetime(texts, format=layout, utc=True).dt.tz_localize(None).dt.as_unit("us")
        except ValueError:
            return None

    fits = [f for f in formats if parsed(start, f) is not None]
    dates = [result for f in fits if (result := parsed(texts, f)) is not None]
    return dates[0] if len(dates) == 1 else None
