import bz2
import gzip
import http.server
import lzma
import sqlite3
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from pandas.testing import assert_frame_equal

from loop.config import Data, UserError
from loop.data.delta import read_delta
from loop.data.files import find_files
from loop.data.sources import check_source, find_options, partitions, read_rows, read_table

TEXT = "x,word,y\n1.5,Köln,0\n2.5,Bonn,1\n3.5,Ulm,0\n"
TABLE = pd.DataFrame({"x": [1.5, 2.5, 3.5], "word": ["Köln", "Bonn", "Ulm"], "y": [0, 1, 0]})


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def data(source: str, **more: Any) -> Data:
    return Data(**{"source": source, "target": "y", **more})


def read(source: str, **more: Any) -> pd.DataFrame:
    check_source(data(source, **more))
    return read_rows(data(source, **more))


def refusal(source: str, **more: Any) -> str:
    """Return what the check before a run says; reading must say the same."""
    with pytest.raises(UserError) as checked:
        check_source(data(source, **more))
    with pytest.raises(UserError) as reading:
        read_rows(data(source, **more))
    assert str(checked.value) == str(reading.value)
    assert "\n" not in str(checked.value)
    return str(checked.value)


def advised(message: str) -> dict[str, Any]:
    """Return the `data.options` a message says to set, read as the YAML a user would write."""
    options: dict[str, Any] = {}
    for part in message.partition("; set ")[2].split(" and "):
        key, _, value = part.removeprefix("data.options.").partition(": ")
        options[key] = yaml.safe_load(value)
    return options


def write(name: str, content: str | bytes) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def archive(name: str, **members: str) -> str:
    with zipfile.ZipFile(name, "w") as file:
        for member, content in members.items():
            file.writestr(member, content)
    return name


def excel(name: str, table: pd.DataFrame = TABLE) -> bytes:
    table.to_excel("made.xlsx", index=False)
    return Path("made.xlsx").read_bytes()


def parquet() -> bytes:
    TABLE.to_parquet("made.parquet")
    return Path("made.parquet").read_bytes()


# What a file is


@pytest.mark.parametrize(
    ("name", "make", "words", "better"),
    [
        ("t.csv", lambda: gzip.compress(TEXT.encode()), "is gzip", "t.csv.gz"),
        ("t.csv", lambda: bz2.compress(TEXT.encode()), "is bz2", "t.csv.bz2"),
        ("t.csv", lambda: lzma.compress(TEXT.encode()), "is xz", "t.csv.xz"),
        ("t.tsv", lambda: pa.compress(TEXT.replace(",", "\t").encode(), "zstd", asbytes=True), "is zstd", "t.tsv.zst"),
        ("t.csv", lambda: Path(archive("a", **{"t.csv": TEXT})).read_bytes(), "is a zip archive", "t.csv.zip"),
        ("t.csv", lambda: excel("t"), "is an Excel workbook", "t.xlsx"),
        ("t.csv", parquet, "is a Parquet file", "t.parquet"),
        ("t.csv.gz", parquet, "is a Parquet file", "t.parquet"),
        ("t.csv.gz", lambda: TEXT.encode(), "is text", "t.csv"),
        ("t.csv.gz", lambda: bz2.compress(TEXT.encode()), "is bz2", "t.csv.bz2"),
        ("t.parquet", lambda: TEXT.encode(), "is text", "t.csv"),
        ("t.xlsx", lambda: TEXT.encode(), "is text", "t.csv"),
        ("t.csv", lambda: TABLE.to_json(orient="records").encode(), "is JSON", "t.json"),
        ("t.csv", lambda: TABLE.to_json(orient="records", lines=True).encode(), "is JSON", "t.json"),
        ("t.parquet", lambda: TABLE.to_json(orient="records", lines=True).encode(), "is JSON", "t.json"),
        ("t.jsonl", lambda: TEXT.encode(), "is text, but not JSON", "t.csv"),
    ],
)
def test_a_file_under_a_wrong_name_is_called_by_its_name(name: str, make: Any, words: str, better: str) -> None:
    write(name, make())
    assert refusal(name) == f"{name} {words}; name it {better}"
    Path(name).rename(better)
    assert_frame_equal(read(better), TABLE)


