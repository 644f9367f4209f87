"""Open ZenML's dashboard or MLflow's on this clone's runs, at free ports: `loop/cli/dashboard.py [--mlflow | --stop]`.

`--stack NAME` opens that of the stack's server, where it has one.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any

from loop.cli import environment, runs
from loop.config import ROOT, UserError
from loop.places import apply, files

MLFLOW_PORT = 5000
"""MLflow's own; where it is taken, the next free one is it."""
START_SECONDS = 120.0


def main(arguments: list[str]) -> int:
    """Start the dashboard, or stop it; return 0, or 2 for a user's mistake."""
    environment.settle()
    try:
        with environment.disk_faults(runs.LOCAL):
            if arguments == ["--mlflow"]:
                return start_mlflow()
            stack = files.read(arguments[1] if len(arguments) == 2 and arguments[0] == "--stack" else "local")
            if stack.server is not None:
                return show(stack.server)
            runs.start_zenml(stack)
            return stop() if arguments == ["--stop"] else start()
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2


def start() -> int:
    """Run `zenml login --local` at the port of this clone's dashboard, if one runs, else at a free one."""
    from loop.cli.console import PORT, dashboard_port, free_port

    with apply.one_at_a_time():
        apply.open_home()
    os.environ.pop("ZENML_STORE_URL", None)  # what runs ask; the browser asks the dashboard
    code = "from zenml_cli import cli; cli()"  # the script beside Python names the folder that it was installed in
    command = [sys.executable, "-c", code, "login", "--local", "--port", str(dashboard_port() or free_port(PORT))]
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
    """Stop this clone's dashboards; `zenml logout --local` leaves it running once a run has gone to the database."""
    if (server := _mlflow()) is not None:
        os.killpg(server["pid"], signal.SIGTERM)
    _mlflow_file().unlink(missing_ok=True)
    os.environ.pop("ZENML_STORE_URL", None)
    from zenml.utils.source_utils import set_custom_source_root
    from zenml.zen_server.deploy.deployer import LocalServerDeployer

    set_custom_source_root(str(ROOT))
    LocalServerDeployer().remove_server()
    return 0


def start_mlflow() -> int:
    """Serve MLflow's pages on this clone's store in the background, unless they are, and print where."""
    runs.use_stack(files.read("local"))
    from zenml.client import Client

    from loop.cli.console import free_port
    from loop.registry import tracking

    if (server := _mlflow()) is None:
        with apply.one_at_a_time():
            tracking.create_database()
        tracker: Any = Client().active_stack.experiment_tracker
        port, said = free_port(MLFLOW_PORT), _mlflow_file().with_suffix(".log")
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracker.get_tracking_uri()]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with said.open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)  # noqa: S603
        server = {"pid": process.pid, "port": port, "born": _born(process.pid)}
        _mlflow_file().write_text(json.dumps(server))
        deadline = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UserError(f"MLflow did not start at port {port}; {said} says why")
            time.sleep(0.2)
    print(f"MLflow shows this clone's runs at http://127.0.0.1:{server['port']}; make stop ends it")
    for name, url in tracking.pages(f"http://127.0.0.1:{server['port']}").items():
        print(f"{name:<20}{url}")
    return 0


def _mlflow_file() -> Path:
    return Path(os.environ["ZENML_CONFIG_PATH"]) / "mlflow.json"


def _mlflow() -> dict[str, Any] | None:
    """Return process and port of this clone's MLflow, if it runs."""
    with suppress(OSError, ValueError, KeyError):
        server: dict[str, Any] = json.loads(_mlflow_file().read_text())
        if _born(server["pid"]) == server["born"]:
            return server
    return None


def _born(pid: int) -> float | None:
    """Return when a process was started: numbers come again."""
    import psutil  # type: ignore[import-untyped]

    with suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).create_time())
    return None


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
