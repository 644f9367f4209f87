"""Monitoring, feedback and retraining, run as a user runs them on a served model."""

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from conftest import Cli, Result, last_run, output
from servers import free_port

from loop.cli import runs
from loop.registry import champions, decisions

FAST = ("data.rows=6000", "model.params.max_iter=20", "model.folds=3", "evaluation.resamples=200")
MONITORING = ("monitoring.window_rows=2000", "monitoring.report=never", "gate.minimum={}")

Loop = Callable[..., Result]


@pytest.fixture
def loop(cli: Cli) -> Iterator[Callable[[str], Loop]]:
    """Train and deploy the fraud stream under a name; return what runs a command for it. Its server is stopped."""
    names: list[str] = []

    def start(name: str, *, deployed: bool = True) -> Loop:
        sets = (f"name={name}", f"serving.port={free_port()}", *FAST, *MONITORING)

        def call(*arguments: str) -> Result:
            changes = [word for change in sets for word in ("--set", change)]
            return cli("--config", "configs/fraud.yaml", *changes, *arguments)

        names.append(name)
        assert call("--pipeline", "training").code == 0
        if deployed:
            assert call("--pipeline", "deployment").code == 0
        return call

    yield start
    for name in names:
        cli("--stop", "--set", f"name={name}")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Listen where ALERT_WEBHOOK points; return what was posted."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/s3cret-path")
        yield posted
        server.shutdown()
        thread.join()


def test_a_model_that_is_not_there_or_not_served_is_one_sentence(cli: Cli, loop: Callable[..., Loop]) -> None:
    for pipeline in ("monitoring", "feedback", "retraining"):
        result = cli("--pipeline", pipeline, "--set", "name=nobody")
        assert result.code == 2
        assert "no champion" in result.err
        assert len(result.err.splitlines()) == 1
    result = cli("--pipeline", "monitoring", "--stack", "default", "--set", "name=nobody")
    assert result.code == 2
    assert "needs a model deployer" in result.err
    call = loop("unserved", deployed=False)
    result = call("--pipeline", "monitoring")
    assert result.code == 0
    assert "no new rows" in result.out
    assert decisions.history("unserved") == []
    assert call("--pipeline", "feedback").code == 0
    assert "no label has come yet" in call("--pipeline", "feedback").out
    result = call("--pipeline", "retraining")
    assert result.code == 2
    assert "there are none" in result.err
    assert decisions.history("unserved") == []  # a retraining that cannot begin costs no budget

    from zenml.client import Client

    watched = Client().get_model_version("unserved", 1).run_metadata["watched_rows"]
    rows = Path(Client().get_artifact_version(UUID(watched)).uri)
    away = rows.rename(rows.with_name("away"))
    result = call("--pipeline", "monitoring")
    away.rename(rows)  # other tests are served it from cache
    assert result.code == 2
    assert "the holdout rows of version 1 of 'unserved' are gone" in result.err
    assert len(result.err.splitlines()) == 1


def test_clean_traffic_is_silent_each_row_is_judged_once_and_prometheus_is_told(loop: Callable[..., Loop]) -> None:
    call = loop("watched")
    assert call("--simulate", "--rows", "2000", "--label-delay", "400").code == 0
    result = call("--pipeline", "monitoring", "--set", "monitoring.report=always")
    assert result.code == 0, result.err
    report, decision = output("window_report"), output("decision")
    assert report.alarms == ()
    assert (report.rows, report.labelled) == (2000, 1600)
    assert "labels for 80% of the rows (1,600 of 2,000)" in report.notes
    assert report.performance["roc_auc"].low < report.estimated["roc_auc"] < report.performance["roc_auc"].high
    assert decision.action == "nothing"
    assert [e.number for e in decisions.history("watched")] == [1]
    pages = runs.LOCAL / "reports/watched"
    assert "no drift" in (pages / "window.html").read_text()
    drawn = (pages / "drift.html").read_text()
    assert "device_score" in drawn
    assert len(drawn) > 1_000_000
    url = next(word for word in call("--status").out.split() if word.startswith("http"))
    metrics = httpx.get(f"{url}/metrics").text
    assert 'monitoring_window_rows{model="watched",version="1"} 2000.0' in metrics
    assert 'monitoring_alarm{kind="concept",model="watched",version="1"} 0.0' in metrics
    assert "monitoring_last_run_timestamp_seconds" in metrics
    again = call("--pipeline", "monitoring")
    assert "no new rows" in again.out
    assert len(decisions.history("watched")) == 1