def test_what_is_no_table_is_said_to_be_what_it_is() -> None:
    page = "<!DOCTYPE html>\n<html><body>Please log in, or sign up</body></html>"
    assert refusal(write("a.csv", page)) == (
        "a.csv is a web page, perhaps one that asks for a login; download the table itself"
    )
    assert "a.csv.gz holds a web page" in refusal(write("a.csv.gz", gzip.compress(page.encode())))
    assert "b.csv is an old Excel workbook or one with a password; save it as .xlsx without a password" in refusal(
        write("b.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    )
    assert "c.csv.gz holds an Excel workbook; unpack it" in refusal(write("c.csv.gz", gzip.compress(excel("c"))))
    assert "d.csv.zst is not a whole zstd file" in refusal(write("d.csv.zst", b"\1\2\0\3"))


def test_a_column_may_be_called_as_files_begin() -> None:
    assert list(read(write("t.csv", "PAR1,BZh9,y\n1,2,0\n"))) == ["PAR1", "BZh9", "y"]


def test_a_database_under_another_name_is_read_by_its_url() -> None:
    with sqlite3.connect("t.csv") as base:
        TABLE.to_sql("t", base, index=False)
    base.close()
    message = refusal("t.csv")
    assert message == f"t.csv is an SQLite database; set data.source: sqlite:///{Path.cwd()}/t.csv and data.query"
    url = message.partition("data.source: ")[2].partition(" and ")[0]
    assert_frame_equal(read(url, query="SELECT * FROM t"), TABLE)


def test_pandas_own_option_for_packed_files_is_taken_at_its_word() -> None:
    write("t.csv", gzip.compress(TEXT.encode()))
    assert_frame_equal(read("t.csv", options={"compression": "gzip"}), TABLE)


def test_reads_zstandard() -> None:
    parts = [TEXT[:20], TEXT[20:]]  # frames of one stream, as parallel compressors write them
    write("t.csv.zst", b"".join(pa.compress(part.encode(), "zstd", asbytes=True) for part in parts))
    assert_frame_equal(read("t.csv.zst"), TABLE)
    lines = TABLE.to_json(orient="records", lines=True, force_ascii=False)
    write("t.jsonl.zst", pa.compress(lines.encode(), "zstd", asbytes=True))
    assert_frame_equal(read("t.jsonl.zst"), TABLE)


# Archives


def test_every_table_of_an_archive_is_read() -> None:
    archive("t.csv.zip", **{"2024.csv": "x,y\n3,0\n", "2023.csv": "x,y\n1,0\n2,1\n", "__MACOSX/._2023.csv": "\0\5"})
    assert read("t.csv.zip").x.tolist() == [1, 2, 3]
    assert len(partitions(data("t.csv.zip"))) == 1  # else each of two parts would be all rows
    archive("v.csv.zip", **{"year=2023/a.csv": "x,y\n1,0\n", "year=2024/a.csv": "x,y\n2,1\n"})
    assert read("v.csv.zip").year.tolist() == [2023, 2024]
    archive("u.csv.zip", **{"a.csv": "x,y\n1,0\n", "b.csv": "x,z\n2,1\n"})
    with pytest.raises(UserError, match=r"no column 'y' in u\.csv\.zip/b\.csv"):
        read("u.csv.zip")


def test_what_a_mac_adds_to_an_archive_is_no_table() -> None:
    archive(
        "t.csv.zip", **{"__MACOSX/._data.csv": "\0\5\x16\7junk", "data/": "", "data/.DS_Store": "", "data/t.csv": TEXT}
    )
    assert_frame_equal(read("t.csv.zip"), TABLE)
    archive("u.csv.zip", **{"export.txt": TEXT})  # the only file may have any name
    assert_frame_equal(read("u.csv.zip"), TABLE)


def test_an_archive_with_other_files_is_refused() -> None:
    archive("t.csv.zip", **{"README.txt": "x,y\n" + "1,0\n2,1\n" * 20, "data.csv": TEXT})
    assert refusal("t.csv.zip") == (
        "t.csv.zip: the archive holds 2 files: README.txt, data.csv; keep .csv files alone in it"
    )
    archive("t.csv.zip", **{"data.csv": TEXT})
    assert_frame_equal(read("t.csv.zip"), TABLE)
    archive("t.csv.zip")
    assert "t.csv.zip is empty" in refusal("t.csv.zip")


# Text


@pytest.mark.parametrize(
    ("encoding", "advice"),
    [
        ("cp1252", "cp1252"),
        ("mac-roman", "mac-roman"),
        ("cp850", "cp850"),
        ("utf-16-le", "utf-16-le"),
        ("cp1251", "cp1251"),
        ("shift-jis", "cp932"),
        ("gb18030", "gb18030"),
    ],
)
def test_the_encoding_that_is_advised_gives_the_text(encoding: str, advice: str) -> None:
    words = {
        "cp1252": ["€ 5", "Œuvre", "£ 3"],
        "mac-roman": ["élève", "forêt", "français"],
        "cp850": ["Müller", "Größe", "äöü"],
        "utf-16-le": ["Köln", "Łódź", "Ulm"],
        "cp1251": ["Москва", "Казань", "улица", "Новосибирск", "Санкт-Петербург", "город", "имя"],
        "shift-jis": ["東京", "大阪", "名古屋"],
        "gb18030": ["北京", "上海", "广州"],
    }[encoding]
    write("t.csv", ("word,y\n" + "".join(f"{word},0\n" for word in words)).encode(encoding))
    message = refusal("t.csv")
    assert message.startswith("t.csv is not in utf-8; set data.options.encoding")
    assert message.endswith(f" {advice}")
    assert read("t.csv", options={"encoding": advice}).word.tolist() == words


def test_latin_1_is_not_taken_for_what_windows_writes() -> None:
    write("t.csv", "word,y\n€ 5,0\n£ 3,1\n".encode("cp1252"))
    message = refusal("t.csv", options={"encoding": "latin-1"})
    assert message.endswith("set data.options.encoding to what it is, such as cp1252")
    assert read("t.csv", options={"encoding": "cp1252"}).word.tolist() == ["€ 5", "£ 3"]
    write("t.csv", "word,y\nGröße,0\n£ 3,1\n".encode("latin-1"))
    assert read("t.csv", options={"encoding": "latin-1"}).word.tolist() == ["Größe", "£ 3"]


def test_a_wrong_byte_among_utf_8_is_named_by_its_line() -> None:
    write("t.csv", "word,y\nKöln,0\nGöttingen,1\nMünchen,0\n".encode() + b"K\xf6ln,1\n")
    message = refusal("t.csv")
    assert message.startswith("t.csv has bytes in line 5 that are not utf-8, as the rest is; repair them, or ")
    assert advised(message.replace(", or set", "; set")) == {"encoding_errors": "replace"}
    words = read("t.csv", options={"encoding_errors": "replace"}).word.tolist()
    assert words == ["Köln", "Göttingen", "München", "K\ufffdln"]


def test_says_which_encodings_do_not_exist() -> None:
    write("t.csv", TEXT)
    assert refusal("t.csv", options={"encoding": "utf-99"}) == "data.options.encoding: Python knows no 'utf-99'"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_a_byte_order_mark_is_no_part_of_the_table(encoding: str, ending: str) -> None:
    text = {"csv": TEXT, "tsv": TEXT.replace(",", "\t")}.get(
        ending, TABLE.to_json(orient="records", lines=ending == "jsonl", force_ascii=False)
    )
    write(f"t.{ending}", text.encode(encoding))
    assert_frame_equal(read(f"t.{ending}"), TABLE)


def test_a_byte_order_mark_and_a_separator_go_together() -> None:
    write("t.csv", TEXT.replace(",", ";").encode("utf-16"))
    options = advised(refusal("t.csv"))
    assert options == {"sep": ";"}
    assert_frame_equal(read("t.csv", options=options), TABLE)


def test_a_first_line_that_names_the_separator_is_honoured() -> None:
    for text in ("sep=;\n" + TEXT.replace(",", ";"), "\ufeffSEP=|\r\n" + TEXT.replace(",", "|")):
        write("t.csv", text)
        assert_frame_equal(read("t.csv"), TABLE)
    write("t.csv", "sep=,\n" + TEXT)
    assert_frame_equal(read("t.csv"), TABLE)
    assert_frame_equal(read("t.csv", options={"skiprows": 1}), TABLE)
    assert_frame_equal(read("t.csv", options={"sep": ","}), TABLE)


@pytest.mark.parametrize("line", ['1,"w\0 1",0', "1,w\0,0"])
def test_a_nul_is_refused_by_its_line(line: str) -> None:
    write("t.csv", f"x,word,y\n0,w,1\n{line}\n")
    assert refusal("t.csv") == "t.csv has a NUL byte in line 3; remove it from the source"
    write("t.csv", Path("t.csv").read_bytes().replace(b"\0", b""))
    assert len(read("t.csv")) == 2


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x;y\n1,5;0\n2,5;1\n", {"sep": ";", "decimal": ","}),
        ("x\ty\n1.5\t0\n2.5\t1\n", {"sep": "\t"}),
        ("x|y\n1.5|0\n2.5|1\n", {"sep": "|"}),
        ("x;y\n1.001,5;0\n1.002.001,5;1\n", {"sep": ";", "decimal": ",", "thousands": "."}),
    ],
)
def test_the_separator_and_decimal_sign_that_are_advised_give_the_numbers(text: str, options: dict[str, str]) -> None:
    write("t.csv", text)
    message = refusal("t.csv")
    assert message.startswith("t.csv has one column, ")
    assert advised(message) == options
    large = "thousands" in options
    assert read("t.csv", options=options).x.tolist() == ([1001.5, 1002001.5] if large else [1.5, 2.5])


