"""Close the runs of processes that were killed: ZenML would show them as running for ever.

A run of this machine holds the lock on a file of its name. The kernel frees it when the process dies, so whoever starts
next knows which runs go on and which have ended; runs that go on elsewhere are not its affair.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loop.places.apply import one_at_a_time


@contextmanager
def held(run_name: str) -> Iterator[None]:
    """Hold the lock of a run of this process; close the run if it has not ended by then, as after Ctrl-C."""
    _folder().mkdir(parents=True, exist_ok=True)
    path = _folder() / run_name
    with one_at_a_time():
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with file:
            _close(run_name)
            path.unlink(missing_ok=True)


def close_killed() -> None:
    """Mark runs of this machine as failed whose process is dead."""
    with one_at_a_time():
        for path in _folder().glob("*"):
            with path.open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # it goes on
                _close(path.name)
                path.unlink()


def _close(run_name: str) -> None:
    from zenml.client import Client
    from zenml.orchestrators import publish_utils

    client = Client()
    for run in client.list_pipeline_runs(name=f"equals:{run_name}", size=1).items:
        if not run.status.is_finished:
            for step in client.list_run_steps(pipeline_run_id=run.id, size=1000).items:
                if not step.status.is_finished:
                    publish_utils.publish_failed_step_run(step.id)
            publish_utils.publish_failed_pipeline_run(run.id)


def _folder() -> Path:
    return Path(os.environ["ZENML_CONFIG_PATH"]) / "unfinished"
