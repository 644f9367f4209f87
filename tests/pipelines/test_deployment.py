"""The deployment pipeline, run as a user runs it: what answers afterwards, and what happens if it must not."""

import re
import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from conftest import QUICK, Cli, Result, Trained, last_run, output
from servers import free_port

from loop.cli import runs
from loop.config import ROOT, UserError
from loop.registry import champions
from loop.training.bundle import Bundle

Train = Callable[..., Result]

WEAK = ("model.params={C: 0.00001}", "gate.minimum={}")


@pytest.fixture
def deploy(cli: Cli) -> Iterator[Callable[..., Result]]:
    """Run the pipeline for a name on a free port of its own; stop its server in the end."""
    ports: dict[str, int] = {}

    def call(name: str, *changes: str, arguments: tuple[str, ...] = ("--pipeline", "deployment")) -> Result:
        port = ports.setdefault(name, free_port())
        sets = [word for c in (f"name={name}", f"serving.port={port}", *changes) for word in ("--set", c)]
        return cli(*arguments, *QUICK, *sets)

    yield call
    for name in ports:
        cli("--stop", "--set", f"name={name}")


def asked(result: Result) -> dict[str, Any]:
    """Return what the server that a deployment printed says of its model."""
    (url,) = re.findall(r"^url +(http://\S+)", result.out, re.M)
    answer: dict[str, Any] = httpx.get(f"{url}/model", timeout=30).json()
    return answer


def test_the_champion_answers_and_a_second_run_changes_nothing(
    champion: Trained, deploy: Callable[..., Result], cli: Cli
) -> None:
    name = champion.name
    result = deploy(name)
    assert result.code == 0, result.err
    entry, model = champions.champion(name), asked(result)
    assert entry is not None
    assert (model["version"], model["fingerprint"], model["reasons"]) == (1, entry.fingerprint, list(entry.reasons))
    assert model["metrics"]["roc_auc"]["value"] == champions.evidence(name, 1)[0].estimates["roc_auc"].value
    assert model["runtime"] == "onnx"
    found = output("deployment")
    assert found.changed
    assert all(check.rows > 100 and check.difference <= check.tolerance for check in found.checks)
    assert found.url in (runs.LOCAL / f"reports/{name}/deployment.html").read_text()
    examples_answer(found.url, name)
    status = cli("--status").out
    assert name in status
    assert "running" in status
    assert found.url in status
    again = deploy(name)
    assert "unchanged" in again.out
    assert not output("deployment").changed
    assert cli("--status").out == status
    stopped = cli("--stop", "--set", f"name={name}")
    assert stopped.code == 0
    assert "stopped" in cli("--status").out
    assert cli("--stop", "--set", f"name={name}").code == 2
    refuses_changed_code(lambda: deploy(name), Path(found.bento.path))


