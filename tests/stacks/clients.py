"""People and robots at their own machines: each runs the command line in processes and folders of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from conftest import QUICK, Result

from loop.config import ROOT

MAIN = """
import contextlib, logging, pathlib, sys
import run
from loop.cli import runs
runs.LOCAL, stand_in = pathlib.Path(sys.argv[1]), contextlib.nullcontext
runs.apply.checks._packages = lambda stack: []  # one environment has the packages of all places, not each one's pins
if sys.argv[2] == "images":
    from clouds import images as stand_in
with stand_in():
    code = run.main(sys.argv[3:])
logging.shutdown()
logging.raiseExceptions = False
sys.exit(code)
"""


class Client:
    """One machine: its `.local/` is a folder of the test's, and its ZenML is told by variables alone.

    With `stand_in` "images" nothing is built and pushed.
    """

    def __init__(self, folder: Path, variables: Mapping[str, str], stand_in: str = "") -> None:
        self.folder, self._stand_in = folder, stand_in
        cleared = ("ZENML_", "SERVING_", "BENTOML_HOME", "LOCAL_FOLDER")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(cleared)} | dict(variables)
        self.environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests/stacks")))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        command = [sys.executable, "-c", MAIN, str(self.folder), self._stand_in, *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def train(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Start a training of the breast cancer data under a name."""
        return self.start("--pipeline", "training", "--set", f"name={name}", *QUICK, *options)

    def call(self, *arguments: str) -> Result:
        """Run a command to its end."""
        return ended(self.start(*arguments))


def ended(process: subprocess.Popen[str], seconds: float = 600) -> Result:
    """Wait for a command; one that does not end is killed."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Result(process.returncode, out, err)