@pytest.mark.parametrize(
    ("above", "sep", "options"),
    [
        ("Report of 2024\n\n", ",", {"skiprows": 1}),
        ("# made by hand\n", ";", {"skiprows": 1, "sep": ";"}),
        ("A title\nand a remark\n", ",", {"skiprows": 2}),
    ],
)
def test_lines_above_the_names_are_skipped_as_advised(above: str, sep: str, options: dict[str, Any]) -> None:
    write("t.csv", f"{above}x{sep}y\n" + "".join(f"{row}{sep}{row % 2}\n" for row in range(20)))
    assert advised(refusal("t.csv")) == options
    assert read("t.csv", options=options).x.tolist() == list(range(20))


def test_a_separator_set_wrongly_is_corrected() -> None:
    write("t.csv", TEXT)
    options = advised(refusal("t.csv", options={"sep": ";"}))
    assert options == {"sep": ","}
    assert_frame_equal(read("t.csv", options=options), TABLE)


def test_a_tab_may_be_written_without_double_quotes() -> None:
    write("t.csv", TEXT.replace(",", "\t"))
    assert_frame_equal(read("t.csv", options=yaml.safe_load(r"{sep: '\t'}")), TABLE)


def test_one_column_may_be_all_there_is() -> None:
    write("t.csv", "y\n1\n0\n")
    assert read("t.csv").y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x,x,y\n1,2,0\n", {}),
        ("# export 1\nx,x,y\n1,2,0\n", {"comment": "#"}),
        ("x,x, y # seen\n1,2,0\n", {"comment": "#"}),
        ("export 1\n\nx,x,y\n1,2,0\n", {"skiprows": 1}),
        ("export 1\nx,x,y\n1,2,0\n", {"skiprows": [0]}),
        ("export 1\nx,x,y\n1,2,0\n", {"header": 1}),
        ("1,2,0\n", {"names": ["x", "x", "y"], "header": None}),
    ],
)
def test_a_name_that_stands_twice_is_refused_wherever_the_header_stands(text: str, options: dict[str, Any]) -> None:
    assert "has column 'x' more than once" in refusal(write("t.csv", text), options=options)
    names = options.get("names") and {"names": ["x", "z", "y"]}
    write("t.csv", text.replace("x,x", "x,z"))
    assert read("t.csv", options=options | (names or {})).iloc[0].tolist() == [1, 2, 0]


