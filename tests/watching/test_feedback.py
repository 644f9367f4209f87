"""Labels that come late, again, corrected or for nobody; and what becomes training rows, on which side."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.feedback import LOGISTIC, SELECTIONS, fit, table
from loop import config
from loop.config import ROOT, Config, Data, Feedback, Monitoring, UserError
from loop.data.contract import DataContract, learn_contract
from loop.data.split import resolve
from loop.log.records import (
    TRUTH,
    TRUTH_TIME,
    RecordWriter,
    label_lines,
    prediction_line,
    read_labels,
    read_predictions,
)
from loop.training.gate import Condition, Verdict
from loop.training.level import spend
from loop.training.stand_in import StandIn
from loop.watching.feedback import (
    as_source_rows,
    choose_history,
    hold_to_old_rows,
    join_labels,
    selection_doubt,
    split_feedback,
    with_labels,
)
from model.fraud import card_transactions

NOON = datetime(2026, 11, 24, 12)


def predictions(count: int, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prediction_id": [f"{place:012x}-000000-0" for place in range(count)],
            "prediction_time": [NOON + timedelta(minutes=place) for place in range(count)],
            "prediction_version": 1,
            "prediction_score": 0.5,
            "prediction_label": "0",
            **columns,
        }
    )


def labels(*given: tuple[int, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prediction_id": pd.Series([f"{place:012x}-000000-0" for place, _ in given], dtype="str"),
            "label": pd.Series([label for _, label in given], dtype=object),
            "label_time": [NOON + timedelta(days=1, minutes=place) for place in range(len(given))],
        }
    )


def fraud(*changes: str) -> Config:
    fast = ("data.rows=3000", "model.params.max_iter=10", "model.folds=3")
    return config.load(ROOT / "configs/fraud.yaml", (*fast, *changes))


def test_the_last_label_counts_and_every_oddity_is_counted() -> None:
    history = labels((0, "0"), (1, "1"), (1, "0"), (2, "1"), (2, "1"), (99, "1"))
    joined, report = join_labels(predictions(5), history, Feedback())
    assert joined[TRUTH].tolist() == ["0", "0", "1"]
    assert (report.predictions, report.labels, report.labelled) == (5, 6, 3)
    assert (report.corrected, report.repeated, report.unknown) == (1, 1, 1)
    said = " ".join(report.sentences)
    assert "3 of 5 predictions are labelled (60%)" in said
    assert "1 labels belong to no prediction" in said


def test_a_label_that_is_spelt_otherwise_is_no_correction() -> None:
    _, report = join_labels(predictions(2), labels((0, 1.0), (0, 1), (1, 2.5), (1, 2.75)), Feedback())
    assert (report.corrected, report.repeated) == (1, 1)


def test_no_labels_and_no_predictions_are_sentences() -> None:
    joined, report = join_labels(predictions(3), labels(), Feedback())
    assert joined.empty
    assert "no label has come yet" in report.sentences[0]
    joined, report = join_labels(predictions(0), labels((7, "1")), Feedback())
    assert (len(joined), report.unknown) == (0, 1)


def test_only_the_newest_rows_are_learned_from_and_the_others_counted() -> None:
    joined, report = join_labels(predictions(5), labels(*((n, "1") for n in range(5))), Feedback(max_rows=2))
    assert joined["prediction_id"].tolist() == predictions(5)["prediction_id"].tolist()[-2:]
    assert report.left_out == 3


def served(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows as the log gives them back, with their labels."""
    columns = rows.drop(columns="fraud")
    for name in ("time", "card_since"):
        columns[name] = columns[name].map(lambda moment: moment.isoformat())
    found = predictions(len(rows), **{name: columns[name].to_numpy() for name in columns})
    return found.assign(**{TRUTH: rows["fraud"].map(str).to_numpy(), TRUTH_TIME: NOON})


def test_served_rows_become_rows_of_the_source_value_for_value() -> None:
    settings = fraud()
    source, came = card_transactions(3000), card_transactions(200, start=3000)
    contract = learn_contract(source, settings.data, settings.contract)
    found, times, _ = as_source_rows(served(came), source, contract, settings)
    pd.testing.assert_frame_equal(found, came)
    assert times.tolist() == served(came)["prediction_time"].tolist()


