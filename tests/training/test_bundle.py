import pickle
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn
from tables import mixed, recipe, trained

from loop.config import ROOT, UserError
from loop.training.bundle import CARD, MODEL, Bundle, cache_key, code_fingerprint, sha256

BUNDLE, HOLDOUT = trained(mixed(), recipe())


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_is_the_same_after_writing_and_reading(tmp_path: Path, target: str) -> None:
    bundle, holdout = trained(mixed(), recipe(target))
    bundle.write(tmp_path)
    again = Bundle.read(tmp_path)
    assert again == bundle
    assert (again.fingerprint, again.content_hash) == (bundle.fingerprint, bundle.content_hash)
    np.testing.assert_array_equal(again.scores(holdout), bundle.scores(holdout))


def test_a_tampered_model_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    BUNDLE.write(tmp_path)
    content = pickle.dumps(Trap(tmp_path / "sprung"))
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(UserError, match=r"the model file of 'kreuz_und_quer' is not the one that was trained"):
        Bundle.read(tmp_path).scores(HOLDOUT)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(content)
    assert (tmp_path / "sprung").exists()  # the trap works


def test_a_tampered_card_has_another_content_hash(tmp_path: Path) -> None:
    BUNDLE.write(tmp_path)
    card = (tmp_path / CARD).read_text()
    (tmp_path / CARD).write_text(card.replace('"positive": "nein"', '"positive": "ja"'))
    assert Bundle.read(tmp_path).content_hash != BUNDLE.content_hash


def test_a_model_of_another_scikit_learn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sklearn.base, "__version__", "9.9")
    with pytest.raises(UserError, match=rf"needs scikit-learn {sklearn.__version__}, here is 9\.9; install"):
        _ = replace(BUNDLE).pipeline


def test_a_model_whose_package_is_not_here_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("gone_package")
    package.Model = type("Model", (), {"__module__": "gone_package"})  # type: ignore[attr-defined]
    with monkeypatch.context() as installed:
        installed.setitem(sys.modules, "gone_package", package)
        content = pickle.dumps(package.Model())
    lost = Bundle(BUNDLE.card.model_copy(update={"model": sha256(content)}), content)
    assert lost.fault.endswith("ModuleNotFoundError: No module named 'gone_package'")
    with pytest.raises(UserError, match="gone_package"):
        _ = lost.pipeline


def test_steps_are_cached_for_the_packages_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here = cache_key()
    assert here == cache_key()
    monkeypatch.setattr("loop.training.bundle.environment", lambda: {"scikit-learn": "9.9"})
    assert cache_key() != here


def test_a_card_of_a_later_version_is_refused_in_one_line(tmp_path: Path) -> None:
    BUNDLE.write(tmp_path)
    (tmp_path / CARD).write_text((tmp_path / CARD).read_text().replace('"threshold"', '"later": 1, "threshold"', 1))
    with pytest.raises(UserError, match="written by a later version"):
        Bundle.read(tmp_path)


def test_the_fingerprint_is_of_the_model_and_its_threshold() -> None:
    def fingerprint(**card: object) -> str:
        return replace(BUNDLE, card=BUNDLE.card.model_copy(update=card)).fingerprint

    assert fingerprint(threshold=0.123) != BUNDLE.fingerprint
    assert fingerprint(model=sha256(b"another")) != BUNDLE.fingerprint
    assert fingerprint(environment={}, code="another") == BUNDLE.fingerprint


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_a_row_scores_the_same_wherever_it_stands(target: str) -> None:
    bundle, holdout = trained(mixed(), recipe(target))
    scores = bundle.scores(holdout)
    alone = [bundle.scores(holdout[i : i + 1])[0] for i in range(20)]
    np.testing.assert_array_equal(alone, scores[:20])
    backwards = holdout[::-1][holdout.columns[::-1]].assign(neu=1)
    np.testing.assert_array_equal(bundle.scores(backwards), scores[::-1])
    np.testing.assert_array_equal(bundle.scores(holdout.drop(columns=["ja", "art", "preis"])), scores)
    as_text = holdout.astype({"alter": "str", "seit": "str"}).replace({"alter": "nan", "seit": "NaT"}, None)
    np.testing.assert_array_equal(bundle.scores(as_text), scores)


def test_refuses_rows_without_a_column() -> None:
    with pytest.raises(UserError, match=r"the model needs column 'alter'; .* did you mean 'altr'\?"):
        BUNDLE.scores(HOLDOUT.rename(columns={"alter": "altr"}))


def test_predictions_carry_what_the_card_says() -> None:
    predictions = BUNDLE.predictions(HOLDOUT)
    assert predictions.labels == ("ja", "nein")
    assert predictions.threshold == BUNDLE.card.threshold
    assert predictions.truth.tolist() == (HOLDOUT["ja"] == "nein").astype(int).tolist()


def test_the_code_fingerprint_follows_the_code_that_a_model_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    for name in ("loop", "model"):
        shutil.copytree(ROOT / name, tmp_path / name)
    here = code_fingerprint()
    monkeypatch.setattr("loop.training.bundle.ROOT", tmp_path)
    assert code_fingerprint() == here
    for name in ("loop/cli/traffic.py", "loop/watching/drift.py", "loop/pages/templates/verdict.html"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        assert code_fingerprint() == here  # it makes no other model
    seen = {here}
    for name in ("loop/training/gate.py", "loop/serving/Dockerfile", "model/features.py", "requirements.txt"):
        with (tmp_path / name).open("a") as file:
            file.write("\n")
        seen.add(code_fingerprint())
    (tmp_path / "loop/training/gate.py").rename(tmp_path / "loop/training/gates.py")
    assert len({*seen, code_fingerprint()}) == 6
