"""Read data files into tables of settled columns; a broken one says how to go on."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from loop.config import SPELLING, Data, UserError
from loop.data.commas import number_notes
from loop.data.delta import read_delta
from loop.data.dtypes import Settled, plain, settle
from loop.data.excel import read_excel
from loop.data.files import File, explained
from loop.data.notes import Known, Note, Reading
from loop.data.spelling import Numbers, Texts, texts_of
from loop.data.table import missing_words
from loop.data.text import column_names, separator_of, short_rows, swallowed_lines

_PIECE = 8 * 2**20  # bytes of CSV looked at together: some ten thousand rows, few enough to stay in a cache
_ARROW = {
    "sep", "delimiter", "encoding", "encoding_errors", "quotechar", "escapechar", "on_bad_lines", "na_values",
    "keep_default_na", "thousands", "decimal", "dayfirst",
}  # fmt: skip
"""Options of pandas' CSV reader that Arrow's, which takes an eighth of the time, has too."""
_BATCH = 65_536
_WIDEST = 20_000  # columns: Arrow wants to know beforehand that they are texts
_SAMPLE = 200  # values that tell how the numbers of a column are spelt

Pieces = Iterator[dict[str, pa.Array]]


def read_files(data: Data, files: Sequence[File], known: Mapping[str, Known]) -> tuple[pd.DataFrame, Reading]:
    """Join files of the same columns, as many as `data.rows` needs; the folders' partitions are columns.

    What a column is, is settled over all of them; `known` says what is settled before.
    """
    options = {key: value for key, value in data.options.items() if key != "storage_options"}
    if files[0].ending in ("csv", "tsv"):
        return _read_texts(data, files, options, known)
    options = {key: value for key, value in options.items() if key not in SPELLING}
    frames: list[pd.DataFrame] = []
    notes = list[Note]()
    left = data.rows
    for file in files:
        with explained(file.name, file.is_local):
            frame = _read_typed(file, left, options, notes)
        frame = with_named_index(frame)
        frame.columns = column_names(frame.columns)
        _check_once(file, list(frame.columns))
        for name, value in file.partitions.items():
            if name not in frame.columns:
                frame[name] = pd.Series([value] * len(frame), index=frame.index, dtype="str")
        _check_same(file, frame.columns, files[0], frames[0].columns if frames else frame.columns)
        frames.append(frame)
        if left is not None and (left := left - len(frame)) <= 0:
            break
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    rows = filled[0] if len(filled) == 1 else _joined(filled)
    spelt = set().union(*(file.partitions for file in files))
    with explained(files[0].name, files[0].is_local):
        table, reading = settle_table(rows, data, known, spelt)
    return table, reading.model_copy(update={"notes": (*notes, *reading.notes)})


def with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table under a fresh index, whose levels are columns if they have names."""
    return frame.reset_index(drop=all(level is None for level in frame.index.names))