def test_rows_of_the_source_and_rows_asked_twice_are_not_added() -> None:
    settings = fraud()
    source = card_transactions(3000)
    contract = learn_contract(source, settings.data, settings.contract)
    came = pd.concat([card_transactions(10, start=2995), card_transactions(2, start=3004)], ignore_index=True)
    found, times, _ = as_source_rows(served(came), source, contract, settings)
    assert sorted(found["transaction_id"]) == [3000, 3001, 3002, 3003, 3004, 3005]
    assert len(times) == len(found)


BIG = 9_007_199_254_760_001  # beyond 2**53, where float64 holds every other whole number
BEFORE = pd.DataFrame(
    {
        "id": pd.Series(range(BIG - 40, BIG), dtype="int64"),
        "when": pd.date_range("2026-01-01", periods=40, freq="D").as_unit("us"),
        "note": "x",
        "paid": [True, False] * 20,
        "age": range(40),
        "label": ["red", "blue"] * 20,
        "label_time": 0.5,
        "y": [0, 1] * 20,
    }
)
DATA = Data(source="made", target="y", id=("id",), time="when")


def logged(folder: Path, *rows: tuple[Any, ...], label: Any = "1") -> pd.DataFrame:
    """Return rows of `BEFORE`'s columns, without its target, as they come back from the log with their labels."""
    header = {"model": "m", "version": 1, "classes": ("0", "1"), "columns": list(BEFORE)[:-1]}
    answers = RecordWriter(folder / "predictions", {**header, "kind": "predictions"})
    truths = RecordWriter(folder / "labels", {"kind": "labels"})
    for place, row in enumerate(rows):
        name, time = f"{place:012x}-000000", NOON.replace(tzinfo=UTC) + timedelta(minutes=place)
        answers.append(prediction_line(name, time, [row], [0.5], ["1"]), time)
        truths.append(label_lines([(f"{name}-0", label)], time), time)
    joined, _ = join_labels(
        read_predictions(folder / "predictions"), read_labels(folder / "labels", history=True), Feedback()
    )
    return joined


def learned(**changes: Any) -> tuple[DataContract, Config]:
    settings = Config(name="made", data=DATA, **changes)
    return learn_contract(BEFORE, DATA, settings.contract), settings


GOOD = (BIG, "2026-02-01T00:00:00", "x", True, 7, "red", 0.5)


def row(**changed: Any) -> tuple[Any, ...]:
    return tuple((dict(zip(BEFORE, GOOD, strict=False)) | changed).values())


def test_ids_of_64_bits_keep_every_digit_beside_rows_without_one(tmp_path: Path) -> None:
    rows = [row(id=BIG + place if place % 5 else None) for place in range(20)]
    contract, settings = learned()
    found, times, said = as_source_rows(logged(tmp_path, *rows), BEFORE, contract, settings)
    assert found["id"].dtype == "int64"
    assert found["id"].tolist() == [BIG + place for place in range(20) if place % 5]
    assert len(times) == 16
    assert said == "4 labelled rows cannot be used: 4 without 'id'"
    pd.testing.assert_series_equal(found.dtypes, BEFORE.dtypes)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"when": "yesterday"}, "1 labelled rows cannot be used: 1 for 'when', e.g. 'yesterday'"),
        ({"id": "abc"}, "1 labelled rows cannot be used: 1 for 'id', e.g. 'abc'"),
        ({"id": "007"}, "1 labelled rows cannot be used: 1 for 'id', e.g. '007'"),
        ({"id": 1.5}, "1 labelled rows cannot be used: 1 for 'id', e.g. '1.5'"),
        ({"id": 1e20}, "1 labelled rows cannot be used: 1 for 'id', e.g. '1e+20'"),
        ({"id": True}, "1 labelled rows cannot be used: 1 for 'id', e.g. 'True'"),
        ({"when": 7}, "1 labelled rows cannot be used: 1 for 'when', e.g. '7'"),
    ],
)
def test_a_value_that_an_earlier_service_let_in_is_left_out_and_counted(
    tmp_path: Path, bad: dict[str, Any], said: str
) -> None:
    contract, settings = learned()
    rows = [row(), row(**{"id": BIG + 1, **bad}), row(id=BIG + 2)]
    found, times, sentence = as_source_rows(logged(tmp_path, *rows), BEFORE, contract, settings)
    assert found["id"].tolist() == [BIG, BIG + 2]
    assert sentence == said
    pd.testing.assert_series_equal(found.dtypes, BEFORE.dtypes)
    assert times.tolist() == [NOON, NOON + timedelta(minutes=2)]
    with pytest.raises(UserError, match="needs labelled predictions that can be learned from; 1 labelled rows cannot"):
        as_source_rows(logged(tmp_path / "alone", row(**bad)), BEFORE, contract, settings)


