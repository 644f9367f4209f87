"""The packages of each stack: pinned together with ours, so that what decides the numbers is the same everywhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Cli

from loop.config import ROOT
from loop.places import files, plan
from loop.training.bundle import PACKAGES

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


# Kubeflow's flavor imports the package kubernetes to read its own settings.
STACKS = [
    pytest.param(name, marks=pytest.mark.stacks) if name == "kubeflow" else name
    for name in sorted({path.stem for path in (ROOT / "stacks").glob("*.yaml")} - {"default"})
]
VARIABLES = (
    "ZENML_URL", "BUCKET", "CONTAINER", "REGISTRY", "MLFLOW_TOKEN", "AIRFLOW_DAGS", "KUBE_CONTEXT", "KUBEFLOW_HOST",
    "SAGEMAKER_ROLE", "GCP_PROJECT", "VERTEX_SERVICE_ACCOUNT", "AZURE_SUBSCRIPTION", "AZURE_RESOURCE_GROUP",
    "AZURE_WORKSPACE",
)  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_zenml_itself_imports_the_exported_file(
    name: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner
    from zenml.cli.stack import import_stack
    from zenml.client import Client

    for variable in VARIABLES:
        monkeypatch.setenv(variable, "a-value")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("ECR", "123456789012.dkr.ecr.us-east-1.amazonaws.com")
    monkeypatch.setenv("ACR", "images.azurecr.io")
    monkeypatch.setenv("ARTIFACT_REGISTRY", "europe-west1-docker.pkg.dev/a-project/images")
    monkeypatch.setenv("STACK", f"imported-{name}")
    result = cli("--stack", name, "--export")
    assert result.code == 0, result.err
    cli("--status")  # starts ZenML
    client, exported = Client(), yaml.safe_load(result.out)
    for flavor, source in plan.FLAVORS.items():
        if not client.list_flavors(name=f"equals:{flavor}", type="model_deployer").items:
            client.create_flavor(source, "model_deployer")
    for component in [component for listed in exported["components"].values() for component in listed]:
        component["name"] = f"imported-{name}"
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(exported), encoding="utf-8")
    done = CliRunner().invoke(import_stack, [f"imported-{name}", "--filename", str(path)])
    assert done.exit_code == 0, done.output
    made = client.get_stack(f"imported-{name}")
    assert {kind.value: listed[0].flavor_name for kind, listed in made.components.items() if kind != "log_store"} == {
        kind: listed[0]["flavor"] for kind, listed in exported["components"].items()
    }


def test_the_exported_file_says_what_a_fresh_home_needs_before_it_imports_it(cli: Cli, tmp_path: Path) -> None:
    text = cli("--stack", "docker", "--export").out
    (command,) = re.findall(r"^# first, in this project's folder: (zenml .*)$", text, re.M)
    (tmp_path / "docker.yaml").write_text(text, encoding="utf-8")
    world = {name: value for name, value in os.environ.items() if not name.startswith("ZENML_")}
    world |= {"ZENML_CONFIG_PATH": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    follow = f"{command} && zenml stack import {tmp_path}/docker.yaml && zenml stack describe docker"
    done = subprocess.run(follow, shell=True, cwd=ROOT, env=world, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_export_names_the_variables_that_are_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZENML_URL", "MLFLOW_TRACKING_URI"):  # MLflow sets its own in this process
        monkeypatch.delenv(name, raising=False)
    result = cli("--stack", "server", "--export")
    assert result.code == 2
    assert "stack server cannot be exported: set the variables BUCKET, MLFLOW_TRACKING_URI, ZENML_URL" in result.err
