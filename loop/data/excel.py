"""Read a sheet of an Excel workbook: each cell keeps the type it has there."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from loop.config import UserError, known
from loop.data.notes import Note

if TYPE_CHECKING:  # the check before a run does without pandas
    import pandas as pd

    from loop.data.files import File

_ERRORS = {"#N/A", "#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "#NUM!", "#NULL!"}
_NO_VALUE = re.compile(rb"<c\b([^>]*)>\s*<f\b(?:[^>]*/>|[^>]*>[^<]*</f>)\s*(?:<v\s*/>|<v></v>)?\s*</c>")
_MERGED = re.compile(rb'<mergeCell ref="[A-Z]+(\d+):[A-Z]+(\d+)"')
_TOP = 50  # lines in which a title may stand above the names of the columns


def read_excel(
    path: File, *, sheet_name: str | int | None = None, skiprows: int = 0, nrows: int | None = None
) -> tuple[pd.DataFrame, list[Note]]:
    """Return a sheet's rows as Python objects, and what was seen.

    The first line after `skiprows` that is not blank names the columns. Blank lines and columns fall away; errors such
    as #N/A and empty texts are missing values; times of day are texts. Without `sheet_name` it is the first sheet that
    holds anything.
    """
    import pandas as pd

    with _opened(path) as book:
        sheet, notes = _choose(path, book, sheet_name)
        names, lines = _names(path, sheet, skiprows)
        missing = (None,) * (max(names) + 1)
        errors: dict[str, int] = {}
        rows = []
        for line in islice(lines, nrows):
            filled = (*line, *missing[len(line) :])
            rows.append([_value(filled[place], name, errors) for place, name in names.items()])
        table = pd.DataFrame(rows, columns=list(names.values()), dtype=object)
        if table.isna().any(axis=None):
            notes += _look_for_values(path, sheet)
    for name, count in errors.items():
        sentence = f"'{name}' holds {count:,} errors of Excel, such as #N/A; they count as missing"
        notes.append(Note(rule="missing_words", column=name, count=count, sentence=sentence))
    return table, notes


def read_names(path: File, *, sheet_name: str | int | None = None, skiprows: int = 0, **_: Any) -> list[str]:
    """Return the names of the columns."""
    with _opened(path) as book:
        names, lines = _names(path, _choose(path, book, sheet_name)[0], skiprows)
        for _line in islice(lines, _TOP):  # each is held against the names
            pass
    return list(names.values())


def sheets(path: File) -> list[str]:
    """Return the names of the sheets that are seen in Excel and hold anything."""
    with _opened(path) as book:
        return [sheet.title for sheet in _with_cells(book)]


@contextmanager
def _opened(path: File) -> Iterator[Any]:
    import openpyxl

    with path.open() as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and checks that it does not keep: nobody writes the file back
        book = openpyxl.load_workbook(handle, read_only=True, data_only=True)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # some programs write that a sheet has one cell
        yield book
        book.close()


def _with_cells(book: Any) -> list[Any]:
    seen = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    return [sheet for sheet in seen if any(map(_is_filled, islice(sheet.values, _TOP)))]


def _choose(path: File, book: Any, wanted: str | int | None) -> tuple[Any, list[Note]]:
    titles = [sheet.title for sheet in book.worksheets]
    if wanted is None:
        there = _with_cells(book)
        if not there:
            raise UserError(f"{path.name} is empty")
        chosen, others = there[0], ", ".join(f"'{sheet.title}'" for sheet in there[1:])
        sentence = f"{path.name}: sheet '{chosen.title}' is read, not {others}; choose by data.options.sheet_name"
        return chosen, [Note(rule="doubtful_reading", count=1, sentence=sentence)] if others else []
    if str(wanted) in titles:
        return book[str(wanted)], []
    if isinstance(wanted, int) and 0 <= wanted < len(titles):
        return book.worksheets[wanted], []
    raise UserError(f"no sheet '{wanted}' (data.options.sheet_name) in {path.name}; {known('it', titles, str(wanted))}")


def _names(path: File, sheet: Any, skiprows: int) -> tuple[dict[int, str], Iterator[tuple[Any, ...]]]:
    """Return the columns' names by their places, and the lines below that are not blank.

    A value in a column without a name is a UserError.
    """
    lines = filter(_is_filled, islice(sheet.values, skiprows, None))
    top = next(lines, None)
    if top is None:
        raise UserError(f"sheet '{sheet.title}' of {path.name} is empty")
    names = {place: str(cell).strip() for place, cell in enumerate(top) if cell is not None}
    names = {place: name for place, name in names.items() if name}

    def below() -> Iterator[tuple[Any, ...]]:
        for line in lines:
            for place, cell in enumerate(line):
                if cell is not None and place not in names:
                    raise UserError(_nameless(path, sheet, skiprows, place))
            yield line

    return names, below()


def _nameless(path: File, sheet: Any, skiprows: int, place: int) -> str:
    from openpyxl.utils import get_column_letter

    start = list(islice(sheet.values, _TOP))
    filled = [sum(cell is not None for cell in line) for line in start]
    full = [number for number, cells in enumerate(filled) if cells == max(filled)]
    lower = next((number for number in full if all(isinstance(cell, str | None) for cell in start[number])), 0)
    fix = "name it"
    if lower > skiprows:
        fix = f"set data.options.skiprows: {lower} if the names stand in row {lower + 1}, else name it"
    column = get_column_letter(place + 1)
    return f"sheet '{sheet.title}' of {path.name} has values in column {column}, which has no name; {fix}"


def _value(cell: Any, name: str, errors: dict[str, int]) -> Any:
    if isinstance(cell, str):
        if cell in _ERRORS:
            errors[name] = errors.get(name, 0) + 1
            return None
        return cell or None
    return cell.isoformat() if isinstance(cell, time) else cell


def _look_for_values(path: File, sheet: Any) -> list[Note]:
    """Say why values may miss: cells are merged, or a program wrote formulas and no Excel has worked them out yet.

    The latter is a UserError. openpyxl tells neither without reading all cells again.
    """
    with sheet.parent._archive.open(sheet._worksheet_path) as part:
        xml = part.read()
    if count := sum(b't="str"' not in cell for cell in _NO_VALUE.findall(xml)):  # a text may be empty
        raise UserError(f"{path.name} has {count:,} formulas without a value; open it in Excel once and save it")
    if count := sum(top != bottom for top, bottom in _MERGED.findall(xml)):
        sentence = (
            f"sheet '{sheet.title}' of {path.name} has {count:,} merged cells over several rows, of which only the "
            "first has the value; unmerge and fill them if the others have it too"
        )
        return [Note(rule="doubtful_reading", count=count, sentence=sentence)]
    return []


def _is_filled(line: tuple[Any, ...]) -> bool:
    return any(cell is not None and cell != "" for cell in line)