def test_rows_of_a_version_without_a_feature_are_left_out_and_counted(tmp_path: Path) -> None:
    contract, settings = learned()
    came = logged(tmp_path / "with", row(), row(id=BIG + 1))
    other = logged(tmp_path / "without", row(id=BIG + 2), row(id=BIG + 3)).drop(columns="label")
    other["prediction_version"] = 2
    found, _, said = as_source_rows(pd.concat([came, other], ignore_index=True), BEFORE, contract, settings)
    assert found["id"].tolist() == [BIG, BIG + 1]
    assert said == "2 labelled rows cannot be used: 2 without 'label', which no row of training lacked"


def test_labels_of_another_model_are_left_out_and_counted(tmp_path: Path) -> None:
    contract, settings = learned()
    both = [logged(tmp_path / str(place), row(id=BIG + place), label=label) for place, label in enumerate((1, "no"))]
    found, _, said = as_source_rows(pd.concat(both, ignore_index=True), BEFORE, contract, settings)
    assert found["y"].tolist() == [1]
    assert said == "1 labelled rows cannot be used: 1 for 'y', e.g. 'no'"


def test_values_come_back_as_the_source_holds_them(tmp_path: Path) -> None:
    contract, settings = learned()
    rows = [
        row(id=str(BIG), paid=None, age=7.5, label="blue"),
        row(id=BIG + 1, when="2026-02-01T01:00:00+01:00", note=7, age=None),
        row(id=BIG + 2, when=None, note=None, label=None),
    ]
    found, times, said = as_source_rows(logged(tmp_path, *rows), BEFORE, contract, settings)
    assert said == ""
    assert found["id"].tolist() == [BIG, BIG + 1, BIG + 2]
    assert found["when"].tolist() == [datetime(2026, 2, 1), datetime(2026, 2, 1), times[2]]
    assert found["note"].tolist()[:2] == ["x", "7"]
    assert found["paid"].isna().tolist() == [True, False, False]
    assert found["age"].fillna(-1).tolist() == [7.5, -1, 7]
    assert found["label"].tolist()[:2] == ["blue", "red"]


def test_a_hashed_id_still_tells_rows_apart(tmp_path: Path) -> None:
    contract, settings = learned(serving={"personal": {"id": "hash"}})
    rows = [row(id=f"{place:032x}") for place in (2**120, 2**121, 2**121)]
    found, _, said = as_source_rows(logged(tmp_path, *rows), BEFORE, contract, settings)
    assert (len(found), found["id"].dtype, said) == (2, "int64", "")


def test_ids_that_requests_left_out_and_hidden_features_are_refused() -> None:
    settings, source = fraud(), card_transactions(3000)
    contract = learn_contract(source, settings.data, settings.contract)
    rows = served(card_transactions(20, start=3000))
    with pytest.raises(UserError, match="needs the id 'transaction_id' of each row"):
        as_source_rows(rows.drop(columns="transaction_id"), source, contract, settings)
    with pytest.raises(UserError, match="needs 'amount', which the log does not keep"):
        as_source_rows(rows, source, contract, fraud("serving.personal={amount: omit}"))
    with pytest.raises(UserError, match="there are none"):
        as_source_rows(rows.head(0), source, contract, settings)


def test_rows_without_a_time_happened_when_they_were_answered() -> None:
    settings, source = fraud(), card_transactions(3000)
    contract = learn_contract(source, settings.data, settings.contract)
    rows = served(card_transactions(20, start=3000)).drop(columns="time")
    found, times, _ = as_source_rows(rows, source, contract, settings)
    assert found["time"].tolist() == times.tolist()


@pytest.mark.parametrize("by", ["time", "hash"])
def test_no_row_changes_side_when_served_rows_join_or_more_of_them_come(by: str) -> None:
    settings = fraud(f"split.by={by}", "feedback.history=keep")
    source, came = card_transactions(3000), card_transactions(2000, start=3000, scenario="concept")
    rule = resolve(source, settings.data, settings.split)
    before = set(source.loc[rule.held_out(source), "transaction_id"])
    sides = split_feedback(source, came, np.ones(len(came), bool), rule, settings)
    held_out, learned = (set(side["transaction_id"]) for side in (sides.holdout, sides.train))
    assert not held_out & learned
    assert before <= held_out
    assert held_out | learned == set(range(5000))
    share = len(held_out - before) / len(came)
    assert abs(share - settings.split.holdout) < 0.05
    assert len(sides.watched) == len(held_out - before)
    assert sides.reference_rows == len(learned & set(came["transaction_id"]))
    more = card_transactions(3000, start=3000)
    later = split_feedback(source, more, np.ones(len(more), bool), rule, settings)
    assert not set(later.train["transaction_id"]) & held_out
    assert not set(later.holdout["transaction_id"]) & learned


