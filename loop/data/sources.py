"""Read a table from wherever `data.source` says, with honest types and errors that name the fix."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from loop.config import ROOT, SPELLING, Config, Data, UserError, known
from loop.data.databases import check_connection, check_database, read_query
from loop.data.files import File, explained, find_files, is_local, read_header, suggest

if TYPE_CHECKING:  # the check before a run does without pandas
    import pandas as pd

    from loop.data.contract import DataContract
    from loop.data.notes import Known, Reading

_BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_FUNCTION = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
# What the pandas readers take that is ours to give, or that makes them return something else than a table.
_OURS = {"filepath_or_buffer", "path_or_buf", "path", "sql", "con", "typ", "chunksize", "iterator"}


class _Source(NamedTuple):
    name: str
    """For messages."""
    read: Callable[[], pd.DataFrame] | None
    size: float = inf
    """Bytes of its files on this machine; infinite where they tell nothing of the table."""
    database: str | None = None
    """Its URL."""
    read_files: Callable[[dict[str, Known]], tuple[pd.DataFrame, Reading]] | None = None
    """Reads files, whose texts need to know what columns are."""


def read_rows(data: Data, *, labelled: bool = True, contract: DataContract | None = None) -> pd.DataFrame:
    """Return the rows of `data.source` as `read_table` does, without what reading them showed."""
    return read_table(data, labelled=labelled, contract=contract)[0]


def read_table(
    data: Data, *, labelled: bool = True, contract: DataContract | None = None
) -> tuple[pd.DataFrame, Reading]:
    """Return the rows of `data.source`, at most `data.rows`, under a fresh index, and what reading them showed.

    Rows that are not `labelled` need no target. Any fault is a UserError.

    Types say what a column is: int, float (nullable Int64 where digits would be lost), bool (nullable `boolean` where
    values miss), datetime64[us] in UTC without a zone, else str. They survive Parquet. What a column is, `contract` or
    `data.kinds` say; a column that neither knows is settled over all of the source (see `data.spelling`), and one whose
    values are not all of the kind it is known to have stays str. Ids are whole numbers or str, a time span becomes
    seconds, '' is a missing value. Column names lose surrounding whitespace only.
    """
    from loop.data.readers import settle_table, with_named_index

    data = _filled(data)
    source, known = _find(data, labelled), _known(data, contract)
    if source.read_files is not None:
        rows, reading = source.read_files(known)
    else:
        assert source.read is not None  # noqa: S101  (a source has one of the two)
        found = source.read()
        found = with_named_index(found)
        columns = [str(column).strip() for column in found.columns]
        _check_columns(data, columns, source.name, labelled)
        if found.empty:
            raise UserError(f"{source.name} is empty: it has columns and no rows")
        found = found.set_axis(columns, axis=1).head(data.rows or len(found)).reset_index(drop=True)
        with explained(source.name, source.database is None):
            rows, reading = settle_table(found, data, known)
    _check_columns(data, list(rows.columns), source.name, labelled)
    if rows.empty:
        raise UserError(f"{source.name} is empty: it has columns and no rows")
    return rows, reading


def _known(data: Data, contract: DataContract | None) -> dict[str, Known]:
    """Return what columns are known to be: strings stay strings if either the config or a contract says so."""
    from loop.data.notes import Known

    said = {name: Known(kind, settled=False) for name, kind in data.kinds.items()}
    learned = contract.known if contract is not None else {}
    for name in said:
        if name in learned and learned[name].kind == "categorical":
            said[name] = learned[name]._replace(settled=False)
    return learned | said


def partitions(data: Data, key: str = "data.source") -> list[tuple[str, Data]]:
    """Return the parts of a source that can be read by themselves, each with a name: its files, else all of it."""
    files = {file.system.unstrip_protocol(file.path): file for file in _files(data, key)}  # an archive is one part
    return [
        (f"{place:05}-{file.name.partition('.')[0]}", data.model_copy(update={"source": url}))
        for place, (url, file) in enumerate(files.items())
    ] or [("rows", data)]


def find_options(data: Data) -> dict[str, Any]:
    """Return what a source's first file needs in `data.options` besides those given; see `loop.data.files.suggest`."""
    return suggest(files[0], data.options) if (files := _files(data)) else {}


def _files(data: Data, key: str = "data.source") -> list[File]:
    """Return a source's files; none where it is something else."""
    source = fill(data.source, key)
    is_file = not source.startswith("sklearn:") and not _FUNCTION.fullmatch(source)
    return find_files(_filled(data), source, key) if is_file and ("://" not in source or _is_file_url(source)) else []


def batch_parts(config: Config) -> list[tuple[str, Data]]:
    """Return the parts of the rows to score, as `partitions` does; any fault is a UserError."""
    if config.inference.source is None:
        raise UserError(
            "inference.source is missing: say which rows to score, as --set inference.source='new/*.parquet'"
        )
    data = config.data.model_copy(update={"source": config.inference.source, "query": None})
    return partitions(data, "inference.source")


def check_source(data: Data) -> None:
    """Refuse what cannot be read, in milliseconds and without pandas.

    Local files are opened (ending, size, header, magic bytes), modules are found but not run, databases and
    remote files are left alone. Any fault is a UserError.
    """
    _find(_filled(data))


def local_size(data: Data) -> float:
    """Return the bytes of a source's files on this machine; infinity for other sources and compressed text."""
    return _find(_filled(data)).size


