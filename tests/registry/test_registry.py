"""Who is champion: the append-only log, rollback, and what tampering does."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Cli, Result, Trained, output

from loop.cli import runs
from loop.config import ROOT, UserError, load
from loop.registry import champions

Train = Callable[..., Result]

WEAK = "model.params={C: 0.00001}"


@pytest.fixture
def two_champions(train: Train) -> Callable[[str], None]:
    """Promote version 1, then the better version 2."""

    def call(name: str) -> None:
        train(name, WEAK, "gate.minimum={}")
        train(name)
        assert [e.version for e in champions.history(name)] == [1, 2]

    return call


def test_rollback_makes_the_previous_champion_current_and_records_why(
    cli: Cli, two_champions: Callable[[str], None]
) -> None:
    from mlflow import MlflowClient
    from zenml.client import Client

    two_champions("back")
    result = cli("--rollback", "--reason", "alarms at night", "--set", "name=back")
    assert result.code == 0
    assert "version 1 of back is champion again" in result.out
    assert Client().get_model_version("back", "production").number == 1
    mlflow = MlflowClient(Client().active_stack.experiment_tracker.get_tracking_uri())
    assert mlflow.get_model_version_by_alias("back", "champion").tags["zenml_version"] == "1"
    entry = champions.history("back")[-1]
    assert (entry.kind, entry.version, entry.replaces, entry.reasons) == (
        "rollback",
        1,
        2,
        ("alarms at night",),
    )
    history = cli("--history", "--set", "name=back").out
    assert "alarms at night" in history
    assert history.count("UTC  version") == 3
    assert cli("--rollback", "--set", "name=back").code == 2  # version 1 was the first
    forward = cli("--rollback", "2", "--reason", "it was the sensor", "--set", "name=back")
    assert forward.code == 0
    assert champions.champion("back").version == 2  # type: ignore[union-attr]


def test_a_rolled_back_model_does_not_come_back_by_training_again(
    cli: Cli, train: Train, two_champions: Callable[[str], None]
) -> None:
    two_champions("gone")
    cli("--rollback", "--reason", "unfair to group B", "--set", "name=gone")
    dry = train("gone", options=("--dry-run",))
    assert "hold, in a dry run" in dry.out
    assert "unfair to group B" in " ".join(dry.out.split())
    train("gone")
    registration = output("registration")
    assert (registration.decision, registration.version, registration.champion) == ("hold", 2, 1)
    assert "unfair to group B" in registration.reasons[0]
    verdict = output("verdict")
    assert (verdict.decision, verdict.reasons) == ("hold", registration.reasons)
    page = (runs.LOCAL / "reports/gone/verdict.html").read_text(encoding="utf-8")
    assert '<span class="hold">hold</span>' in page
    assert "unfair to group B" in page
    train("gone", "model.params={C: 0.9, max_iter: 1000}")  # another model: promoted, and not without a word
    registration = output("registration")
    assert (registration.decision, registration.champion) == ("promote", 3)
    assert registration.reasons[0].startswith("version 2 was rolled back on ")
    assert registration.reasons[0].endswith("none was promoted since: see that this one has not the same fault")
    train("gone", "model.params={C: 1.1, max_iter: 1000}", "gate.margin=0.5")
    assert "rolled back" not in output("registration").reasons[0]
    cli(
        "--rollback", "2", "--reason", "it was fair after all", "--set", "name=gone"
    )  # nothing against the one it replaces
    train("gone", "model.params={C: 1.2, max_iter: 1000}", "gate.margin=0.5")
    assert "rolled back" not in output("registration").reasons[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rollback",), "no champion yet"),
        (("--history",), "no champion yet"),
        (("--reproduce", "1"), "no model 'never' is registered"),
    ],
)
def test_asking_before_the_first_training_is_one_line(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    result = cli(*arguments, "--set", "name=never")
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


@pytest.fixture
def promoted(cli: Cli) -> Callable[[str], None]:
    """Write into the log that version 1 is champion."""

    def call(name: str) -> None:
        cli("--status")  # the stack is applied
        champions.promote(name, 1, "0" * 64, replaces=None, reasons=("alone",))

    return call


def test_only_one_of_two_promotions_from_the_same_champion_wins(promoted: Callable[[str], None]) -> None:
    promoted("race")
    champions.promote("race", 7, "f" * 64, replaces=1, reasons=("first",))
    with pytest.raises(champions.ChampionChanged):
        champions.promote("race", 8, "e" * 64, replaces=1, reasons=("second",))
    assert [e.version for e in champions.history("race")] == [1, 7]


def test_a_promotion_in_the_same_instant_is_told_apart_by_the_log_itself(
    promoted: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted("instant")
    seen = champions.champion("instant")
    champions.promote("instant", 7, "f" * 64, replaces=1, reasons=("first",))
    monkeypatch.setattr(champions, "champion", lambda name: seen)  # it looked before the other one wrote
    with pytest.raises(champions.ChampionChanged):
        champions.promote("instant", 8, "e" * 64, replaces=1, reasons=("second",))
    assert [e.version for e in champions.history("instant")] == [1, 7]


def model_files(name: str) -> Path:
    from zenml.client import Client

    artifact = Client().get_model_version(name, 1).get_artifact("model")
    assert artifact is not None
    return Path(artifact.uri)


@pytest.mark.parametrize("file", ["model.pkl", "card.json"])
def test_a_champion_tampered_with_is_refused_and_stays_on_record(train: Train, champion: Trained, file: str) -> None:
    path = model_files(champion.name) / file
    stored = path.read_bytes()
    path.write_bytes(stored.replace(b"0.1", b"0.7") + b" ")
    try:
        result = train(champion.name)
        assert result.code == 2
        assert "was changed after it was stored" in result.err
        with pytest.raises(UserError, match="changed"):
            champions.load(champion.name, 1)
        assert [e.version for e in champions.history(champion.name)] == [1]
    finally:
        path.write_bytes(stored)


def test_reproduce_gives_the_same_model_bit_for_bit(cli: Cli, champion: Trained) -> None:
    result = cli("--reproduce", "1", "--set", f"name={champion.name}")
    assert result.code == 0, result.out + result.err
    assert "bit for bit" in result.out
    unknown = cli("--reproduce", "9", "--set", f"name={champion.name}")
    assert unknown.code == 2
    assert "it has 1" in unknown.err


def test_reproduce_exits_1_and_names_what_differs(cli: Cli, champion: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    import model.features

    real = model.features.preprocessing

    def changed(features):  # type: ignore[no-untyped-def]
        return real(dict(list(features.items())[1:]))

    monkeypatch.setattr(model.features, "preprocessing", changed)
    result = cli("--reproduce", "1", "--set", f"name={champion.name}")
    assert result.code == 1
    assert "different: model file" in result.out
    assert "different: predictions on the" in result.out


def test_the_recipe_in_production_is_the_champions_at_the_costs_of_today(champion: Trained) -> None:
    changes = [f"name={champion.name}", "model.params={C: 7}", "model.threshold.false_negative=3"]
    settled, differences = champions.in_production(load(ROOT / "configs/breast_cancer.yaml", changes))
    recipe = output("model", champion.run).card.recipe.model
    assert settled.model.params == recipe.params
    assert (settled.model.threshold.by, settled.model.threshold.costs) == (recipe.threshold.by, (1, 3))
    assert [line.partition(":")[0] for line in differences] == ["model.params"]


def test_looks_at_a_holdout_are_counted_and_the_level_is_spent_over_them(cli: Cli, train: Train) -> None:
    def judged(*changes: str) -> tuple[float, float, bool]:
        assert train("looked", "gate.minimum={}", *changes).code == 0
        verdict = output("verdict")
        return verdict.look, verdict.conditions[0].confidence, verdict.decision == "promote"

    fewer = "data.rows=300"
    assert judged(fewer) == (1, pytest.approx(0.975), True)
    weak, weaker = "model.params={C: 0.00001}", "model.params={C: 0.00002}"
    assert judged(fewer, weak)[::2] == (1, False)  # a promotion spends nothing
    assert judged(fewer, weaker, "gate.promote=off") == (2, pytest.approx(1 - 0.05 / 6), False)
    assert any(reason.startswith("look 2 at these") for reason in output("registration").reasons)
    assert judged(fewer, weak)[0] == 1  # the same model again is no new look
    shown = " ".join(cli("--history", "--set", "name=looked").out.split())
    assert "look 2 at its holdout rows, not passed" in shown
    assert (
        "next: look 3 at the holdout rows of version 3, judged at one-sided 99.5833 %; new rows bring new level"
        in shown
    )
    look, confidence, _ = judged("model.params={C: 0.00003}")  # of more rows, which nobody has looked at
    assert 1.5 < look < 2.5
    assert confidence == pytest.approx(1 - 0.05 / (look * (look + 1)))
