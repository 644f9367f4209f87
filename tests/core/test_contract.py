from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import datasets

from config import Contract, Data, Rules, UserError
from core.contract import (
    ContractReport,
    DataContract,
    Finding,
    check_rows,
    check_table,
    encode_target,
    learn_contract,
    raise_on_errors,
    shares_of,
)

DATA = Data(source="made", target="y", positive="yes", id=("key",), time="at", drop=("junk",))
SETTINGS = Contract()


def made(count: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "key": np.arange(count) + seed * count,
            "at": pd.date_range("2024-01-01", periods=count, freq="h"),
            "junk": 1,
            "age": random.integers(18, 90, count),
            "amount": random.lognormal(3, 1, count),
            "gap": np.where(random.random(count) < 0.2, np.nan, random.normal(size=count)),
            "member": random.random(count) < 0.3,
            "colour": random.choice(["red", "green", "blue"], count),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 1000, count), "D"),
            "y": random.choice(["no", "yes"], count),
        }
    )


ROWS = made()
CONTRACT = learn_contract(ROWS, DATA, SETTINGS)


def rules(findings: tuple[Finding, ...]) -> list[tuple[str, str | None, int]]:
    return [(finding.rule, finding.column, finding.count) for finding in findings]


def learned(rows: pd.DataFrame, target: str = "y", **data: Any) -> DataContract:
    return learn_contract(rows, Data(source="made", target=target, **data), SETTINGS)


def leaking(rows: pd.DataFrame, target: str = "y", **data: Any) -> list[str | None]:
    made = Data(source="made", target=target, **data)
    found = check_table(rows, made, SETTINGS, learn_contract(rows, made, SETTINGS))
    return [finding.column for finding in found if finding.rule == "leaking_target"]


def test_learns_what_the_columns_held() -> None:
    assert CONTRACT.features == {
        "age": "numeric",
        "amount": "numeric",
        "gap": "numeric",
        "member": "boolean",
        "colour": "categorical",
        "since": "datetime",
    }
    assert CONTRACT.left_out == {"junk": "dropped", "key": "id", "at": "time"}
    assert (CONTRACT.task, CONTRACT.classes, CONTRACT.positive) == ("binary", ("no", "yes"), "yes")
    assert (CONTRACT.rows, CONTRACT.id, CONTRACT.time) == (400, ("key",), "at")
    age, amount, gap, member, colour, since = CONTRACT.columns
    assert (age.integer, amount.integer, member.integer) == (True, False, False)
    assert (age.minimum, age.maximum) == (ROWS["age"].min(), ROWS["age"].max())
    assert gap.nullable
    assert gap.missing == pytest.approx(ROWS["gap"].isna().mean())
    assert len(amount.edges) == 9
    assert amount.shares == pytest.approx([0.1] * 10)
    assert amount.mean == pytest.approx(ROWS["amount"].mean())
    assert member.edges == (0.0,)
    assert member.shares[1] == pytest.approx(ROWS["member"].mean())
    assert colour.categories == ("blue", "green", "red")
    assert sum(colour.shares) == pytest.approx(1)
    assert since.minimum == ROWS["since"].min().isoformat()
    assert CONTRACT.target_statistics.categories == CONTRACT.classes


def test_travels_as_json() -> None:
    assert DataContract.model_validate_json(CONTRACT.model_dump_json()) == CONTRACT
    regression = learned(ROWS, "amount")
    assert DataContract.model_validate_json(regression.model_dump_json()) == regression
    assert regression.classes == ()
    assert len(regression.target_statistics.edges) == 9