def test_a_taken_port_is_told_before_anything_is_built(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("--pipeline", "deployment", "--set", "name=not_even_trained", "--set", f"serving.port={port}")
    assert result.code == 2
    assert result.err.startswith(f"error: 127.0.0.1:{port} cannot be listened on (Address already in use")
    assert "stop what listens there, or choose another: --set serving.port=3010" in result.err


def examples_answer(url: str, name: str) -> None:
    """Send what the README's curl lines send."""
    readme, row_id = (ROOT / "README.md").read_text(encoding="utf-8"), ""
    lines = re.findall(r"^    curl -s localhost:3000(/\w+) (-d|--data-binary) (.*)$", readme, re.M)
    assert [path for path, *_ in lines] == ["/predict", "/predict_csv", "/feedback"]
    for path, option, words in lines:
        (data,) = shlex.split(words)
        if data.startswith("@"):
            data = (runs.LOCAL / data.removeprefix("@.local/").replace("breast_cancer", name)).read_text(
                encoding="utf-8"
            )
        data = data.replace("9f86d081884c-7d659a2feaa0-0", row_id)
        data = data.replace("\n", "") if option == "-d" else data  # as curl does
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = httpx.post(url + path, content=data, headers=form, timeout=30).raise_for_status()
        if path == "/predict":
            (row_id,) = answer.json()["ids"]
    assert answer.json() == {"accepted": 1}


def refuses_changed_code(deploy: Callable[[], Result], bento: Path) -> None:
    """Change the code of a bento where it lies, then in the archive in the artifact store."""
    said = f"error: the code in {bento}/src was changed after the bento was built; delete {bento} and deploy again"
    planted = bento / "src/numpy.py"
    planted.write_text("raise SystemExit('a server ran me')")
    result = deploy()
    assert (result.code, result.err.startswith(said), len(result.err.splitlines())) == (2, True, 1), result.err
    shutil.rmtree(bento)
    folder = Path(last_run().steps["build_bento"].outputs["bento"][0].uri)
    for file in ("release.bento", "bento.json"):
        stored = (folder / file).read_bytes()
        (folder / file).write_bytes(stored[:-1] + b"#")
        result = deploy()
        said = f"error: the bento stored in {folder} was changed after it was stored\n"
        assert (result.code, result.err) == (2, said)
        (folder / file).write_bytes(stored)


def test_rollback_with_deploy_brings_the_previous_champion_back(train: Train, deploy: Callable[..., Result]) -> None:
    train("returned", *WEAK)
    train("returned", "gate.minimum={}")
    result = deploy("returned")
    assert asked(result)["version"] == 2
    back = deploy("returned", arguments=("--rollback", "--deploy", "--reason", "slow"))
    assert back.code == 0, back.err
    model = asked(back)
    assert (model["version"], model["reasons"]) == (1, ["slow"])
    assert output("deployment").replaced is not None


def test_a_check_that_fails_leaves_the_old_server_serving_and_the_run_failed(
    champion: Trained, deploy: Callable[..., Result], cli: Cli
) -> None:
    first = deploy(champion.name)
    release = asked(first)["release"]
    result = deploy(champion.name, "serving.latency_budget_ms=0.0001")
    assert result.code == 2
    assert "latency_budget_ms" in result.err
    assert len(result.err.splitlines()) == 1
    assert last_run().status.value == "failed"
    assert asked(first)["release"] == release
    assert release in cli("--status").out


def test_a_server_that_answers_differently_gets_no_traffic(
    champion: Trained, deploy: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = deploy(champion.name)
    release = asked(first)["release"]
    real = Bundle.scores
    monkeypatch.setattr(Bundle, "scores", lambda self, rows: real(self, rows) + 1e-5)
    result = deploy(champion.name, "serving.max_rows=5000")
    assert result.code == 2
    assert "differ from the offline predictions" in result.err
    assert asked(first)["release"] == release


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "name=nobody"), "no champion to deploy"),
        (("--stack", "default"), "stack default has none"),
    ],
)
def test_nothing_to_deploy_or_nowhere_is_one_line(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    result = cli("--pipeline", "deployment", *arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_personal_columns_that_no_row_has_are_refused_before_anything_starts(
    champion: Trained, deploy: Callable[..., Result]
) -> None:
    result = deploy(champion.name, "serving.personal={mean raduis: hash}")
    assert result.code == 2
    assert "did you mean 'mean radius'?" in result.err


def test_the_token_may_stand_in_a_zenml_secret_and_is_needed_off_loopback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zenml.client import Client
    from zenml.enums import StackComponentType
    from zenml.stack import StackComponent

    cli("--status")  # the stack is applied, so the flavor is known
    client = Client()
    client.create_secret("serving", {"token": "correct-horse"})
    configuration = {"host": "0.0.0.0", "token": "{{serving.token}}"}
    made = client.create_stack_component(
        "tokened", "bento_local", StackComponentType.MODEL_DEPLOYER, configuration=configuration
    )
    assert "correct-horse" not in made.model_dump_json()
    found: Any = StackComponent.from_model(made)
    assert found.token == "correct-horse"
    bare = client.create_stack_component(
        "bare", "bento_local", StackComponentType.MODEL_DEPLOYER, configuration={"host": "0.0.0.0"}
    )
    monkeypatch.delenv("SERVING_TOKEN", raising=False)
    exposed: Any = StackComponent.from_model(bare)
    with pytest.raises(UserError, match="needs a token"):
        exposed.start(None, 3000, 1)


def test_prune_keeps_the_bentos_of_the_champion_the_one_before_and_of_a_server(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import bentoml

    from loop.registry import champions

    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    monkeypatch.setenv("SERVING_HOME", str(tmp_path / "serving"))
    (tmp_path / "serving/pruned").mkdir(parents=True)
    (tmp_path / "serving/pruned/live").write_text("v2-c")
    tags = ["pruned:v1-a", "pruned:v2-b", "pruned:v2-c", "pruned:v3-d", "pruned:v13-e", "pruned:v5-f", "other:v5-g"]
    gone: list[str] = []
    log = {"pruned": [SimpleNamespace(version=3, replaces=1), SimpleNamespace(version=5, replaces=3)]}
    monkeypatch.setattr(champions, "history", lambda name: log.get(name, []))
    monkeypatch.setattr(bentoml, "list", lambda: [SimpleNamespace(tag=tag) for tag in tags])
    monkeypatch.setattr(bentoml, "delete", gone.append)
    result = cli("--prune")
    assert result.code == 0, result.err
    assert gone == ["pruned:v1-a", "pruned:v2-b", "pruned:v13-e", "other:v5-g"]
    assert [line for line in result.out.splitlines() if "bento" in line] == [f"removed bento {tag}" for tag in gone]
    assert "Docker does not run here; containers and images are as they were" in result.out


def test_an_estimator_of_another_package_is_served_from_a_matrix_and_its_package_goes_along(
    train: Train, deploy: Callable[..., Result], cli: Cli
) -> None:
    name, boosted = "boosted", "model.estimator=lightgbm.LGBMClassifier"
    quiet = "model.params={verbose: -1}"
    trained = train(name, boosted, quiet, "gate.minimum={roc_auc: 0.9}")
    assert "verdict       promote, version 1 of boosted" in trained.out, trained.out
    card = champions.load(name, 1).card
    result = deploy(name)
    assert result.code == 0, result.err
    assert asked(result)["runtime"] == "numpy"
    bento = output("deployment").bento
    pinned = (Path(bento.path) / "env/python/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert f"lightgbm=={card.environment['lightgbm']}" in pinned
    assert deploy(name, arguments=("--simulate", "--rows", "60")).code == 0
    watched = deploy(name, "monitoring.min_rows=50", "monitoring.report=never", arguments=("--pipeline", "monitoring"))
    assert "60 rows that version 1 of boosted answered" in watched.out, watched.out + watched.err
