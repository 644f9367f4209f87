"""Stack files: what applying one would do, all that stands in its way at once, and nothing done before it can be."""

import importlib.metadata
import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli, untried

from loop.cli import dashboard
from loop.deploying import containers
from loop.places import files

Write = Callable[..., str]

S3 = {"flavor": "s3", "configuration": {"path": "s3://models", "key": "{{store.key}}"}}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a stack file where `--stack` looks for it; return its name."""
    monkeypatch.setattr(files, "STACKS", tmp_path)

    def call(name: str, version: str | None = None, **given: Any) -> str:
        local = {"flavor": "local", "configuration": {}}
        ours = {key: given.pop(key) for key in ("requires", "server", "run") if key in given}
        given = {"orchestrator": local, "artifact_store": local} | given
        listed = {kind: [{"name": name, "type": kind} | what] for kind, what in given.items()}
        content = {
            "zenml_version": version or importlib.metadata.version("zenml"),
            "stack_name": name,
            "components": listed,
            **ours,
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return name

    return call


@pytest.fixture
def listening() -> Iterator[str]:
    """Yield the URL of something that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def stacks() -> set[str]:
    from zenml.client import Client

    return {stack.name for stack in Client().list_stacks(size=1000).items}


def test_the_plan_says_what_would_be_created_changed_and_left_and_does_none_of_it(cli: Cli, write: Write) -> None:
    tracker = {"flavor": "mlflow", "configuration": {}}
    name = write("planned", experiment_tracker=tracker)
    result = cli("--stack", name, "--plan")
    assert result.code == 0, result.err
    assert result.out.splitlines() == [
        "create orchestrator planned",
        "create artifact_store planned",
        "create experiment_tracker planned",
        "create stack planned",
    ]
    assert name not in stacks()
    assert cli("--stack", name, "--status").code == 2  # applied; it has no deployer to ask
    assert name in stacks()
    assert {line.split()[0] for line in cli("--stack", name, "--plan").out.splitlines()} == {"leave"}
    tracker["configuration"] = {"tracking_uri": "http://127.0.0.1:1", "tracking_token": "t0ken"}
    result = cli("--stack", write("planned", experiment_tracker=tracker), "--plan")
    assert "change experiment_tracker planned: tracking_token, tracking_uri" in result.out
    assert "t0ken" not in result.out + result.err
    assert result.out.count("leave") == 3


def test_all_that_is_missing_is_named_at_once_and_nothing_is_made(cli: Cli, write: Write) -> None:
    name = write(
        "faulty",
        version="0.1.0",
        orchestrator={"flavor": "lokal", "configuration": {}},
        artifact_store={"flavor": "local", "configuration": {"pathh": "${NO_SUCH_PLACE}"}},
        experiment_tracker={
            "flavor": "mlflow",
            "configuration": {"tracking_username": "me", "tracking_password": "{{no_such_secret.password}}"},
        },
    )
    for arguments in (("--plan",), ("--history",)):
        result = cli("--stack", name, *arguments)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
        for fault in (
            "set the variable NO_SUCH_PLACE",
            "the file is for ZenML 0.1.0",
            "no flavor 'lokal'",
            "did you mean 'local'?",
            "no key 'pathh'",
            "did you mean 'path'?",
            "zenml secret create no_such_secret --password=…",
        ):
            assert fault in result.err, fault
    assert name not in stacks()


