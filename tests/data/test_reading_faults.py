"""Tables that once were read wrong without a word, each with the right value."""

import json
import re
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from loop.cli.preflight import check_rows_here
from loop.config import Config, Contract, Data, Split, UserError
from loop.data.checks import check_rows, check_table, holdout_findings, reading_findings
from loop.data.contract import DataContract, learn_contract
from loop.data.sources import read_rows, read_table
from loop.data.split import resolve
from loop.data.table import as_kind, fingerprint, infer_task
from loop.training.batch import score_rows, score_shard
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.training.gate import judge_models

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=200).round(3)
Y = (2 * X + RANDOM.logistic(size=200) > 0).astype(int)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def csv(name: str, **columns: Any) -> str:
    """Write columns, repeated to 200 rows, as they are spelt."""
    tiled = [np.resize(np.array(values, dtype=object), 200) for values in columns.values()]
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*tiled, strict=True))]
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def data(source: str, target: str = "y", **more: Any) -> Data:
    return Data.model_validate({"source": source, "target": target, **more})


def learned(source: str, **more: Any) -> tuple[DataContract, dict[tuple[str, str | None], str]]:
    """Return the contract of a table and what is said of it, by rule and column."""
    wanted = data(source, **more)
    rows, reading = read_table(wanted)
    contract = learn_contract(rows, wanted, Contract(), reading=reading)
    found = reading_findings(reading, len(rows), Contract().rules) + check_table(rows, wanted, Contract(), contract)
    return contract, {(finding.rule, finding.column): finding.sentence for finding in found}


def use_case(source: str, **more: Any) -> Config:
    model = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 500}}
    sections = {
        "evaluation": {"resamples": 200},
        "model": model,
        "inference": {"source": more.pop("batch", None), "shards": 1},
    }
    given = {"name": "faults", "data": {"source": source, "target": "y", **more}, **sections}
    return Config.model_validate(given)


def trained(config: Config, champion: Bundle | None = None) -> tuple[Bundle, pd.DataFrame]:
    """Train as the pipeline does; return the bundle and the holdout rows."""
    before = champion.card.contract if champion else None
    rows, reading = read_table(config.data, contract=before)
    rule = resolve(rows, config.data, config.split)
    held_out = rule.held_out(rows)
    train_rows, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    settled = before.known if before else None
    contract = learn_contract(train_rows, config.data, config.contract, reading=reading, settled=settled)
    return train(train_rows, contract, rule, config.recipe), holdout


def kinds(contract: DataContract) -> dict[str, str]:
    return {column.name: column.kind for column in contract.columns}


def test_ids_of_digits_keep_their_sides_when_one_has_a_letter() -> None:
    sides = []
    for last in ("000199", "A00001"):
        source = csv("t.csv", customer=[*(f"{row:06}" for row in range(199)), last], x=X, y=Y)
        rows = read_rows(data(source, id=["customer"]))
        assert rows["customer"][7] == "000007"
        sides.append(resolve(rows, data(source, id=["customer"]), Split()).held_out(rows)[:199].tolist())
    assert sides[0] == sides[1]


CODES, FLAGS, VERSIONS = ["007", "012", "A12", "B7"], ["true", "false", "unknown"], ["1.0", "2.0", "beta"]
DAYS, WHEN = ["2024-01-31", "2024-02-29", "unknown"], ["08/24/2024", "03/09/2024", "06/04/2024", "07/18/2023"]


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, pd.DataFrame]:
    """Return a model of columns that are spelt in many ways, and its rows as texts."""
    random = np.random.default_rng(1)
    columns = {"code": CODES, "flag": FLAGS, "ver": VERSIONS, "day": DAYS, "when": WHEN}
    rows = pd.DataFrame({name: random.choice(values, 600) for name, values in columns.items()})
    rows.insert(0, "row", np.arange(600))
    score = (rows["code"] == "007") * 2 + (rows["flag"] == "true") + (rows["ver"] == "1.0") + (rows["day"] == DAYS[0])
    rows["y"] = (score + random.logistic(size=600) > 1.5).astype(int)
    folder = tmp_path_factory.mktemp("skewed")
    rows.to_csv(folder / "train.csv", index=False)
    bundle, _ = trained(use_case(str(folder / "train.csv"), id=["row"]))
    return bundle, rows.drop(columns="y").astype(str)


@pytest.mark.parametrize(
    "part",
    [
        "code in ('007', '012')",
        "flag != 'unknown'",
        "ver != 'beta'",
        "day != 'unknown'",
        "when == '03/09/2024'",
        "row == '0'",
    ],
)
def test_a_score_depends_on_the_row_alone(part: str, skewed: tuple[Bundle, pd.DataFrame]) -> None:
    bundle, rows = skewed
    rows.to_csv("all.csv", index=False)
    rows.query(part).to_csv("part.csv", index=False)
    scored = []
    for name in ("all.csv", "part.csv"):
        wanted = bundle.card.recipe.data.model_copy(update={"source": name})
        found = read_rows(wanted, labelled=False, contract=bundle.card.contract)
        scored.append(score_rows(bundle, found, 1).set_index("row")["score"])
    assert scored[1].tolist() == scored[0].loc[scored[1].index].tolist()


