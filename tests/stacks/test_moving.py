"""One word moves the same command: local → docker → server → local, with nothing left where it should not be."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clients import Client
from shared import Company

pytestmark = [pytest.mark.stacks, pytest.mark.docker]


def test_stacks_follow_one_another_with_no_leftovers_and_twice_is_once(company: Company, tmp_path: Path) -> None:
    before = {found["name"] for found in company.server.ask("GET", "/stacks")["items"]}
    client = Client(tmp_path, company.person("ann").environment)
    for stack in ("local", "docker", "server", "local"):
        result = client.call("--stack", stack, "--status")
        assert result.code == 0, (stack, result.err)
        planned = client.call("--stack", stack, "--plan").out.splitlines()
        assert {line.split()[0] for line in planned} == {"leave"}, planned
        assert active_elsewhere(tmp_path) == "default"  # in the user's other shells
    listed = {found["name"] for found in company.server.ask("GET", "/stacks")["items"]}
    assert listed == before | {"server"}  # what is of this machine stayed on it
    assert {path.name for path in tmp_path.iterdir()} <= {"zenml", "servers", "serving", "bentoml", "docker", "logs"}


def active_elsewhere(folder: Path) -> str:
    """Ask ZenML's own command line, in a shell that knows this clone's ZenML."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ZENML_")}
    environment |= {"ZENML_CONFIG_PATH": str(folder / "zenml"), "ZENML_ANALYTICS_OPT_IN": "false"}
    command = [Path(sys.executable).with_name("zenml"), "stack", "get"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    (name,) = re.findall(r"'(\w+)'", done.stdout + done.stderr)
    return str(name)