def _joined(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables; columns of several types as objects, since pandas would make floats of whole numbers."""
    unlike = [name for name in frames[0] if len({frame[name].dtype for frame in frames}) > 1]
    return pd.concat([frame.astype(dict.fromkeys(unlike, object)) for frame in frames], ignore_index=True)


def _check_once(file: File, names: Sequence[str]) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{file.name} has column '{twice[0]}' more than once; give each column its own name")


def _read_typed(file: File, rows: int | None, options: dict[str, Any], notes: list[Note]) -> pd.DataFrame:
    """Read a file of a format that has types."""
    if file.ending == "xlsx":
        table, seen = read_excel(file, nrows=rows, **options)
        notes += seen
        return table
    if file.ending == "delta":
        return _to_pandas(read_delta(file, nrows=rows, **options))
    if file.ending == "parquet":
        with nullcontext(file.path) if file.is_local else file.open() as handle:  # Arrow itself is quicker
            return _read_parquet(handle, rows, options)
    with file.open(plain=True) if "compression" in options else file.open_text(options) as handle:
        return _read_json(file, handle, rows, options)


def settle_table(
    rows: pd.DataFrame, data: Data, known: Mapping[str, Known], texts: set[str] | frozenset[str] = frozenset()
) -> tuple[pd.DataFrame, Reading]:
    """Settle each column of a table that came with types; `texts` names those that are spelt all the same."""
    settled: dict[str, Settled] = {}
    for name in rows.columns:
        column, numbers = rows[name], numbers_of(data, name)
        if name in texts:
            gathered = Texts(name, known.get(name), numbers, role=_role(name, data))
            gathered.add(texts_of(column))
            if (values := gathered.finish()) is not None:
                settled[name] = Settled(values.set_axis(rows.index), gathered.format)
                continue
        settled[name] = settle(column, known.get(name), numbers, is_id=name in data.keys)
    table = pd.DataFrame({name: found.values for name, found in settled.items()}, copy=False)
    return table, Reading(
        formats={name: found.format for name, found in settled.items() if found.format is not None},
        missing_words={name: dict(found.words) for name, found in settled.items() if found.words},
        notes=tuple(note for found in settled.values() for note in found.notes),
    )


def _role(name: str, data: Data) -> Literal["id", "target"] | None:
    return "id" if name in data.keys else "target" if name == data.target else None


def numbers_of(data: Data, name: str) -> Numbers:
    """Return how `data.options` spells numbers, truth values and what misses in a column."""
    options, (anywhere, words) = data.options, missing_words(data.options, name)

    def listed(key: str) -> frozenset[str]:
        return frozenset(str(word).lower() for word in options.get(key) or ())

    return Numbers(
        decimal=str(options.get("decimal") or "."),
        thousands=str(options["thousands"]) if options.get("thousands") else None,
        anywhere=anywhere,
        words=words,
        true=listed("true_values") | {"true"},
        false=listed("false_values") | {"false"},
        day_first=options.get("dayfirst"),
    )


def _read_texts(
    data: Data, files: Sequence[File], options: dict[str, Any], known: Mapping[str, Known]
) -> tuple[pd.DataFrame, Reading]:
    """Read files of texts, a piece after the other; columns that only in the end are no numbers a second time."""
    notes = list[Note]()

    def column(name: str) -> Texts:
        return Texts(name, known.get(name), numbers_of(data, name), role=_role(name, data))

    columns: dict[str, Texts] = {}
    samples: dict[str, list[str]] = {}
    for piece in _pieces(files, options, data.rows, notes):
        for name, texts in piece.items():
            if name not in samples:
                samples[name] = texts[: min(_SAMPLE, 20 * _SAMPLE // len(piece) + 20)].drop_null().to_pylist()
            columns.setdefault(name, column(name)).add(texts)
    table = {name: texts.finish() for name, texts in columns.items()}
    if again := {name: columns[name].again() for name, values in table.items() if values is None}:
        columns |= again
        for piece in _pieces(files, options, data.rows, []):
            for name, texts in again.items():
                texts.add(piece[name])
        table |= {name: texts.finish() for name, texts in again.items()}
    spelt = {name: texts for name, texts in samples.items() if columns[name].format is None}
    notes += number_notes(spelt, options)
    return pd.DataFrame(table, copy=False), Reading(
        formats={name: texts.format for name, texts in columns.items() if texts.format is not None},
        missing_words={name: dict(texts.words.most_common()) for name, texts in columns.items() if texts.words},
        notes=(*notes, *(note for texts in columns.values() for note in texts.notes)),
    )


def _pieces(files: Sequence[File], options: dict[str, Any], rows: int | None, notes: list[Note]) -> Pieces:
    """Yield the columns of all files as texts, at most so many rows, each with the values of its folders."""
    first: list[str] = []
    for file in files:
        separator = separator_of(file.ending, options)
        as_is = separator is not None and len(separator.encode()) == 1 and options.keys() <= _ARROW
        as_is = as_is and options.get("on_bad_lines", "error") in ("error", "skip")
        read: Callable[..., Pieces] = _arrow_pieces if as_is else _pandas_pieces
        with explained(file.name, file.is_local):
            for piece in read(file, options, rows, notes):
                count = len(next(iter(piece.values()), ()))
                for name, value in file.partitions.items():
                    piece.setdefault(name, pa.repeat(pa.scalar(value, pa.string()), count))
                first = first or list(piece)
                _check_same(file, piece, files[0], first)
                yield piece if rows is None else {name: texts[:rows] for name, texts in piece.items()}
                rows = None if rows is None else rows - count
                if rows is not None and rows <= 0:
                    return


def _arrow_pieces(file: File, options: dict[str, Any], rows: int | None, notes: list[Note]) -> Pieces:
    odd: list[pa.csv.InvalidRow] = []

    def keep(row: pa.csv.InvalidRow) -> str:
        odd.append(row)
        return "skip"

    names = {f"f{place}": pa.string() for place in range(_WIDEST)}
    with file.open_text(options) as lines:
        notes += lines.layout.notes(file.name)
        separator = lines.layout.separator or ","
        reader = pa.csv.open_csv(
            lines,
            pa.csv.ReadOptions(block_size=_PIECE, autogenerate_column_names=True),
            pa.csv.ParseOptions(
                delimiter=separator,
                quote_char=options.get("quotechar", '"'),
                escape_char=options.get("escapechar") or False,
                newlines_in_values=True,
                invalid_row_handler=keep,
            ),
            pa.csv.ConvertOptions(column_types=names, null_values=[""], strings_can_be_null=True),
        )
        header, read = list[str](), 0
        for batch in reader:
            read += len(batch)
            if not header and len(batch):
                header = column_names(texts[0].as_py() for texts in batch.columns)
                _check_once(file, header)
                if len(header) > _WIDEST:
                    raise UserError(f"{file.name} has {len(header):,} columns, at most {_WIDEST:,} can be read")
                batch = batch[1:]
            if lines.quotes:
                notes += _swallowed(header, batch, separator)
            yield dict(zip(header, batch.columns, strict=True))
        if len(odd) == 1 and lines.is_unfinished and odd[0].number == read + 1 and odd[0].actual_columns < len(header):
            found = f"its last line has {odd[0].actual_columns} fields instead of {len(header)}"
            raise UserError(f"{file.name} is cut off: {found}")
    if odd and options.get("on_bad_lines", "error") == "error":
        raise UserError(f"{file.name}: {ragged(odd, len(header), read)}")
    if odd:
        sentence = f"{len(odd):,} lines of {file.name} have more or fewer fields than its header; they are left out"
        notes.append(Note(rule="doubtful_reading", count=len(odd), sentence=sentence))


def _swallowed(header: Sequence[str], batch: pa.RecordBatch, separator: str) -> list[Note]:
    """Look among values of several lines for lines of the file."""
    notes: list[Note] = []
    for name, texts in zip(header, batch.columns, strict=True):
        several = texts.filter(pc.match_substring(texts, "\n")).to_pylist()
        notes += swallowed_lines(name, several, separator, len(header))
    return notes


def ragged(rows: Sequence[pa.csv.InvalidRow], expected: int, read: int) -> str:
    """Say which lines have another number of fields than the header, and what to do about it; `read` lines have not."""
    found = defaultdict(list)
    for row in rows:
        found[row.actual_columns].append(row)
    size, same = max(found.items(), key=lambda item: len(item[1]))
    if size == expected + 1 and read <= 1:
        return (
            "all lines have one field more than the header; repair it, "
            "or set data.options.index_col: 0 if the first field numbers the rows"
        )
    lines = f"{len(same):,} lines have" if len(same) > 1 else "a line has"
    place = "" if same[0].number is None else f" (line {same[0].number} is the first)"
    return (
        f"{lines} {size} fields instead of {expected}{place}, e.g. {same[0].text[:60]!r}; repair it, "
        "or set data.options.on_bad_lines: skip to leave such lines out"
    )


def _pandas_pieces(file: File, options: dict[str, Any], rows: int | None, notes: list[Note]) -> Pieces:
    """Read with pandas what needs its other options, as texts all the same."""
    given = {key: value for key, value in options.items() if key not in SPELLING.union(("sep", "delimiter"))}
    separator = separator_of(file.ending, options)
    engine = "c" if separator and len(separator) == 1 and "skipfooter" not in given else "python"
    dtypes = given.pop("dtype", {})
    texts: Any = defaultdict(lambda: "str", dtypes) if isinstance(dtypes, Mapping) else dtypes
    whole: dict[str, Any] = {"sep": separator, "nrows": rows, "engine": engine, "dtype": texts}
    whole |= {"keep_default_na": False, "na_values": [""]} | given
    if whole["engine"] == "pyarrow":
        whole.pop("nrows")
    if "compression" in given:
        with file.open(plain=True) as handle:
            table: pd.DataFrame = pd.read_csv(handle, **whole)
    else:
        with file.open_text(options) as lines:
            notes += lines.layout.notes(file.name)
            recoded = {"encoding": "utf-8", "encoding_errors": "strict", "sep": lines.layout.separator or separator}
            table = pd.read_csv(lines, **(whole | recoded))
            layout = lines.layout
        with file.open_text(options) as lines:
            short = short_rows(io.TextIOWrapper(lines, "utf-8", newline=""), layout, options)
        if short and options.get("on_bad_lines", "error") == "error":
            fields, wanted = len(short[0]), ", ".join(short[0])[:60]
            raise UserError(
                f"{file.name} has {len(short):,} lines with fewer fields than its header, such as {wanted!r} with "
                f"{fields}; repair it, or set data.options.on_bad_lines: skip to take what they lack for missing"
            )
    if not isinstance(table.index, pd.RangeIndex) and "index_col" not in given:
        raise UserError(
            f"{file.name} has lines with more fields than its header; repair it, "
            "or set data.options.index_col: 0 if the first field numbers the rows"
        )
    table = with_named_index(table).iloc[:rows]
    yield {str(name).strip(): texts_of(plain(column.astype("str"))) for name, column in table.items()}


def _check_same(file: File, columns: Any, first: File, wanted: Any) -> None:
    if odd := sorted(map(str, set(columns) ^ set(wanted))):
        raise UserError(f"{file.name} and {first.name} differ: only one has {', '.join(odd[:12])}")


def _read_parquet(handle: Any, rows: int | None, options: dict[str, Any]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    if options.keys() - {"columns"}:
        return pd.read_parquet(handle, **options).iloc[:rows]
    parquet, columns = pq.ParquetFile(handle), options.get("columns")
    if rows is None:
        table = parquet.read(columns=columns)
    else:
        batches, count = [], 0
        for batch in parquet.iter_batches(min(rows, _BATCH), columns=columns):
            batches.append(batch)
            count += len(batch)
            if count >= rows:
                break
        table = pa.Table.from_batches(batches) if batches else parquet.schema_arrow.empty_table()
        table = table.slice(0, rows)
    return _to_pandas(table)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    # Whole numbers keep their digits also where one misses.
    exact = {
        kind: getattr(pd, f"{str(kind).replace('int', 'Int').replace('uI', 'UI')}Dtype")() for kind in _whole(table)
    }
    found: pd.DataFrame = table.to_pandas(types_mapper=exact.get)
    for column in (table.schema.pandas_metadata or {}).get("columns", ()):
        if column["pandas_type"] == "categorical":  # Arrow forgets it where the categories are numbers
            found[column["name"]] = found[column["name"]].astype("category")
    return found


def _whole(table: pa.Table) -> set[pa.DataType]:
    return {field.type for field, column in zip(table.schema, table.columns, strict=True)
            if pa.types.is_integer(field.type) and column.null_count}  # fmt: skip


def _read_json(file: File, handle: Any, rows: int | None, options: dict[str, Any]) -> pd.DataFrame:
    """Read an array of objects, or one object a line; numbers keep all their digits."""
    import json

    if options.keys() - {"encoding", "encoding_errors", "lines"}:
        return _read_json_with_pandas(file, handle, rows, options)
    text = handle.read().decode()
    is_array = options.get("lines") is not True and text.lstrip()[:1] == "["
    records = json.loads(text, object_pairs_hook=_named_once)[:rows] if is_array else []
    if not is_array:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    records.append(json.loads(line, object_pairs_hook=_named_once))
                except _NamedTwice as err:
                    raise UserError(f"cannot read {file.name}: line {number}: {err}") from None
                except ValueError as err:
                    raise UserError(f"cannot read {file.name}: line {number} is not JSON: {err}") from err
                if len(records) == rows:
                    break
    if odd := next((place for place, record in enumerate(records, 1) if not isinstance(record, dict)), None):
        raise UserError(f"{file.name} needs objects of named values, record {odd} is none")
    if len(records) == 1 and records[0] and all(isinstance(value, dict | list) for value in records[0].values()):
        keys = list(records[0])
        orient = "split" if {"columns", "data"} <= {*keys} else "index" if all(map(str.isdigit, keys)) else "columns"
        fix = f"write it as an array of objects, or try data.options.orient: {orient}"
        raise UserError(f"{file.name} is one object of {', '.join(keys[:5])}, not one for each row; {fix}")
    names = list(dict.fromkeys(name for record in records for name in record))
    if not names:
        raise UserError(f"{file.name} is empty")
    columns = {name: pd.Series([record.get(name) for record in records], dtype=object) for name in names}
    return pd.DataFrame(columns)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, unless it names something twice: which value is meant nobody can know."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _NamedTwice(f"an object names {name!r} twice; keep one of its values")
    return found


class _NamedTwice(ValueError):
    pass


def _read_json_with_pandas(file: File, handle: Any, rows: int | None, options: dict[str, Any]) -> pd.DataFrame:
    is_whole = handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    is_whole = is_whole or options.get("orient", "records") != "records"
    handle.seek(0)
    lines = {"lines": False} if is_whole else {"lines": True, "nrows": rows}
    # pandas would read "007" as 7, guess dates by a column's name and miss most fractions by some bits.
    honest = {"dtype": False, "convert_dates": False, "convert_axes": False, "precise_float": True}
    recoded = {} if "compression" in options else {"encoding": "utf-8", "encoding_errors": "strict"}
    table: pd.DataFrame = pd.read_json(handle, **{**lines, **honest, **options, **recoded})
    if not len(table.columns):
        raise UserError(f"{file.name} is empty")
    return table.iloc[:rows]
