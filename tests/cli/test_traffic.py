"""What a replay of the stream promises: the same rows for the same seed, labels later, and everything counted."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from servers import TOKEN, Running, breast_cancer, fraud, running

from loop import config
from loop.cli import actions, traffic
from loop.cli.traffic import GIVE_UP, Replay, check_traffic, is_stream, next_row, replay, simulate, stream_rows
from loop.config import ROOT, Config, UserError
from loop.log.records import read_labels, read_predictions, read_refusals

FRAUD = config.load(ROOT / "configs/fraud.yaml", ["data.rows=6000"])
CANCER = config.load(ROOT / "configs/breast_cancer.yaml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("fraud"), fraud(), token=TOKEN) as server:
        yield server


def ignore(replayed: Replay) -> None:
    pass


def simulated(server: Running, **options: Any) -> Replay:
    return simulate(FRAUD, server.url, str(server.log), TOKEN, ignore, **options)


def logged(server: Running, replayed: Replay) -> pd.DataFrame:
    """Return what the log holds of the rows that were answered, in the order in which they were sent."""
    log = read_predictions(server.log / "predictions").set_index("prediction_id")
    return log.loc[[name for name in replayed.ids if name is not None]]


def given(table: pd.DataFrame, url: str, **options: Any) -> Replay:
    columns = [name for name in table if name != "fraud"]
    return replay(url, table, "fraud", columns, token=TOKEN, **options)


def test_the_same_seed_is_the_same_traffic_and_another_is_not(server: Running) -> None:
    options = {"rows": 120, "scenario": "covariate", "start": 9000}
    first, again = simulated(server, **options), simulated(server, **options, batch=7)
    assert first.ids != again.ids
    content = [logged(server, replayed).drop(columns="prediction_time") for replayed in (first, again)]
    assert_frame_equal(*(table.reset_index(drop=True) for table in content))
    assert content[0]["transaction_id"].between(9000, 9119).all()
    other = logged(server, simulated(server, **options, seed=8))
    assert other["amount"].tolist() != content[0]["amount"].tolist()


def test_the_stream_goes_on_behind_the_training_rows_and_sends_no_row_twice(server: Running, tmp_path: Path) -> None:
    assert next_row(FRAUD.data, str(tmp_path)) == 6000
    first = next_row(FRAUD.data, str(server.log))
    replays = [simulated(server, rows=100), simulated(server, rows=100)]
    assert [replayed.start for replayed in replays] == [first, first + 100]
    refused = simulated(server, rows=20, scenario="schema")
    assert refused.answered == 0
    replays.append(simulated(server, rows=50))
    assert replays[2].start >= first + 220
    ids = pd.concat([logged(server, replayed)["transaction_id"] for replayed in replays])
    assert len(ids) > 240
    assert ids.is_unique
    assert ids.min() >= first


def test_labels_follow_with_their_delay_and_are_the_truth(server: Running) -> None:
    table = stream_rows(FRAUD.data, 200, scenario="label", start=8000)
    replayed = given(table, server.url, label_delay=60, batch=7)
    assert (replayed.answered, replayed.labels, replayed.due) == (200, 140, 60)
    labels = read_labels(server.log / "labels").set_index("prediction_id")
    told = [name for name in replayed.ids if name in labels.index]
    assert told == replayed.ids[:140]
    assert labels.loc[told, "label"].astype(int).tolist() == table["fraud"].tolist()[:140]
    assert 0 < table["fraud"][:140].sum() < 140
    answers = logged(server, replayed)["prediction_time"].to_numpy()
    assert (labels.loc[told, "label_time"].to_numpy() > answers[60:]).all()
    late = given(table, server.url, label_delay=1000)
    assert (late.labels, late.due) == (0, 200)
    at_once = given(table, server.url)
    assert (at_once.labels, at_once.due) == (200, 0)


def test_only_the_row_to_blame_is_refused_and_counted_and_on_record(server: Running) -> None:
    table = stream_rows(FRAUD.data, 40)
    table.loc[[3, 17], "amount"] = [-1.0, -2.0]
    table.loc[5, "country"] = "mars"
    before = len(read_refusals(server.log / "refusals"))
    replayed = given(table, server.url, batch=10)
    assert [place for place, name in enumerate(replayed.ids) if name is None] == [3, 5, 17]
    (amount, times), (country, once) = replayed.refused.most_common()
    assert (times, once) == (2, 1)
    assert amount.startswith("'amount' needs a number from 0 to")
    assert country == "'country' needs one of home, neighbour, overseas"
    assert (replayed.answered, replayed.labels, replayed.failed.total()) == (37, 37, 0)
    found = read_refusals(server.log / "refusals").iloc[before:]
    rules = {("amount", "out_of_range"), ("country", "unseen_category")}
    assert set(found[["field", "rule"]].itertuples(index=False, name=None)) == rules


def test_a_changed_schema_is_refused_row_by_row(server: Running) -> None:
    before = len(read_predictions(server.log / "predictions"))
    replayed = simulated(server, rows=25, scenario="schema")
    assert (replayed.answered, replayed.labels, replayed.due) == (0, 0, 0)
    ((sentence, count),) = replayed.refused.items()
    assert count == 25
    assert "no field 'merchant_category'" in sentence
    assert len(read_predictions(server.log / "predictions")) == before
    assert "extra_column" in set(read_refusals(server.log / "refusals")["rule"])


def test_missing_scores_are_sent_as_missing(server: Running) -> None:
    replayed = simulated(server, rows=300, scenario="missing", start=7000)
    assert replayed.answered == 300
    assert logged(server, replayed)["device_score"].isna().mean() > 0.4


def test_labels_that_the_service_does_not_know_are_counted(server: Running) -> None:
    table = stream_rows(FRAUD.data, 20)
    table.loc[[2, 3], "fraud"] = 2
    replayed = given(table, server.url)
    assert (replayed.answered, replayed.labels) == (20, 18)
    assert replayed.refused_labels == {"'fraud' needs one of 0, 1": 2}


def test_a_server_that_goes_away_is_failed_requests_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(traffic, "PAUSE", 0)
    use_case = FRAUD.model_copy(update={"name": "gone"})
    with running(tmp_path, fraud()) as server:
        place = SimpleNamespace(
            token=None,
            log=lambda name: str(server.log),
            status=lambda name: SimpleNamespace(url=server.url) if name == "gone" else None,
        )
        monkeypatch.setattr("loop.deploying.deployer.active", lambda: place)
        assert actions.simulate(use_case, {"rows": 30}) == 0
        assert "30 of 30 rows" in capsys.readouterr().out
        server.server.stop()
        assert actions.simulate(use_case, {"rows": 3000}) == 1
        assert f"{GIVE_UP} requests in a row failed" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no server of 'fraud' runs; .* python run.py --pipeline deployment"):
        actions.simulate(FRAUD, {})


def test_interrupting_ends_it_with_what_there_is(server: Running) -> None:
    def interrupt(replayed: Replay) -> None:
        if len(replayed.ids) == 30:
            raise KeyboardInterrupt

    replayed = given(stream_rows(FRAUD.data, 100), server.url, label_delay=10, progress=interrupt)
    assert (replayed.answered, replayed.labels, replayed.due) == (30, 20, 10)
    assert "Ctrl-C" in replayed.stopped


def test_a_refusal_that_every_request_would_meet_is_a_user_error(server: Running) -> None:
    table = stream_rows(FRAUD.data, 1)
    with pytest.raises(UserError, match=r"\(401\): the header 'Authorization"):
        replay(server.url, table, "fraud", ["amount"], token="wrong")
    with pytest.raises(UserError, match=r"\(404\): no such path"):
        given(table, f"{server.url}/elsewhere")


def test_a_table_without_a_stream_is_drawn_from_by_the_seed(tmp_path: Path) -> None:
    with running(tmp_path, breast_cancer()) as server:
        log = str(server.log)
        replayed = simulate(CANCER, server.url, log, None, ignore, rows=60, seed=3, label_delay=10)
        assert replayed.answered + replayed.refused.total() == 60
        assert replayed.answered > 50
        assert not replayed.failed
        assert next_row(CANCER.data, log) >= 60
        labels = read_labels(server.log / "labels")
        assert set(labels["label"]) == {"benign", "malignant"}
    drawn = stream_rows(CANCER.data, 60, seed=3)
    assert_frame_equal(stream_rows(CANCER.data, 20, seed=3, start=40), drawn[40:].reset_index(drop=True))
    assert not drawn.equals(stream_rows(CANCER.data, 60, seed=4))


@pytest.mark.parametrize(
    ("use_case", "options", "message"),
    [
        (CANCER, {"scenario": "concept"}, "breast_cancer has no scenario 'concept': .* configs/fraud.yaml"),
        (FRAUD, {"scenario": "concpt"}, "did you mean 'concept'"),
        (FRAUD, {"rows": 0}, "--rows must be 1 or more, it is 0"),
        (FRAUD, {"label_delay": -1}, "--label-delay must be 0 or more, it is -1"),
    ],
)
def test_options_that_cannot_be_met_are_refused_before_anything_starts(
    use_case: Config, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_traffic(use_case, **options)


def test_rows_of_a_table_are_told_from_those_of_a_stream() -> None:
    assert is_stream(FRAUD.data)
    assert not is_stream(CANCER.data)
