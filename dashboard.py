"""Open the ZenML dashboard of this clone, at a port that no other clone's has: `python dashboard.py [--stop]`."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

import environment
import run
from config import ROOT, UserError
from stacks import apply, files

PORT = 8237  # ZenML's own


def main(arguments: list[str]) -> int:
    """Start the dashboard, or stop it; return 0, or 2 for a user's mistake."""
    environment.settle()
    try:
        with environment.disk_faults(run.LOCAL):
            run.start_zenml(files.read("local"))
            return stop() if arguments == ["--stop"] else start()
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2


def start() -> int:
    """Run `zenml login --local` at the port of this clone's dashboard, if one runs, else at a free one."""
    with apply.one_at_a_time():
        apply.open_home()
    os.environ.pop("ZENML_STORE_URL", None)  # what runs ask; the browser asks the dashboard
    from zenml.zen_server.deploy.deployer import LocalServerDeployer
    from zenml.zen_server.deploy.exceptions import ServerDeploymentNotFoundError

    port = None
    with suppress(ServerDeploymentNotFoundError):
        server: Any = LocalServerDeployer().get_server()
        port = server.config.port if server.is_running else None
    code = "from zenml_cli import cli; cli()"  # the script beside Python names the folder that it was installed in
    command = [sys.executable, "-c", code, "login", "--local", "--port", str(port or free_port())]
    return subprocess.run(command).returncode  # noqa: S603  (our own arguments)


def stop() -> int:
    """Stop this clone's dashboard; `zenml logout --local` leaves it running once a run has gone to the database."""
    os.environ.pop("ZENML_STORE_URL", None)
    from zenml.utils.source_utils import set_custom_source_root
    from zenml.zen_server.deploy.deployer import LocalServerDeployer

    set_custom_source_root(str(ROOT))
    LocalServerDeployer().remove_server()
    return 0


def free_port() -> int:
    """Return ZenML's own port, or any other if that is taken."""
    for port in (PORT, 0):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
                return int(tried.getsockname()[1])
            except OSError:
                continue
    raise UserError("no port is free on this machine")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