def test_a_file_that_ends_within_a_quoted_field_is_refused() -> None:
    write("t.csv", 'x,word,y\n1,"a, b",0\n2,"c\n3,d,1\n4,e,0\n')
    with pytest.raises(UserError) as error:
        read("t.csv")
    assert str(error.value) == "t.csv is cut off or has a stray quote: that of line 3 is never closed"
    write("t.csv", 'x,word,y\n1,"a, b",0\n2,5" disk,1\n')  # a quote within a field opens nothing
    assert read("t.csv").word.tolist() == ["a, b", '5" disk']


# Servers


class _Streams(http.server.BaseHTTPRequestHandler):
    """A server that knows no ranges, as most small ones."""

    tells_size = True

    def do_GET(self) -> None:
        content = Path(self.path[1:]).read_bytes()
        self.send_response(200)
        if self.tells_size:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(params=[True, False])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(_Streams, "tells_size", request.param)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Streams) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_what_a_server_streams_is_read_too(server: str) -> None:
    write("t.csv", TEXT)
    write("t.csv.gz", gzip.compress(TEXT.encode()))
    write("t.csv.zst", pa.compress(TEXT.encode(), "zstd", asbytes=True))
    archive("t.csv.zip", **{"t.csv": TEXT})
    write("t.xlsx", excel("t"))
    for name in ("t.csv", "t.csv.gz", "t.csv.zst", "t.csv.zip", "t.xlsx"):
        assert_frame_equal(read_rows(data(f"{server}/{name}")), TABLE)
    write("t.csv", 'x,word,y\n1,5" disk,0\n')
    assert read_rows(data(f"{server}/t.csv")).word.tolist() == ['5" disk']
    write("t.csv", "x,word,y\n1,\0,0\n")
    with pytest.raises(UserError, match=r"t\.csv has a NUL byte( in line 2)?; remove it"):
        read_rows(data(f"{server}/t.csv"))