def check_reachable(data: Data) -> None:
    """Connect to a source that is a database; a refusal is a UserError."""
    if (url := _find(data := _filled(data)).database) is not None:
        check_connection(data, url)


def _find(data: Data, labelled: bool = True) -> _Source:
    """Make every check that is cheap."""
    source, size = fill(data.source, "data.source"), inf
    read: Callable[[], pd.DataFrame] | None
    read_files = None
    if source.startswith("sklearn:"):
        item = source.removeprefix("sklearn:")
        if item not in _BUNDLED:
            raise UserError(f"no data set '{item}'; {known('sklearn:', _BUNDLED, item)}")
        read = partial(_read_bundled, data, item)
    elif function := _FUNCTION.fullmatch(source):
        _check_module(function[1])
        read = partial(_call, data, *function.groups())
    elif "://" in source and not _is_file_url(source):
        query = fill(data.query or "", "data.query")
        if not query.strip():
            database = data.shown_source
            raise UserError(f"data.query is missing; the database '{database}' needs the SQL to run")
        size = check_database(source)
        return _Source("the query's result", partial(_read_database, data, source, query), size, source)
    else:
        files = _find_files(data, source, labelled) if is_local(source) else []
        read, read_files = None, partial(_read_files, data, source, files, labelled)
        if files and not any(file.codec for file in files):
            size = sum(file.system.size(file.path) for file in files)
    if data.query is not None:
        raise UserError(f"data.query needs a database URL as data.source, that is '{data.shown_source}'")
    name = data.shown_source.rstrip("/").rpartition("/")[2] or data.source
    return _Source(name, read, size, read_files=read_files)


def _filled(data: Data) -> Data:
    return data.model_copy(update={"options": fill(data.options, "data.options")})


def fill(value: Any, key: str) -> Any:
    """Fill in the variables `$(NAME)` of all strings in a value of the config; one that is not set is a UserError."""

    def read(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise UserError(f"{key} needs the environment variable {match[1]}, which is not set")
        return os.environ[match[1]]

    if isinstance(value, dict):
        return {name: fill(item, f"{key}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, key) for item in value]
    return re.sub(r"\$\((\w+)\)", read, value) if isinstance(value, str) else value


def _is_file_url(source: str) -> bool:
    import fsspec

    return re.split(r"::|://", source)[0].lower() in fsspec.available_protocols()


def _check_columns(data: Data, columns: Sequence[str], name: str, labelled: bool) -> None:
    """Refuse a name that stands twice, and one the config wants and the table lacks."""
    twice = {column for column, count in Counter(columns).items() if count > 1}
    if twice:
        raise UserError(f"{name} has column '{min(twice)}' more than once; give each column its own name")
    times = [data.time] if data.time else []
    named = {"id": data.id, "time": times}
    if labelled:
        named |= {"group": data.group, "drop": data.drop, "kinds": (*data.kinds,)}
    wanted = [
        *([(data.target, "")] if labelled else []),
        *((column, f" (data.{key})") for key in named for column in named[key]),
    ]
    for column, key in wanted:
        if column not in columns:
            raise UserError(f"no column '{column}'{key} in {name}; {known('it', columns, column)}")


def _check_options(what: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if not what.startswith("pandas.") and any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    allowed = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in _OURS]
    if what.startswith("pandas."):
        allowed += sorted(SPELLING.difference(allowed))
    for option in options:
        if option not in allowed:
            takes = known(what, allowed, option) if allowed else f"{what} takes none: do in it what '{option}' would do"
            raise UserError(f"no option '{option}' (data.options); {takes}")


def _of_this_format(options: dict[str, Any], reader: Callable[..., Any]) -> dict[str, Any]:
    """Leave out how a CSV to learn from is laid out, where the file to score is of another format."""
    import pandas as pd

    layout = inspect.signature(pd.read_csv).parameters.keys() - inspect.signature(reader).parameters.keys() - SPELLING
    return {key: value for key, value in options.items() if key == "storage_options" or key not in layout}


def _find_files(data: Data, source: str, labelled: bool) -> list[File]:
    files = find_files(data, source)
    for file in files:
        if columns := read_header(data, file):
            _check_columns(data, columns, file.name, labelled)
    return files


def _read_files(
    data: Data, source: str, files: Sequence[File], labelled: bool, known: dict[str, Known]
) -> tuple[pd.DataFrame, Reading]:
    from loop.data.readers import read_files

    files = files or _find_files(data, source, labelled)
    if not labelled:
        data = data.model_copy(update={"options": _of_this_format(data.options, files[0].reader)})
    options = {key: value for key, value in data.options.items() if key != "storage_options"}  # fsspec's
    _check_options(f"pandas.{files[0].reader.__name__}", files[0].reader, options)
    return read_files(data, files, known)


def _read_database(data: Data, url: str, query: str) -> pd.DataFrame:
    import pandas as pd

    _check_options("pandas.read_sql_query", pd.read_sql_query, data.options)
    return read_query(data, url, query)


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
        paths = [path.relative_to(ROOT) for path in ROOT.glob("model/[a-z]*.py")]
        there = [".".join(path.with_suffix("").parts) for path in paths]
        raise UserError(f"no module '{name}'; {known('the project', there, name)}")


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
        raise UserError(f"no function '{name}' in module {module_name}; {known('it', there, name)}")
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
