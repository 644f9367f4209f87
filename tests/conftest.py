"""Give all tests one throw-away ZenML home; nothing of the clone's own state is read or written."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

import run
from loop.cli import runs

pytest_plugins = ("shared",)  # tests/stacks/shared.py
QUICK = ("--set", "evaluation.resamples=200")
UNIT = {"data", "training", "pages", "log", "watching", "model"}
"""Folders whose tests start nothing."""


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


class Trained(NamedTuple):
    name: str
    result: Result
    run: Any


def pytest_configure() -> None:
    home = tempfile.mkdtemp(prefix="loop-tests-")
    runs.LOCAL = Path(home)
    os.environ["OMP_NUM_THREADS"] = "1"  # each worker of pytest-xdist has one core
    os.environ |= runs.ENVIRONMENT | runs.zenml_home(runs.LOCAL / "zenml")


def pytest_unconfigure() -> None:
    shutil.rmtree(runs.LOCAL, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with whole pipelines and servers, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: not UNIT.isdisjoint(item.path.parts))


@pytest.fixture(scope="session")
def zenml() -> None:
    """Import ZenML outside any test: it keeps the stdout it finds. What is installed it need not ask in each run."""
    import zenml.client  # noqa: F401
    from zenml.environment import Environment
    from zenml.integrations.registry import IntegrationRegistry

    Environment.get_python_packages = staticmethod(cache(Environment.get_python_packages))
    IntegrationRegistry.activate_integrations = cache(IntegrationRegistry.activate_integrations)


@pytest.fixture
def cli(zenml: None, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Call the command line as a user would, in this process."""

    def call(*arguments: str) -> Result:
        code = run.main(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield call
    os.environ.pop("ZENML_ACTIVE_STACK_ID", None)


@pytest.fixture
def train(cli: Cli) -> Callable[..., Result]:
    """Train the breast cancer use case under a name of its own, with few bootstrap resamples."""

    def call(name: str, *changes: str, options: tuple[str, ...] = ()) -> Result:
        sets = [word for change in (f"name={name}", *changes) for word in ("--set", change)]
        return cli("--pipeline", "training", *QUICK, *sets, *options)

    return call


@pytest.fixture(scope="session")
def kept() -> dict[str, Any]:
    return {}


@pytest.fixture
def once(cli: Cli, kept: dict[str, Any]) -> Callable[[str, Callable[[], Any]], Any]:
    """Make something for the first test of a process that asks, and keep it for all others that leave it as it is."""

    def call(name: str, make: Callable[[], Any]) -> Any:
        cli("--status")  # the stack is applied, also where nothing is made
        if name not in kept:
            kept[name] = make()
        return kept[name]

    return call


@pytest.fixture
def champion(train: Callable[..., Result], once: Callable[..., Any]) -> Trained:
    """Train version 1 of a model once."""
    return once("champion", lambda: Trained("common", train("common"), last_run()))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 128 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        untried("no right to mount a small disk here, so a full one was not tried; run as root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def chromium() -> str:
    """Find the machine's Chromium; in CI its absence is a failure."""
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
        None,
    )
    if path is None:
        untried("no Chromium on this machine, no page was opened; try: apt-get install chromium")
    return path


def untried(reason: str) -> NoReturn:
    """Skip a test for what the machine lacks; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def last_run() -> Any:
    """Return the newest ZenML run."""
    from zenml.client import Client

    return Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True).items[0]


def output(name: str, run: Any = None) -> Any:
    """Return an artifact of the newest run."""
    run = run or last_run()
    return next(step.outputs[name][0].load() for step in run.steps.values() if name in step.outputs)