# Folders


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_part_read_by_itself_keeps_the_columns_of_its_folders(ending: str) -> None:
    for year in (2023, 2024):
        Path(f"t/year={year}/land=a%20b").mkdir(parents=True)
        getattr(TABLE, f"to_{ending}")(f"t/year={year}/land=a%20b/part.{ending}", index=False)
    whole = read("t")
    parts = [read_rows(part) for _, part in partitions(data("t"))]
    assert [part.year.unique().tolist() for part in parts] == [[2023], [2024]]
    assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    for source in (f"t/year=2024/land=a%20b/part.{ending}", "t/year=2024", f"t/year=2024/*/*.{ending}"):
        rows = read(source)
        assert set(rows.year) == {2024}
        assert set(rows.land) == {"a b"}


def test_only_the_folders_next_to_a_file_are_columns() -> None:
    write("run=7/data/year=2023/t.csv", TEXT)
    assert list(read("run=7/data/year=2023/t.csv")) == [*TABLE, "year"]
    assert list(read("run=7/data")) == [*TABLE, "year"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_folder_of_missing_values_is_missing(ending: str) -> None:
    for year in ("2023", "__HIVE_DEFAULT_PARTITION__"):
        Path(f"t/year={year}").mkdir(parents=True)
        getattr(TABLE, f"to_{ending}")(f"t/year={year}/part.{ending}", index=False)
    rows = read("t")
    assert rows.year.isna().tolist() == [False] * 3 + [True] * 3


# Delta


@pytest.fixture
def delta() -> str:
    """Write a table of two versions, of which the second has removed the rows of the first."""
    import deltalake

    rows = pa.Table.from_pandas(TABLE)
    deltalake.write_deltalake("lake/t", rows)
    deltalake.write_deltalake("lake/t", rows.slice(1), mode="overwrite")
    return "lake/t"


def test_a_delta_table_holds_what_its_log_says(delta: str) -> None:
    assert len(list(Path(delta).glob("*.parquet"))) == 2
    newest = TABLE[1:].reset_index(drop=True)
    assert_frame_equal(read(delta), newest)
    assert_frame_equal(read(delta, rows=1), newest.head(1))
    assert_frame_equal(read(delta, options={"version": 0}), TABLE)
    assert list(read(delta, options={"columns": ["x", "y"]})) == ["x", "y"]
    [(_, part)] = partitions(data(delta))
    assert_frame_equal(read_rows(part), newest)
    with pytest.raises(UserError, match="no option 'sep'"):
        read(delta, options={"sep": ";"})


def test_ids_of_a_delta_table_are_not_rounded() -> None:
    import deltalake

    deltalake.write_deltalake("t", pa.table({"k": pa.array([2**60 + 1, None]), "y": [0, 1]}))
    [file] = find_files(data("t"), "t")
    assert read_delta(file)["k"].to_pylist() == [2**60 + 1, None]


def test_files_of_a_delta_table_are_not_read_without_its_log(delta: str) -> None:
    assert refusal("lake/t/*.parquet") == (
        "'lake/t/*.parquet' are files of a Delta table, some of them outdated; name its folder"
    )
    assert refusal("lake") == "'lake' holds Delta tables; name the folder of one: t"
    assert len(read("lake/t")) == 2


def test_a_delta_table_without_its_package_names_it(delta: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "deltalake", None)
    with pytest.raises(UserError, match="t is a Delta table; install the package deltalake to read it"):
        read(delta)


@pytest.mark.parametrize(
    ("name", "make", "words", "better"),
    [
        ("t.txt", lambda: TEXT.encode(), "text", "t.csv"),
        ("t", lambda: TEXT.encode(), "text", "t.csv"),
        ("t.gz", lambda: gzip.compress(TEXT.encode()), "gzip", "t.csv.gz"),
        ("t.zip", lambda: Path(archive("a", **{"t.csv": TEXT})).read_bytes(), "a zip archive", "t.csv.zip"),
        ("t.xlsm", lambda: excel("t"), "an Excel workbook", "t.xlsx"),
        ("t.dat", parquet, "a Parquet file", "t.parquet"),
    ],
)
def test_a_file_of_another_ending_is_called_by_what_it_is(name: str, make: Any, words: str, better: str) -> None:
    write(name, make())
    assert refusal(name) == f"no data file at data.source '{name}'; it is {words}; name it {better}"
    Path(name).rename(better)
    assert_frame_equal(read(better), TABLE)


def test_what_tells_nothing_is_answered_by_the_endings_there_are() -> None:
    assert "it needs .csv, .tsv, .parquet" in refusal(write("t.bin", b"\0\1\2"))
    assert "it needs .csv, .tsv, .parquet" in refusal(write("t.txt", b""))
    assert "it is an old Excel workbook" in refusal(write("t.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)))
    archive("t.ods", **{"mimetype": "application/vnd.oasis.opendocument.spreadsheet"})
    assert "it is an OpenDocument file; save it as .xlsx" in refusal("t.ods")
    assert "it needs .csv, .tsv, .parquet" in refusal(write("d/a.txt", TEXT).split("/")[0])  # a folder


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zst", "zip"])
def test_a_packed_file_that_is_cut_off_is_said_to_be(ending: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    text = (TEXT * 1000).encode()
    packed = pack[ending](text) if ending in pack else pa.compress(text, "zstd", asbytes=True)
    if ending == "zip":
        packed = Path(archive("a", **{"t.csv": TEXT})).read_bytes()
    write(f"t.csv.{ending}", packed[:-9])
    with pytest.raises(UserError, match=rf"cannot read t\.csv\.{ending}: it is cut off"):
        read(f"t.csv.{ending}")


def test_long_texts_are_no_fault() -> None:
    write("t.csv", 'x,word,y\n1,5" disk,0\n2,"' + "long " * 50_000 + '",1\n')
    assert read("t.csv").word.str.len().tolist() == [7, 250_000]
    assert find_options(data("t.csv")) == {}


def test_a_column_that_is_also_a_folder_is_read_once() -> None:
    write("t/year=2023/a.csv", "x,year,y\n1,2023,0\n2,2023,1\n")
    assert read("t/year=2023/a.csv").year.tolist() == [2023, 2023]


def test_lines_may_end_as_old_macs_ended_them() -> None:
    write("t.csv", TEXT.replace("\n", "\r"))
    assert_frame_equal(read("t.csv"), TABLE)
    write("t.csv", TEXT.replace("\n", "\r").replace(",", ";"))
    assert_frame_equal(read("t.csv", options=advised(refusal("t.csv"))), TABLE)


# What reading says


def notes(source: str, **more: Any) -> list[tuple[str, str | None, int]]:
    found = read_table(data(source, **more))[1].notes
    return [(note.rule, note.column, note.count) for note in found]


@pytest.mark.parametrize("apart", [150, 450])
def test_stray_quotes_that_swallow_lines_are_warned_of(apart: int) -> None:
    lines = [f"{i},w{i % 3},{i % 2}" for i in range(600)]
    for stray in (20, 20 + apart):
        lines[stray] = lines[stray].replace(",w", ',"w')
    write("t.csv", "\n".join(["x,word,y", *lines]) + "\n")
    assert ("doubtful_reading", "word", apart + 1) in notes("t.csv")
    write("t.csv", Path("t.csv").read_text().replace('"', ""))  # as the note advises
    assert len(read("t.csv")) == 600
    assert notes("t.csv") == []


def test_a_last_line_that_is_cut_off_is_refused() -> None:
    write("t.csv", "x,word,y\n1,a,0\n2,b")
    with pytest.raises(UserError, match=r"t\.csv is cut off: its last line has 2 fields instead of 3"):
        read("t.csv")
    with pytest.raises(UserError, match="a line has 2 fields instead of 3"):
        read(write("t.csv", "x,word,y\n1,a,0\n2,b\n"))
    assert len(read(write("t.csv", "x,word,y\n1,a,0\n2,b,1"))) == 2


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_a_name_that_stands_twice_in_an_object_is_refused(ending: str) -> None:
    lines = ['{"x": 2, "y": 1, "x": 3}', '{"x": 1, "y": 0}']
    write(f"t.{ending}", f"[{','.join(lines)}]" if ending == "json" else "\n".join(lines))
    place = "" if ending == "json" else "line 1: "
    with pytest.raises(UserError, match=rf"^cannot read t\.{ending}: {place}an object names 'x' twice; keep one of"):
        read(f"t.{ending}")


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x,word,y\n1,a,0\n# a remark\n2,b\n3,c,1 # another\n", {"comment": "#"}),
        ("a title\nx,word,y\n1,a,0\n2,b\n3,c,1\n", {"skiprows": 1}),
        ("x,word,y\nunits,,\n1,a,0\nleft out\n2,b\n3,c,1\n", {"skiprows": [1, 3]}),
        ("1,a,0\n2,b\n3,c,1\n", {"header": None, "names": ["x", "word", "y"]}),
    ],
)
def test_a_line_that_is_too_short_is_told_whatever_the_options(text: str, options: dict[str, Any]) -> None:
    write("t.csv", text)
    fault = r"t\.csv has 1 lines with fewer fields than its header, such as '2, b' with 2; repair it, or set data"
    with pytest.raises(UserError, match=fault):
        read_table(data("t.csv", options=options))
    table = read_table(data("t.csv", options={**options, "on_bad_lines": "skip"}))[0]
    assert (table.y.dropna().tolist(), len(table)) == ([0, 1], 3)
    assert table.word.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "options", "better", "values"),
    [
        ("x;y\n-0,2;0\n0,5;1\n", {"sep": ";"}, {"decimal": ","}, [-0.2, 0.5]),
        ("x;z;y\n1.240;12,60;0\n48.960;3,1;1\n", {"sep": ";", "decimal": ","}, {"thousands": "."}, [1240, 48960]),
        ("x;y\n1.240,5;0\n960;1\n", {"sep": ";"}, {"decimal": ",", "thousands": "."}, [1240.5, 960]),
        # Read as 1.24 before; the other column says what the points are.
        ("x;z;y\n1.240;12,60;0\n48.961;3,1;1\n", {"sep": ";"}, {"decimal": ",", "thousands": "."}, [1240, 48961]),
        ('x,y\n"1,240",0\n"1,048,960",1\n', {}, {"thousands": ","}, [1240, 1048960]),
    ],
)
def test_the_spelling_of_numbers_that_is_advised_gives_the_numbers(
    text: str, options: dict[str, str], better: dict[str, str], values: list[float]
) -> None:
    write("t.csv", text)
    note = read_table(data("t.csv", options=options))[1].notes[0]
    assert note.column == "x"
    assert note.rule == "mostly_numbers"
    assert advised(note.sentence) == better
    rows, reading = read_table(data("t.csv", options=options | better))
    assert rows.x.tolist() == values
    assert reading.notes == ()


