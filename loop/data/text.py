"""Look at the text of a file as it passes: its encoding, its first lines, whether it is whole."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from loop.config import UserError
from loop.data.commas import number_style
from loop.data.looks import encoding_by_mark, fitting_encoding, is_mostly_utf8, wide_encoding
from loop.data.notes import Note

SAMPLE = 2**18
"""Bytes that tell the layout of a file: some thousand lines."""
_CHUNK = 2**20
_TOP = 20  # lines that may stand above the names of the columns
csv.field_size_limit(2**31 - 1)  # Python's own limit is 131,072 characters; texts may be longer
_SEPARATORS = ",;\t|"
_NAMES_SEPARATOR = re.compile(r"sep=(.)[\r\n]*", re.I)


class Layout(NamedTuple):
    """How a text is to be read, by its first bytes and `data.options`, which win."""

    encoding: str
    separator: str | None
    """None where it is not one character."""
    skips_line: bool = False
    """The first line is no row: it names the separator, such as `sep=;`, as Excel writes it."""

    def notes(self, name: str) -> list[Note]:
        """Say which line was taken for no row."""
        if not self.skips_line:
            return []
        sentence = f"{name}: the first line names the separator, {self.separator!r}, and is not read as a row"
        return [Note(rule="doubtful_reading", count=1, sentence=sentence)]


def look_at(head: bytes, ending: str, options: Mapping[str, Any]) -> Layout:
    """Return the layout of a text from its first bytes."""
    encoding = options.get("encoding") or encoding_by_mark(head) or "utf-8"
    try:
        if codecs.lookup(encoding).name in ("utf-8", "ascii"):
            encoding = "utf-8-sig"
    except LookupError as err:
        raise UserError(f"data.options.encoding: Python knows no '{encoding}'") from err
    separator = separator_of(ending, options)
    if ending in ("csv", "tsv") and "skiprows" not in options:
        first = io.TextIOWrapper(io.BytesIO(head), encoding, errors="replace", newline="").readline()
        if named := _NAMES_SEPARATOR.fullmatch(first):
            given = options.keys() & {"sep", "delimiter"}
            return Layout(encoding, separator if given else named[1], skips_line=True)
    return Layout(encoding, separator if separator and len(separator) == 1 else None)


def separator_of(ending: str, options: Mapping[str, Any]) -> str | None:
    """Return what separates fields, by the options or the file's ending; pandas takes patterns, and None as a guess."""
    separator: str | None = options.get("sep", options.get("delimiter", "\t" if ending == "tsv" else ","))
    return "\t" if separator == r"\t" else separator  # as YAML has it without double quotes


