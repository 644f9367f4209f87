"""A real Airflow 3 in an environment of its own; its tasks run in containers of this machine's Docker.

The module is not called `airflow`: ZenML looks for a package of that name.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from parts import Part, free_port, program, running, wait_for

PINS = Path(__file__).with_name("requirements-airflow.txt")
SECRET = "s" * 64
SERVICES = (
    "airflow db migrate && { airflow scheduler --skip-serve-logs & airflow dag-processor & exec airflow api-server; }"
)


class Airflow:
    """What a test asks of it, over its REST API."""

    def __init__(self, url: str, dags: Path) -> None:
        self.url, self.dags = url, dags
        self._client = httpx.Client(base_url=url, timeout=30)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        if "Authorization" not in self._client.headers:
            token = self._client.get("/auth/token").raise_for_status().json()["access_token"]
            self._client.headers["Authorization"] = f"Bearer {token}"
        return self._client.request(method, f"/api/v2{path}", **options).raise_for_status().json()

    def healthy(self) -> bool:
        """Whether the scheduler and the DAG processor do their work."""
        health = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=30).raise_for_status().json()
        return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))

    def loaded(self, dag_id: str) -> bool:
        """Whether a file of the folder `dags` was read as this DAG; a file that cannot be read raises."""
        if errors := self.ask("GET", "/importErrors")["import_errors"]:
            raise RuntimeError(f"Airflow cannot read {errors[0]['filename']}: {errors[0]['stack_trace']}")
        return any(dag["dag_id"] == dag_id for dag in self.ask("GET", "/dags", params={"limit": 100})["dags"])

    def trigger(self, dag_id: str) -> str:
        """Start a run of a DAG as soon as it is loaded; return the run's id."""
        wait_for(lambda: self.loaded(dag_id), f"Airflow to load {dag_id}")
        self.ask("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        return str(self.ask("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None})["dag_run_id"])

    def runs(self, dag_id: str) -> dict[str, str]:
        """Return the state of each run of a DAG."""
        return {run["dag_run_id"]: run["state"] for run in self.ask("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]}

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task of a run, None where it has not begun."""
        found = self.ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def finished(self, dag_id: str, run_id: str, seconds: float = 180) -> str:
        """Wait for the end of a run; return its state."""
        states = ("success", "failed")
        wait_for(lambda: self.runs(dag_id)[run_id] in states, f"the run {run_id} of {dag_id}", seconds, pause=2)
        return self.runs(dag_id)[run_id]


def install(environment: Path) -> Path:
    """Make Airflow's environment, unless it is there; return its folder of programs."""
    if not (environment / "ready").exists():
        uv = program("uv", "`pip install uv`", Path(sys.executable).parent)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
        target = ["--python", environment / "bin/python", "--compile-bytecode"]
        subprocess.run([uv, "pip", "install", "--quiet", *target, "--requirement", PINS], check=True)
        (environment / "ready").touch()
    return environment / "bin"


@contextmanager
def airflow(folder: Path, environment: Path) -> Iterator[Airflow]:
    """Start a scheduler, a DAG processor and an API server on SQLite; DAGs are read from the folder `dags`."""
    programs, port = install(environment), free_port()
    url = f"http://127.0.0.1:{port}"
    asked = Airflow(url, folder / "dags")
    asked.dags.mkdir(parents=True)
    settings = {
        "CORE__DAGS_FOLDER": str(asked.dags),
        "CORE__LOAD_EXAMPLES": "false",
        "CORE__PARALLELISM": "4",  # each is a process
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "true",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__BASE_URL": url,
        "API__WORKERS": "1",
        "API__SECRET_KEY": SECRET,
        "API_AUTH__JWT_SECRET": SECRET,
        "DAG_PROCESSOR__REFRESH_INTERVAL": "1",
        "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "USAGE_DATA_COLLECTION__ENABLED": "false",
    }
    variables = os.environ | {f"AIRFLOW__{name}": value for name, value in settings.items()}
    variables |= {"AIRFLOW_HOME": str(folder), "PATH": f"{programs}:{os.environ['PATH']}"}
    with running(Part("Airflow", ["sh", "-c", SERVICES], folder, asked.healthy, variables)):
        yield asked
