"""Measure what applying a stack file costs, beside ZenML's own command line: `python -m benchmarks.stacks`.

Both start from a ZenML home whose database is there. Ours is timed beyond the import of ZenML and of the flavors that a
first look imports; the command line cannot do without it, so an empty `zenml version` stands beside it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from loop.config import ROOT

OURS = """
import json, time
from loop.cli import runs
from loop.places import apply, files, plan
runs.start_zenml(stack := files.read("docker"))
from zenml.client import Client
Client().active_stack_model
plan._flavors()
found = {}
for name, do in (
    ("plan and check, nothing there", lambda: apply.look(stack)),
    ("apply, everything new", lambda: apply.apply(stack)),
    ("plan and check, nothing to do", lambda: apply.look(stack)),
    ("apply, nothing to do", lambda: apply.apply(stack)),
):
    begun = time.perf_counter()
    do()
    found[name] = time.perf_counter() - begun
print(json.dumps(found))
"""


def main() -> None:
    """Print a table of seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "ZENML_CONFIG_PATH": f"{folder}/zenml",
            "ZENML_ANALYTICS_OPT_IN": "false",
            "LOCAL_FOLDER": folder,
            "PYTHONPATH": str(ROOT),
        }
        zenml = str(Path(sys.executable).with_name("zenml"))

        def timed(*command: str) -> tuple[float, str]:
            begun = time.perf_counter()
            done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
            return time.perf_counter() - begun, done.stdout

        timed(zenml, "stack", "list")  # makes the database
        rows = json.loads(timed(sys.executable, "-c", OURS)[1].splitlines()[-1])
        stack = yaml.safe_load((ROOT / "stacks/docker.yaml").read_text(encoding="utf-8"))
        rows["zenml version"] = timed(zenml, "version")[0]
        total = 0.0
        for kind, (component,) in stack["components"].items():
            if not component["flavor"].startswith("bento"):
                name = kind.replace("_", "-")
                total += timed(zenml, name, "register", "by_hand", f"--flavor={component['flavor']}")[0]
        short = {"orchestrator": "-o", "artifact_store": "-a"}
        total += timed(zenml, "stack", "register", "by_hand", *(w for f in short.values() for w in (f, "by_hand")))[0]
        rows["zenml … register, six components and the stack"] = total
    for what, seconds in rows.items():
        print(f"{what:<48} {seconds:7.2f} s")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as err:
        sys.exit(f"error: {err.stderr.strip().splitlines()[-1].partition(': ')[2]}")
