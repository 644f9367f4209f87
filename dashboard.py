"""Open the ZenML dashboard of this clone, at a port that no other clone's has: `python dashboard.py [--stop]`.

`--stack NAME` opens that of the stack's server, where it has one.
"""

import os
import socket
import subprocess
import sys
import webbrowser
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
            stack = files.read(arguments[1] if len(arguments) == 2 and arguments[0] == "--stack" else "local")
            if stack.server is not None:
                return show(stack.server)
            run.start_zenml(stack)
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


def show(url: str) -> int:
    """Open the dashboard of a server, which asks who one is."""
    if "${" in url:
        raise UserError(f"set the variable of the server's address: {url}")
    print(f"the dashboard of the stack's server: {url}")
    if os.environ.get("ZENML_AUTO_OPEN_DASHBOARD", "true").lower() not in ("false", "0"):
        webbrowser.open(url)
    return 0


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
