"""Run the command line in child processes that can be killed; imported by the test and by its children."""

import importlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest

import run
from config import ROOT


def forkserver() -> ForkServerContext:
    """Return a context whose children start with everything imported, so each costs only its own work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:  # the server of Python 3.11 does not take over sys.path
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "tests"), str(ROOT))))
        ensure_running()
    return context


def start(context: ForkServerContext, arguments: Sequence[str], die_at: str) -> ForkServerProcess:
    """Start a child that runs the command line; it is killed when it reaches a step or `module:function`."""
    child = context.Process(target=_main, args=(run.LOCAL, list(arguments), die_at))
    child.start()
    return child


def _main(local: Path, arguments: list[str], die_at: str) -> None:
    run.LOCAL = local
    if ":" in die_at:
        module, function = die_at.split(":")
        setattr(importlib.import_module(module), function, _die)
    else:
        from zenml.orchestrators.step_runner import StepRunner

        go_on = StepRunner.run

        def run_step(self: StepRunner, *args: Any, **kwargs: Any) -> Any:
            if kwargs["step_run"].name == die_at:
                _die()
            return go_on(self, *args, **kwargs)

        StepRunner.run = run_step  # type: ignore[method-assign]
    os._exit(run.main(arguments))


def _die(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
