"""Stack `airflow`: a real scheduler runs the training, each step a task in a container, on remote parts alone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import base_image
import pytest
from airflow3 import Airflow, airflow
from clients import Client, ended
from parts import registry, wait_for
from shared import Company

from loop.config import ROOT

pytestmark = [pytest.mark.stacks, pytest.mark.docker]


@pytest.fixture(scope="module")
def base() -> str:
    """Return the tag of the image that the steps' image is built on."""
    with base_image.docker_engine("Airflow ran no task") as engine:
        return base_image.ensure_for_steps(engine, ROOT / "stacks/requirements-server.txt")


@pytest.fixture
def place(company: Company, base: str, tmp_path: Path) -> Iterator[tuple[Airflow, Client]]:
    with (
        registry(tmp_path / "registry") as images,
        airflow(tmp_path / "airflow", ROOT / ".venv-airflow") as scheduler,
    ):
        variables = {
            "REGISTRY": images, "AIRFLOW_DAGS": str(scheduler.dags), "AIRFLOW_NETWORK": "host", "BASE_IMAGE": base,
        }  # fmt: skip
        yield scheduler, company.robot("airflow", **variables)


def test_airflow_runs_the_training_and_records_each_task(place: tuple[Airflow, Client]) -> None:
    scheduler, client = place
    process = client.train("by_airflow", "--stack", "airflow")

    def dag() -> Any:
        found = scheduler.ask("GET", "/dags", params={"limit": 10})["dags"]
        return found and found[0]["dag_id"]

    dag_id = wait_for(dag, "the DAG to be read", 600, pause=2)
    scheduler.ask("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
    run_id = wait_for(lambda: next(iter(scheduler.runs(dag_id)), None), "the DAG to be run")
    assert scheduler.finished(dag_id, run_id, 900) == "success", scheduler.tasks(dag_id, run_id)
    result = ended(process, 120)
    assert result.code == 0, result.err
    assert re.search("champion +version 1", result.out)
    tasks = scheduler.tasks(dag_id, run_id)
    assert {"ingest_rows", "train_model", "register_model"} < {*tasks}
    assert {*tasks.values()} == {"success"}
