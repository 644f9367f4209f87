"""Artifacts over the wire: S3, Azure Blob and GCS hold a training, give it from cache, and another process reads it."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK, Cli, last_run
from parts import BUCKET, KEY, blob, gcs, s3

from loop.config import ROOT
from loop.places import files

pytestmark = [
    pytest.mark.stacks,
    # The vendors' clients hold connections for as long as the process lives.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

READ = """
import json, sys
from loop.cli import runs
from loop.config import ROOT
runs.start_zenml(runs.files.read("local"))
from zenml.client import Client
from zenml.utils.source_utils import set_custom_source_root
set_custom_source_root(str(ROOT))
found = {name: Client().get_artifact_version(id) for name, id in json.loads(sys.argv[1]).items()}
print(json.dumps({name: [artifact.uri, artifact.load().fingerprint] for name, artifact in found.items()}))
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start all three; return the variables that the stack files ask for."""
    folder = tmp_path_factory.mktemp("stores")
    with ExitStack() as parts, pytest.MonkeyPatch.context() as patch:
        endpoint = parts.enter_context(s3(folder / "s3"))
        connection = parts.enter_context(blob(folder / "blob", folder / "npm"))
        emulator = parts.enter_context(gcs(folder / "gcs"))
        variables = {
            "BUCKET": BUCKET, "CONTAINER": BUCKET, "S3_ENDPOINT": endpoint, "S3_KEY": "{{store.key}}",
            "S3_SECRET": "{{store.secret}}", "BLOB_SECRET": "blob", "STORAGE_EMULATOR_HOST": emulator,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks Google itself what kind a bucket is of
        }  # fmt: skip
        for name, value in variables.items():
            patch.setenv(name, value)
        from zenml.client import Client

        Client().create_secret("store", {"key": "a-key", "secret": "a-secret"})
        Client().create_secret("blob", {"connection_string": connection})
        yield variables
    gc.collect()  # here, where it may be ignored


@pytest.fixture
def places(stores: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write stack `local` with the artifact store of each cloud's file in place of its own."""
    found = []
    for name in ("aws", "azure", "gcp"):
        stack = yaml.safe_load((ROOT / "stacks/local.yaml").read_text(encoding="utf-8"))
        theirs = yaml.safe_load((ROOT / f"stacks/{name}.yaml").read_text(encoding="utf-8"))
        (store,) = theirs["components"]["artifact_store"]
        stack["stack_name"] = f"over_{name}"
        stack["components"]["artifact_store"] = [store | {"name": f"over_{name}"}]
        del stack["components"]["experiment_tracker"], stack["components"]["model_registry"]
        (tmp_path / f"over_{name}.yaml").write_text(yaml.safe_dump(stack), encoding="utf-8")
        found.append(f"over_{name}")
    monkeypatch.setattr(files, "STACKS", tmp_path)
    return found


def test_each_store_holds_a_training_gives_it_from_cache_and_to_another_process(places: list[str], cli: Cli) -> None:
    models: dict[str, Any] = {}
    for stack in places:
        arguments = ("--pipeline", "training", "--stack", stack, "--set", f"name={stack}", *QUICK)
        result = cli(*arguments)
        assert result.code == 0, result.err
        models[stack] = str(last_run().steps["train_model"].outputs["model"][0].id)
        assert cli(*arguments).code == 0
        steps = last_run().steps
        assert {steps[name].status.value for name in ("train_model", "evaluate_model", "split_rows")} == {"cached"}
    read = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(models)], cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    schemes = {"over_aws": "s3", "over_azure": "az", "over_gcp": "gs"}
    for stack, (uri, _) in found.items():
        assert uri.startswith(f"{schemes[stack]}://{BUCKET}/"), uri
    assert len({fingerprint for _, fingerprint in found.values()}) == 1  # the same model, wherever it lies
    assert KEY not in read.stdout + read.stderr
