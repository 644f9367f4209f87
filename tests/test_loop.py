"""The whole loop, with the assertions of `make demo`: drift is injected, found, learned, and gone."""

from pathlib import Path

import pytest
from conftest import Cli

from loop.cli import demo
from loop.registry import champions, decisions

pytestmark = pytest.mark.loop


def test_the_loop_closes_by_itself(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.play("looped", tmp_path / "demo.log")
    timeline = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in timeline] == [
        "train", "deploy", "traffic", "monitor", "traffic", "monitor", "policy", "traffic", "monitor", "feedback",
        "gate", "switch", "traffic", "recovered", "monitor",
    ]  # fmt: skip
    assert [(e.by, e.kinds, e.action) for e in decisions.history("looped")] == [
        ("monitoring", (), "nothing"),
        ("monitoring", ("concept",), "wait"),
        ("monitoring", ("concept",), "retrain"),
        ("feedback", (), "retrain"),
        ("monitoring", (), "nothing"),
    ]
    assert [e.version for e in champions.history("looped")] == [1, 2]


def test_what_does_not_hold_ends_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = demo.Loop("held", tmp_path / "demo.log")
    with pytest.raises(demo.Failed, match="monitor: silent"):
        loop.say("monitor", "silent", holds=False)
    assert "✗ monitor" in capsys.readouterr().out


def test_a_world_that_comes_back_brings_its_champion_back_and_nothing_is_trained(cli: Cli, tmp_path: Path) -> None:
    loop = demo.Loop("returned", tmp_path / "demo.log")
    loop.changes += ["policy.cooldown_hours=0", "gate.minimum.roc_auc=0.7"]  # a floor that both worlds clear
    loop.do("--pipeline", "training")
    loop.do("--pipeline", "deployment")
    try:
        for scenario in ("concept", "concept", "none", "none"):
            traffic = ("--rows", str(demo.ROWS), "--label-delay", str(demo.LABEL_DELAY))
            loop.do("--simulate", "--scenario", scenario, *traffic)
            loop.do("--pipeline", "monitoring")  # the second of each world retrains, judges and deploys
        served = loop.do("--status")
    finally:
        loop.do("--stop")
    entries = champions.history("returned")
    assert [e.version for e in entries] == [1, 2, 1]
    assert entries[-1].reasons[0].startswith("v1 is brought back, and nothing was trained: ")
    assert len(champions.versions("returned")) == 2
    assert "version 1" in served