class Lines(io.RawIOBase):
    """The text of an opened file as UTF-8 without byte order mark and `sep=` line, for any parser of bytes.

    `head` are bytes already read from the file. What is not of the encoding is a fault, and so are a NUL and, with
    `quote`, a quoted field that is still open at the end.
    """

    fault: Exception | None = None
    """Why the text ended early. It waits here, as Arrow reads in threads of its own, which an exception may abort."""

    def __init__(
        self,
        name: str,
        handle: Any,
        layout: Layout,
        head: bytes = b"",
        *,
        errors: str = "strict",
        quote: str | None = None,
    ) -> None:
        self.name, self.layout = name, layout
        self._handle, self._errors, self._quote = handle, errors, quote
        self._begin(head)

    def _begin(self, head: bytes = b"") -> None:
        self._head = head
        self._decoder = codecs.getincrementaldecoder(self.layout.encoding)(self._errors)
        self._read, self._last = 0, b""
        self.quotes = 0
        """Quotes that have passed, where they matter."""
        self._passes = False  # from here on bytes are handed on as they are
        self._left = memoryview(b"")
        self._fill()
        if self.layout.skips_line:
            self._left = self._left[bytes(self._left).find(b"\n") + 1 :]

    @property
    def is_unfinished(self) -> bool:
        """Say whether the last line that passed has no end."""
        return self._last not in (b"\n", b"\r", b"")

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that one can begin anew."""
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Begin anew; there is no other place to go to."""
        if (offset, whence) != (0, 0):
            raise io.UnsupportedOperation("only seek(0)")
        self._handle.seek(0)
        self._begin()
        return 0

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer."""
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, fewer at the end only: Arrow takes what a call returns for one block."""
        if size is None or size < 0:
            return self.readall()
        parts, missing = [], 0 if self.fault else size
        try:
            while missing and (self._left or self._fill()):
                parts.append(self._left[:missing])
                self._left = self._left[missing:]
                missing -= len(parts[-1])
            if missing == size and size:
                self._check_end()
        except Exception as fault:  # also those of the codecs and of fsspec's plug-ins
            self.fault = fault
        return b"".join(parts)

    def _fill(self) -> bool:
        """Take the next bytes from the file; False at its end."""
        while not self._left:
            raw: bytes = self._head or self._handle.read(_CHUNK)
            self._head = b""
            text = self._as_utf8(raw)
            self._look(text)
            self._read += len(raw)
            self._left = memoryview(text)
            if not raw:
                break
        return bool(self._left)

    def _as_utf8(self, raw: bytes) -> bytes:
        within = bool(self._decoder.getstate()[0])  # the bytes before ended within a character
        if self.layout.encoding == "utf-8-sig" and self._errors == "strict" and self._last and not within:
            self._passes = True
        if self._passes and not within and raw.isascii():
            return raw
        try:
            text = self._decoder.decode(raw, final=not raw)
        except UnicodeError as err:
            raise UserError(self._wrong_encoding(raw, getattr(err, "start", 0))) from err
        if self._passes:
            return raw
        if codecs.lookup(self.layout.encoding).name == "iso8859-1" and (control := re.search("[\x80-\x9f]", text)):
            raise UserError(
                f"{self.name} holds the control character {control[0]!r}, read as {self.layout.encoding}; "
                f"set data.options.encoding to what it is, such as {fitting_encoding(raw)}"
            )
        return text.encode("utf-8", "replace")

    def _look(self, text: bytes) -> None:
        nul = text.find(b"\0")
        if nul >= 0:
            if wide := wide_encoding(text):
                raise UserError(f"{self.name} is not in utf-8; set data.options.encoding: {wide}")
            raise UserError(f"{self.name} has a NUL byte{self._line(text[:nul])}; remove it from the source")
        self._last = text[-1:] or self._last
        if self._quote and self._quote.encode() in text:
            self.quotes += text.count(self._quote.encode())

    def _line(self, text: bytes) -> str:
        """Say in which line a text ends that begins the bytes read last, where one can look at the lines before."""
        if not self._rewind():
            return ""
        lines = text.count(b"\n") + 1
        for start in range(0, self._read, _CHUNK):
            lines += self._handle.read(min(_CHUNK, self._read - start)).count(b"\n")
        return f" in line {lines:,}"

    def _rewind(self) -> bool:
        """Go back to the start; what a server streams has none."""
        try:
            self._handle.seek(0)
        except (OSError, ValueError):
            return False
        return True

    def _wrong_encoding(self, sample: bytes, start: int) -> str:
        encoding = self.layout.encoding.removesuffix("-sig")
        if encoding == "utf-8" and is_mostly_utf8(sample):
            return (
                f"{self.name} has bytes{self._line(sample[:start])} that are not utf-8, as the rest is; repair them, "
                "or set data.options.encoding_errors: replace"
            )
        fix = fitting_encoding(sample)
        return f"{self.name} is not in {encoding}; set data.options.encoding to what it is, such as {fix}"

    def _check_end(self) -> None:
        """Look for an open quote where their number is odd; it is odd in `5" disk` too, which opens nothing."""
        quote, self._quote = self._quote, None
        if quote and self.quotes % 2 and self.layout.separator is not None and self._rewind():
            again = Lines(self.name, self._handle, self.layout, errors=self._errors)
            text = io.TextIOWrapper(io.BufferedReader(again), "utf-8", newline="")
            if line := _open_quote(text, self.layout.separator, quote):
                line += self.layout.skips_line
                raise UserError(f"{self.name} is cut off or has a stray quote: that of line {line:,} is never closed")


def _open_quote(lines: Iterable[str], separator: str, quote: str) -> int | None:
    """Return the line in which a quoted field begins that has no end."""
    end = "\1end"
    rows, begins = csv.reader(chain(lines, [end]), delimiter=separator, quotechar=quote), 1
    for row in rows:
        if row and row[-1].endswith(end):
            return None if row == [end] else begins
        begins = rows.line_num + 1
    return None


def column_names(cells: Iterable[Any]) -> list[str]:
    """Return the columns that a first line names, one without a name by its place as pandas does."""
    return [str("" if cell is None else cell).strip() or f"Unnamed: {place}" for place, cell in enumerate(cells)]


def header(lines: Iterable[str], layout: Layout, options: Mapping[str, Any]) -> list[str] | None:
    """Return the columns that a CSV file names, before a reader renames those that stand twice; None if it may not.

    `lines` begin where the rows do, after a `sep=` line.
    """
    return _split(lines, layout, options)[0]


