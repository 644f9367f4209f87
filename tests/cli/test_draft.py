import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import run
from loop.cli import actions
from loop.cli.new_config import draft_config
from loop.cli.preflight import check_rows_here
from loop.config import Config, UserError, load
from loop.data.sources import read_rows
from model.fraud import card_transactions


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def drafted(source: str, target: str, *changes: str) -> tuple[str, Config]:
    text = draft_config(source, target, changes)
    Path("draft.yaml").write_text(text, encoding="utf-8")
    return text, load(Path("draft.yaml"))


def test_a_draft_names_what_the_table_shows() -> None:
    card_transactions(2_000).assign(nothing=1).to_csv("Kfz Schäden 2.csv", index=False)
    text, config = drafted("Kfz Schäden 2.csv", "fraud")
    assert text.startswith("# yaml-language-server: $schema=schema.json\nname: kfz_schaden_2\n")
    assert config.data.source == "Kfz Schäden 2.csv"
    assert (config.data.target, config.data.id, config.data.time) == ("fraud", ("transaction_id",), "time")
    for words in (
        "2,000 rows, 13 columns",
        "binary, 0 9",
        "# datetime: card_since",
        "# missing: distance_km 3",
        "# left out: time",
        "# teaches nothing: nothing",
        "# positive: 1 ",
    ):
        assert words in text


def test_a_draft_warns_of_a_date_and_proposes_an_age() -> None:
    card_transactions(2_000).to_csv("cards.csv", index=False)
    text, config = drafted("cards.csv", "fraud")
    assert config.data.time == "time"
    assert "# card_since is a date, and dates move on" in text
    assert "such as the days from it to time, as a column of the source, and data.drop for the date" in text


def test_a_draft_drops_what_is_empty_and_names_codes_that_tell_rows_apart(tmp_path: Path) -> None:
    table = pd.DataFrame({"age": range(400), "y": ["no", "yes"] * 200, "nothing": None})
    words = table.assign(note="a b", kunde=[f"K-{n:x}" for n in range(400)])
    text, config = drafted(str(_written(words, tmp_path)), "y", "data.drop=[note]")
    assert (config.data.id, config.data.drop) == (("kunde",), ("note", "nothing"))
    assert "# left out: nothing, holds no value (drop)" in text
    check_rows_here(config)  # a training takes it as it is
    repeated = pd.concat([words, words.head(3)])  # a row that stands there twice is one of whom it is
    assert drafted(str(_written(repeated, tmp_path)), "y")[1].data.id == ("kunde",)
    for none in (
        {"kunde": [f"he said {n}" for n in range(400)]},  # free text
        {"kunde": ["K-1", *words["kunde"][1:-1], "K-1"]},  # one twice
        {"kunde": [None, *words["kunde"][1:]]},
    ):
        assert drafted(str(_written(words.assign(**none), tmp_path)), "y")[1].data.id == ()


def _written(rows: pd.DataFrame, folder: Path) -> Path:
    rows.to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def test_its_knobs_hold_when_they_are_switched_on() -> None:
    card_transactions(2_000).to_parquet("cards.parquet")
    knobs, _, _ = draft_config("cards.parquet", "fraud").partition("# What the table showed")
    Path("on.yaml").write_text(re.sub(r"(?m)^( *)# (?!yaml-)", r"\1", knobs), encoding="utf-8")
    config = load(Path("on.yaml"))
    assert config.data.positive == 1
    assert config.split.by == "time"
    assert config.model.estimator
    assert config.gate.minimum


@pytest.mark.parametrize(
    ("source", "target", "task"),
    [
        ("sklearn:wine", "class", "multiclass, class_1 39.9%"),
        ("sklearn:diabetes", "y", "regression, 25 to 346"),
    ],
)
def test_a_draft_says_the_task(source: str, target: str, task: str) -> None:
    text, config = drafted(source, target)
    assert f"# task: {task}" in text
    assert config.name == source.removeprefix("sklearn:")


