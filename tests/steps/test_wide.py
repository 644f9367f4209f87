"""What people see of tables with thousands of columns."""

import pandas as pd

from loop.registry.materializers import NAMED, Table
from loop.registry.results import WARNINGS, few
from loop.watching.drift import ColumnDrift
from steps.draw_drift import COLUMNS, drawn_columns


def drift(number: int, **values: object) -> ColumnDrift:
    common = {"kind": "numeric", "rows": 500, "test": "chi-square", "p": 0.5, "missing": 0.0, "missing_before": 0.0}
    made = {"name": f"x{number}", **common, "psi": number / 1e6, "missing_p": 1.0, **values}
    return ColumnDrift.model_validate(made)


def test_of_many_columns_those_that_moved_most_are_drawn() -> None:
    moved, gone, empty = drift(0, drifted=True, psi=0.2), drift(1, missing_drifted=True), drift(2, rows=0, psi=None)
    drifts = [moved, gone, empty, *map(drift, range(3, 3000))]
    drawn = drawn_columns(drifts)
    assert drawn == {"x0", "x1", *(f"x{number}" for number in range(3002 - COLUMNS, 3000))}
    assert drawn_columns(drifts[:COLUMNS]) == {f"x{number}" for number in range(COLUMNS)} - {"x2"}


def test_the_dashboard_names_the_first_columns_of_a_wide_table() -> None:
    wide = Table.extract_metadata(None, pd.DataFrame(0, index=[0], columns=range(3000)))  # type: ignore[arg-type]
    assert wide["columns"] == [*map(str, range(NAMED)), f"and {3000 - NAMED:,} more"]
    two = Table.extract_metadata(None, pd.DataFrame({"a": [1], "b": [2]}))  # type: ignore[arg-type]
    assert two == {"rows": 1, "columns": ["a", "b"]}


def test_of_thousands_of_warnings_the_first_are_printed_and_the_page_is_named() -> None:
    sentences = [f"'x{number}' holds one value" for number in range(3000)]
    assert few(sentences, "contract.html") == [*sentences[:WARNINGS], f"and {3000 - WARNINGS:,} more: contract.html"]
    assert few(sentences[:WARNINGS], "contract.html") == sentences[:WARNINGS]
