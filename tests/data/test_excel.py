import datetime
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from loop.cli.new_config import draft_config
from loop.config import Data, UserError
from loop.data.excel import read_excel
from loop.data.files import File, find_files
from loop.data.sources import check_source, read_rows

ROWS = [["x", "code", "y"], [1.5, "007", 0], [None, "012", 1], [3, "1.10", 0]]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def book(*rows: list[Any], name: str = "t.xlsx", **sheets: list[list[Any]]) -> File:
    """Write a workbook; `rows` are those of the first sheet."""
    made = openpyxl.Workbook()
    for row in rows:
        made.active.append(row)
    for title, lines in sheets.items():
        sheet = made.create_sheet(title)
        for line in lines:
            sheet.append(line)
    made.save(name)
    return find_files(data(name), name)[0]


def data(source: str = "t.xlsx", **more: Any) -> Data:
    return Data(**{"source": source, "target": "y", **more})


def refusal(**more: Any) -> str:
    with pytest.raises(UserError) as error:
        check_source(data(**more))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_cell_keeps_the_type_it_has() -> None:
    day, moment = datetime.datetime(2024, 1, 31), datetime.datetime(2024, 1, 31, 8, 15)
    file = book(
        ["number", "whole", "code", "day", "moment", "flag", "clock", "mixed", "empty"],
        [1.5, 1, "007", day, moment, True, datetime.time(8, 15), 1, ""],
        [2, 2, "1E5", day, None, False, datetime.time(9, 0), "a", None],
    )
    table, notes = read_excel(file)
    assert table.astype(object).where(table.notna(), None).to_numpy().tolist() == [
        [1.5, 1, "007", day, moment, True, "08:15:00", 1, None],
        [2, 2, "1E5", day, None, False, "09:00:00", "a", None],
    ]
    assert notes == []


def test_a_workbook_is_a_source() -> None:
    book(*ROWS)
    check_source(data())
    rows = read_rows(data(kinds={"code": "categorical"}))
    assert rows.x.tolist()[::2] == [1.5, 3.0]
    assert rows.code.tolist() == ["007", "012", "1.10"]
    assert str(rows.y.dtype) == "int64"
    assert_frame_equal(read_rows(data(rows=2)), rows.head(2).reset_index(drop=True), check_dtype=False)
    Path("d").mkdir()
    book(*ROWS, name="d/b.xlsx")
    book(*ROWS, name="d/a.xlsx")
    assert len(read_rows(data("d"))) == 6


def test_errors_of_excel_are_missing_and_counted() -> None:
    book(["x", "y"], [1, 0], ["#N/A", 1], ["#DIV/0!", 0])
    made = openpyxl.load_workbook("t.xlsx")
    made.active["A3"].data_type = made.active["A4"].data_type = "e"
    made.save("t.xlsx")
    table, [note] = read_excel(find_files(data(), "t.xlsx")[0])
    assert table.x.isna().tolist() == [False, True, True]
    assert (note.rule, note.column, note.count) == ("missing_words", "x", 2)


def test_blank_lines_and_columns_fall_away() -> None:
    file = book([], ["x", None, "y", None], [1, None, 0], [], [None, None, None], [2, "", 1, ""], [None, None])
    table, _ = read_excel(file)
    assert table.to_numpy().tolist() == [[1, 0], [2, 1]]


def test_a_sheet_is_chosen_by_name_or_number() -> None:
    file = book(*ROWS, Old=[["z", "y"], [9, 1]], **{"2024": [["w", "y"], [8, 1]]})
    table, [note] = read_excel(file)
    assert table.x.tolist()[0] == 1.5
    assert (note.rule, note.column) == ("doubtful_reading", None)
    assert note.sentence == ("t.xlsx: sheet 'Sheet' is read, not 'Old', '2024'; choose by data.options.sheet_name")
    for sheet, name in (("Sheet", "x"), ("Old", "z"), (1, "z"), (2024, "w"), ("2024", "w")):
        assert next(iter(read_rows(data(options={"sheet_name": sheet})))) == name
    assert refusal(options={"sheet_name": "old"}) == (
        "no sheet 'old' (data.options.sheet_name) in t.xlsx; it has 2024, Old, Sheet; did you mean 'Old'?"
    )
    assert "no sheet '7'" in refusal(options={"sheet_name": 7})
    assert "sheet_name: Sheet" in draft_config("t.xlsx", "y")