LOCAL = {"flavor": "local", "configuration": {}}
UNREADABLE = {
    "a kind misspelt": ({"model_registri": LOCAL}, "no kind 'model_registri' of component; among", "'model_registry'?"),
    "a key misspelt": ({"serverr": "http://x"}, "no key 'serverr'", "did you mean 'server'?"),
    "a key of run": ({"run": {"setings": {}}}, "no key 'run.setings'", "did you mean 'settings'?"),
    "a key of a component": (
        {"artifact_store": LOCAL | {"flavour": "s3"}},
        "no key 'components.artifact_store.0.flavour'",
        "did you mean 'flavor'?",
    ),
    "no artifact store": ({"artifact_store": None}, "needs orchestrator and artifact_store", "no artifact_store"),
    "a relative path": (
        {"artifact_store": {"flavor": "local", "configuration": {"path": "artifacts"}}},
        "artifact_store 'odd' needs a URL or an absolute path",
        "it is 'artifacts'",
    ),
    "another kind's": ({"alerter": LOCAL | {"type": "orchestrator"}}, "'odd' is of type orchestrator", "alerter"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_file_that_is_no_stack_is_told_in_one_line_before_anything_is_made(
    cli: Cli, write: Write, tmp_path: Path, fault: str
) -> None:
    given, *words = UNREADABLE[fault]
    write("odd")
    path = tmp_path / "odd.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in given.items():
        if key in ("serverr", "run"):
            content[key] = value
        elif value is None:
            del content["components"][key]
        else:
            content["components"][key] = [{"name": "odd", "type": key} | value]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    result = cli("--stack", "odd", "--plan")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    for word in words:
        assert word in result.err


def test_the_kinds_of_components_are_zenmls() -> None:
    from zenml.enums import StackComponentType

    assert set(files.KINDS) == set(StackComponentType.values())


def test_packages_that_are_missing_or_of_another_version_say_how_to_install_them(
    cli: Cli, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    name = write("remote", artifact_store=S3, requires="stacks/requirements-server.txt")
    monkeypatch.setattr(
        files.Stack, "packages", lambda stack: ["no-such-package==1", "pyyaml==0.1 ; python_version > '3'"]
    )
    result = cli("--stack", name, "--plan")
    assert result.code == 2
    fix = "pip install -r stacks/requirements-server.txt"
    assert f"packages are missing or of another version (no-such-package, pyyaml 0.1): {fix}" in result.err


def test_variables_and_their_defaults_are_filled_in_and_secrets_stay_references(
    cli: Cli, write: Write, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = {
        "flavor": "mlflow",
        "configuration": {
            "tracking_uri": "${TRACKING_HOST}/${TRACKING_PATH:-mlflow}",
            "tracking_token": "{{tracking.token}}",
        },
    }
    name = write("filled", experiment_tracker=tracker)
    monkeypatch.setenv("TRACKING_HOST", listening)
    from zenml.client import Client

    cli("--status")
    Client().create_secret("tracking", {"tokn": "hush"})
    result = cli("--stack", name, "--plan")
    assert "zenml secret update tracking --token=…" in result.err
    Client().update_secret("tracking", add_or_update_values={"token": "hush"})
    result = cli("--stack", name, "--history")
    assert "no champion" in result.err
    (held,) = Client().list_stack_components(name="equals:filled", type="experiment_tracker", hydrate=True).items
    assert held.configuration["tracking_uri"] == f"{listening}/mlflow"
    assert held.configuration["tracking_token"] == "{{tracking.token}}"
    assert "hush" not in result.out + result.err


def test_groups_of_keys_are_applied_as_they_are_in_the_file_and_an_empty_one_is_left_out(
    cli: Cli, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zenml.client import Client

    grouped = {"host": "${SERVING_HOST:-}", "tls_secret": "${TLS_SECRET:-}"}
    configuration = {"repository": "r", "ingress": grouped, "autoscaling": {"max_replicas": 4}}
    name = write("grouped", model_deployer={"flavor": "bento_kubernetes", "configuration": configuration})

    def applied() -> dict[str, Any]:
        result = cli("--stack", name, "--status")
        assert result.code == 0, result.err
        assert {line.split()[0] for line in cli("--stack", name, "--plan").out.splitlines()} == {"leave"}
        (held,) = Client().list_stack_components(name=f"equals:{name}", type="model_deployer", hydrate=True).items
        return dict(held.configuration)

    assert applied() == {"repository": "r", "autoscaling": {"max_replicas": 4}}
    monkeypatch.setenv("SERVING_HOST", "models.example.com")
    monkeypatch.setenv("TLS_SECRET", "models-tls")
    assert applied()["ingress"] == {"host": "models.example.com", "tls_secret": "models-tls"}
    monkeypatch.delenv("TLS_SECRET")
    assert "ingress needs tls_secret" in cli("--stack", name, "--plan").err.replace("'", "")
    monkeypatch.delenv("SERVING_HOST")
    assert "ingress" not in applied()


def test_a_service_connector_of_the_file_is_linked_and_stands_in_for_this_machines_credentials(
    cli: Cli, write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from zenml.client import Client

    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    registry = {"flavor": "default", "configuration": {"uri": "registry.example.com"}}

    def refused(**linked: str) -> str:
        name = write("linked", artifact_store=S3 | {"configuration": {"path": "s3://models"}} | linked)
        return str(cli("--stack", name, "--plan").err)

    assert "no credentials for aws" in refused()
    missing = refused(connector="teamm")
    assert "artifact_store 'linked': no service connector 'teamm'" in missing
    assert "no credentials for aws" not in missing
    made = {"auth_method": "password", "configuration": {"username": "me", "password": "hush"}, "verify": False}
    Client().create_service_connector("team", "docker", resource_id="registry.example.com", **made)
    assert "did you mean 'team'?" in refused(connector="teamm")
    store = {"flavor": "local", "configuration": {}}

    def applied(**linked: str) -> tuple[str, str | None]:
        name = write("linked", artifact_store=store, container_registry=registry | linked)
        told = cli("--stack", name, "--plan").out.splitlines()[2]
        assert cli("--stack", name, "--status").code == 2  # applied; it has no deployer to ask
        (held,) = Client().list_stack_components(name="equals:linked", type="container_registry", hydrate=True).items
        assert held.configuration == {"uri": "registry.example.com"}
        return told, held.connector and held.connector.name

    assert applied() == ("create container_registry linked", None)
    assert applied(connector="team") == ("change container_registry linked: connector", "team")
    assert applied(connector="team") == ("leave  container_registry linked", "team")
    assert applied() == ("leave  container_registry linked", "team")  # as one that was linked by hand


@pytest.mark.parametrize(
    ("given", "lacks"),
    [({}, True), ({"connector": "cluster"}, False), ({"configuration": {"incluster": True}}, False)],
)
def test_a_cluster_is_reached_by_a_context_a_connector_or_from_inside(
    cli: Cli, write: Write, given: dict[str, Any], lacks: bool
) -> None:
    told = cli("--stack", write("reached", orchestrator={"flavor": "kubernetes"} | given), "--plan").err
    assert ("orchestrator 'reached': set KUBE_CONTEXT, or KUBE_CONNECTOR to a service connector" in told) is lacks


@pytest.mark.parametrize(
    ("flavor", "where"),
    [("kubernetes", "pod_settings.resources"), ("sagemaker", "instance_type"), ("azureml", "size"),
     ("local_docker", "run_args"), ("vertex", None)],
)  # fmt: skip
def test_resources_where_the_orchestrator_does_not_read_them_are_refused(
    zenml: None, write: Write, flavor: str, where: str | None
) -> None:
    from loop.places.plan import _setting_faults

    steps = {"train_model": {"settings": {"resources": {"gpu_count": 1}}}}
    stack = files.read(write("asks", orchestrator={"flavor": flavor}, run={"steps": steps}))
    told = f"run.steps.train_model.settings: {flavor} does not read 'resources'; set orchestrator.{where}"
    assert list(_setting_faults(stack)) == ([told] if where else [])


def test_what_others_use_or_made_is_not_changed(cli: Cli, write: Write) -> None:
    from zenml.client import Client
    from zenml.enums import StackComponentType

    tracker = {"flavor": "mlflow", "configuration": {"experiment_name": "one"}}
    cli("--stack", write("shared", experiment_tracker=tracker), "--status")
    client = Client()
    held = {kind: [c.id for c in listed] for kind, listed in client.get_stack("shared").components.items()}
    client.create_stack("neighbour", held)
    tracker["configuration"] = {"experiment_name": "two"}
    result = cli("--stack", write("shared", experiment_tracker=tracker), "--plan")
    assert result.code == 2
    assert "is also part of neighbour" in result.err
    assert cli("--stack", "shared", "--status", "--change-shared").code == 2  # applied; it has no deployer to ask
    (changed,) = client.list_stack_components(name="equals:shared", type="experiment_tracker", hydrate=True).items
    assert changed.configuration["experiment_name"] == "two"
    tracker["configuration"] = {}
    assert cli("--stack", write("shared", experiment_tracker=tracker), "--status", "--change-shared").code == 2
    (changed,) = client.list_stack_components(name="equals:shared", type="experiment_tracker", hydrate=True).items
    assert not changed.configuration.get("experiment_name")  # a key that left the file
    tracker["configuration"] = {"experiment_name": "two"}
    theirs = {"experiment_name": "three"}
    client.create_stack_component("foreign", "mlflow", StackComponentType.EXPERIMENT_TRACKER, theirs)
    result = cli("--stack", write("foreign", experiment_tracker=tracker), "--status")
    assert result.code == 2
    assert "was not made by it" in result.err
    assert "foreign" not in stacks()


def test_the_printed_zenml_commands_work_pasted_and_name_a_secret_once(
    cli: Cli, write: Write, listening: str, tmp_path: Path
) -> None:
    secret = {"tracking_username": "{{pasted.username}}", "tracking_password": "{{pasted.password}}"}
    tracker = {"flavor": "mlflow", "configuration": {"tracking_uri": listening, "tracking_token": "{{pasted.token}}"}}
    for done in ("create", "update"):
        result = cli("--stack", write("pasted", experiment_tracker=tracker), "--plan")
        tracker["configuration"] = {"tracking_uri": listening, **secret}
        (command,) = re.findall(rf"ZENML_CONFIG_PATH=\S+ zenml secret {done} [^;\n]+", result.err)
        world = {name: value for name, value in os.environ.items() if not name.startswith("ZENML_")}
        world |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        subprocess.run(command, shell=True, check=True, env=world, cwd=tmp_path, capture_output=True)
    assert cli("--stack", "pasted", "--plan").code == 0


def test_a_bucket_with_its_scheme_and_a_tracker_without_a_login_are_one_line(
    cli: Cli, write: Write, listening: str
) -> None:
    store = {"flavor": "s3", "configuration": {"path": "s3://s3://models"}}
    tracker = {"flavor": "mlflow", "configuration": {"tracking_uri": listening}}
    result = cli("--stack", write("bare", artifact_store=store, experiment_tracker=tracker), "--plan")
    assert result.code == 2
    assert "no store is at s3://s3://models; its variable takes the bare name, models" in result.err
    assert (
        "set MLFLOW_USER and MLFLOW_PASSWORD, or MLFLOW_TOKEN; a server that asks for no login takes any" in result.err
    )
    assert "authentication method" not in result.err


def test_the_dashboard_of_a_stack_with_a_server_is_the_servers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(dashboard.webbrowser, "open", opened.append)
    monkeypatch.delenv("ZENML_URL", raising=False)
    assert dashboard.main(["--stack", "server"]) == 2
    assert "set the variable of the server's address: ${ZENML_URL}" in capsys.readouterr().err
    monkeypatch.setenv("ZENML_URL", "https://zenml.example.com")
    assert dashboard.main(["--stack", "server"]) == 0
    assert opened == ["https://zenml.example.com"]


BUILT = ("docker", "airflow", "kubernetes", "kubeflow", "aws", "gcp", "azure")


@pytest.mark.parametrize("name", BUILT)
def test_a_build_of_the_steps_image_leaves_no_container(name: str) -> None:
    options = files.read(name).run.settings["docker"]["build_config"]["build_options"]
    assert options["rm"] is options["forcerm"] is True  # as Docker's API, unlike its command, does not by itself


@pytest.mark.parametrize(("user", "group", "steps"), [(1000, 1001, "1000:1001"), (0, 0, "10001:10001")])
def test_steps_in_containers_run_as_who_starts_them_and_never_as_root(
    monkeypatch: pytest.MonkeyPatch, user: int, group: int, steps: str
) -> None:
    monkeypatch.setattr("os.getuid", lambda: user)
    monkeypatch.setattr("os.getgid", lambda: group)
    stack = files.read("docker")
    places = [stack.run.settings, *(step.settings for step in stack.run.steps.values())]
    assert {place["orchestrator"]["run_args"]["user"] for place in places} == {steps}
    assert len(places) == 2


def test_what_root_made_is_given_to_who_runs_in_containers(tmp_path: Path) -> None:
    if os.getuid():
        untried("only root may give files away")
    (tmp_path / "made/by").mkdir(parents=True)
    (tmp_path / "made/by/root").touch()
    (tmp_path / "made/link").symlink_to("/nowhere")
    containers.give(tmp_path / "made")
    for path in (tmp_path / "made", *(tmp_path / "made").rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == containers.user() == (10001, 10001)
    assert tmp_path.stat().st_uid == 0


def test_the_benchmark_of_stacks_says_in_one_line_what_stands_in_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = "stack docker cannot be applied: Docker does not run"

    def refused(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr=f"Traceback\n  File\nconfig.UserError: {fault}\n")

    monkeypatch.setattr(subprocess, "run", refused)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("benchmarks.stacks", run_name="__main__")
    assert ended.value.code == f"error: {fault}"
