"""Find data files wherever fsspec reaches, and look at them before they are believed."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

from loop.config import Data, UserError, known
from loop.data.commas import as_advice
from loop.data.looks import better_name, wrong_content, wrong_mark
from loop.data.text import SAMPLE, Lines, column_names, header, look_at, sniff

_SUPPORTED = "it needs .csv, .tsv, .parquet, .xlsx, .jsonl, .ndjson or .json (text also .gz, .bz2, .xz, .zst, .zip)"
_ENDING = re.compile(r"\.(?:(parquet|pq)|(xlsx)|(csv|tsv|jsonl|ndjson|json)(?:\.(gz|bz2|xz|zst|zip))?)$", re.I)
_CODECS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd", "zip": "zip"}
_MAGIC = re.compile(r"[*?\[]")
_HIDDEN = re.compile(r"(^|/)[_.]")
_NULL = "__HIVE_DEFAULT_PARTITION__"  # what Hive, Spark and pyarrow call the folder of missing values


@dataclass(frozen=True)
class File:
    """One data file, or one of an archive: where it is and what its path says about it."""

    system: Any  # an fsspec file system
    path: str
    name: str
    ending: str
    """`csv`, `tsv`, `jsonl`, `ndjson`, `json`, `parquet`, `xlsx`, or `delta` for the folder of a Delta table."""
    codec: str | None
    partitions: dict[str, str | None]
    """Columns that stand in the names of its folders, as `year=2023`; None is a missing value."""
    member: str | None = None
    """Its name in the archive."""

    @property
    def is_local(self) -> bool:
        """Say whether opening it costs next to nothing, and its path is no secret."""
        return "file" in self.system.protocol

    @property
    def is_text(self) -> bool:
        """Say whether it is CSV or JSON."""
        return self.ending not in ("parquet", "xlsx", "delta")

    @property
    def reader(self) -> Callable[..., Any]:
        """Return the function whose options the file takes."""
        if self.ending == "xlsx":
            from loop.data.excel import read_excel

            return read_excel
        if self.ending == "delta":
            from loop.data.delta import read_delta

            return read_delta
        import pandas as pd

        name = {"parquet": "read_parquet", "csv": "read_csv", "tsv": "read_csv"}.get(self.ending, "read_json")
        reader: Callable[..., Any] = getattr(pd, name)
        return reader

    @contextmanager
    def open(self, plain: bool = False) -> Iterator[Any]:
        """Open its bytes, decompressed unless asked for `plain`; one can seek to the start."""
        with ExitStack() as stack:
            handle = stack.enter_context(self.system.open(self.path, "rb"))
            if "https" in self.system.protocol and (self.codec == "zip" or self.ending == "xlsx"):
                handle = io.BytesIO(handle.read())  # not every server lets one read the end first
            if self.codec == "zip" and not plain:
                archive = stack.enter_context(zipfile.ZipFile(handle))
                handle = stack.enter_context(archive.open(self.member or ""))
            elif self.codec == "zstd" and not plain:
                handle = stack.enter_context(_Zstandard(handle))
            elif self.codec and not plain:
                from fsspec.compression import compr

                handle = stack.enter_context(compr[self.codec](handle, mode="rb"))
            yield handle

    @contextmanager
    def open_text(self, options: dict[str, Any]) -> Iterator[Lines]:
        """Open its text as UTF-8, whatever its encoding (see `data.text.Lines`); a fault is raised when all is read."""
        if self.codec:
            with self.open(plain=True) as packed:
                _refuse(wrong_mark(self.name, self.path, packed.read(4096), self.ending, self.codec))
        with self.open() as handle:
            head = handle.read(SAMPLE)
            if self.codec:
                _refuse(wrong_content(self.name, head, self.ending))
            else:
                _refuse(wrong_mark(self.name, self.path, head, self.ending, None))
            layout = look_at(head, self.ending, options)
            errors = options.get("encoding_errors", "strict")
            quote = options.get("quotechar", '"') if self.ending in ("csv", "tsv") else None
            # With these a quote need not mean what it usually does.
            quote = None if options.keys() & {"quoting", "escapechar", "comment", "dialect", "nrows"} else quote
            lines = Lines(self.name, handle, layout, head, errors=errors, quote=quote)
            try:
                yield lines
            except Exception as err:
                if lines.fault is None or err is lines.fault:
                    raise
            if lines.fault is not None:
                raise lines.fault

    def check_bytes(self) -> None:
        """Refuse a file of bytes that is cut off, or not what its name says; a remote one is read at once anyway."""
        if not self.is_local:
            return
        with self.open() as handle:
            _refuse(wrong_mark(self.name, self.path, handle.read(4096), self.ending, None))
            if self.ending == "parquet":
                handle.seek(max(self.system.size(self.path) - 4, 0))
                whole = handle.read() == b"PAR1"
                _refuse(None if whole else f"{self.name} is not a whole Parquet file; was it cut off?")


class _Zstandard(io.RawIOBase):
    """A stream of zstd by pyarrow's own codec, which can begin anew."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._streams: list[Any] = []  # one that is let go closes the file
        self._begin()

    def _begin(self) -> None:
        import pyarrow as pa

        self._streams.append(pa.CompressedInputStream(pa.PythonFile(self._handle, "r"), "zstd"))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if (offset, whence) != (0, 0):
            raise io.UnsupportedOperation("only seek(0)")
        self._handle.seek(0)
        self._begin()
        return 0

    def readinto(self, buffer: Any, /) -> int:
        part = self._streams[-1].read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def is_local(source: str) -> bool:
    """Say whether a source is a path of this machine."""
    return "://" not in source or source.startswith(("file://", "local://"))