@settings(deadline=None)  # pandas' first call is slow, and CI machines are shared
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(0, 3)), min_size=2))
def test_every_reference_bin_holds_rows_and_shares_are_complete(values: list[float | None]) -> None:
    present = {value for value in values if value is not None}
    if len(present) < 2:
        return
    rows = pd.DataFrame(
        {"x": pd.Series(values, dtype="float64"), "y": [0, 1] * (len(values) // 2) + [0] * (len(values) % 2)}
    )
    column = learned(rows).columns[0]
    assert min(column.shares) > 0
    assert sum(column.shares) == pytest.approx(1)
    assert list(column.edges) == sorted(set(column.edges))
    np.testing.assert_array_equal(shares_of(rows["x"], column), column.shares)


def test_shares_of_other_rows_show_unseen_and_shifted_values() -> None:
    _, amount, _, _, colour, since = CONTRACT.columns
    assert shares_of(pd.Series([1e9, 1e9]), amount)[-1] == 1
    assert shares_of(pd.Series(["red", "pink"]), colour).sum() == 0.5
    assert shares_of(pd.Series([None, None], dtype=object), colour).sum() == 0
    assert shares_of(ROWS["since"], since).shape == (0,)


def test_leaves_out_what_teaches_nothing() -> None:
    rows = ROWS.assign(same=5, void=None, note=[f"note {i}" for i in range(len(ROWS))], half=None)
    rows.loc[3, "half"] = 1.0
    contract = learn_contract(rows, DATA, SETTINGS)
    assert contract.left_out == {**CONTRACT.left_out, "same": "constant", "void": "empty", "note": "text"}
    assert "half" in contract.features
    with pytest.raises(UserError, match=r"none is left; left out: same \(constant\)"):
        learned(rows[["same", "y"]])


@pytest.mark.parametrize(
    ("labels", "positive", "classes"),
    [
        ([0, 1, 1], None, ("0", "1")),
        ([0.0, 1.0, 1.0], 0, ("1", "0")),
        (["no", "yes", "no"], "no", ("yes", "no")),
        ([True, False, True], 1, ("False", "True")),
        ([0, 1, 1], True, ("0", "1")),
        ([2, 10, 2], None, ("2", "10")),
        ([2, 10, 1], None, ("1", "2", "10")),
    ],
)
def test_orders_classes_with_the_positive_last(labels: list[Any], positive: Any, classes: tuple[str]) -> None:
    rows = pd.DataFrame({"x": range(len(labels)), "y": labels})
    assert learned(rows, positive=positive).classes == classes


def test_refuses_a_positive_class_that_is_not_there() -> None:
    rows = pd.DataFrame({"x": [1, 2, 3], "y": ["no", "yes", "yes"], "z": [1, 2, 3]})
    with pytest.raises(UserError, match=r"one of the classes no, yes, it is 'si'"):
        learned(rows, positive="si")
    with pytest.raises(UserError, match="'z' is multiclass; leave it out"):
        learned(rows, "z", positive=1)


@pytest.mark.parametrize(
    "labels", [[0, 1], [0.0, 1.0], ["0", "1"], ["0.0", "1.0"], [False, True], ["false", "true"]]
)
@pytest.mark.parametrize("trained", [[0, 1], [False, True], ["0", "1"]])
def test_labels_mean_the_same_however_they_are_spelt(labels: list[Any], trained: list[Any]) -> None:
    contract = learned(pd.DataFrame({"x": range(4), "y": trained * 2}))
    encoded = encode_target(pd.Series(labels, dtype=object), contract)
    assert encoded.dtype == np.int64
    assert encoded.tolist() == [0, 1]


def test_encodes_the_target_for_each_task() -> None:
    assert encode_target(pd.Series(["yes", "no"]), CONTRACT).tolist() == [1, 0]
    many = learned(pd.DataFrame({"x": range(3), "y": ["b", "c", "a"]}))
    assert encode_target(pd.Series(["c", "a"]), many).tolist() == [2, 0]
    assert encode_target(pd.Series(["1.5", 2]), learned(ROWS, "amount")).tolist() == [1.5, 2.0]


def test_refuses_labels_it_does_not_know() -> None:
    with pytest.raises(
        UserError, match=r"one of no, yes in every row, 2 of 3 hold something else, e\.g\. 'maybe'"
    ):
        encode_target(pd.Series(["yes", "maybe", None]), CONTRACT)
    with pytest.raises(UserError, match="needs a number in every row, 1 of 2"):
        encode_target(pd.Series([1, "many"], dtype=object), learned(ROWS, "amount"))


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
    assert rules(check_rows(with_value("amount", 1e9)(ROWS), contract, SETTINGS)) == [
        ("out_of_range", "amount", 2)
    ]
    assert rules(check_rows(with_value("amount", "?")(ROWS), contract, SETTINGS)) == [
        ("wrong_type", "amount", 2)
    ]


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
    assert "100 % are times: repair them or set data.kinds.moment: datetime" in said["moment"]


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris", "diabetes"])
def test_honest_columns_do_not_leak_but_copies_of_the_target_do(name: str) -> None:
    rows = getattr(datasets, f"load_{name}")(as_frame=True).frame
    assert leaking(rows, "target") == []
    target = rows["target"]
    rows = rows.assign(
        copy=target,
        bent=np.exp(target / target.max()) * 3 - 1,
        unique=[f"row {i}" for i in range(len(rows))],
        noise=np.random.default_rng(0).normal(size=len(rows)),
    )
    kinds = {"unique": "categorical"}
    if name == "diabetes":
        assert leaking(rows, "target", kinds=kinds) == ["copy", "bent"]
    else:
        assert leaking(rows.assign(spelt="t" + target.astype(str)), "target", kinds=kinds) == [
            "copy",
            "bent",
            "spelt",
        ]


@pytest.mark.parametrize(
    "target",
    [
        lambda r: (r.random(3000) < 0.02) * 1,
        lambda r: r.integers(0, 20, 3000),
        lambda r: r.lognormal(0, 2, 3000),
    ],
)
def test_finds_copies_of_rare_many_and_heavy_tailed_targets(target: Callable[[Any], Any]) -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=3000), "y": target(random)})
    assert (
        leaking(rows.assign(gaps=rows["y"].where(random.random(3000) > 0.001), copy=rows["y"]))[-1] == "copy"
    )


def test_finds_an_answer_that_hides_in_gaps_and_forgives_repeated_rows() -> None:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=300), "y": random.choice(["no", "yes"], 300)})
    rows["closed"] = random.normal(size=300) + np.where(rows["y"] == "yes", 0, np.nan)
    rows["name"] = [f"row {i}" for i in range(300)]
    assert leaking(pd.concat([rows] * 4), kinds={"name": "categorical"}) == ["closed"]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(20, 60))
def test_chance_alone_does_not_leak(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    rows = pd.DataFrame(random.normal(size=(count, 5))).rename(columns=str)
    assert leaking(rows.assign(y=np.arange(count) % 2)) == []
    assert leaking(rows[:9].assign(y=rows["0"][:9] > 0, copy=rows["0"])) == []


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
    rows = ROWS.assign(**dict.fromkeys(("age", "amount", "gap", "since", "member"), "?")).drop(
        columns="colour"
    )
    with pytest.raises(
        UserError, match=r"; and 1 more .* list the column in data.drop, or set .* and .*wrong_type"
    ):
        raise_on_errors(check_rows(rows, CONTRACT, SETTINGS))
