"""Run the command line in child processes that can be killed; imported by the test and by its children."""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from functools import reduce
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest

import run
from loop.cli import runs
from loop.config import ROOT


def forkserver() -> ForkServerContext:
    """Return a context whose children start with everything imported, so each costs only its own work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:  # the server of Python 3.11 does not take over sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "tests"), str(ROOT))))
        ensure_running()
    return context


def start(
    context: ForkServerContext, arguments: Sequence[str], die_at: str, *, by: int = signal.SIGKILL,
    local: Path | None = None, said: Path | None = None,
) -> ForkServerProcess:  # fmt: skip
    """Start a child that runs the command line; it gets a signal when it reaches a step or `module:function`.

    Its state is in `local`, else the tests' own; what it prints is added to the file `said`.
    """
    child = context.Process(target=_main, args=(local or runs.LOCAL, list(arguments), die_at, by, said))
    child.start()
    return child


def _main(local: Path, arguments: list[str], die_at: str, by: int, said: Path | None) -> None:
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    runs.LOCAL = local
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
    GlobalConfiguration._reset_instance()  # what is imported in the server has opened the tests' own database
    Client._reset_instance()
    os.environ |= runs.zenml_home(local / "zenml") | {"SERVING_HOME": str(local / "serving")}
    for number in () if said is None else (1, 2):
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)

    def _die(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), by)

    if ":" in die_at:
        module, path = die_at.split(":")
        *owners, function = path.split(".")
        setattr(reduce(getattr, owners, importlib.import_module(module)), function, _die)
    else:
        from zenml.orchestrators.step_runner import StepRunner

        go_on = StepRunner.run

        def run_step(self: StepRunner, *args: Any, **kwargs: Any) -> Any:
            if kwargs["step_run"].name == die_at:
                _die()
            return go_on(self, *args, **kwargs)

        StepRunner.run = run_step  # type: ignore[method-assign]
    code = run.main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
