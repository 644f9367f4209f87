"""Find CSV, Parquet and JSON Lines files wherever fsspec reaches, and look at them before they are believed."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from config import Data, UserError, known

_SUPPORTED = "it needs .csv, .tsv, .parquet, .jsonl, .ndjson or .json (text also .gz, .bz2, .xz, .zst, .zip)"
_ENDING = re.compile(r"\.(?:(parquet|pq)|(csv|tsv|jsonl|ndjson|json)(?:\.(gz|bz2|xz|zst|zip))?)$", re.I)
_CODECS = {"gz": "gzip", "bz2": "bz2", "xz": "xz", "zst": "zstd", "zip": "zip"}
_MAGIC = re.compile(r"[*?\[]")
# With these options the first line of a CSV file need not be its header.
_HIDES_HEADER = {"header", "names", "skiprows", "comment", "dialect", "compression"}


@dataclass(frozen=True)
class File:
    """One data file: where it is and what its path says about it."""

    system: Any  # an fsspec file system
    path: str
    name: str
    ending: str
    codec: str | None
    partitions: dict[str, str]

    @property
    def is_local(self) -> bool:
        """Say whether opening it costs next to nothing, and its path is no secret."""
        return "file" in self.system.protocol

    @property
    def reader(self) -> Callable[..., Any]:
        """Return the pandas function whose options the file takes."""
        import pandas as pd

        name = {"parquet": "read_parquet", "csv": "read_csv", "tsv": "read_csv"}.get(self.ending, "read_json")
        reader: Callable[..., Any] = getattr(pd, name)
        return reader

    def open(self, mode: str = "rb", plain: bool = False, **text: Any) -> Any:
        """Open it, decompressed unless asked for `plain`."""
        return self.system.open(self.path, mode, compression=None if plain else self.codec, **text)


def is_local(source: str) -> bool:
    """Say whether a source is a path of this machine."""
    return "://" not in source or source.startswith(("file://", "local://"))


def find_files(data: Data, source: str, key: str = "data.source") -> list[File]:
    """List the data files of a path, glob, folder or URL in sorted order; skip what `_` or `.` hides.

    `key` is the one of the config that names them.
    """
    with explained(data.shown_source, is_local(source)):
        system, folder, paths = _list(data, source)
    files = []
    for path in sorted(paths):
        name = path.split("?")[0] if "://" in path else path
        name = name.removeprefix(folder).lstrip("/")
        match = _ENDING.search(name)
        if match and (len(paths) == 1 or not re.search(r"(^|/)[_.]", name)):
            pairs = (part.split("=", 1) for part in name.split("/")[:-1] if "=" in part)
            partitions = {unquote(key): unquote(value) for key, value in pairs}
            ending, codec = (match[2] or "parquet").lower(), _CODECS.get((match[3] or "").lower())
            files.append(File(system, path, name, ending, codec, partitions))
    if not files:
        raise UserError(f"no data file at {key} '{data.shown_source}'; {_SUPPORTED}")
    if len(endings := sorted({file.ending for file in files})) > 1:
        kinds = " and ".join(f".{ending}" for ending in endings)
        raise UserError(f"'{data.shown_source}' holds {kinds} files; choose by a glob such as 'data/*.csv'")
    return files


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
        return system, folder, [file for match in system.glob(path) for file in system.find(match)]
    items = system.ls(folder, detail=False) if system.isdir(folder) else []
    there = [item.rpartition("/")[2] for item in items if _ENDING.search(item) or system.isdir(item)]
    there = [name for name in there if not name.startswith(".")]
    what = known(f"{folder}/", there, path.rpartition("/")[2]) if items else f"there is no folder {folder}/"
    raise UserError(f"no file '{data.shown_source}'; {what}")


def read_header(data: Data, file: File) -> list[str] | None:
    """Open a file and return the columns a CSV file names, before pandas renames those that stand twice.

    None where the first line need not be the header. A file that is empty or cut off is a UserError.
    """
    with explained(file.name, file.is_local):
        size = file.system.size(file.path)
        if size == 0:
            raise UserError(f"{file.name} is empty")
        if file.ending == "parquet" and file.is_local:
            with file.open() as handle:
                head = handle.read(4)
                handle.seek(max(size - 4, 0))
                if head != b"PAR1" or handle.read(4) != b"PAR1":
                    fault = "is not a whole Parquet file; was it cut off, or is it something else?"
                    raise UserError(f"{file.name} {fault}")
        separator, options = split_options(file, data.options)
        if file.ending not in ("csv", "tsv") or options.keys() & _HIDES_HEADER or not separator:
            return None
        encoding, errors = options.get("encoding") or "utf-8-sig", options.get("encoding_errors", "strict")
        with file.open("rt", encoding=encoding, errors=errors, newline="") as handle:
            lines = csv.reader(handle, delimiter=separator, quotechar=options.get("quotechar", '"'))
            columns = [column.strip() for column in next(filter(None, lines), [])]
    if not columns:
        raise UserError(f"{file.name} is empty")
    other = next((s for s in ";\t|," if s in columns[0] and len(columns) == 1), None)
    if other and data.target != columns[0]:
        raise UserError(f"{file.name} has one column, {columns[0]!r}; set data.options.sep: {other!r}")
    return [*columns, *file.partitions]


def split_options(file: File, options: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the one character between CSV fields, None if it is not one, and the other options."""
    rest = {key: value for key, value in options.items() if key not in ("sep", "delimiter")}
    separator = options.get("sep", options.get("delimiter", "\t" if file.ending == "tsv" else ","))
    return (separator, rest) if separator and len(separator) == 1 else (None, {**rest, "sep": separator})


@contextmanager
def explained(name: str, is_local: bool) -> Iterator[None]:
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
        place = f"line {ragged[2]} has {ragged[3]} fields instead of {ragged[1]}"
        return f"{place}; repair it, or set data.options.on_bad_lines: skip"
    if "Range error" in line:  # ujson's, of numbers beyond float64 and of those too small for all its digits
        return f"{line}; repair it, or set data.options.precise_float: false"
    if isinstance(err, ImportError) or "Compression type" in line:
        return f"a package is not installed: {line}"
    # A plug-in's own words may hold a signed URL.
    return line[:200] if is_local else f"{type(err).__name__}; look at the address and the credentials"