def find_files(data: Data, source: str, key: str = "data.source") -> list[File]:
    """List the data files of a path, glob, folder or URL in sorted order; skip what `_` or `.` hides.

    The folder of a Delta table is one file: which of those in it count, its log says. `key` is the one of the config
    that names them.
    """
    with explained(data.shown_source, is_local(source)):
        system, folder, paths = _list(data, source)
        if delta := sorted({path.partition("/_delta_log/")[0] for path in paths if "/_delta_log/" in path}):
            return [_delta_table(data, system, folder, delta)]
        files = []
        for path in sorted(paths):
            name = path.split("?")[0] if "://" in path else path
            name = name.removeprefix(folder).lstrip("/")
            match = _ENDING.search(name)
            if match and (len(paths) == 1 or not _HIDDEN.search(name)):
                ending = (match[3] or match[2] or "parquet").lower()
                codec = _CODECS.get((match[4] or "").lower())
                file = File(system, path, name, ending, codec, _partitions(folder, name))
                files += _members(file) if codec == "zip" else [file]
    if not files:
        raise UserError(f"no data file at {key} '{data.shown_source}'; {_advice(system, paths, data)}")
    if len(endings := sorted({file.ending for file in files})) > 1:
        kinds = " and ".join(f".{ending}" for ending in endings)
        raise UserError(f"'{data.shown_source}' holds {kinds} files; choose by a glob such as 'data/*.csv'")
    return files


def _advice(system: Any, paths: list[str], data: Data) -> str:
    """Return what to call the only file, if its bytes tell, else which names there are."""
    name = paths[0].rpartition("/")[2] if len(paths) == 1 else ""
    if not name or not data.shown_source.endswith(name):
        return _SUPPORTED
    with explained(data.shown_source, "file" in system.protocol):
        head = system.read_block(paths[0], 0, 4096)
    return (head and better_name(name, paths[0], head)) or _SUPPORTED


def _partitions(folder: str, name: str) -> dict[str, str | None]:
    """Return the columns in a file's folders: those below `folder`, and those `folder` ends with.

    So a part that is read by itself, `table/year=2023/a.csv`, has the columns it has as one of the table's.
    """
    above = re.search(r"(/[^/=]+=[^/]*)*$", folder.rstrip("/"))
    parts = [*(above[0].split("/") if above else []), *name.split("/")[:-1]]
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return {unquote(key): None if value == _NULL else unquote(value) for key, value in pairs}


def _members(file: File) -> list[File]:
    """Return an archive's tables: its only file whatever its name, else files of the ending the archive promises."""
    with file.open(plain=True) as handle:
        if not zipfile.is_zipfile(handle):
            return [file]  # the look at its first bytes will say what it is
        with zipfile.ZipFile(handle) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    names = [name for name in names if not _HIDDEN.search(name)] or names
    if not names:
        raise UserError(f"{file.name} is empty")
    if len(names) == 1:
        return [replace(file, member=names[0], partitions=_partitions("", names[0]) | file.partitions)]
    if any(not name.lower().endswith(f".{file.ending}") for name in names):
        held = f"{len(names)} files: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        raise UserError(f"{file.name}: the archive holds {held}; keep .{file.ending} files alone in it")
    return [
        replace(file, name=f"{file.name}/{name}", member=name, partitions=_partitions("", name) | file.partitions)
        for name in sorted(names)
    ]


def _delta_table(data: Data, system: Any, folder: str, tables: list[str]) -> File:
    """Return the Delta table that is the folder itself; one below it has to be named."""
    if tables != [folder]:
        names = ", ".join(table.removeprefix(folder).strip("/") or table for table in tables)
        raise UserError(f"'{data.shown_source}' holds Delta tables; name the folder of one: {names}")
    return File(system, folder, folder.rpartition("/")[2], "delta", None, {})