def test_an_empty_or_hidden_sheet_is_passed_over() -> None:
    book(Data=ROWS, Lists=[["a"], ["b"]])
    made = openpyxl.load_workbook("t.xlsx")
    made["Lists"].sheet_state = "hidden"
    made.save("t.xlsx")
    table, notes = read_excel(find_files(data(), "t.xlsx")[0])
    assert (list(table), notes) == (["x", "code", "y"], [])
    assert "sheet_name" not in draft_config("t.xlsx", "y")
    book()
    assert refusal() == "t.xlsx is empty"


def test_a_header_below_a_title_is_found_by_the_advice() -> None:
    book(["Claims of 2024"], ["as of", "2024-01-31"], [], *ROWS)
    message = refusal()
    assert message == (
        "sheet 'Sheet' of t.xlsx has values in column B, which has no name; "
        "set data.options.skiprows: 3 if the names stand in row 4, else name it"
    )
    assert list(read_rows(data(options={"skiprows": 3}))) == ["x", "code", "y"]


def test_a_column_without_a_name_is_refused() -> None:
    book(["x", None, "y"], [1, 2, 0])
    assert refusal() == "sheet 'Sheet' of t.xlsx has values in column B, which has no name; name it"
    book(["x", "new", "y"], [1, 2, 0])
    assert list(read_rows(data())) == ["x", "new", "y"]
    book(["x", "both", None, "y"], [1, 2, 3, 0])
    made = openpyxl.load_workbook("t.xlsx")
    made.active.merge_cells("B1:C1")
    made.save("t.xlsx")
    assert "column C, which has no name" in refusal()
    book(["x", "x", "y"], [1, 2, 0])
    assert "has column 'x' more than once" in refusal()


def test_formulas_that_nobody_worked_out_are_refused() -> None:
    book(["x", "y"], ["=1+1", 0], ["=2+1", 1])
    with pytest.raises(UserError) as error:
        read_rows(data())
    assert str(error.value) == "t.xlsx has 2 formulas without a value; open it in Excel once and save it"


def test_takes_no_options_of_other_files() -> None:
    book(*ROWS)
    with pytest.raises(UserError, match=r"no option 'sep' \(data\.options\)"):
        read_rows(data(options={"sep": ";"}))


def test_a_sheet_of_a_program_that_writes_no_size_is_read_whole() -> None:
    book(*ROWS)
    with zipfile.ZipFile("t.xlsx") as old, zipfile.ZipFile("u.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'<dimension ref="A1:C4"', b'<dimension ref="A1"'))
    assert pd.read_excel("u.xlsx").shape == read_excel(find_files(data("u.xlsx"), "u.xlsx")[0])[0].shape


def test_a_formula_without_a_value_and_merged_cells_are_not_gaps_without_a_word() -> None:
    rows = [["g", "x", "y"], *([None if row % 3 else "ab"[row % 2], row, row % 2] for row in range(9))]
    file = book(*rows)
    made = openpyxl.load_workbook("t.xlsx")
    made.active.merge_cells("A2:A4")
    made.active.merge_cells("A5:A7")
    made.save("t.xlsx")
    (note,) = read_excel(file)[1]
    assert note.sentence.startswith("sheet 'Sheet' of t.xlsx has 2 merged cells over several rows, of which only")
    made.active["B7"] = "=B6*2"
    made.save("t.xlsx")
    with pytest.raises(UserError, match=r"^t\.xlsx has 1 formulas without a value; open it in Excel once and save it$"):
        read_excel(file)
