"""Submit a training to places that this machine has not: run as a script, in a process of its own.

`python submit.py FOLDER` does it for each place of `PLACES`, with ZenML's own orchestrators and the vendors' clients,
and writes what stand-ins were sent to FOLDER/PLACE.json.
"""

import faulthandler
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clouds
import pytest
from conftest import QUICK

import run
from loop.cli import runs
from loop.places import checks, files

PLACES = ("kubeflow", "aws", "gcp", "azure")
VARIABLES = {
    "kubeflow": {"REGISTRY": "registry.example.com"},
    "aws": {"ECR": "123456789012.dkr.ecr.us-east-1.amazonaws.com", "SAGEMAKER_ROLE": clouds.ROLE},
    "gcp": {
        "GCP_PROJECT": clouds.PROJECT,
        "ARTIFACT_REGISTRY": "europe-west1-docker.pkg.dev/a-project/images",
        "VERTEX_SERVICE_ACCOUNT": "steps@a-project.iam.gserviceaccount.com",
    },
    "azure": {
        "AZURE_SUBSCRIPTION": "11111111-1111-1111-1111-111111111111",
        "AZURE_RESOURCE_GROUP": "a-group",
        "AZURE_WORKSPACE": "a-workspace",
        "ACR": "images.azurecr.io",
    },
}


class Submitted(Exception):
    """The stand-in has it; nothing will run."""


@contextmanager
def place(name: str, folder: Path) -> Iterator[Any]:
    """Start a stand-in and set what its stack file asks for; yield what returns the things submitted."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in VARIABLES[name].items():
            patch.setenv(variable, value)
        if name == "kubeflow":
            with clouds.kubeflow() as service:
                patch.setenv("KUBEFLOW_HOST", service.url)
                yield lambda: service.submitted
        elif name == "aws":
            with clouds.sagemaker(os.environ["S3_ENDPOINT"]):
                yield clouds.sagemaker_pipelines
        elif name == "gcp":
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "key.json"))
            with clouds.vertex(folder / "key.json") as service:
                yield lambda: service.submitted
        else:
            with clouds.azureml(folder / "azureml") as service:
                yield lambda: service.submitted


def submit(name: str, folder: Path) -> None:
    """Submit to one place and write what came."""
    folder.mkdir(parents=True, exist_ok=True)

    def stop(run_name: str) -> None:
        raise Submitted

    options = files.Stack.options

    def without_waiting(stack: files.Stack, *asked: Any) -> dict[str, Any]:
        made = options(stack, *asked)
        made["settings"]["orchestrator"] = made["settings"].get("orchestrator", {}) | {"synchronous": False}
        return made

    with pytest.MonkeyPatch.context() as patch, place(name, folder) as submitted, clouds.images() as images:
        patch.setattr(runs, "finished", stop)
        patch.setattr(checks, "_packages", lambda stack: [])  # one environment has the packages of all places
        patch.setattr(files.Stack, "options", without_waiting)
        code = None
        try:
            code = run.main(["--pipeline", "training", "--stack", name, "--set", f"name={name}_model", *QUICK])
        except Submitted:
            found = {"submitted": submitted(), "built": [image._asdict() for image in images.built]}
            (folder.parent / f"{name}.json").write_text(json.dumps(found, default=str))
        assert code is None, f"{name}: nothing was submitted, exit code {code}"


if __name__ == "__main__":
    faulthandler.dump_traceback_later(600, exit=True)  # a client that waits for what no stand-in says
    runs.LOCAL = Path(sys.argv[1])
    for where in PLACES:
        begun = time.monotonic()
        submit(where, Path(sys.argv[1]) / where)
        print(f"{where}: {time.monotonic() - begun:.0f} s", flush=True)
    os._exit(0)  # the vendors' threads have no end of their own