def test_the_champion_is_judged_on_the_spellings_it_learned(tmp_path: Path) -> None:
    code, random = np.resize(["007", "012", "A12", "B7"], 800), np.random.default_rng(2)
    y = ((code == "007") * 3 + random.logistic(size=800) > 1.5).astype(int)
    pd.DataFrame({"row": range(800), "code": code, "y": y}).to_csv("t.csv", index=False)
    champion, _ = trained(use_case("t.csv", id=["row"]))
    digits = pd.DataFrame({"row": range(800), "code": code, "y": y})[np.isin(code, ["007", "012"])]
    digits.to_csv("t.csv", index=False)
    config = use_case("t.csv", id=["row"])
    challenger, holdout = trained(config, champion)
    verdict = judge_models(challenger, champion, 1, holdout, config.gate, config.evaluation)
    (condition,) = (c for c in verdict.conditions if c.name == "not_worse_than_champion")
    assert abs(condition.value) < 0.02
    assert not check_rows(holdout, champion.card.contract, Contract())


def test_strings_of_digits_are_another_table_than_numbers() -> None:
    numbers = pd.DataFrame({"zip": [1, 2, 3], "y": [0, 1, 0]})
    assert fingerprint(numbers) != fingerprint(numbers.astype({"zip": "str"}))
    numbers.astype({"zip": "str"}).to_parquet("t.parquet")
    assert read_rows(data("t.parquet"))["zip"].tolist() == ["1", "2", "3"]


def test_numbers_where_codes_were_are_a_change_of_kind() -> None:
    contract, _ = learned(csv("t.csv", code=CODES, x=X, y=Y))
    pd.DataFrame({"code": np.resize([7, 12], 200), "x": X, "y": Y}).to_parquet("t.parquet")
    rows, reading = read_table(data("t.parquet"), contract=contract)
    (finding,) = reading_findings(reading, len(rows), Contract().rules)
    assert (finding.rule, finding.severity, finding.column) == ("changed_kind", "error", "code")
    assert (
        "held strings in training, such as '007', '012', 'A12', and holds numbers now, e.g. 7, 12" in finding.sentence
    )
    rows, reading = read_table(data("t.parquet", kinds={"code": "numeric"}), contract=contract)  # the advice
    assert not reading.notes
    assert set(rows["code"]) == {"7", "12"}  # as the champion has to see them


def test_codes_where_numbers_were_are_a_change_of_kind() -> None:
    contract, _ = learned(csv("t.csv", code=[7, 12], x=X, y=Y))
    rows, reading = read_table(data(csv("t.csv", code=["007", "012"], x=X, y=Y)), contract=contract)
    (finding,) = reading_findings(reading, len(rows), Contract().rules)
    assert "'code' was numeric in training and is spelt as codes now, e.g. '007', '012'" in finding.sentence
    wanted = data("t.csv", kinds={"code": "categorical"})
    rows, reading = read_table(wanted, contract=contract)  # the advice
    assert set(rows["code"]) == {"007", "012"}
    assert not reading.notes


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_ids_beyond_the_digits_of_a_float_keep_them(ending: str) -> None:
    ids = [None if row == 7 else 10**18 + 97 * row for row in range(200)]
    if ending == "csv":
        csv("t.csv", k=["" if key is None else key for key in ids], x=X, y=Y)
    elif ending == "parquet":
        pd.DataFrame({"k": pd.array(ids, dtype="Int64"), "x": X, "y": Y}).to_parquet("t.parquet")
    else:
        records = [{"k": k, "x": x, "y": int(y)} for k, x, y in zip(ids, X, Y, strict=True)]
        Path("t.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    wanted = data(f"t.{ending}", id=["k"])
    rows = read_rows(wanted)
    assert [None if pd.isna(key) else int(key) for key in rows["k"]] == ids
    assert 20 < resolve(rows, wanted, Split()).held_out(rows).sum() < 80


def test_decimal_ids_keep_their_digits() -> None:
    ids = [Decimal(1700000000000000000 + row) for row in range(200)]
    pd.DataFrame({"k": pd.Series(ids, dtype=object), "x": X, "y": Y}).to_parquet("t.parquet")
    rows = read_rows(data("t.parquet", id=["k"]))
    assert rows["k"].tolist() == [int(key) for key in ids]
    wide = [2**64 + row for row in range(200)]
    Path("t.jsonl").write_text("".join(json.dumps({"k": k, "y": 0}) + "\n" for k in wide))
    assert read_rows(data("t.jsonl", id=["k"]))["k"].tolist() == [str(key) for key in wide]


def test_a_kind_that_the_config_gives_is_obeyed_by_the_reader() -> None:
    contract, _ = learned(csv("t.csv", zip=["01234", "94103", "10001"], x=X, y=Y), kinds={"zip": "categorical"})
    assert contract.columns[0].categories == ("01234", "10001", "94103")
    plain, _ = learned(csv("t.csv", zip=[10115, 94103, 10001], x=X, y=Y), kinds={"zip": "categorical"})
    assert plain.columns[0].categories == ("10001", "10115", "94103")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1E5", "2E3", "123E456", "7E1"], "categorical"),
        (["1.10", "1.9", "2.0"], "categorical"),
        (["007", "012"], "categorical"),
        (["1e-05", "2.5e+20", "3"], "numeric"),
        (["1.0E-5", "2.5E10"], "numeric"),
        ([f"{cents / 100:.2f}" for cents in range(100, 300)], "numeric"),
        ([" 7", "12 "], "numeric"),
        (["true", "false", ""], "boolean"),
        (["TRUE", "NA", "FALSE"], "boolean"),
        (["yes", "no"], "categorical"),
        (["31.01.2024", "01.02.2024"], "datetime"),
        (["2024-01-31", "soon"], "categorical"),
        (["1", "2", "x"], "categorical"),
    ],
)
def test_a_column_is_what_every_spelling_says(values: list[str], kind: str) -> None:
    contract, _ = learned(csv("t.csv", c=values, x=X, y=Y))
    assert kinds(contract)["c"] == kind


