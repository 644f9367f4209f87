import io
import time
from typing import Any

import pandas as pd
import pyarrow.csv as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.data.text import Layout, Lines, header, look_at, sniff, swallowed_lines

COMMA = Layout("utf-8-sig", ",")


def lines(text: bytes, layout: Layout = COMMA, quote: str | None = '"', **more: Any) -> Lines:
    return Lines("t.csv", io.BytesIO(text), layout, quote=quote, **more)


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\0"\ufeff'), max_size=300),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]),
    st.integers(0, 400),
)
def test_a_text_passes_as_utf_8_whatever_it_is_written_in(text: str, encoding: str, size: int) -> None:
    stored = text.encode(encoding)
    layout = look_at(stored, "json", {} if encoding in ("utf-8-sig", "utf-16", "utf-32") else {"encoding": encoding})
    handle = io.BytesIO(stored)
    passing = Lines("t", handle, layout, handle.read(size))
    assert passing.read() == text.encode()
    passing.seek(0)
    assert passing.read() == text.encode()


def test_one_can_begin_anew() -> None:
    passing = lines(b"\xef\xbb\xbfx,y\n1,2")
    assert passing.read(1) == b"x"
    passing.seek(0)
    assert passing.read() == b"x,y\n1,2"
    assert passing.is_unfinished
    with pytest.raises(io.UnsupportedOperation):
        passing.seek(3)


def test_a_block_is_as_long_as_it_was_asked_for() -> None:
    text = "Köln\n".encode() * 2**20
    assert [len(lines(text).read(size)) for size in (1, 3_000_001, 10**7)] == [1, 3_000_001, len(text)]
    passing = lines(text)
    assert b"".join(iter(lambda: passing.read(999_999), b"")) == text


def test_a_fault_waits_until_the_parser_is_done() -> None:
    text = b"x,y\n" + b"1,2\n" * 300_000 + b"3,\0\n"
    for parse in (pd.read_csv, pc.read_csv):
        passing = lines(text)
        parse(passing)
        assert str(passing.fault) == "t.csv has a NUL byte in line 300,002; remove it from the source"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'x,y\n1,"a\n2,b\n', 2),
        (b'x,y\n1,"a\n2,b', 2),
        (b'x,y\n1,"a\nb"\n2,"c', 4),
        (b'x,y\n1,"' + b"a,b\n" * 100_000, 2),
        (b'sep=,\nx,y\n1,"a\n', 3),
    ],
)
def test_an_open_quote_is_named_by_its_line(text: bytes, line: int) -> None:
    passing = lines(text, look_at(text, "csv", {}))
    passing.read()
    assert str(passing.fault) == f"t.csv is cut off or has a stray quote: that of line {line} is never closed"


@pytest.mark.parametrize("text", [b'x,y\n1,5" disk\n', b'x,y\n1,"a ""b"" c"\n2,3"\n', b'x\n"a\nb"\n"c" d"\n'])
def test_a_quote_within_a_field_opens_nothing(text: bytes) -> None:
    passing = lines(text)
    assert (passing.read(), passing.fault) == (text, None)


@pytest.mark.parametrize(
    ("text", "options", "columns"),
    [
        (" x , y\n1,2\n", {}, ["x", "y"]),
        ('"a\nb",y\n1,2\n', {}, ["a\nb", "y"]),
        ("\n\nx,y\n", {}, ["x", "y"]),
        ("# a\nx,y # b\n", {"comment": "#"}, ["x", "y"]),
        ("a\nb\nx,y\n", {"skiprows": 2}, ["x", "y"]),
        ("a\nx,y\n", {"skiprows": [0]}, ["x", "y"]),
        ("a\n\nx,y\n", {"header": 1}, ["x", "y"]),
        ("1,2\n", {"names": ["x", "y"]}, ["x", "y"]),
        ("1,2\n", {"header": None}, None),
        ("a,b\nx,y\n", {"header": [0, 1]}, None),
        ("'a,b',y\n", {"quotechar": "'"}, ["a,b", "y"]),
        ("", {}, []),
    ],
)
def test_the_names_of_the_columns(text: str, options: dict[str, Any], columns: list[str] | None) -> None:
    assert header(io.StringIO(text, newline=""), COMMA, options) == columns
    if columns and "names" not in options:
        assert [name.strip() for name in pd.read_csv(io.StringIO(text), **options)] == columns


