"""The packages of each stack: pinned together with ours, so that what decides the numbers is the same everywhere."""

import re

import pytest
import yaml

from config import ROOT
from core.bundle import PACKAGES
from stacks import files

EXTRAS = sorted({str(path.relative_to(ROOT)) for path in (ROOT / "stacks").glob("requirements-*.txt")})
SAME = (*PACKAGES, "zenml", "mlflow", "evidently", "bentoml", "skl2onnx", "onnxruntime", "pyarrow", "pydantic")


def pins(path: str) -> dict[str, str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)", text, re.M))


def test_every_stack_that_leaves_this_process_says_what_it_requires() -> None:
    found = {}
    for path in (ROOT / "stacks").glob("*.yaml"):
        stack = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.stem] = stack.get("requires")
        flavor = stack["components"]["orchestrator"][0]["flavor"]
        assert (stack.get("requires") is None) == (flavor == "local" and "server" not in stack), path
    assert {*filter(None, found.values())} == {*EXTRAS, "requirements.txt"}


@pytest.mark.parametrize("path", EXTRAS)
def test_extras_have_every_package_of_ours_and_the_same_numbers(path: str) -> None:
    ours, theirs = pins("requirements.txt"), pins(path)
    assert ours.keys() <= theirs.keys()
    assert {name: theirs[name] for name in SAME} == {name: ours[name] for name in SAME}
    other = {name for name in ours if ours[name] != theirs[name]}
    assert len(other) <= 5, other  # a resolver gave way only where a place's own packages ask for it


def test_files_name_the_same_kinds_in_the_same_order() -> None:
    order = (
        "orchestrator", "artifact_store", "container_registry", "image_builder", "experiment_tracker",
        "model_registry", "data_validator", "model_deployer",
    )  # fmt: skip
    for path in (ROOT / "stacks").glob("*.yaml"):
        if path.stem != "default":  # ZenML's own
            kinds = [*yaml.safe_load(path.read_text(encoding="utf-8"))["components"]]
            assert kinds == [kind for kind in order if kind in kinds], path
            assert {"orchestrator", "artifact_store", "experiment_tracker", "model_deployer"} <= {*kinds}


def test_a_variable_that_is_empty_takes_its_key_along(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZENML_URL", "BUCKET", "MLFLOW_TRACKING_URI", "S3_KEY"):
        monkeypatch.setenv(name, "" if name == "S3_KEY" else "http://127.0.0.1:1")
    (store,) = files.read("server").components["artifact_store"]
    assert "key" not in store.configuration
    monkeypatch.setenv("STACK", "server-staging")
    staged = files.read("server")
    assert {staged.stack_name, *(component.name for component in staged.all)} == {"server-staging"}