def test_zeros_at_the_end_that_others_lack_are_pointed_at() -> None:
    contract, found = learned(csv("t.csv", c=[*(f"{row}.{row % 10}0" for row in range(60)), "1.5"], x=X, y=Y))
    assert kinds(contract)["c"] == "numeric"
    assert "some of its numbers end in a zero that others lack, e.g. '0.00'" in found["doubtful_reading", "c"]
    contract, _ = learned("t.csv", kinds={"c": "text"})
    assert contract.left_out == {"c": "text"}
    contract, found = learned(csv("t.csv", x=X, y=["1.1", "1.10", "1.2"]))
    assert contract.classes == ("1.1", "1.2")
    assert "set data.kinds.y: categorical if they are codes" in found["doubtful_reading", "y"]
    assert learned("t.csv", kinds={"y": "categorical"})[0].classes == ("1.1", "1.10", "1.2")
    assert ("doubtful_reading", "y") not in learned(csv("t.csv", x=X, y=["1.50", "1.25", "9.90"]))[1]


def test_a_wrong_spelling_far_down_brings_back_the_texts() -> None:
    values = [f"{row}.50" for row in range(400_000)]
    Path("t.csv").write_text("c,y\n" + "".join(f"{v},{place % 2}\n" for place, v in enumerate([*values, "x"])))
    rows = read_rows(data("t.csv"))
    assert rows["c"].iloc[[0, -2, -1]].tolist() == ["0.50", "399999.50", "x"]


def test_says_which_words_were_taken_for_missing_values() -> None:
    contract, found = learned(csv("t.csv", age=[18, "NA", 40, "null", 7], country=["NA", "DE", "None"], x=X, y=Y))
    assert found["missing_words", "age"] == "'age' has words that were taken for missing values: 'NA' 40 ×, 'null' 40 ×"
    assert contract.columns[0].missing_words == ("NA", "null")
    assert contract.columns[1].categories == ("DE", "NA", "None")
    assert "'country' has the values 'NA' 67 ×, 'None' 66 ×" in found["missing_words", "country"]
    read, _ = learned("t.csv", options={"na_values": ["NA", "None"]})  # the advice
    assert (read.columns[1].categories, read.columns[1].nullable) == (("DE",), True)


def test_a_target_may_have_a_class_called_none() -> None:
    contract, _ = learned(csv("t.csv", x=X, y=np.where(Y, "Insomnia", "None")))
    assert contract.classes == ("Insomnia", "None")


def test_names_of_batches_never_overwrite_the_user_s(skewed: tuple[Bundle, pd.DataFrame]) -> None:
    bundle, _ = skewed
    named = bundle.card.recipe.data.model_copy(update={"id": ("score", "decision", "model_version", "model_score")})
    recipe = bundle.card.recipe.model_copy(update={"data": named})
    odd = Bundle(bundle.card.model_copy(update={"recipe": recipe}), bundle.model_file)
    rows = pd.DataFrame({name: ["a"] for name in (*named.id, *bundle.card.contract.features)})
    scored = score_rows(odd, rows, 3)
    assert list(scored) == [*named.id, "model_model_score", "model_decision", "model_model_version"]
    assert scored["score"].tolist() == ["a"]


def test_a_batch_is_held_to_the_contract() -> None:
    csv("t.csv", row=range(200), x=X, y=Y)
    config = use_case("t.csv", id=["row"], batch="new/*.csv")
    bundle, _ = trained(config)
    Path("new").mkdir()
    csv("new/comma.csv", row=range(200), x=['"0,5"'])
    csv("new/good.csv", row=range(200), x=X)
    csv("new/gone.csv", row=range(200), z=X)
    report = score_shard(bundle, 1, config, 0, "out")
    assert [path.rpartition("/")[2] for path in report.files] == ["00002-good.parquet"]
    said = [file.refused for file in report.read]
    assert said[0] == "comma.csv: 'x' has 200 values that are not numeric, e.g. '0,5'"
    assert (
        "column 'x' is missing" in str(said[1]) or "renamed" in str(said[1]) or "has come in its place" in str(said[1])
    )
    assert said[2] is None


def test_a_number_that_the_estimator_cannot_take_keeps_its_file_from_being_scored() -> None:
    csv("t.csv", row=range(200), x=X, y=Y)
    config = use_case("t.csv", id=["row"], batch="new/*.csv")
    forest = config.model.model_copy(
        update={"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": 5}}
    )
    config = config.model_copy(update={"model": forest})
    bundle, _ = trained(config)
    Path("new").mkdir()
    csv("new/far.csv", row=range(200), x=[1, 1e39])
    csv("new/good.csv", row=range(200), x=X)
    report = score_shard(bundle, 1, config, 0, "out")
    assert [path.rpartition("/")[2] for path in report.files] == ["00001-good.parquet"]
    assert report.read[0].refused
    assert "far.csv: a value is so far out of range that the model finds no number for it" in report.read[0].refused


def test_strings_that_nearly_all_are_numbers_are_pointed_at() -> None:
    ages = ["?" if row % 30 == 0 else 18 + row % 43 for row in range(200)]
    _, found = learned(csv("t.csv", age=ages, x=X, y=Y))
    assert "96 % are numbers, 7 are not, e.g. '?': repair them, or if they mean" in found["mostly_numbers", "age"]
    contract, _ = learned("t.csv", options={"na_values": ["?"]})  # the advice
    assert kinds(contract)["age"] == "numeric"
    _, found = learned(csv("t.csv", price=["1.10", "2.50"], x=X, y=Y))
    assert found["mostly_numbers", "price"].endswith("set data.kinds.price: numeric if they are meant")
    assert kinds(learned("t.csv", kinds={"price": "numeric"})[0])["price"] == "numeric"  # the advice