def test_the_past_is_dropped_when_it_misleads_and_kept_when_it_helps() -> None:
    settings = fraud("data.rows=8000", "model.params.max_iter=30")
    source = card_transactions(8000)
    rule = resolve(source, settings.data, settings.split).for_feedback(source)
    for scenario, keeps in (("concept", False), ("none", True)):
        new = card_transactions(6000, start=8000, scenario=scenario)
        found = choose_history(source, new, rule, settings.recipe, settings.feedback, settings.gate.metric)
        assert found.keep == keeps, found.sentence
        assert str(settings.gate.metric) in found.sentence


def test_served_rows_of_before_the_drift_are_the_past() -> None:
    settings = fraud("feedback.history=drop")
    source = card_transactions(3000)
    came = pd.concat([card_transactions(1000, start=3000), card_transactions(1000, start=4000, scenario="concept")])
    came = came.reset_index(drop=True)
    drifted = np.arange(2000) >= 1000
    sides = split_feedback(source, came, drifted, resolve(source, settings.data, settings.split), settings)
    assert set(sides.train["transaction_id"]) | set(sides.holdout["transaction_id"]) == set(range(4000, 5000))
    assert set(sides.old_holdout["transaction_id"]) & set(range(3000, 4000))
    assert sides.reference_rows is None
    with pytest.raises(UserError, match="there are none"):
        split_feedback(source, came, np.zeros(2000, bool), resolve(source, settings.data, settings.split), settings)


def test_served_rows_of_few_contents_count_on_from_those_of_the_table_and_stay_on_their_side() -> None:
    data, random = Data(source="made", target="y"), np.random.default_rng(0)
    settings = MADE.model_copy(update={"data": data, "feedback": Feedback(history="keep")})
    table, served = (
        pd.DataFrame({"a": random.integers(*ends, 800), "y": random.integers(0, 2, 800)}) for ends in ((0, 9), (7, 15))
    )
    found = []
    for count, since in ((400, 200), (800, 600)):
        source, came = table.head(count), served.head(count)
        rule = resolve(source, data, settings.split)
        sides = split_feedback(source, came, np.arange(count) >= since, rule, settings)
        whole = pd.concat([source, came])
        assert len(sides.train) == (~rule.held_out(whole)).sum()
        found.append([Counter(map(tuple, side.to_numpy().tolist())) for side in (sides.train, sides.holdout)])
    for before, after in zip(*found, strict=True):
        assert not before - after


def test_a_contract_of_two_worlds_is_watched_against_the_newer_one() -> None:
    settings = fraud()
    old, new = card_transactions(3000), card_transactions(1000, start=3000, scenario="covariate")
    both = pd.concat([old, new], ignore_index=True)
    found = learn_contract(both, settings.data, settings.contract, len(new))
    alone = learn_contract(new, settings.data, settings.contract)
    for column, newer in zip(found.columns, alone.columns, strict=True):
        assert column.name == newer.name
        if column.kind == "numeric":
            assert column.edges == newer.edges
            assert column.shares == newer.shares
            assert (column.minimum, column.maximum) == (both[column.name].min(), both[column.name].max())
    assert found.reference_rows == len(new)


def test_the_rule_of_a_retraining_survives_json(tmp_path: Path) -> None:
    settings, source = fraud(), card_transactions(3000)
    rule = resolve(source, settings.data, settings.split).for_feedback(source)
    again = type(rule).model_validate_json(rule.model_dump_json())
    later = card_transactions(500, start=3000)
    assert (again.held_out(later) == rule.held_out(later)).all()
    assert 0 < rule.held_out(later).sum() < len(later)


MADE = Config(name="made", data=Data(source="made", target="y", id=("id",)), model=LOGISTIC)


def made(seed: int, count: int, strength: float = 1.0) -> pd.DataFrame:
    rows = table(count, np.random.default_rng(seed), strength)
    return rows.assign(id=np.arange(count) + seed * 10**6)


