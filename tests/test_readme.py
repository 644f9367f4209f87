"""What the README tells a reader to type and to look at is there."""

import re
import shlex
from pathlib import Path

import commandline
import config
from config import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
TYPED = [line.split("#")[0].strip() for line in re.findall(r"^    (?:python|make) .*", README, re.M)]


def test_commands_parse_and_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    typed = {line.split()[1] for line in TYPED if line.startswith("make")}
    assert typed == {"training", "demo", "test", "watch", "mlflow"}
    assert set(re.findall(r"`make ([a-z]+)", README)) | typed <= targets
    runs = [line for line in TYPED + re.findall(r"`(python run.py[^`]*)`", README) if "run.py" in line]
    assert len(runs) >= 6
    for line in runs:
        commandline.parser().parse_args(shlex.split(line)[2:])


def test_the_small_use_case_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"^    name: claims\n(?:    .*\n)+", README, re.M)
    path = tmp_path / "claims.yaml"
    path.write_text("\n".join(line[4:] for line in text.splitlines()), encoding="utf-8")
    assert len(text.splitlines()) == 6
    assert config.load(path).gate.minimum == {"roc_auc": 0.8}


def test_knobs_and_places_it_names_exist() -> None:
    for key in (
        "monitoring.false_alarm_rate",
        "monitoring.min_rows",
        "policy.mode",
        "data.id",
        "data.query",
        "data.source",
        "data.options",
        "split.by",
        "gate.margin",
        "contract.rules",
        "model.estimator",
    ):
        assert f"`{key}" in README
        section, field = key.split(".")
        assert field in config.Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    for page in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / page).is_file(), page
    for place in re.findall(r"^    ([a-z]+(?:\.py|/)) |  ([a-z]+/) ", README, re.M):
        assert (ROOT / "".join(place)).exists(), place


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 200