def test_a_word_among_numbers_is_pointed_at_however_they_are_spelt() -> None:
    fees = ["unknown" if row % 40 == 0 else f'"1.{100 + row},{row % 100:02}"' for row in range(200)]
    months = ["unknown" if row % 50 == 0 else row % 47 for row in range(200)]
    source = csv("t.csv", fee=fees, months=months, x=X, y=Y)
    options = {"decimal": ",", "thousands": "."}
    _, found = learned(source, options=options)
    for finding, name, count in (("text_column", "fee", 5), ("mostly_numbers", "months", 4)):
        assert f"are numbers, {count} are not, e.g. 'unknown': repair them, or if" in found[finding, name]
        assert found[finding, name].endswith(f"`options: {{na_values: [unknown]}}` and `kinds: {{{name}: numeric}}`")
    champion, _ = trained(use_case(source, options=options))
    advised = {"options": options | {"na_values": ["unknown"]}, "kinds": {"fee": "numeric", "months": "numeric"}}
    for before in (None, champion):  # with a champion that had left it out, too
        assert {"fee", "months"} <= trained(use_case(source, **advised), before)[0].card.contract.features.keys()
    _, found = learned(csv("t.csv", fee=[f"{row}.5" for row in range(200)], n=range(200), y=Y), options=options)
    assert "repair the source" in found["mostly_numbers", "fee"], "with a point where the table has commas"
    assert found["text_column", "fee"] == "'fee' is free text; it is left out"


@pytest.mark.parametrize("word", ["inf", "-Infinity", "1e400"])
def test_infinity_is_the_same_finding_each_time(word: str) -> None:
    source = csv("t.csv", z=[word, *X[:49]], x=X, y=Y)
    contract, found = learned(source)
    assert "'z' has 4 values that are not numeric" in found["wrong_type", "z"]
    rows, _ = read_table(data(source), contract=contract)
    assert "'z' has 4 values that are not numeric" in check_rows(rows, contract, Contract())[0].sentence


def test_infinity_in_json_is_a_finding_too() -> None:
    lines = (f'{{"z": {"Infinity" if row == 3 else row}, "y": {row % 2}}}\n' for row in range(50))
    Path("t.jsonl").write_text("".join(lines))
    _, found = learned("t.jsonl")
    assert "'z' has 1 values that are not numeric" in found["wrong_type", "z"]


def test_columns_that_are_called_like_ids_and_are_some_are_pointed_at() -> None:
    pd.DataFrame({"claim_id": RANDOM.permutation(200) + 10**6, "x": X, "y": Y}).to_csv("t.csv")
    _, found = learned("t.csv")
    assert {column for rule, column in found if rule == "id_like"} == {"Unnamed: 0", "claim_id"}


def test_a_dtype_of_categories_makes_strings_of_numbers() -> None:
    pd.DataFrame({"shop": pd.Categorical(np.resize([101, 205, 309], 200)), "x": X, "y": Y}).to_parquet("t.parquet")
    assert learned("t.parquet")[0].columns[0].categories == ("101", "205", "309")


def test_kinds_hold_for_the_target_or_are_refused() -> None:
    csv("t.csv", x=X, grade=range(30))
    rows = read_rows(data("t.csv", target="grade", kinds={"grade": "categorical"}))
    assert infer_task(rows["grade"], None, "categorical") == "multiclass"
    with pytest.raises(UserError, match=r"data\.kinds\.grade: a target is numeric or categorical, not datetime"):
        infer_task(rows["grade"], None, "datetime")
    words = read_rows(data(csv("t.csv", x=X, grade=["a", 1]), target="grade", kinds={"grade": "numeric"}))
    with pytest.raises(UserError, match=r"needs a number in every row, 100 of 200 are none, e\.g\. 'a'"):
        infer_task(words["grade"], None, "numeric")


@pytest.mark.parametrize(
    "labels", [["yes", "no", "no "], ["No", "no", "YES"], [">50K", ">50K.", "<=50K"], ["\u00e9", "e\u0301", "x"]]
)
def test_labels_that_hardly_differ_are_pointed_at(labels: list[str]) -> None:
    _, found = learned(csv("t.csv", x=X, y=labels))
    assert "has labels that hardly differ" in found["similar_labels", "y"]


def test_a_holdout_that_nobody_asked_for_is_pointed_at() -> None:
    (finding,) = holdout_findings(80, 720, Split(by="time", holdout=0.25), Contract().rules)
    assert finding.sentence.startswith("90% of the rows are held out, 25% was asked for (split.holdout): many share")
    assert not holdout_findings(600, 200, Split(by="time", holdout=0.25), Contract().rules)


def test_times_of_which_some_have_a_zone_are_pointed_at() -> None:
    _, found = learned(csv("t.csv", t=["2024-01-31T10:00:00Z", "2024-01-31 10:00:00"], x=X, y=Y))
    assert "'t' has a time zone in 100 of 200 values; the others are read as UTC" in found["doubtful_reading", "t"]


def test_a_kind_that_no_value_has_names_the_values() -> None:
    csv("t.csv", t=[1700000000], f=["Y", "N"], x=X, y=Y)
    _, found = learned("t.csv", kinds={"t": "datetime", "f": "boolean"})
    assert found["wrong_type", "t"] == "'t' has 200 values that are not datetime, e.g. '1700000000'"
    assert found["wrong_type", "f"] == "'f' has 200 values that are not boolean, e.g. 'Y'"