def answered(champion: Any, rows: pd.DataFrame, selection: str, share: float) -> tuple[pd.DataFrame, Any]:
    """Return what a champion, version 1, answered, with the labels that came, and of which rows they came."""
    said = champion.predictions(rows)
    lucky = np.random.default_rng(9).random(len(rows)) < share
    labelled = SELECTIONS[selection](said, lucky)
    found = predictions(len(rows), prediction_score=said.scores)
    return found.assign(**{TRUTH: rows["y"].astype(str).where(labelled).astype(object)}), labelled


def test_labels_of_complaints_keep_the_past_and_old_rows_have_a_veto() -> None:
    source, asked = made(1, 6000), made(2, 3000)
    rule = resolve(source, MADE.data, MADE.split)
    held_out = rule.held_out(source)
    champion, trusted = fit(source[~held_out], rule, MADE), source[held_out]
    answers, labelled = answered(champion, asked, "complaints", 0.1)
    doubt = selection_doubt(answers, champion, 1, trusted, Monitoring())
    assert doubt.startswith("labels came for ")
    served = asked[labelled].reset_index(drop=True)
    for settings, keeps in ((MADE, True), (MADE.model_copy(update={"feedback": Feedback(history="drop")}), False)):
        sides = split_feedback(source, served, np.ones(len(served), bool), rule, settings, doubt=doubt)
        assert (sides.history.keep, sides.history.doubt) == (keeps, doubt)
        assert (doubt in sides.history.sentence) == keeps
    assert len(sides.old_holdout) == len(trusted)
    challenger = fit(sides.train, sides.rule, MADE)  # learned from complaints alone: it ranks backwards
    passed = Condition(
        name="not_worse_than_champion", outcome="passed", metric="roc_auc", value=0.1, bound=-0.01, low=0.1, high=0.2,
        n=100, confidence=0.95, sentence="passed",
    )  # fmt: skip
    verdict = Verdict(decision="promote", reasons=("passed",), conditions=(passed,), champion_version=1, rows=100)
    found = hold_to_old_rows(verdict, challenger, champion, trusted, MADE.gate, MADE.evaluation)
    assert found.decision == "reject"
    assert found.conditions[-1].name == "not_worse_on_old_rows"
    assert found.reasons[0] == found.conditions[-1].sentence
    assert "on old rows, against champion v1" in found.reasons[0]
    near = fit(pd.concat([source[~held_out], made(3, 2000)]), rule, MADE)
    found = hold_to_old_rows(verdict, near, champion, trusted, MADE.gate, MADE.evaluation)
    assert (found.decision, found.reasons[0]) == ("promote", "passed")
    assert found.conditions[-1].n == len(trusted)
    before = [StandIn.of(near, trusted, near.scores(trusted))] * 2  # models that were judged by these rows
    found = hold_to_old_rows(verdict, near, champion, trusted, MADE.gate, MADE.evaluation, before)
    assert found.conditions[-1].confidence == spend(MADE.evaluation, 3).confidence
    nothing = Verdict(decision="hold", reasons=("too few",), rows=0)
    assert hold_to_old_rows(nothing, near, champion, trusted, MADE.gate, MADE.evaluation) == nothing


def test_a_changed_world_whose_labels_come_by_chance_leaves_no_doubt() -> None:
    source, asked = made(1, 6000), made(2, 3000, strength=-1)
    rule = resolve(source, MADE.data, MADE.split)
    held_out = rule.held_out(source)
    champion, trusted = fit(source[~held_out], rule, MADE), source[held_out]
    settings = Monitoring()
    for share in (1.0, 0.8, 0.4):
        answers, _ = answered(champion, asked, "by chance", share)
        assert selection_doubt(answers, champion, 1, trusted, settings) == ""
    late, _ = answered(champion, made(4, 3000), "by chance", 1.0)
    late.loc[2000:, TRUTH] = None  # the newest rows have no label yet
    assert selection_doubt(late, champion, 1, trusted, settings) == ""
    other = selection_doubt(answers, champion, 2, trusted, settings)
    assert other.endswith("and for none that the champion answered")
    gone = selection_doubt(answers, StandIn.without_record(None), 1, trusted, settings)
    assert gone.endswith("and the champion, which could tell why, is gone")
    few, _ = answered(champion, made(4, 3000), "by chance", 0.1)
    assert "explain them as well as drift" in selection_doubt(few, champion, 1, trusted, settings)


def test_every_answer_is_there_with_its_last_label_or_none() -> None:
    found = with_labels(predictions(3, amount=1.0), labels((0, "0"), (2, "1"), (2, "0"), (9, "1")))
    assert found[TRUTH].fillna("none").tolist() == ["0", "none", "0"]
    assert "amount" not in found