def short_rows(lines: Iterable[str], layout: Layout, options: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows that have fewer fields than their header, which pandas fills up without a word."""
    columns, rows = _split(lines, layout, options)
    return [] if columns is None or "skipfooter" in options else [row for row in rows if len(row) < len(columns)]


def _split(
    lines: Iterable[str], layout: Layout, options: Mapping[str, Any]
) -> tuple[list[str] | None, Iterator[list[str]]]:
    """Return the columns of a CSV, None if it names none, and the rows below."""
    if layout.separator is None or "dialect" in options or "compression" in options:
        return None, iter(())
    rows, place = _rows(lines, layout.separator, options), options.get("header", "infer")
    if options.get("names") is not None:
        return [str(name) for name in options["names"]], rows
    if place != "infer" and (not isinstance(place, int) or isinstance(place, bool)):
        return None, rows
    first = next(islice(rows, 0 if place == "infer" else place, None), [])
    return [column.strip() for column in first], rows


def _rows(lines: Iterable[str], separator: str, options: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of a CSV, with neither the lines that are to be skipped nor comments."""
    skip, quote, comment = options.get("skiprows") or 0, options.get("quotechar", '"'), options.get("comment")
    skipped = range(skip) if isinstance(skip, int) else skip
    kept: Iterator[str] = (line for number, line in enumerate(lines) if number not in skipped)
    if comment:
        kept = (line if quote in line else line.partition(comment)[0] for line in kept)
    return filter(None, csv.reader(kept, delimiter=separator, quotechar=quote))


def sniff(head: bytes, ending: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options, beside those given, that the first bytes of a CSV file ask for."""
    found: dict[str, Any] = {}
    layout = look_at(head, ending, options)
    try:
        codecs.getincrementaldecoder(layout.encoding)().decode(head)
    except UnicodeError:
        if not (layout.encoding == "utf-8-sig" and is_mostly_utf8(head)):
            found["encoding"] = fitting_encoding(head)
    if layout.encoding == "utf-8-sig" and b"\0" in head and (wide := wide_encoding(head)):
        found["encoding"] = wide
    layout = look_at(head, ending, {**options, **found})
    text = head.decode(layout.encoding, "replace")
    if len(head) >= SAMPLE:
        text = text[: text.rfind("\n") + 1]
    lines = list(io.StringIO(text, newline=""))[layout.skips_line :]
    if layout.separator is None:
        return found
    tables = {separator: _table(lines, separator, options) for separator in (layout.separator, *_SEPARATORS)}
    best = max(tables, key=lambda separator: len(tables[separator]))  # the first of equals
    if layout.skips_line or options.keys() & {"sep", "delimiter"}:
        best = layout.separator if len(tables[layout.separator]) > 1 else best
    if len(tables[best]) < 2 and not options.keys() & {"skiprows", "header"}:
        for skip in range(1, min(_TOP, len(lines))):  # titles and remarks stand above many a table
            below = {separator: _table(lines, separator, {**options, "skiprows": skip}) for separator in tables}
            top = max(below, key=lambda separator: len(below[separator]))
            if len(below[top]) > 1:
                found["skiprows"], tables, best = skip, below, top
                break
    if best != layout.separator and len(tables[best]) > 1:
        found["sep"] = best
    if "decimal" not in options and "thousands" not in options:
        found |= number_style(tables[best]).options
    return found


def _table(lines: Sequence[str], separator: str, options: Mapping[str, Any]) -> list[list[str]]:
    """Return the values present of each column, none unless nearly all lines have as many fields as the header."""
    comment, quote = options.get("comment"), options.get("quotechar", '"')
    lines = [line for line in lines if not (comment and line.startswith(comment))]
    skip, place = options.get("skiprows"), options.get("header")
    above = (skip if isinstance(skip, int) else 0) + (place if isinstance(place, int) else 0)
    rows = [row for row in csv.reader(lines[above:], delimiter=separator, quotechar=quote) if row]
    if not rows:
        return []
    whole = [row for row in rows[1:] if len(row) == len(rows[0])]
    if len(whole) < 0.9 * len(rows[1:]):
        return []
    return [[row[place] for row in whole if row[place].strip()] for place in range(len(rows[0]))]


def swallowed_lines(name: str, texts: Iterable[str], separator: str, fields: int) -> list[Note]:
    """Warn of values that are whole lines of a file of so many `fields`: a stray quote opens, another closes."""
    longest = 0
    for text in texts:
        lines = text.rstrip("\n").split("\n")
        within = lines[1:-1] or ["".join(lines)] * (len(lines) == 2 and fields > 2)
        if within and all(line.count(separator) == fields - 1 for line in within):
            longest = max(longest, len(lines))
    if not longest:
        return []
    sentence = (
        f"'{name}' has a value of {longest:,} lines that hold {separator!r} as often as a row does: "
        "stray quotes swallow rows; remove them from the file"
    )
    return [Note(rule="doubtful_reading", column=name, count=longest, sentence=sentence)]
