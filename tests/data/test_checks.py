from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from tables import CONTRACT, DATA, ROWS, SETTINGS, learned

from loop.config import Contract, Data, Recipe, Rules, UserError
from loop.data.checks import (
    ContractReport,
    Finding,
    check_rows,
    check_table,
    check_training_rows,
    column_changes,
    raise_on_errors,
)
from loop.data.contract import DataContract, learn_contract
from loop.data.notes import Reading
from loop.data.split import SplitRule


def rules(findings: tuple[Finding, ...]) -> list[tuple[str, str | None, int]]:
    return [(finding.rule, finding.column, finding.count) for finding in findings]


def test_finds_nothing_in_the_rows_it_learned_from() -> None:
    assert check_rows(ROWS, CONTRACT, SETTINGS) == ()
    assert check_table(ROWS, DATA, SETTINGS, CONTRACT) == ()
    assert check_rows(ROWS.drop(columns=["y", "junk", "key", "at"]), CONTRACT, SETTINGS) == ()
    assert check_rows(ROWS[:0], CONTRACT, SETTINGS) == ()


def with_value(column: str, value: Any, count: int = 2) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(rows: pd.DataFrame) -> pd.DataFrame:
        values = rows[column].astype(object)
        values.iloc[:count] = value
        return rows.assign(**{column: values})

    return change


@pytest.mark.parametrize(
    ("change", "rule", "column", "count", "said"),
    [
        (lambda rows: rows.drop(columns="age"), "missing_column", "age", 400, "'age' is missing"),
        (lambda rows: rows.assign(fresh="a"), "extra_column", "fresh", 400, "'fresh' is new"),
        (
            lambda rows: rows.rename(columns={"amount": "Amount_"}),
            "renamed_column",
            "amount",
            400,
            "'Amount_'",
        ),
        (lambda rows: rows.rename(columns={"amount": "zzz"}), "renamed_column", "amount", 400, "'zzz'"),
        (lambda rows: rows.rename(columns={"colour": "zzz"}), "renamed_column", "colour", 400, "'zzz'"),
        (with_value("age", "n/a"), "wrong_type", "age", 2, "2 values that are not numeric, e.g. 'n/a'"),
        (with_value("age", np.inf), "wrong_type", "age", 2, "not numeric"),
        (with_value("member", 7), "wrong_type", "member", 2, "not boolean, e.g. 7"),
        (with_value("since", "soon"), "wrong_type", "since", 2, "not datetime"),
        (with_value("y", "maybe"), "wrong_type", "y", 2, "labels besides no, yes, e.g. 'maybe'"),
        (with_value("age", None, 3), "new_nulls", "age", 3, "misses 3 values"),
        (with_value("colour", "pink"), "unseen_category", "colour", 2, "never had 'pink'"),
        (with_value("age", 1e6), "out_of_range", "age", 2, "outside 0 to 1"),
        (with_value("age", -1), "out_of_range", "age", 2, "e.g. -1"),
        (with_value("since", "1990-01-01"), "out_of_range", "since", 2, "e.g. 1990-01-01T00:00:00"),
    ],
)
def test_each_broken_rule_is_one_finding(
    change: Callable[[pd.DataFrame], pd.DataFrame], rule: str, column: str, count: int, said: str
) -> None:
    rows = change(ROWS)
    (finding,) = check_rows(rows, CONTRACT, SETTINGS)
    assert (finding.rule, finding.column, finding.count) == (rule, column, count)
    assert finding.share == count / 400
    assert said in finding.sentence
    assert finding.severity == getattr(SETTINGS.rules, rule)
    if rule != "renamed_column":
        assert check_rows(rows, CONTRACT, Contract(rules=Rules.model_validate({rule: "off"}))) == ()


def test_a_rename_that_is_not_looked_for_is_a_loss_and_a_gain() -> None:
    rows = ROWS.rename(columns={"amount": "amount_eur"})
    found = check_rows(rows, CONTRACT, Contract(rules=Rules(renamed_column="off")))
    assert rules(found) == [("missing_column", "amount", 400), ("extra_column", "amount_eur", 400)]