nasty = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
    .map(str.strip)
    .filter(bool)
)


@settings(max_examples=40, deadline=None)
@given(st.lists(nasty, min_size=3, max_size=3, unique=True), st.lists(nasty, min_size=2, max_size=2, unique=True))
def test_any_column_name_and_class_is_quoted_right(columns: list[str], classes: list[str]) -> None:
    target, feature, key = columns[0], columns[1], f"{columns[2]} id"
    table = {target: classes * 4, feature: [1, 2, 3, 4, 5, 6, 7, 8], key: [f"row {i}" for i in range(8)]}
    pd.DataFrame(table).to_parquet("t.parquet")
    _, config = drafted("t.parquet", target)
    assert config.data.target == target
    assert key in config.data.id


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x;word;y\n1,5;Köln;0\n2,5;Ulm;1\n", {"sep": ";", "decimal": ","}),
        ("x|word|y\n1.5|Köln|0\n2.5|Ulm|1\n", {"sep": "|"}),
        ("x\tword\ty\n1.5\tKöln\t0\n2.5\tUlm\t1\n", {"sep": "\t"}),
        ("x,word,y\n1.5,Köln,0\n2.5,Ulm,1\n", {}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_a_draft_names_what_the_file_needs(text: str, options: dict[str, str], encoding: str) -> None:
    Path("t.csv").write_bytes(text.encode(encoding))
    _, config = drafted("t.csv", "y")
    assert config.data.options == ({} if encoding == "utf-8" else {"encoding": "cp1252"}) | options
    rows = read_rows(config.data)
    assert rows.x.tolist() == [1.5, 2.5]
    assert rows.word.tolist() == ["Köln", "Ulm"]


def test_a_draft_keeps_what_is_set() -> None:
    Path("t.csv").write_text("# made today\nrow;when;x;y\n1;a;2,5;0\n2;b;3,5;1\n", encoding="utf-8")
    changes = ("data.options.comment='#'", "data.id=[row, when]", "data.kinds.x=categorical", "data.task=binary")
    _, config = drafted("t.csv", "y", *changes)
    assert config.data.options == {"comment": "#", "sep": ";", "decimal": ","}
    assert (config.data.id, config.data.kinds, config.data.task) == (("row", "when"), {"x": "categorical"}, "binary")
    _, config = drafted("t.csv", "y", "data.options.comment='#'", "data.options.decimal='.'")
    assert config.data.options == {"comment": "#", "decimal": ".", "sep": ";"}
    with pytest.raises(UserError, match=r"takes --set data\.KEY=VALUE; write 'gate\.metric=f1' into the file it makes"):
        draft_config("t.csv", "y", ["gate.metric=f1"])


def test_the_command_line_hands_on_what_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "CONFIGS", tmp_path)
    Path("t.csv").write_text("a;x;y\n1;2,5;0\n2;3,5;1\n", encoding="utf-8")
    assert run.main(["--new-config", "t.csv", "--target", "y", "--set", "data.drop=[a]"]) == 0
    config = load(tmp_path / "t.yaml")
    assert (config.data.drop, config.data.options) == (("a",), {"sep": ";", "decimal": ","})
    assert config.serving.port == 3001
    Path("t.csv").rename("u.csv")
    assert run.main(["--new-config", "u.csv", "--target", "y"]) == 0
    assert load(tmp_path / "u.yaml").serving.port == 3002, "a use case, a port"


def test_says_why_there_is_no_draft() -> None:
    pd.DataFrame({"a": [1, 2]}).to_csv("a.csv", index=False)
    with pytest.raises(UserError, match=r"no column 'b' in a\.csv; it has a"):
        draft_config("a.csv", "b")
    with pytest.raises(UserError, match="holds a password"):
        draft_config("postgresql://ann:s3cret@h/x", "b")
