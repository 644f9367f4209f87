"""Be the program `run.py`: settle what this process runs with before anything of the project is imported."""

import importlib.util
import logging
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

HARMLESS = ("PATH", "IOENCODING", "UNBUFFERED", "DONTWRITEBYTECODE", "PYCACHEPREFIX", "UTF8")
"""Ends of the names of Python's variables that reach a run; PYTHONSAFEPATH, PYTHONWARNINGS and the like do not."""


def run() -> NoReturn:
    """Begin anew in a plain environment where this one is not, then do what the command line asks."""
    others = [name for name in os.environ if re.match(f"PYTHON(?!({'|'.join(HARMLESS)})$)[A-Z]", name)]
    if others or sys.flags.safe_path or sys.getfilesystemencoding() != "utf-8":
        world = {name: value for name, value in os.environ.items() if name not in others}
        world = {"PYTHONIOENCODING": sys.stdout.encoding, **world, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], world)  # noqa: S606  (this program again)
    added = [str(Path(place).absolute()) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[1:] = sorted(sys.path[1:], key=added.__contains__)  # behind the packages of this environment
    if importlib.util.find_spec("zenml") is None:
        then = ".venv/bin/python run.py, or . .venv/bin/activate where it was not moved"
        print(f"error: this Python has no ZenML; run: make training, once, and then: {then}", file=sys.stderr)
        sys.exit(2)
    from loop.cli.commandline import main

    exit_code = main()
    logging.shutdown()  # now: OpenTelemetry's handler wants a thread to flush, and later there are none
    logging.raiseExceptions = False
    sys.exit(exit_code)
