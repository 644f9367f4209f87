import pytest

from loop.data.commas import Style, number_notes, number_style

PLAIN = ["1", "0", "1", "12"]


@pytest.mark.parametrize(
    ("columns", "style"),
    [
        ([["1.5", "2"], PLAIN], Style()),
        ([["-0,2", "0,5", "12"], PLAIN], Style(",")),
        ([["3.520", "48.960"], ["12,60", "1.012,60"]], Style(",", ".")),
        ([["1,240", "1,048,960"], ["12.60", "3.10"]], Style(".", ",")),
        ([["1,240", "48,960"], ["12.60", "3.10"]], Style(".", ",")),  # what the other column has cannot be both
        ([["1,240", "48,960"], PLAIN], Style()),  # may be either
        ([["0,240", "48,960"], PLAIN], Style(",")),  # no thousands begin with 0
        ([["1 234,50", "999,10"]], Style(",", " ")),
        ([["1\u202f234,50", "999,10"]], Style(",", "\u202f")),
        ([["1'234.50", "999.10"]], Style(".", "'")),
        ([["007", "012"], ["a", "b"]], Style()),
        ([["01.02.2024", "03.04.2024"], ["10.0.0.1", "10.0.0.2"]], Style()),
        ([["12,60", "3,10"], ["1.5", "2.25"]], Style()),  # one table, two signs: nothing suits both
        ([[], PLAIN], Style()),
    ],
)
def test_how_the_numbers_of_a_table_are_spelt(columns: list[list[str]], style: Style) -> None:
    assert number_style(columns) == style


@pytest.mark.parametrize(
    ("texts", "options", "sentence"),
    [
        (["-0,2", "0,5", "12"], {}, "'x': 100% are numbers with a decimal comma; set data.options.decimal: ','"),
        (
            ["3.520", "48.960", "1.240"],
            {"sep": ";", "decimal": ","},
            "'x': 100% are numbers with '.' between thousands; set data.options.thousands: '.'",
        ),
        (
            ["1.003,52", "960"] * 5 + ["?"],
            {},
            "'x': 91% are numbers with a decimal comma and '.' between thousands; "
            "set data.options.decimal: ',' and data.options.thousands: '.'",
        ),
        (
            ["1,240", "48,960"],
            {},
            "'x': 100% are numbers with commas; set data.options.thousands: ',' if 1,240 means 1240, "
            "or data.options.decimal: ',' if it means 1.240",
        ),
        (["1,240", "2,048,960"], {}, "'x': 100% are numbers with ',' between thousands; "
         "set data.options.thousands: ','"),
        (["1\u202f240", "48.5"], {}, "'x': 100% are numbers with a blank between thousands; "
         "set data.options.thousands: \"\\u202f\""),
        (["1\xa0240", "48,5"], {}, "'x': 100% are numbers with a decimal comma and a blank between thousands; "
         "set data.options.decimal: ',' and data.options.thousands: \"\\u00a0\""),
        (["12%", "3.5 %", "100%"], {}, "'x' has values such as '12%', which are words; "
         "write the numbers without % there"),
        (["22.5%", "3%"], {"decimal": ","}, "'x' has values such as '22.5%', which are words; "
         "write the numbers without % there"),
        (["-$5", "€1,234.50"], {}, "'x' has values such as '-$5', which are words; "
         "write the numbers without $ and € there"),
    ],
)  # fmt: skip
def test_what_a_column_of_texts_needs_to_be_numbers(texts: list[str], options: dict[str, str], sentence: str) -> None:
    [note] = number_notes({"x": texts}, options)
    assert (note.rule, note.column, note.sentence) == ("mostly_numbers", "x", sentence)
    assert note.count == len(texts) - texts.count("?")


def test_a_decimal_comma_beside_decimal_points_is_repaired_at_the_source() -> None:
    [note] = number_notes({"x": ["12,60", "3,1"], "z": ["1.5", "2.25"]}, {})
    assert note.sentence == (
        "'x': 100% are numbers with a decimal comma; other columns are spelt otherwise; repair the source"
    )


def test_a_decimal_point_beside_the_commas_of_the_options_is_pointed_at() -> None:
    [note] = number_notes({"x": ["0.5", "-12.25", "?"] * 9 + ["1.5"] * 99}, {"decimal": ","})
    assert note.sentence == (
        "'x': 93% are numbers with a decimal point; other columns are spelt otherwise; repair the source"
    )


def test_what_one_column_leaves_open_another_says() -> None:
    notes = number_notes({"x": ["3.520", "48.960"], "z": ["12,60", "3,10"], "y": PLAIN}, {})
    assert [note.column for note in notes] == ["x", "z"]
    assert {note.sentence.partition("; ")[2] for note in notes} == {
        "set data.options.decimal: ',' and data.options.thousands: '.'"
    }


@pytest.mark.parametrize(
    "texts",
    [[], ["a", "b"], ["1.5", "2"], ["1,5", "a", "b"], ["007", "012"], ["2024-01-31"], ["31.01.2024"], ["10.0.0.1"]],
)
def test_other_columns_need_nothing(texts: list[str]) -> None:
    assert number_notes({"x": texts}, {}) == []


def test_fractions_that_may_be_thousands_are_doubtful() -> None:
    texts = [f"{thousand}.{rest}" for thousand in (1, 36, 57) for rest in (624, 977, 100, 301)]
    [note] = number_notes({"amount": [*texts, "624", "17"]}, {})
    assert (note.rule, note.count) == ("doubtful_reading", 12)
    assert note.sentence == (
        "'amount': all 12 fractions have three digits, as 1.624, and whole numbers stand beside them; "
        "if it means 1624, set data.options.decimal: ',' and data.options.thousands: '.'"
    )
    assert number_notes({"amount": [*texts, "624"]}, {"decimal": ",", "thousands": "."}) == []  # it is said
    for certain in ("0.624", "1.5", "1234.567"):
        assert number_notes({"amount": [*texts, "624", certain]}, {}) == []
    assert number_notes({"amount": texts}, {}) == []  # three digits throughout, as %.3f writes them