def test_a_change_alarms_once_at_webhook_or_alerter_and_an_alert_that_cannot_be_sent_fails_no_run(
    loop: Callable[..., Loop],
    webhook: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call = loop("broken")
    call("--simulate", "--rows", "300", "--scenario", "schema")
    result = call("--pipeline", "monitoring")
    assert result.code == 0, result.err
    report = output("window_report")
    assert (report.rows, report.kinds) == (0, ("schema",))
    assert output("alert")["sent"] == "webhook"
    assert call("--pipeline", "monitoring").code == 0
    assert "nothing has changed" in output("alert")["sent"]
    assert len(webhook) == 1
    alert = webhook[0]
    assert (alert["model"], alert["kinds"], alert["version"]) == ("broken", ["schema"], 1)
    assert alert["since"].endswith("Z")
    assert "refused" in alert["text"]
    assert alert["next"].startswith("python run.py --pipeline ")
    assert "s3cret-path" not in caplog.text + result.out + result.err
    assert {e.action for e in decisions.history("broken")} == {"wait"}  # a sender is not mended by training

    call("--simulate", "--rows", "2000")
    assert "600 of 2,600 rows were refused" in call("--pipeline", "monitoring").out  # no window was judged before
    assert len(webhook) == 1
    monkeypatch.setenv("ALERT_WEBHOOK", f"http://127.0.0.1:{free_port()}/s3cret-path")  # where nobody listens
    call("--simulate", "--rows", "2000")
    result = call("--pipeline", "monitoring")
    assert result.code == 0
    assert "not sent: the webhook failed" in result.out
    assert "s3cret-path" not in caplog.text + result.out + result.err

    class Alerter:
        name = "pager"
        posted: tuple[str, ...] = ()

        def post(self, message: str) -> bool:
            self.posted += (message,)
            if len(self.posted) > 1:
                raise RuntimeError("no network")
            return True

    pager = Alerter()
    monkeypatch.setattr("zenml.stack.Stack.alerter", property(lambda stack: pager))
    call("--simulate", "--rows", "2000", "--scenario", "missing")
    assert call("--pipeline", "monitoring").code == 0
    assert output("alert")["sent"] == "alerter pager"
    assert "missing values since" in pager.posted[0]
    call("--simulate", "--rows", "2000")
    assert call("--pipeline", "monitoring").code == 0
    assert output("alert")["sent"] == "not sent: alerter pager raised RuntimeError"
    assert "no alarm any more" in pager.posted[1]


def test_a_person_retrains_from_feedback_and_the_version_can_be_reproduced(loop: Callable[..., Loop]) -> None:
    call = loop("taught")
    call("--simulate", "--rows", "2100", "--label-delay", "100")
    result = call("--pipeline", "feedback")
    assert result.code == 0
    assert "2,000 of 2,100 predictions are labelled (95%)" in result.out
    assert "windows that alarm: 0" in result.out
    assert champions.champion("taught").version == 1  # type: ignore[union-attr]
    before, served = champions.history("taught"), call("--status").out
    other = ("--set", "model.params.max_iter=30", "--set", f"serving.port={free_port()}")
    result = call("--pipeline", "retraining", "--set", "feedback.history=keep", *other)
    assert result.code == 0, result.err
    assert re.search("^recipe +model.params: {.*: 20.*}, as the champion; the config has {.*: 30", result.out, re.M)
    assert champions.load("taught", 2).card.recipe.model.params["max_iter"] == 20
    address = re.search(r"http://[\d.:]+", served)[0]  # type: ignore[index]
    assert f"the server stays at {address.removeprefix('http://')}; for 127.0.0.1:" in result.out
    assert address in call("--status").out
    verdict, retraining = output("verdict", named("taught", "retraining")), decisions.history("taught")[-1]
    assert [group.name for group in verdict.groups] == ["old rows", "new rows"]
    assert verdict.rows == sum(group.rows for group in verdict.groups)
    assert retraining.by == "feedback"
    new = champions.load("taught", 2)
    rows = named("taught", "retraining").steps["split_feedback"].outputs
    train, holdout = (rows[name][0].load() for name in ("train_rows", "holdout_rows"))
    assert not set(train["transaction_id"]) & set(holdout["transaction_id"])
    assert set(train["transaction_id"]) > set(range(4500))  # each row of before is where it was
    assert new.card.contract.reference_rows == (train["transaction_id"] >= 6000).sum()
    assert (champions.evidence("taught", 2)[1]["transaction_id"] >= 6000).all()
    assert call("--reproduce", "2").code == 0
    assert call("--reproduce", "1").code == 0
    promoted = verdict.decision == "promote"
    assert (champions.history("taught") != before) == promoted
    again = call("--pipeline", "feedback")
    assert "24 h between retrainings" in again.out


def test_retraining_goes_on_without_a_champion_whose_files_are_gone(loop: Callable[..., Loop]) -> None:
    from zenml.client import Client

    call = loop("orphan")
    call("--simulate", "--rows", "1200")
    for artifact in ("model", "stand_in"):
        shutil.rmtree(Client().get_model_version("orphan", 1).get_artifact(artifact).uri)  # type: ignore[union-attr]
    result = call("--pipeline", "monitoring")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    result = call("--pipeline", "retraining", "--set", "feedback.history=keep", "--set", "model.params.max_iter=30")
    assert result.code == 0, result.err
    verdict = output("verdict", named("orphan", "retraining"))
    assert verdict.reasons[0].endswith("no prediction of these rows is on record: judged like a first model")
    assert champions.champion("orphan").version == 2  # type: ignore[union-attr]
    (line,) = (line for line in call("--status").out.splitlines() if line.startswith("orphan "))
    assert line.split()[:4] == ["orphan", "running,", "version", "2,"]


def named(name: str, pipeline: str) -> Any:
    """Return the newest run of a pipeline for a model."""
    from zenml.client import Client

    found = Client().list_pipeline_runs(sort_by="desc:created", name=f"startswith:{pipeline}-{name}-", hydrate=True)
    return found.items[0]


def test_an_older_logs_rows_are_left_out_and_said(loop: Callable[..., Loop]) -> None:
    call = loop("renewed")
    call("--simulate", "--rows", "700")
    call("--pipeline", "training", "--set", "model.params.max_iter=30", "--set", "gate.margin=0.5")
    assert champions.champion("renewed").version == 2  # type: ignore[union-attr]
    result = call("--pipeline", "monitoring")
    assert result.code == 0
    assert "700 rows that another version answered are left out; deploy the champion" in " ".join(result.out.split())
    assert last_run().status.value == "completed"