def test_thousands_that_look_like_fractions_are_warned_of() -> None:
    lines = [f"{i}.{i % 9}{i % 7}7,{i % 2}" for i in range(11, 40)]
    write("t.csv", "\n".join(["x,y", *lines, "624,1"]) + "\n")
    assert read("t.csv").x.dtype == "float64"
    assert notes("t.csv") == [("doubtful_reading", "x", 29)]


def test_a_line_that_is_no_row_is_mentioned() -> None:
    write("t.csv", "sep=;\nx;y\n1;0\n2;1\n")
    assert notes("t.csv") == [("doubtful_reading", None, 1)]
    book = {"Sheet": TABLE, "Old": TABLE}
    with pd.ExcelWriter("t.xlsx") as writer:
        for name, table in book.items():
            table.to_excel(writer, sheet_name=name, index=False)
    assert notes("t.xlsx") == [("doubtful_reading", None, 1)]
    assert notes("t.xlsx", options={"sheet_name": "Old"}) == []


def test_a_quote_that_swallows_megabytes_is_guessed_at() -> None:
    lines = [f"{i},w{'and more ' * 10},{i % 2}" for i in range(200_000)]
    lines[10], lines[-10] = lines[10].replace("w", '"w'), lines[-10].replace("w", '"w')
    write("t.csv", "\n".join(["x,word,y", *lines]))
    with pytest.raises(UserError, match="if a stray quote swallows those after it, remove the quote from the file"):
        read("t.csv")
    write("t.csv", Path("t.csv").read_text().replace('"', ""))
    assert len(read("t.csv")) == 200_000


def test_lines_with_too_many_fields_are_left_out_as_advised() -> None:
    write("t.csv", TEXT + "4.5,Bonn,1,9\n")
    with pytest.raises(UserError, match=r"set data\.options\.on_bad_lines: skip"):
        read("t.csv")
    assert_frame_equal(read("t.csv", options={"on_bad_lines": "skip"}), TABLE)


def test_files_of_two_formats_are_chosen_from_as_advised() -> None:
    write("d/a.csv", TEXT)
    write("d/b.jsonl", "{}")
    assert refusal("d") == "'d' holds .csv and .jsonl files; choose by a glob such as 'data/*.csv'"
    assert_frame_equal(read("d/*.csv"), TABLE)


def test_the_advice_for_numbers_beyond_pandas_gives_the_number() -> None:
    write("t.jsonl", '{"x": 1e-310, "y": 0}\n')
    options = {"orient": "records"}
    with pytest.raises(UserError, match=r"set data\.options\.precise_float: false"):
        read("t.jsonl", options=options)
    assert read("t.jsonl", options=options | {"precise_float": False}).x[0] == pytest.approx(1e-310)
    assert read("t.jsonl").x[0] == 1e-310