def _list(data: Data, source: str) -> tuple[Any, str, list[str]]:
    """Return the file system, the folder that names are relative to, and the paths in it."""
    from fsspec.core import url_to_fs

    system, path = url_to_fs(source, **data.options.get("storage_options", {}))
    folder = path.rpartition("/")[0]
    if "https" in system.protocol:  # one file: to list an HTTP server means to load its pages
        return system, folder, [path]
    if system.isdir(path):
        return system, path.rstrip("/"), system.find(path)
    if system.exists(path):
        return system, folder, [path]
    if magic := _MAGIC.search(path):
        folder = path[: magic.start()].rpartition("/")[0]
        if system.isdir(f"{folder}/_delta_log"):
            raise UserError(f"'{data.shown_source}' are files of a Delta table, some of them outdated; name its folder")
        return system, folder, [file for match in system.glob(path) for file in system.find(match)]
    items = system.ls(folder, detail=False) if system.isdir(folder) else []
    there = [item.rpartition("/")[2] for item in items if _ENDING.search(item) or system.isdir(item)]
    there = [name for name in there if not name.startswith((".", "__"))]
    what = known(f"{folder}/", there, path.rpartition("/")[2]) if items else f"there is no folder {folder}/"
    raise UserError(f"no file '{data.shown_source}'; {what}")


def read_header(data: Data, file: File) -> list[str] | None:
    """Look at a file and return its columns as they are spelt, before a reader renames those that stand twice.

    None where they cannot be told. A file that is empty, cut off, or something else than its name says is a UserError.
    """
    if file.ending == "delta":
        return None
    with explained(file.name, file.is_local):
        if file.system.size(file.path) == 0:
            raise UserError(f"{file.name} is empty")
        if not file.is_text:
            file.check_bytes()
        if file.ending == "parquet" or "compression" in data.options:
            return None
        if file.ending == "xlsx":
            from loop.data.excel import read_names

            columns: list[str] | None = read_names(file, **data.options)
        else:
            with file.open_text(data.options) as lines:
                if file.ending not in ("csv", "tsv"):
                    return None
                columns = header(io.TextIOWrapper(lines, "utf-8", newline=""), lines.layout, data.options)
    if columns is None:
        return None
    if not any(columns):
        raise UserError(f"{file.name} is empty")
    if file.is_text:
        columns = column_names(columns)
    if len(columns) == 1 and data.target != columns[0]:
        found = suggest(file, data.options)
        if found.keys() & {"sep", "skiprows"}:
            raise UserError(f"{file.name} has one column, {columns[0]!r}; {as_advice(found)}")
    return [*columns, *(name for name in file.partitions if name not in columns)]


def suggest(file: File, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options, beside those given, that a file asks for: separator, decimal comma, encoding, sheet."""
    if file.ending == "xlsx" and "sheet_name" not in options:
        from loop.data.excel import sheets

        there = sheets(file)
        return {"sheet_name": there[0]} if len(there) > 1 else {}
    if file.ending not in ("csv", "tsv") or "compression" in options:
        return {}
    with explained(file.name, file.is_local), file.open() as handle:
        return sniff(handle.read(SAMPLE), file.ending, options)


def _refuse(fault: str | None) -> None:
    if fault:
        raise UserError(fault)


@contextmanager
def explained(name: str, is_local: bool) -> Iterator[None]:
    """Turn whatever a reader raises into a UserError."""
    try:
        yield
    except UserError:
        raise
    # pandas, pyarrow, the codecs and fsspec's plug-ins share no base class, and a user has to fix the file.
    except Exception as err:
        raise UserError(f"cannot read {name}: {_reason(err, is_local)}") from (err if is_local else None)


def _reason(err: Exception, is_local: bool) -> str:
    line = next(iter(str(err).splitlines()), "") or type(err).__name__
    if ragged := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", str(err)):
        place = f"line {ragged[2]} has {ragged[3]} fields instead of {ragged[1]}"
        return f"{place}; repair it, or set data.options.on_bad_lines: skip"
    if "straddling object" in line:
        return "a line is longer than 8 MB; if a stray quote swallows those after it, remove the quote from the file"
    if "Range error" in line:  # ujson's, of numbers beyond float64 and of those too small for all its digits
        return f"{line}; repair it, or set data.options.precise_float: false"
    if re.search("end-of-stream marker|Truncated compressed|not a zip file", line):
        return "it is cut off"
    if isinstance(err, ImportError) or "Compression type" in line:
        return f"a package is not installed: {line}"
    # A plug-in's own words may hold a signed URL.
    return line[:200] if is_local else f"{type(err).__name__}; look at the address and the credentials"