@pytest.mark.parametrize(
    ("text", "options", "found"),
    [
        ("x,y\n1,2\n", {}, {}),
        ("x;y\n1;2\n", {}, {"sep": ";"}),
        ("x;y\n1,5;2\n", {}, {"sep": ";", "decimal": ","}),
        ("x;y\n1,5;2\n", {"sep": ";"}, {"decimal": ","}),
        ("x;y\n1,5;2\n", {"sep": ";", "decimal": ","}, {}),
        ("x;word;y\n1,5;a, b;2\n2,5;c, d;1\n", {}, {"sep": ";", "decimal": ","}),
        ('x,y\n"1,240",2.5\n"48,960",3.5\n', {}, {"thousands": ","}),
        ("word,y\na;b,1\nc;d,2\n", {}, {}),
        ("y\n1\n2\n", {}, {}),
        ("# a;b\nx\ty\n1\t2\n", {"comment": "#"}, {"sep": "\t"}),
        ("export\nx;y\n1;2\n", {"skiprows": 1}, {"sep": ";"}),
        ("sep=;\nx;y\n1,5;2\n", {}, {"decimal": ","}),
        ("x y\n1 2\n", {"sep": r"\s+"}, {}),
        ("", {}, {}),
    ],
)
def test_what_a_file_needs_to_be_read_is_found(text: str, options: dict[str, Any], found: dict[str, Any]) -> None:
    assert sniff(text.encode(), "csv", options) == found
    umlaut = text.replace("x", "größe", 1).encode("cp1252")
    if umlaut != text.encode():
        assert sniff(umlaut, "csv", options) == {"encoding": "cp1252"} | found


@pytest.mark.parametrize("apart", [1, 150, 450])
@pytest.mark.parametrize("columns", [2, 3, 5])
def test_stray_quotes_that_swallow_lines_are_found(apart: int, columns: int) -> None:
    rows = [["1"] * (columns - 2) + [f"w{i % 3}", "0"] for i in range(600)]
    for stray in (20, 20 + apart):
        rows[stray][-2] = '"' + rows[stray][-2]
    text = "".join(",".join(row) + "\n" for row in [[f"c{i}" for i in range(columns)], *rows])
    table = pd.read_csv(io.StringIO(text), dtype=str)
    notes = [note for name in table for note in swallowed_lines(name, table[name], ",", columns)]
    if apart == 1 and columns == 2:
        assert notes == []  # "a, b" in two lines is as likely
        return
    [note] = notes
    assert (note.rule, note.column, note.count) == ("doubtful_reading", f"c{columns - 2}", apart + 1)
    healed = pd.read_csv(io.StringIO(text.replace('"', "")), dtype=str)  # as the note advises
    assert len(healed) == 600


def test_texts_of_several_lines_are_no_stray_quotes() -> None:
    texts = ["Dear all,\nthank you, and bye\nAnn", "one line, of text", "a\nb\nc\nd", "1, 2\n3, 4, 5, 6\n7, 8"]
    assert swallowed_lines("word", texts, ",", 3) == []


def test_looking_costs_little() -> None:
    text = b"x,y,word,town\n" + '0.123456789012345,1.23456789012345,"a b",Köln\n'.encode() * 300_000
    begin = time.process_time()
    pd.read_csv(io.BytesIO(text))
    parsing = time.process_time() - begin
    begin = time.process_time()
    lines(text).read()
    looking = time.process_time() - begin
    assert looking < 0.3 * parsing, (looking, parsing)
