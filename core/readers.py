"""Read data files into tables; a broken one says how to go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from config import Data, UserError
from core.files import File, explained, split_options
from core.text import Lines

if TYPE_CHECKING:  # the check before a run does without pandas
    import pandas as pd


def read_files(data: Data, files: Sequence[File]) -> pd.DataFrame:
    """Join files of the same columns, as many as `data.rows` needs; the folders' partitions are columns."""
    import pandas as pd

    readers = {"parquet": _read_parquet, "csv": _read_csv, "tsv": _read_csv}
    read = readers.get(files[0].ending, _read_json)
    options = {key: value for key, value in data.options.items() if key != "storage_options"}
    frames: list[pd.DataFrame] = []
    left = data.rows
    for file in files:
        with explained(file.name, file.is_local):
            if file.ending == "xlsx":
                frame = file.reader(file, nrows=left, **options)[0]
            elif file.ending == "delta":
                frame = file.reader(file, nrows=left, **options).to_pandas(integer_object_nulls=True)
            elif not file.is_text or "compression" in options:
                with file.open(plain=True) as handle:
                    frame = read(file, handle, left, options)
            else:
                with file.open_text(options) as lines:
                    frame = read(file, lines, left, _text_options(lines, options))
        frame = frame.assign(**{k: v for k, v in file.partitions.items() if k not in frame.columns})
        if frames and (odd := sorted(map(str, set(frame.columns) ^ set(frames[0].columns)))):
            raise UserError(f"{file.name} and {files[0].name} differ: only one has {', '.join(odd[:12])}")
        frames.append(frame)
        if left is not None and (left := left - len(frame)) <= 0:
            break
    rows = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=len(frames) > 1)
    for key in files[0].partitions:
        if rows[key].astype(str).str.fullmatch(r"0|[1-9]\d{0,17}").all():
            rows[key] = rows[key].astype("int64")
    return rows


def _text_options(lines: Lines, options: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in options.items() if key not in ("encoding", "encoding_errors")}
    return {**rest, "sep": lines.layout.separator} if lines.layout.skips_line else rest


def _read_parquet(file: File, handle: Any, rows: int | None, options: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not rows or options.keys() - {"columns"}:
        return pd.read_parquet(handle, **options).iloc[:rows]
    parquet, batches, count = pq.ParquetFile(handle), [], 0
    for batch in parquet.iter_batches(min(rows, 65_536), columns=options.get("columns")):
        batches.append(batch)
        count += len(batch)
        if count >= rows:
            break
    table = pa.Table.from_batches(batches) if batches else parquet.schema_arrow.empty_table()
    head: pd.DataFrame = table.slice(0, rows).to_pandas()
    return head


def _read_csv(file: File, handle: Any, rows: int | None, options: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    separator, options = split_options(file, options)
    engine = "c" if separator and "skipfooter" not in options else "python"
    given: dict[str, Any] = {"sep": separator, "nrows": rows, "engine": engine, **options}
    if given["engine"] == "c":
        # Types must not depend on how a file is cut into pieces, nor numbers on the format: pandas' quicker
        # parser returns every third float64 one bit off.
        given = {"low_memory": False, "float_precision": "round_trip", **given}
    table: pd.DataFrame = pd.read_csv(handle, **given)
    if not isinstance(table.index, pd.RangeIndex) and "index_col" not in options:
        raise UserError(
            f"{file.name} has lines with more fields than its header; repair it, "
            "or set data.options.index_col: 0 if the first field numbers the rows"
        )
    return table


def _read_json(file: File, handle: Any, rows: int | None, options: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    is_array = file.ending == "json" and handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    handle.seek(0)
    lines = {"lines": False} if is_array else {"lines": True, "nrows": rows}
    # pandas would read "007" as 7, guess dates by a column's name and miss most fractions by some bits.
    honest = {"dtype": False, "convert_dates": False, "convert_axes": False, "precise_float": True}
    table: pd.DataFrame = pd.read_json(handle, **{**lines, **honest, **options})
    if not len(table.columns):
        raise UserError(f"{file.name} is empty")
    return table