def test_an_unlike_column_is_no_rename() -> None:
    rows = ROWS.drop(columns="amount").assign(zzz=ROWS["age"], amounts="text")
    assert {finding.rule for finding in check_rows(rows, CONTRACT, SETTINGS)} == {
        "missing_column",
        "extra_column",
    }


def test_values_that_only_look_different_break_no_rule() -> None:
    rows = ROWS.assign(
        age=ROWS["age"].astype(str),
        member=ROWS["member"].astype(int),
        colour=ROWS["colour"].astype("category"),
        since=ROWS["since"].astype(str),
        gap=ROWS["gap"].astype("Float64"),
    )
    assert check_rows(rows, CONTRACT, SETTINGS) == ()


def test_names_at_most_three_unseen_categories() -> None:
    rows = ROWS.assign(colour=[f"c{i % 5}" for i in range(len(ROWS))])
    (finding,) = check_rows(rows, CONTRACT, SETTINGS)
    assert finding.sentence.count("'c") == 4  # the column's own name and three of five
    assert "and 2 more (400 rows)" in finding.sentence


def test_a_regression_target_is_held_to_its_range_and_may_be_missing() -> None:
    contract = learned(ROWS, "amount", id=("key",), time="at", drop=("junk",))
    assert check_rows(ROWS.assign(amount=ROWS["amount"].where(ROWS.index > 9)), contract, SETTINGS) == ()
    assert rules(check_rows(with_value("amount", 1e9)(ROWS), contract, SETTINGS)) == [("out_of_range", "amount", 2)]
    assert rules(check_rows(with_value("amount", "?")(ROWS), contract, SETTINGS)) == [("wrong_type", "amount", 2)]


@pytest.mark.parametrize(
    ("draw", "tolerated"),
    [("uniform", 0), ("normal", 0), ("lognormal", 2e-3)],  # shares of rows, the worst of 50 tables
)
def test_rows_of_the_same_population_are_hardly_ever_out_of_range(draw: str, tolerated: float) -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        rows = pd.DataFrame({"x": getattr(random, draw)(size=1000), "y": [0, 1] * 500})
        found = check_rows(rows.assign(x=getattr(random, draw)(size=1000)), learned(rows), SETTINGS)
        assert sum(finding.share for finding in found) <= tolerated


def test_times_later_than_training_break_no_rule_since_times_move_on() -> None:
    assert check_rows(with_value("since", "2035-01-01")(ROWS), CONTRACT, SETTINGS) == ()


def test_an_open_end_in_the_year_9999_is_a_time_like_any() -> None:
    ends = pd.Series(["0001-01-01", "9999-12-31"] * 200)
    rows = ROWS.assign(until=ends.astype("datetime64[us]"))
    contract = learn_contract(rows, DATA, SETTINGS)
    assert check_rows(rows, contract, SETTINGS) == ()


def test_standing_rules_need_no_earlier_contract() -> None:
    rows = ROWS.assign(same=5, void=None)
    rows["note"] = [f"{i}.5" for i in range(len(rows))]
    rows.loc[:11, "note"] = "n/a"
    rows["essay"] = [f"essay {i}" for i in range(len(rows))]
    rows["moment"] = [f"{day:%Y-%m-%d}" for day in pd.date_range("2000", periods=len(rows))]
    rows["code"] = rows["note"]
    data = DATA.model_copy(update={"kinds": {"code": "numeric"}})
    found = check_table(
        rows.drop(columns=["essay", "moment", "note"]), data, SETTINGS, learn_contract(rows, data, SETTINGS)
    )
    assert rules(found) == [
        ("constant_column", "same", 400),
        ("empty_column", "void", 400),
        ("wrong_type", "code", 12),
    ]
    twice = check_table(pd.concat([ROWS, ROWS[:5]]), DATA, SETTINGS, CONTRACT)
    assert rules(twice) == [("duplicate_rows", None, 5)]
    texts = check_table(rows, data, SETTINGS, learn_contract(rows, data, SETTINGS))
    said = {finding.column: finding.sentence for finding in texts if finding.rule == "text_column"}
    assert "97 % are numbers, 12 are not, e.g. 'n/a'" in said["note"]
    assert said["essay"] == "'essay' is free text; it is left out"
    assert "all of it are times, not spelt as such: set data.kinds.moment: datetime" in said["moment"]