def test_a_target_with_decimal_commas_says_what_to_set() -> None:
    Path("t.csv").write_text("x;price\n" + "".join(f"{x};{abs(x) * 100:.2f}\n".replace(".", ",") for x in X))
    options = {"sep": ";"}
    with pytest.raises(UserError, match=r"numbers with a decimal comma; set data\.options\.decimal: ','"):
        infer_task(read_rows(data("t.csv", target="price", options=options))["price"], None)
    rows = read_rows(data("t.csv", target="price", options=options | {"decimal": ","}))  # the advice
    np.testing.assert_allclose(rows["price"], np.abs(X).round(3) * 100, atol=0.01)


def test_where_no_column_is_left_it_is_said_what_its_numbers_need() -> None:
    Path("t.csv").write_text("x;price\n" + "".join(f"{x};{y},50\n" for x, y in zip(X, Y, strict=True)))
    with pytest.raises(
        UserError, match=r"none is left; left out: x \(text\); 'x': 100% are numbers with a decimal point"
    ):
        learned("t.csv", target="price", options={"sep": ";", "decimal": ","})


def test_numbers_that_no_model_sees_to_the_last_digit_are_pointed_at() -> None:
    _, found = learned(csv("t.csv", big=[2**53 + row for row in range(200)], wild=["1e200", "-3e+180", "5"], x=X, y=Y))
    assert "'big' has 200 numbers from 2^53 on" in found["doubtful_reading", "big"]
    assert "beyond 1e150" in found["doubtful_reading", "wild"]


def test_a_query_with_columns_without_a_name_is_one_line() -> None:
    import sqlite3

    with sqlite3.connect("t.db") as connection:
        connection.execute("create table t(a real, y int)")
        connection.execute("insert into t values (1.5, 0)")
    with pytest.raises(UserError, match="has column '' more than once; give each column its own name"):
        read_rows(data("sqlite:///t.db", query="select a as '', 2 * a as '', y from t"))


def known(text: str, name: str = "t.csv", **more: Any) -> tuple[Data, DataContract]:
    """Write a first table, learn its contract."""
    Path(name).write_text(text, encoding="utf-8")
    return data(name, **more), learned(name, **more)[0]


def held_to(contract: DataContract, wanted: Data) -> tuple[pd.DataFrame, list[str]]:
    """Return a later table, and what is wrong with it."""
    rows, reading = read_table(wanted, labelled=False, contract=contract)
    found = (*reading_findings(reading, len(rows), Contract().rules), *check_rows(rows, contract, Contract()))
    return rows, [finding.sentence for finding in found if finding.severity == "error"]


def test_the_format_of_a_contract_is_not_guessed_again() -> None:
    days = [f"{day:02}/{month:02}/2024" for month in (1, 2, 3, 4) for day in range(1, 29)]
    text = "t,x,y\n" + "".join(f"{day},{place},{place % 2}\n" for place, day in enumerate(days))
    wanted, contract = known(text)
    assert contract.columns[0].format == "%d/%m/%Y"
    Path("t.csv").write_text("t,x\n03/04/2024,1\n01/25/2024,2\n")
    rows, errors = held_to(contract, wanted)
    assert rows["t"].tolist() == ["2024-04-03T00:00:00", "01/25/2024"]
    assert errors == ["'t' has 1 values that are not datetime, e.g. '01/25/2024'"]
    Path("t.csv").write_text(text + "unknown,1,0\n")
    rows, reading = read_table(wanted, contract=contract)
    again = learn_contract(rows, wanted, Contract(), reading=reading, settled=contract.known)
    assert (again.columns[0].kind, again.columns[0].format) == ("datetime", "%d/%m/%Y")


CELLS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, [" true", "false"]),
    ({}, [" 2024-01-31", "2024-02-01"]),
    ({}, ["7", " NA"]),
    ({"thousands": ","}, ["1,000", "12"]),
    ({"true_values": ["yes"], "false_values": ["no"]}, ["yes", "no"]),
]


@pytest.mark.parametrize(("options", "cells"), CELLS)
def test_blanks_and_options_let_no_row_move_another(options: dict[str, Any], cells: list[str]) -> None:
    from loop.data.table import row_hashes

    lines = [f"{cells[row % 2]};{row};{row % 2}" for row in range(50)]
    hashes = []
    for more in ([], ["x;1;1"]):
        Path("t.csv").write_text("\n".join(["x;i;y", *lines, *more]) + "\n")
        hashes.append(row_hashes(read_rows(data("t.csv", options={"sep": ";", **options})), ["x", "i"])[:50].tolist())
    assert hashes[0] == hashes[1]


def test_ids_of_several_types_keep_their_digits() -> None:
    Path("t.csv").write_text("k,x,y\n9007199254740993,1,0\n9007199254740992,2,1\n1.5,3,1\n")
    assert read_rows(data("t.csv", id=["k"]))["k"].tolist() == ["9007199254740993", "9007199254740992", "1.5"]
    Path("pq").mkdir()
    pd.DataFrame({"k": [2**53 + 1, 2**53], "y": [0, 1]}).to_parquet("pq/a.parquet")
    pd.DataFrame({"k": [5.0, np.nan], "y": [0, 1]}).to_parquet("pq/b.parquet")
    assert read_rows(data("pq", id=["k"]))["k"].dropna().astype(str).tolist()[:2] == [
        "9007199254740993",
        "9007199254740992",
    ]
    Path("mf").mkdir()
    Path("mf/a.csv").write_text("x,y\n9007199254740993,0\n")
    Path("mf/b.csv").write_text("x,y\n0.5,1\n")
    assert read_rows(data("mf"))["x"].tolist() == ["9007199254740993", "0.5"]


