"""What the README tells a reader to type and to look at is there."""

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

from loop import config
from loop.cli import actions, commandline
from loop.config import ROOT

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
        commandline.chosen(commandline.parser().parse_args(shlex.split(line)[2:]))


def test_make_help_lists_every_word_and_the_first_is_training() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (words,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.M)
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines()
    assert sorted(line.split()[1] for line in listed) == sorted(words.split())
    assert all(len(line.split()) > 3 for line in listed)
    assert listed[0].startswith("make training ")


def test_what_the_makefile_starts_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {*re.findall(r"\$\(PY\) ([\w/]+\.py)", makefile)} == {"run.py"}  # others need the root on their path
    modules = {*re.findall(r"\$\(PY\) -m ([a-z.]+)", makefile)} - {"pip", "pytest"}
    assert modules == {"loop.cli.dashboard", "loop.cli.demo", "loop.cli.watch"}
    assert all(importlib.util.find_spec(module) for module in modules)
    (code,) = re.findall(r"\$\(PY\) -c '(.*stop_all.*)'", makefile)
    compile(code, "Makefile", "exec")
    assert callable(actions.stop_all)


def test_the_version_is_the_newest_of_the_changelog() -> None:
    newest = re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == newest


def test_pages_for_whoever_works_here_name_what_is_there() -> None:
    parsed = 0
    for page in ("AGENTS.md", "docs/CONTRIBUTING.md", "docs/SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(r"\]\((?!https:)([^)#]+)\)", text):
            assert ((ROOT / page).parent / path).exists(), (page, path)
        for word in re.findall(r"\bmake ([a-z-]+)", text):
            assert f"\n{word}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), (page, word)
        for line in re.findall(r"^    (python run\.py (?!--help).*)$", text, re.M):
            given = commandline.parser().parse_args(shlex.split(line, comments=True)[2:])
            parsed += commandline.chosen(given) is not None
    assert parsed >= 5


def test_the_rooms_of_the_engine_stand_in_the_order_that_their_imports_have() -> None:
    table = (ROOT / "AGENTS.md").read_text(encoding="utf-8").partition("## Words")[0]
    rooms = [room.rstrip("/").removesuffix(".py") for room in re.findall(r"^\| `(loop/[\w/.]+)` \|", table, re.M)]
    (contract, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [layer.replace(".", "/") for layer in contract["layers"] if layer.startswith("loop.")]
    assert rooms == [layer for layer in reversed(layers) if layer not in ("loop/paged", "loop/variables")]
    held = {f"loop/{path.stem}" for path in (ROOT / "loop").glob("[a-z]*")}
    assert held == {*layers}  # none is left out


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
