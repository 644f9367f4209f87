"""The caller's world: what else is set in the shell, how its terminal is, and where the clone lies."""

import errno
import http.client
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Trained
from servers import breast_cancer, free_port, running

from loop.cli import environment, runs
from loop.config import ROOT
from loop.deploying.process import LocalServer, answers, reached
from loop.places import moved, plan
from loop.places.files import Component

SHELL = {
    "ZENML_ACTIVE_PROJECT_ID": "0d5a0d5a-0000-4000-8000-000000000000",
    "ZENML_STORE_TYPE": "rest",
    "ZENML_STORE_API_KEY": "of-a-server",
    "ZENML_DEFAULT_USER_NAME": "me",
    "ZENML_LOCAL_STORES_PATH": "/nowhere",
    "ZENML_REPOSITORY_PATH": "/",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "MLFLOW_REGISTRY_URI": "http://127.0.0.1:9",
    "BENTOML_CONFIG": "/nowhere.yaml",
    "OTEL_PROPAGATORS": "b3",
    "SERVING_HOME": "relative",
    "http_proxy": "http://127.0.0.1:9",
    "PYTHONIOENCODING": "ascii",
}
OTHER_SERVERS = {"WEB_CONCURRENCY": "auto", "OTEL_PROPAGATORS": "b3", "OTEL_PYTHON_CONTEXT": "greenlet"}
MAIN = """
import os, pathlib, run, sys
from loop.cli import runs
runs.LOCAL = pathlib.Path(sys.argv[1])
code = run.main(sys.argv[2:])
print({name for name in os.environ if name.startswith(("MLFLOW_", "BENTOML_"))} - set(runs.ENVIRONMENT))
print(os.environ["SERVING_HOME"], os.environ["no_proxy"])
sys.exit(code)
"""


def call(local: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    shell = {name: value for name, value in os.environ.items() if not name.startswith("ZENML")} | variables
    command = [sys.executable, "-c", MAIN, str(local), *arguments]
    return subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True)


def test_what_else_the_shell_says_does_not_count_on_this_clones_own_files(champion: Trained) -> None:
    done = call(runs.LOCAL, "--history", "--set", f"name={champion.name}", **SHELL)
    assert done.returncode == 0, done.stderr
    *history, dropped, places = done.stdout.splitlines()
    assert "version 1" in history[0]
    assert dropped == "{'BENTOML_HOME'}"
    assert places == f"{ROOT}/relative localhost,127.0.0.1,::1"


def test_a_level_of_logging_that_zenml_does_not_have_is_one_line(tmp_path: Path) -> None:
    done = call(tmp_path, "--history", SERVING_HOME=str(tmp_path), ZENML_LOGGING_VERBOSITY="BOGUS")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ZENML_LOGGING_VERBOSITY is 'BOGUS', which is no level; ZenML has CRITICAL")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("home", ["/proc/1", "/dev/null/a", f"{__file__}"])