def test_a_point_is_none_where_the_decimal_mark_is_a_comma() -> None:
    text = "x;c;y\n" + "".join(f"{row},5;{'ab'[row % 2]};{row // 2 % 2}\n" for row in range(60))
    wanted, contract = known(text, options={"sep": ";", "decimal": ","})
    Path("t.csv").write_text("x;c\n0,5;a\n1.234;a\n")
    assert held_to(contract, wanted)[1] == ["'x' has 1 values that are not numeric, e.g. '1.234 with a point'"]


def test_strings_beside_decimal_commas_stay_as_they_are() -> None:
    Path("t.csv").write_text("v;x;y\n" + "".join(f"{['1.10', 'b'][row % 2]};{row},5;{row % 2}\n" for row in range(60)))
    options = {"sep": ";", "decimal": ","}
    assert learned("t.csv", options=options)[0].columns[0].categories == ("1.10", "b")
    Path("t.csv").write_text("v;x;y\n" + "".join(f"{['1,5', '7,0'][row % 2]};{row};{row % 2}\n" for row in range(60)))
    said = learned("t.csv", options=options, kinds={"v": "categorical"})[0]
    assert said.columns[0].categories == ("1,5", "7,0")


def test_what_a_column_is_does_not_depend_on_how_a_file_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    import loop.data.readers

    for last in ("12345678901234567890", "inf"):
        middle = "".join(f"{row},a,{row % 2}\n" for row in range(3000))
        Path("t.csv").write_text(f"x,c,y\ninf,a,1\n0.5,a,0\n{middle}{last},a,1\n")
        whole = read_rows(data("t.csv"))
        with monkeypatch.context() as cut:  # `undo` would leave the folder too
            cut.setattr(loop.data.readers, "_PIECE", 4096)
            pd.testing.assert_frame_equal(read_rows(data("t.csv")), whole)


def test_a_gap_alone_is_one_as_among_others() -> None:
    lines = "".join(f"{'NA' if row == 3 else f'2024-01-{row % 28 + 1:02}'},{row},{row % 2}\n" for row in range(60))
    wanted, contract = known("t,x,y\n" + lines)
    for text in ("t,x\nNA,1\n", "t,x\nNA,1\n2024-01-01,2\n", "t,x\nNA,+3\n"):
        Path("t.csv").write_text(text)
        assert held_to(contract, wanted)[1] == []


def test_a_number_that_may_be_several_codes_is_a_change_of_kind() -> None:
    text = "ver,x,y\n" + "".join(f"{['1.1', '1.10', '2.0'][row % 3]},{row},{row % 2}\n" for row in range(60))
    wanted, contract = known(text)
    pd.DataFrame({"ver": [1.1, 2.0], "x": [1, 2]}).to_parquet("t.parquet")
    errors = held_to(contract, wanted.model_copy(update={"source": "t.parquet"}))[1]
    assert "'ver' held strings in training, such as '1.1', '1.10', '2.0', and holds numbers now" in errors[0]


def test_strings_where_numbers_were_are_a_change_of_kind() -> None:
    pd.DataFrame({"zip": np.resize([1, 2, 3], 60), "y": np.resize([0, 1], 60)}).to_parquet("t.parquet")
    contract, _ = learned("t.parquet")
    pd.DataFrame({"zip": np.resize(["1", "2", "3"], 60), "y": np.resize([0, 1], 60)}).to_parquet("t.parquet")
    errors = held_to(contract, data("t.parquet"))[1]
    assert errors[0].startswith("'zip' held numbers in training and holds strings now, e.g. '1'; set data.kinds.zip: ")
    for kind, dtype in (("categorical", "str"), ("numeric", "int64")):  # the advice
        rows, errors = held_to(contract, data("t.parquet", kinds={"zip": kind}))
        assert (rows["zip"].dtype, errors) == (dtype, [])


def test_a_column_without_a_name_can_be_named() -> None:
    pd.DataFrame({"x": X, "y": Y}).to_csv("t.csv")
    assert learned("t.csv", id=["Unnamed: 0"])[0].id == ("Unnamed: 0",)


def test_short_floats_are_the_numbers_that_their_digits_spell() -> None:
    table = pd.DataFrame({"x": X.astype("float32"), "y": Y})
    table.to_parquet("t.parquet")
    table.to_csv("t.csv", index=False)
    assert fingerprint(read_rows(data("t.parquet"))) == fingerprint(read_rows(data("t.csv")))


ODD_INPUT = [
    ('{"x": 1, " x": 2, "y": 0}\n', "has column 'x' more than once"),
    ('{"x": "\\ud800", "y": 0}\n', "cannot read t.jsonl"),
    ("x,,y,Unnamed: 1\n1,10,0,100\n", "has column 'Unnamed: 1' more than once"),
]


