"""Places that this machine has not: what ZenML's own orchestrators submit, in detail; on Kubernetes it also runs.

Nothing runs on Kubeflow, SageMaker, Vertex AI and AzureML: stand-ins record what their APIs are sent.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from clients import Client, ended
from clouds import ROLE, azureml_environments
from cluster import Cluster, cluster
from parts import BUCKET, blob, gcs
from shared import SECRETS, Company
from sklearn.datasets import load_breast_cancer

from loop.config import ROOT

pytestmark = pytest.mark.stacks

STEPS = {
    "fetch_champion", "ingest_rows", "split_rows", "validate_rows", "accept_rows", "train_model", "evaluate_model",
    "compare_models", "register_model",
}  # fmt: skip
ORDER = [("ingest_rows", "split_rows"), ("split_rows", "validate_rows"), ("accept_rows", "train_model"),
         ("train_model", "evaluate_model"), ("compare_models", "register_model")]  # fmt: skip


@pytest.fixture(scope="module")
def submitted(company: Company, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Submit to every place that only records, in one process."""
    folder = tmp_path_factory.mktemp("places")
    with gcs(folder / "gcs") as emulator, blob(folder / "blob", folder / "npm") as connection:
        secret = {"name": "blob", "private": False, "values": {"connection_string": connection}}
        company.server.ask("POST", "/secrets", json=secret)
        variables = {"CONTAINER": BUCKET, "BLOB_SECRET": "blob", "STORAGE_EMULATOR_HOST": emulator}
        variables["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it asks Google itself what kind a bucket is of
        return submit(company.robot("places", **variables))


def submit(client: Client) -> dict[str, Any]:
    command = [sys.executable, ROOT / "tests/stacks/submit.py", client.folder]
    done = subprocess.run(command, cwd=ROOT, env=client.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        name: json.loads((client.folder / f"{name}.json").read_text()) for name in ("kubeflow", "aws", "gcp", "azure")
    }


@pytest.mark.parametrize("place", ["kubeflow", "aws", "gcp", "azure"])
def test_one_image_is_built_of_the_pins_not_as_root_and_no_secret_is_sent(
    submitted: dict[str, Any], place: str
) -> None:
    (image,) = submitted[place]["built"]
    assert "\nUSER 10001" in image["dockerfile"]
    assert image["dockerfile"].startswith("FROM python:3.11-slim")
    assert any("requirements" in file for file in image["files"])
    assert not any(file.endswith(".py") for file in image["files"])  # code comes with the run, so the image stays
    assert SECRETS["mlflow"]["password"] not in json.dumps(submitted[place])


def test_kubeflow_gets_every_step_in_order_with_its_resources(submitted: dict[str, Any]) -> None:
    (run,) = submitted["kubeflow"]["submitted"]
    spec = run["pipeline_spec"]
    tasks = spec["root"]["dag"]["tasks"]
    named = {name.replace("-", "_"): task for name, task in tasks.items()}
    assert {*named} == STEPS
    for before, after in ORDER:
        assert before.replace("_", "-") in named[after]["dependentTasks"]
    containers = {
        name.removeprefix("exec-").replace("-", "_"): executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }
    assert {c["image"].partition("@")[0] for c in containers.values()} == {"registry.example.com/zenml-loop"}
    assert containers["train_model"]["resources"]["resourceCpuLimit"] == "4.0"
    assert containers["ingest_rows"]["resources"]["resourceCpuLimit"] == "1.0"


def test_sagemaker_gets_every_step_in_order_on_spot_machines(submitted: dict[str, Any]) -> None:
    (pipeline,) = submitted["aws"]["submitted"]
    assert pipeline["RoleArn"] == ROLE
    assert len(pipeline["Executions"]) == 1
    steps = {step["Name"]: step for step in pipeline["PipelineDefinition"]["Steps"]}
    assert {*steps} == STEPS
    for before, after in ORDER:
        assert before in steps[after]["DependsOn"]
    for name, step in steps.items():
        arguments = step["Arguments"]
        image = arguments["AlgorithmSpecification"]["TrainingImage"]
        assert image.startswith("123456789012.dkr.ecr.us-east-1.amazonaws.com/zenml-loop@sha256:")
        assert arguments["EnableManagedSpotTraining"] is True
        kind = "ml.m5.2xlarge" if name == "train_model" else "ml.m5.large"
        assert arguments["ResourceConfig"]["InstanceType"] == kind
        assert arguments["StoppingCondition"]["MaxWaitTimeInSeconds"] == 21600


def test_vertex_gets_every_step_in_order_under_its_service_account(submitted: dict[str, Any]) -> None:
    (job,) = submitted["gcp"]["submitted"]
    assert job["serviceAccount"] == "steps@a-project.iam.gserviceaccount.com"
    assert job["runtimeConfig"]["gcsOutputDirectory"].startswith(f"gs://{BUCKET}/vertex")
    spec = job["pipelineSpec"]
    named = {name.replace("-", "_"): task for name, task in spec["root"]["dag"]["tasks"].items()}
    assert {*named} == STEPS
    for before, after in ORDER:
        assert before.replace("_", "-") in named[after]["dependentTasks"]
    text = json.dumps(spec)
    assert "n1-standard-8" in text
    assert "SPOT" in text
    assert "europe-west1-docker.pkg.dev/a-project/images/zenml-loop@sha256:" in text


def test_azureml_gets_every_step_in_order_on_a_cluster_of_spot_machines(submitted: dict[str, Any]) -> None:
    jobs = [sent for sent in submitted["azure"]["submitted"] if "/jobs/" in sent["path"]]
    steps = jobs[-1]["properties"]["jobs"]
    steps["register_model"] = steps.pop("component_job")  # so Azure's client calls the last one
    assert {*steps} == STEPS
    text = json.dumps(submitted["azure"]["submitted"])
    assert "images.azurecr.io/zenml-loop@sha256:" in text
    for before, after in ORDER:
        assert re.search(rf"\{{\{{parent\.jobs\.{before}\.outputs\.", json.dumps(steps[after])), (before, after)
    environments = azureml_environments(submitted["azure"]["submitted"])
    assert all("MLFLOW_TRACKING_PASSWORD" not in environment for environment in environments.values())


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Cluster]:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "zenml", "namespace": "zenml"}}
    subject = {"kind": "ServiceAccount", "name": "zenml", "namespace": "zenml"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "subjects": [subject], "roleRef": role,
        "metadata": {"name": "zenml", "namespace": "zenml"},
    }  # fmt: skip
    # The image holds the code, which is found where it lies here.
    with cluster(tmp_path / "cluster", {"PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}) as running:
        running.apply(account, binding)
        yield running


def test_on_kubernetes_a_batch_fans_out_into_pods_with_their_resources_and_really_runs(
    company: Company, kubernetes: Cluster, tmp_path: Path
) -> None:
    rows = load_breast_cancer(as_frame=True).data
    for place in range(3):
        rows.iloc[place::3].to_parquet(tmp_path / f"rows{place}.parquet")
    variables = {
        "KUBECONFIG": str(kubernetes.kubeconfig), "KUBE_CONTEXT": "cluster", "REGISTRY": "registry.example.com",
    }  # fmt: skip
    assert ended(company.robot().train("in_pods", "--stack", "server")).code == 0
    changes = (
        "name=in_pods", f"inference.source={tmp_path}/rows*.parquet", f"inference.output={tmp_path}/scores",
        "inference.shards=2",
    )  # fmt: skip
    client = company.robot("kubernetes", stand_in="images", **variables)
    sets = [word for change in changes for word in ("--set", change)]
    result = ended(client.start("--pipeline", "inference", "--stack", "kubernetes", *sets))
    assert result.code == 0, result.err + kubernetes.logs()
    scored = pd.concat([pd.read_parquet(path) for path in (tmp_path / "scores").rglob("*.parquet")])
    assert len(scored) == len(rows)
    pods = {
        label: job["spec"]["template"]["spec"]
        for job in kubernetes.submitted("jobs")
        if (label := job["metadata"].get("annotations", {}).get("zenml.step_name", job["metadata"]["name"]))
    }
    steps = [pod for pod in pods.values() if pod["containers"][0]["resources"]["requests"].get("cpu") == "1"]
    assert len(steps) == 4  # fetch, two shards, gather; ZenML's own pod is one more
    for pod in steps:
        (container,) = pod["containers"]
        assert container["image"].startswith("registry.example.com/zenml-loop@sha256:")
        assert container["resources"] == {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}}
        assert pod["serviceAccountName"] == "zenml"
        assert pod["tolerations"] == [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]
        inline = {variable["name"] for variable in container.get("env", []) if variable.get("value")}
        assert "ZENML_STORE_API_TOKEN" not in inline  # by reference to a secret of the cluster
    assert company.key not in json.dumps(kubernetes.submitted("jobs"))


def test_the_pages_block_for_a_gpu_becomes_a_pod_that_kubernetes_accepts() -> None:
    import kubernetes_validate
    from kubernetes.client import ApiClient
    from zenml.integrations.kubernetes.manifest_utils import build_pod_manifest
    from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

    page = (ROOT / "stacks/clusters.md").read_text(encoding="utf-8")
    block = yaml.safe_load(page.partition("# run of stacks/kubernetes.yaml\n")[2].partition("```")[0])
    asked = block["steps"]["train_model"]["settings"]["orchestrator"]["pod_settings"]
    pod = build_pod_manifest("step", "image", ["python"], [], False, KubernetesPodSettings(**asked))
    manifest = ApiClient().sanitize_for_serialization(pod)
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    spec = manifest["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert manifest["metadata"]["labels"] == {"project": "zenml-loop", "team": "claims"}
