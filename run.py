"""Run a pipeline of this project, or ask it something: `python run.py --help`."""

import sys
from pathlib import Path

if sys.flags.safe_path:  # of PYTHONSAFEPATH, without which the program begins anew
    sys.path.insert(0, str(Path(__file__).parent))
if __name__ == "__main__":
    from loop.cli.startup import run

    run()

from loop.cli.commandline import main as main