def test_a_table_of_few_different_rows_without_an_id_is_told_what_its_split_is_worth() -> None:
    few = pd.DataFrame({"a": np.arange(400) % 5, "b": np.arange(400) % 2, "y": np.arange(400) // 10 % 2})
    data = Data(source="made", target="y")
    found = check_table(few, data, SETTINGS, learn_contract(few, data, SETTINGS))
    (finding,) = (each for each in found if each.rule == "repeated_contents")
    assert (finding.severity, finding.count) == ("warn", 390)
    assert finding.sentence.startswith("98% of the rows repeat another's values, 10 are different: they are taken for")
    assert "data.id" in finding.sentence
    copies = few.head(60)
    (finding,) = (
        e
        for e in check_table(copies, data, SETTINGS, learn_contract(copies, data, SETTINGS))
        if e.rule == "repeated_contents"
    )
    assert "83% of the rows" in finding.sentence
    assert "the holdout is no sample of the table" in finding.sentence
    for rows, of in ((few.assign(key=np.arange(400)), data.model_copy(update={"id": ("key",)})), (few.head(15), data)):
        known = check_table(rows, of, SETTINGS, learn_contract(few.assign(key=1), data, SETTINGS))
        assert "repeated_contents" not in [each.rule for each in known]


def test_many_rows_of_the_same_values_and_copies_under_other_ids_are_told() -> None:
    def told(rows: pd.DataFrame, **data: Any) -> list[str]:
        of = Data(source="made", target="y", **data)
        found = check_table(rows, of, SETTINGS, learn_contract(rows, of, SETTINGS))
        return [each.sentence for each in found if each.rule == "repeated_contents"]

    rows = pd.DataFrame({"a": np.random.default_rng(0).normal(size=1000), "y": np.arange(1000) % 2})
    assert told(rows) == []
    (said,) = told(rows.assign(a=rows["a"].where(rows.index >= 100, 0.5)))
    assert said.startswith("100 rows (10%) have the same values and are all on one side of the split; name a column")
    numbered = rows.assign(id=np.arange(1000))
    assert told(numbered, id=("id",)) == []
    assert told(pd.concat([numbered] * 2), id=("id",)) == []  # the same ids: these are duplicates
    copies = pd.concat([numbered, numbered.assign(id=numbered["id"] + 1000)])
    (said,) = told(copies, id=("id",))
    assert said.startswith(
        "1,000 rows (50%) have all values of another one under another id; models are judged on copies"
    )
    assert told(copies.assign(a=copies["a"].round()), id=("id",)) == []  # whole numbers agree by chance


def test_a_rule_that_is_off_is_not_looked_for() -> None:
    rows = pd.concat([ROWS.assign(same=1, copy=ROWS["y"])] * 2)
    off = Contract(rules=Rules(duplicate_rows="off", constant_column="off", leaking_target="off"))
    assert check_table(rows, DATA, off, learn_contract(rows, DATA, off)) == ()


def test_errors_stop_a_run_in_one_sentence_that_says_how_to_go_on() -> None:
    found = check_rows(ROWS.drop(columns=["age", "gap"]).assign(note="a"), CONTRACT, SETTINGS)
    report = ContractReport(findings=found, rows=400)
    assert (len(report.errors), len(report.warnings)) == (2, 1)
    raise_on_errors(report.warnings)
    with pytest.raises(UserError) as caught:
        raise_on_errors(found)
    assert str(caught.value) == (
        "the rows break the data contract: column 'age' is missing; column 'gap' is missing "
        "(repair them, or set contract.rules.missing_column: warn)"
    )
    rows = ROWS.assign(**dict.fromkeys(("age", "amount", "gap", "since", "member"), "?")).drop(columns="colour")
    with pytest.raises(UserError, match=r"; and 1 more .* list the column in data.drop, or set .* and .*wrong_type"):
        raise_on_errors(check_rows(rows, CONTRACT, SETTINGS))


def found_in_training(rows: pd.DataFrame, *accept: str) -> tuple[DataContract, tuple[Finding, ...]]:
    """Learn from rows beside a champion that learned from ROWS."""
    settings = Contract(accept=accept)
    split = SplitRule(identity=("key",), holdout=0.25, seed=0)
    reading = Reading().model_copy(update=column_changes(CONTRACT, split, rows, DATA, accept))
    contract = learn_contract(rows, DATA, settings, reading=reading, settled=CONTRACT.without(accept).known)
    return contract, check_training_rows(rows, CONTRACT, contract, settings)


def test_a_new_column_is_not_learned_from_until_it_is_accepted() -> None:
    rows = ROWS.assign(fresh=ROWS["age"] * 2)
    contract, (finding,) = found_in_training(rows)
    assert (contract.features, contract.left_out["fresh"]) == (CONTRACT.features, "new")
    advice = "contract.accept: [fresh] has the next version learn from it"
    assert finding.sentence == f"column 'fresh' is new and not used; {advice}"
    assert [found.rule for found in check_rows(rows, contract, SETTINGS)] == ["extra_column"], "it is not forgotten"
    contract, (finding,) = found_in_training(rows, "fresh")
    assert contract.features == {**CONTRACT.features, "fresh": "numeric"}
    assert (finding.rule, finding.severity) == ("accepted_column", "warn")
    assert "'fresh' is new and accepted: the new model learns from it" in finding.sentence
    assert check_rows(rows, contract, SETTINGS) == ()


def test_a_column_that_is_gone_stops_a_run_until_it_is_accepted() -> None:
    rows = ROWS.drop(columns="colour")
    _, found = found_in_training(rows)
    with pytest.raises(
        UserError, match=r"'colour' is missing \(.*take them as they are by contract\.accept: \[colour\]"
    ):
        raise_on_errors(found, compared=True)
    contract, found = found_in_training(rows, "colour")
    raise_on_errors(found, compared=True)
    assert "'colour' is gone and accepted" in found[0].sentence
    assert contract.left_out["colour"] == "gone"
    assert "colour" not in contract.features
    assert rules(check_rows(ROWS, contract, SETTINGS)) == [("extra_column", "colour", 400)], "it may come back"


def test_a_column_of_another_kind_stops_a_run_until_it_is_accepted() -> None:
    rows = ROWS.assign(age=np.where(ROWS["age"] < 40, "young", "old"))
    _, found = found_in_training(rows)
    with pytest.raises(UserError, match=r"'age' has 400 values that are not numeric.*contract\.accept: \[age\]"):
        raise_on_errors(found, compared=True)
    contract, found = found_in_training(rows, "age")
    raise_on_errors(found, compared=True)
    assert [finding.sentence for finding in found] == [
        "column 'age' was numeric and is categorical now, which is accepted"
    ]
    assert contract.categories["age"] == ("old", "young")


def test_a_rename_is_accepted_by_naming_both() -> None:
    rows = ROWS.rename(columns={"amount": "amount_eur"})
    _, (finding,) = found_in_training(rows)
    assert finding.sentence.endswith("or have the next version take both: contract.accept: [amount, amount_eur]")
    contract, found = found_in_training(rows, "amount", "amount_eur")
    assert [finding.rule for finding in found] == ["accepted_column", "accepted_column"]
    assert "amount_eur" in contract.features


def test_a_name_in_accept_that_nobody_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"contract\.accept: neither .* have 'colur'; .* did you mean 'colour'\?$"):
        found_in_training(ROWS, "colur")
    assert found_in_training(ROWS, "colour")[1] == (), "what was accepted once may stay there"


def test_the_target_is_not_accepted() -> None:
    with pytest.raises(ValidationError, match=r"contract\.accept names 'y', which is the target"):
        Recipe(name="made", data=DATA, contract=Contract(accept=("y",)))