def test_a_home_of_zenml_that_cannot_be_is_one_line(tmp_path: Path, home: str) -> None:
    done = call(tmp_path, "--history", SERVING_HOME=str(tmp_path), ZENML_CONFIG_PATH=home)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: ZENML_CONFIG_PATH is {home}, where no folder can be made (")
    assert len(done.stderr.splitlines()) == 1


def test_a_log_has_colours_on_a_terminal_alone() -> None:
    code = "from loop.cli import runs; from loop.places import files; runs.start_zenml(files.read('local')); "
    code += "import zenml, logging; logging.getLogger('steps.send_alert').warning('drift')"
    shell = os.environ | {"LOCAL_FOLDER": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=shell, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "drift\n")


def test_pythons_variables_and_an_old_locale_do_not_reach_a_run(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise ImportError('an older package')")
    shell = {
        "PYTHONSAFEPATH": "1", "PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "2", "PYTHONPATH": str(tmp_path),
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii",
    }  # fmt: skip
    command = [sys.executable, "run.py", "--list"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | shell, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pipelines")


def test_a_terminal_that_knows_ascii_alone_shows_what_it_can() -> None:
    code = "from loop.cli import environment; environment.settle(); print('✓ 0.1 – 0.2 ü')"
    shell = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=shell, capture_output=True, text=True)
    assert done.stdout == "+ 0.1 - 0.2 ?\n", done.stderr


@pytest.mark.parametrize("sign", environment.UNREADABLE)
def test_a_path_that_zenml_cannot_read_is_one_line_before_anything_is_made(tmp_path: Path, sign: str) -> None:
    done = call(tmp_path / f"a {sign} b", "--status")
    assert done.returncode == 2
    assert f"it takes no {sign} in a path" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_clone_at_such_a_path_is_refused_too_where_its_state_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a % b").symlink_to(sys.prefix)
    command = [str(tmp_path / "a % b/bin/python"), "-c", MAIN, str(tmp_path / "local"), "--status"]
    shell = {name: value for name, value in os.environ.items() if not name.startswith("ZENML")}
    done = subprocess.run(command, cwd=ROOT, env=shell, capture_output=True, text=True)
    said = f"error: ZenML cannot work in {tmp_path}/a % b: it takes no % in a path; move or rename the folder\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize(
    "fate", ["a file", "a dangling link", "a file further down", "a damaged database", "damaged settings"]
)
def test_state_that_is_not_what_it_should_be_is_one_line_and_moving_it_away_is_the_way_on(
    tmp_path: Path, fate: str
) -> None:
    local = tmp_path / "local"
    wrong = {
        "a file further down": local / "zenml/local_stores",
        "a damaged database": local / "zenml" / moved.DATABASE,
        "damaged settings": local / "zenml/config.yaml",
    }
    at = wrong.get(fate, local)
    at.parent.mkdir(parents=True, exist_ok=True)
    if fate == "a dangling link":
        at.symlink_to(tmp_path / "nowhere")
    else:
        at.write_text("{something else" * 100)
    done = call(local, "--status")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(local) in done.stderr
    assert "move it away" in done.stderr
    (local if fate == "a damaged database" else at).rename(tmp_path / "away")
    assert call(local, "--status").returncode == 0


def test_make_stops_and_removes_a_clone_in_a_folder_of_any_name(tmp_path: Path) -> None:
    clone = tmp_path / "it's m ü 2"
    (clone / ".local").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", clone)
    command = ["make", "stop", "clean", f"PY={shutil.which('true')}"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (clone / ".local").exists()


def test_the_dashboard_says_too_what_is_wrong_with_the_state(tmp_path: Path) -> None:
    (tmp_path / "local").write_text("something else")
    code = "import pathlib, sys; from loop.cli import dashboard; dashboard.runs.LOCAL = pathlib.Path(sys.argv[1]); "
    code += "sys.exit(dashboard.main(['--stop']))"
    command = [sys.executable, "-c", code, str(tmp_path / "local")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = f"error: something else is at {tmp_path}/local (File exists); move it away and run it again\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_state_that_was_moved_while_a_run_went_on_is_one_line(tmp_path: Path) -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory", f"{tmp_path}/local/zenml/rows.parquet")
    assert environment.disk_fault(gone, tmp_path) is None  # a file of its own, which says something else
    said = f"{tmp_path}/local was moved or deleted meanwhile; put it back and run it again"
    assert environment.disk_fault(gone, tmp_path / "local") == said


def test_mlflows_registry_is_the_trackers_whatever_the_shell_says(
    champion: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from loop.registry import tracking

    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/foreign.db")
    tracking.point_aliases(champion.name, 1, None)
    assert not list(tmp_path.iterdir())
    client = mlflow.MlflowClient(registry_uri=mlflow.get_tracking_uri())
    assert client.get_model_version_by_alias(champion.name, "champion").tags[tracking.ZENML_VERSION] == "1"


def test_what_the_shell_says_to_other_servers_does_not_reach_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OTHER_SERVERS.items():
        monkeypatch.setenv(name, value)
    with running(tmp_path, breast_cancer()) as served:
        assert answers(served.url.removeprefix("http://"))


def test_a_host_is_an_address_or_localhost(zenml: None) -> None:
    from loop.deploying.local import LocalConfig

    assert [LocalConfig(host=host).address for host in ("localhost", "::1")] == ["127.0.0.1", "::1"]
    wrong = Component(name="m", type="model_deployer", flavor="bento_local", configuration={"host": "my-laptop"})
    (fault,) = plan._component_faults(wrong)
    assert fault == "model_deployer 'm': 'host' needs an IP address of this machine or localhost, it is 'my-laptop'"


@pytest.mark.parametrize("host", ["::1", "::", "127.0.0.1", "0.0.0.0"])
def test_a_servers_address_is_one_that_clients_reach(tmp_path: Path, host: str) -> None:
    server, port = LocalServer(tmp_path / "server"), free_port()
    server._supervise(host, port, None, {})
    try:
        with closing(http.client.HTTPConnection(reached(host, port), timeout=5)) as client:
            client.connect()
    finally:
        server.stop()