@pytest.mark.parametrize(("text", "said"), ODD_INPUT)
def test_odd_input_is_one_line(text: str, said: str) -> None:
    name = "t.jsonl" if text.startswith("{") else "t.csv"
    Path(name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_rows(data(name))


@pytest.mark.parametrize("form", ["t.csv", "t.parquet", "t.jsonl", "t.json", "t.xlsx", "t.db"])
def test_what_is_said_of_spellings_holds_in_every_format(form: str) -> None:
    table = pd.DataFrame({"age": [-999, *range(49)], "price": ["?", *["1,5"] * 49], "x": range(50), "y": [0, 1] * 25})
    source: dict[str, Any] = {"source": form}
    if form.endswith("db"):
        with closing(sqlite3.connect(form)) as database:
            table.to_sql("t", database, index=False)
        source = {"source": "sqlite:///t.db", "query": "SELECT * FROM t"}
    elif form.endswith("csv"):
        table.to_csv(form, index=False)
    elif form.endswith("parquet"):
        table.to_parquet(form)
    elif form.endswith("xlsx"):
        table.to_excel(form, index=False)
    else:
        table.to_json(form, orient="records", lines=form.endswith("l"))
    options = {"na_values": [-999, "?"], "decimal": ","}
    wanted = Data.model_validate({**source, "target": "y", "options": options, "kinds": {"price": "numeric"}})
    rows, reading = read_table(wanted)
    assert rows["age"].isna().sum() == rows["price"].isna().sum() == 1
    assert rows["price"].dropna().eq(1.5).all()
    assert {name: dict(words) for name, words in reading.missing_words.items()} == {
        "age": {"-999": 1},
        "price": {"?": 1},
    }


def test_days_that_may_be_months_are_pointed_at_and_the_advice_settles_them() -> None:
    days = ["03/04/2024", "05/01/2024", "11/11/2024"]
    contract, found = learned(csv("t.csv", day=days, x=X, y=Y))
    assert kinds(contract)["day"] == "categorical"
    assert found["doubtful_reading", "day"].startswith(
        "'day' has no date that tells the day from the month, e.g. '03/04/2"
    )
    for day_first, month in ((True, 4), (False, 3)):
        rows, reading = read_table(data("t.csv", options={"dayfirst": day_first}))
        assert (rows["day"][0].month, list(reading.notes)) == (month, [])
    rows.assign(day=np.resize(np.array(days, object), len(rows))).to_json("t.jsonl", orient="records", lines=True)
    assert read_rows(data("t.jsonl", options={"dayfirst": True}))["day"][0].month == 4
    rows = read_rows(data(csv("t.csv", day=["04/04/2024", "11/11/2024"], x=X, y=Y)))
    assert rows["day"][0].month == 4  # either way


def test_a_split_by_time_leaves_days_in_doubt_to_the_champion_s_contract() -> None:
    config = use_case(csv("t.csv", day=["03/04/2024", "05/01/2024"], x=X, y=Y), time="day")
    by_time = config.model_copy(update={"split": Split(by="time")})
    check_rows_here(by_time.recipe)
    with pytest.raises(UserError, match=r"data\.options\.dayfirst"):
        resolve(read_rows(by_time.data), by_time.data, by_time.split)


@pytest.mark.parametrize(
    ("values", "spelt", "said"),
    [
        ([7, "007"], ["7", "007"], "numbers and strings, all read as strings, e.g. '7', '007'"),
        ([True, 0], ["True", "0"], "numbers and truth values, all read as strings"),
        ([{"k": [1]}, {"k": [2]}], ['{"k": [1]}', '{"k": [2]}'], "nested values, all read as strings"),
        ([[1, 2], [3, 4]], ["[1, 2]", "[3, 4]"], "nested values, all read as strings"),
    ],
)
def test_values_of_several_kinds_are_pointed_at_until_the_config_says_what_they_are(
    values: list[Any], spelt: list[str], said: str
) -> None:
    rows = pd.DataFrame({"v": [values[place % 2] for place in range(200)], "x": X, "y": Y})
    rows.to_json("t.jsonl", orient="records", lines=True)
    contract, found = learned("t.jsonl")
    again, reading = read_table(data("t.jsonl"), contract=contract)
    assert again["v"][:2].tolist() == spelt
    assert found["doubtful_reading", "v"].startswith(f"'v' holds {said}")
    assert [note.sentence for note in reading.notes] == [found["doubtful_reading", "v"]]
    assert read_table(data("t.jsonl", kinds={"v": "categorical"}))[1].notes == ()
    if isinstance(values[0], list):
        rows.to_parquet("t.parquet")
        assert read_rows(data("t.parquet"))["v"][:2].tolist() == spelt


def test_numbers_of_several_types_are_numbers() -> None:
    for other in (2, 2.5):
        pd.DataFrame({"v": [Decimal("1.10")] * 200, "x": X, "y": Y}).to_parquet("t1.parquet")
        pd.DataFrame({"v": [other] * 200, "x": X, "y": Y}).to_parquet("t2.parquet")
        assert read_rows(data("t*.parquet"))["v"].unique().tolist() == [1.1, other]


def test_strings_that_came_as_bytes_are_the_strings_they_spell() -> None:
    values = [b"DE", "Köln".encode(), b"\xff\x00", b"a\x00"]
    pd.DataFrame({"v": [values[place % 4] for place in range(200)], "x": X, "y": Y}).to_parquet("t.parquet")
    assert read_rows(data("t.parquet"))["v"][:4].tolist() == ["DE", "Köln", "ff00", "6100"]


def test_a_nul_is_refused_in_every_format_and_never_ends_a_string() -> None:
    rows = pd.DataFrame({"v": ["a\0b", "a\0c"] * 100, "x": X, "y": Y})
    rows.to_json("t.jsonl", orient="records", lines=True)
    with pytest.raises(
        UserError, match=r"^'v' has 200 values with a NUL, e\.g\. 'a\\x00b'; remove it from the source$"
    ):
        read_rows(data("t.jsonl"))
    assert as_kind(rows["v"].astype(object), "categorical").tolist()[:2] == ["a\0b", "a\0c"]


def test_an_index_with_a_name_is_a_column_of_a_parquet_file() -> None:
    for index in (pd.Index([f"k{row}" for row in range(200)], name="key"), pd.RangeIndex(200, name="key")):
        pd.DataFrame({"x": X, "y": Y}, index=index).to_parquet("t.parquet")
        rows = read_rows(data("t.parquet", id=["key"]))
        assert rows["key"].tolist() == index.tolist()


def test_strings_that_the_config_calls_numbers_are_scored_as_such() -> None:
    pd.DataFrame({"v": [str(row) for row in range(200)], "x": X, "y": Y}).to_parquet("t.parquet")
    assert "data.kinds.v: numeric" in learned("t.parquet")[1]["text_column", "v"]
    config = use_case("t.parquet", kinds={"v": "numeric"}, batch="t.parquet")
    bundle, _ = trained(config)
    assert score_shard(bundle, 1, config, 0, "out").rows == 200
    (read,) = score_shard(bundle, 1, use_case("t.parquet", batch="t.parquet"), 0, "out").read
    assert read.refused
    assert "'v' held numbers in training and holds strings now" in read.refused


@pytest.mark.parametrize("form", ["t.jsonl", "t.xlsx", "t.csv"])
def test_a_word_among_numbers_is_a_missing_value_in_every_format(form: str) -> None:
    rows = pd.DataFrame({"v": [["n/a", "", 1.5, 2][row % 4] for row in range(200)], "x": X, "y": Y})
    days = [["none", "2024-01-31", "2024-02-29"][row % 3] for row in range(200)]
    rows = rows.assign(w=[["?", 7, 8][row % 3] for row in range(200)], day=days, z=[7, "NA", "a", "x"] * 50)
    if form == "t.xlsx":
        rows.to_excel(form, index=False)
    elif form == "t.csv":
        rows.to_csv(form, index=False)
    else:
        rows.to_json(form, orient="records", lines=True)
    read, reading = read_table(data(form, options={"na_values": {"w": "?", "day": ["none"]}}))
    assert read["v"].isna().sum() == 100
    assert [str(read[name].dtype) for name in ("v", "w", "day")] == ["float64", "float64", "datetime64[us]"]
    assert read["z"][:3].tolist() == ["7", "NA", "a"]
    assert dict(reading.missing_words["v"]) == {"n/a": 50}
    assert dict(reading.missing_words["w"]) == {"?": 67}


def test_one_word_beside_numbers_is_pointed_at_however_often_it_is_there() -> None:
    ages = [*range(18, 48), *["unknown"] * 10]
    _, found = learned(csv("t.csv", age=ages, x=X, y=Y))
    assert found["mostly_numbers", "age"] == (
        "'age' is read as categories; 75 % are numbers, 50 are not, e.g. 'unknown': repair them, or if they mean a "
        "missing value add to data: `options: {na_values: [unknown]}` and `kinds: {age: numeric}`"
    )
    advised = yaml.safe_load("\n".join(re.findall("`(.*?)`", found["mostly_numbers", "age"])))
    read = read_rows(data("t.csv", **advised))
    assert read["age"].isna().sum() == 50
    assert read["age"].max() == 47


def test_ids_that_excel_has_shortened_are_pointed_at() -> None:
    ids = [f"{10**15 + row:.5E}" for row in range(200)]
    _, found = learned(csv("t.csv", k=ids, x=X, y=Y), id=["k"])
    assert found["doubtful_reading", "k"].startswith("id 'k' is spelt as '1.00000E+15', as Excel shortens long")
    assert "several may have become one" in found["doubtful_reading", "k"]


@pytest.mark.parametrize("orient", ["columns", "split", "index"])
def test_json_of_columns_is_said_to_be_that(orient: str) -> None:
    rows = pd.DataFrame({"x": X, "y": Y})
    Path("t.json").write_text(rows.to_json(orient=orient))
    with pytest.raises(UserError, match=rf"one object of .*, not one for each row; .*data\.options\.orient: {orient}$"):
        read_rows(data("t.json"))
    read = read_rows(data("t.json", options={"orient": orient}, rows=150))
    assert read["x"].tolist() == X[:150].tolist()
    Path("t.jsonl").write_text(rows.to_json(orient="records", indent=1))
    assert read_rows(data("t.jsonl"))["x"].tolist() == X.tolist()


def test_days_that_a_champion_has_left_out_as_text_become_times_by_the_advice() -> None:
    days = [f"{row % 12 + 1:02}/{row // 12 % 12 + 1:02}/{2000 + row % 25}" for row in range(200)]
    contract, _ = learned(csv("t.csv", day=days, x=X, y=Y))
    assert contract.left_out == {"day": "text"}
    wanted = data("t.csv", options={"dayfirst": True}, kinds={"day": "datetime"})  # the advice
    rows, reading = read_table(wanted, contract=contract)
    again = learn_contract(rows, wanted, Contract(), reading=reading, settled=contract.known)
    assert kinds(again)["day"] == "datetime"
    assert (rows["day"][1].day, rows["day"][1].month) == (2, 1)


def test_files_to_score_may_be_of_another_format_than_the_table() -> None:
    lines = [f"{row};{x};{y}".replace(".", ",") for row, x, y in zip(range(200), X, Y, strict=True)]
    Path("t.csv").write_text("row;x;y\n" + "\n".join(lines) + "\n")
    layout = {"sep": ";", "decimal": ",", "encoding": "utf-8"}
    config = use_case("t.csv", id=["row"], batch="new/*.parquet", options=layout)
    bundle, _ = trained(config)
    Path("new").mkdir()
    pd.DataFrame({"row": range(200), "x": X}).to_parquet("new/a.parquet")
    assert score_shard(bundle, 1, config, 0, "out").rows == 200
