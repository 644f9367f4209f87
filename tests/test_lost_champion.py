"""A champion that is gone, or that today's libraries refuse, blocks nothing, and one line says what happened."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sklearn
from conftest import Cli, Result, output

import loop.training.bundle
from loop.config import UserError
from loop.registry import champions

Train = Callable[..., Result]

WEAK = "model.params={C: 0.00001}"
COMPARED = "compared with its recorded predictions on"


def files(name: str, version: int, artifact: str = "model") -> Path:
    from zenml.client import Client

    found = Client().get_model_version(name, version).get_artifact(artifact)
    assert found is not None
    return Path(found.uri)


def versions(name: str) -> list[int]:
    return [entry.version for entry in champions.history(name)]


def test_what_needs_a_lost_champion_says_so_in_one_line_and_an_earlier_one_can_be_current_again(
    cli: Cli, train: Train
) -> None:
    train("lost", WEAK, "gate.minimum={}")
    train("lost")
    assert versions("lost") == [1, 2]
    files("lost", 2).rename(kept := files("lost", 2).with_name("kept"))
    for asked in (("--pipeline", "deployment"), ("--reproduce", "2")):
        result = cli(*asked, "--set", "name=lost")
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
        assert "version 2 of 'lost' cannot be loaded (" in result.err
        assert str(files("lost", 2)) in result.err
    assert cli("--history", "--set", "name=lost").code == 0
    assert cli("--rollback", "1", "--reason", "its files are gone", "--set", "name=lost").code == 0
    assert champions.load_champion("lost")[0] == 1  # type: ignore[index]
    back = cli("--rollback", "2", "--set", "name=lost")
    assert back.code == 2
    assert len(back.err.splitlines()) == 1
    kept.rename(files("lost", 2))
    assert cli("--rollback", "2", "--set", "name=lost").code == 0
    assert versions("lost") == [1, 2, 1, 2]
    assert champions.load_champion("lost")[0] == 2  # type: ignore[index]


def test_training_the_same_model_again_puts_the_lost_files_back(cli: Cli, train: Train) -> None:
    train("found")
    before = champions.load("found", 1)
    shutil.rmtree(files("found", 1))
    result = train("found")  # with the cache, which knows the fit of before
    assert result.code == 0, result.err
    assert output("registration").reasons[0] == "it is the same model as champion v1"
    assert output("registration").reasons[-1].startswith("the files of version 1 were gone; those of this run")
    assert champions.load("found", 1) == before
    assert cli("--reproduce", "1", "--set", "name=found").code == 0


def test_a_better_model_is_compared_with_what_the_lost_champion_said_and_replaces_it(train: Train) -> None:
    train("replaced", WEAK, "gate.minimum={}")
    shutil.rmtree(files("replaced", 1))
    assert train("replaced").code == 0
    registration, verdict = output("registration"), output("verdict")
    assert (registration.decision, registration.champion, verdict.champion_version) == ("promote", 2, 1)
    assert f"{COMPARED} {verdict.rows} common rows" in registration.reasons[0]
    assert "against champion v1" in registration.reasons[1]
    assert output("contract_report").compared_with == 1
    shutil.rmtree(files("replaced", 2))
    bad = train("replaced", "model={estimator: sklearn.dummy.DummyClassifier}", "gate.minimum={}")
    assert bad.code == 0
    assert (output("registration").decision, output("registration").champion) == ("reject", 2)
    assert champions.champion("replaced").version == 2  # type: ignore[union-attr]


def test_with_its_record_lost_too_a_model_is_judged_like_a_first_one(train: Train) -> None:
    train("nothing", WEAK, "gate.minimum={}")

    def lose() -> None:
        for artifact in ("model", "stand_in"):
            shutil.rmtree(files("nothing", 1, artifact))

    lose()
    assert train("nothing", WEAK, "gate.minimum={}").code == 0
    assert output("registration").reasons[0] == "it is the same model as champion v1"
    assert versions("nothing") == [1]
    assert files("nothing", 1, "stand_in").is_dir()
    lose()
    assert train("nothing").code == 0
    assert versions("nothing") == [1, 2]
    assert output("registration").reasons[0].endswith("judged like a first model")
    assert output("contract_report").compared_with is None


def test_a_record_that_was_changed_is_refused(train: Train) -> None:
    train("forged")
    shutil.rmtree(files("forged", 1))
    card = files("forged", 1, "stand_in") / "card.json"
    card.write_text(card.read_text().replace('"C": 0.1', '"C": 0.2'))
    result = train("forged")
    assert result.code == 2
    assert "were changed after they were stored" in result.err
    with pytest.raises(UserError, match="were changed"):
        champions.find_rival("forged")


def test_scikit_learn_changed_by_one_patch_and_back_always_has_a_way_forward(
    cli: Cli, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train("patched")
    here = sklearn.__version__
    later = f"{here}1"
    environment = loop.training.bundle.environment()
    with monkeypatch.context() as changed:
        changed.setattr(sklearn.base, "__version__", later)
        changed.setattr(loop.training.bundle, "environment", lambda: environment | {"scikit-learn": later})
        refused = cli("--pipeline", "deployment", "--set", "name=patched")
        assert refused.code == 2
        assert f"needs scikit-learn {here}, here is {later}" in refused.err
        assert len(refused.err.splitlines()) == 1
        assert train("patched").code == 0
        registration = output("registration")
        assert (registration.decision, registration.champion) == ("promote", 2)
        said = f"champion v1 cannot be loaded (needs scikit-learn {here}, here is {later}): {COMPARED}"
        assert registration.reasons[0].startswith(said)
        assert champions.load_champion("patched")[0] == 2  # type: ignore[index]
        train("patched")
        assert output("registration").reasons[0] == "it is the same model as champion v2"
    assert cli("--pipeline", "deployment", "--set", "name=patched").code == 2
    assert train("patched").code == 0
    assert versions("patched") == [1, 2, 1]
    assert f"needs scikit-learn {later}, here is {here}" in output("registration").reasons[0]
    assert champions.load_champion("patched")[0] == 1  # type: ignore[index]
