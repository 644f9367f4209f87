"""Stand-ins for the clouds' pipeline services: ZenML's own orchestrators and the vendors' own clients submit to them.

Each records what it is sent and runs nothing: a pipeline that is submitted here must not wait (`synchronous: false`).
"""

import base64
import copy
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from loopback import Call, loopback

Manifest = dict[str, Any]

PROJECT = "a-project"
REGION = "us-east-1"  # of AWS
ROLE = "arn:aws:iam::123456789012:role/loop"


class Image(NamedTuple):
    """What was built: its name, its Dockerfile, and the files beside it."""

    name: str
    dockerfile: str
    files: tuple[str, ...]


class Images:
    """A container engine that builds nothing; `built` and `pushed` are what it was asked for."""

    def __init__(self) -> None:
        self.built: list[Image] = []
        self.pushed: list[str] = []

    def digest(self, name: str) -> str:
        """Return the name by which a registry knows what was pushed."""
        return f"{name.rpartition(':')[0]}@sha256:{hashlib.sha256(name.encode()).hexdigest()}"


@contextmanager
def images() -> Iterator[Images]:
    """Let ZenML build and push images up to the container engine, which is where this stands in."""
    from zenml.container_engines import ContainerEngine, factory
    from zenml.enums import ContainerEngineType

    made = Images()

    class Engine(ContainerEngine):
        engine_type = ContainerEngineType.DOCKER

        def check_availability(self) -> tuple[bool, str | None]:
            return True, None

        def login(self, *args: Any, **kwargs: Any) -> None:
            pass

        def build(self, image_name: str, build_context: Any, *args: Any, **kwargs: Any) -> None:
            files, extra = build_context.get_files(), build_context.get_extra_files()
            dockerfile = extra.get("Dockerfile") or Path(files["Dockerfile"]).read_text()
            made.built.append(Image(image_name, dockerfile, tuple(sorted({*files, *extra}))))

        def tag_image(self, source: str, target: str) -> None:
            made.built.append(Image(target, f"FROM {source}", ()))

        def push_image(self, image_name: str, container_registry: Any = None) -> str:
            made.pushed.append(image_name)
            return made.digest(image_name)

        def is_image_local(self, image_name: str) -> bool:
            return False

        def get_image_repo_digest(self, image_name: str, container_registry: Any = None) -> str:
            return made.digest(image_name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(factory.CONTAINER_ENGINE_CLASSES, ContainerEngineType.DOCKER, Engine)
        yield made


class Service(NamedTuple):
    """A stand-in: its address, and what was submitted to it."""

    url: str
    submitted: list[Manifest]


@contextmanager
def kubeflow() -> Iterator[Service]:
    """Start an API of Kubeflow Pipelines (`kubeflow_hostname: url`); a run or recurring run has a `pipeline_spec`."""
    submitted: list[Manifest] = []

    def answer(call: Call) -> tuple[int, Any]:
        kind = call.path.rpartition("/")[2]
        if call.method == "POST" and kind == "experiments":
            return 200, {"experiment_id": "1", "display_name": call.body["display_name"]}
        if call.method == "POST" and kind in ("runs", "recurringruns"):
            submitted.append(call.body)
            return 200, call.body | {"run_id": "1", "recurring_run_id": "1"}
        return 200, {}  # no experiment yet, and no more than one user

    with loopback(answer) as url:
        yield Service(url, submitted)


@contextmanager
def sagemaker(url: str) -> Iterator[Service]:
    """Let AWS clients of this process talk to a moto server; see `sagemaker_pipelines` for what it got."""
    with pytest.MonkeyPatch.context() as patch:
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
        for name, value in zip(names, ("a-key", "a-secret", REGION, url), strict=True):
            patch.setenv(name, value)
        patch.setattr("sagemaker.session.sts_regional_endpoint", lambda region: url)  # it takes no address from outside
        patch.setattr("sagemaker.telemetry.telemetry_logging._send_telemetry_request", lambda *args: None)
        yield Service(url, [])


def sagemaker_pipelines() -> list[Manifest]:
    """Return the pipelines that SageMaker has, with their definition parsed and the executions that were started."""
    import boto3

    client = boto3.client("sagemaker")
    found = []
    for summary in client.list_pipelines()["PipelineSummaries"]:
        pipeline = client.describe_pipeline(PipelineName=summary["PipelineName"])
        executions = client.list_pipeline_executions(PipelineName=summary["PipelineName"])
        pipeline["PipelineDefinition"] = json.loads(pipeline["PipelineDefinition"])
        found.append(pipeline | {"Executions": executions["PipelineExecutionSummaries"]})
    return found


@contextmanager
def vertex(key: Path) -> Iterator[Service]:
    """Start a Vertex AI and write the `key` of a service account; each job or schedule is as Google's API gets it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from google.cloud import aiplatform

    submitted: list[Manifest] = []

    def answer(call: Call) -> tuple[int, Any]:
        if call.path == "/token":
            return 200, {"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}
        if call.path.startswith("/storage/"):  # is the bucket of the pipeline's root there?
            return 200, {"name": call.path.rpartition("/")[2]}
        parent, _, kind = call.path.removeprefix("/v1/").rpartition("/")
        if call.method == "POST":
            submitted.append(call.body | {"parent": parent, "query": dict(call.query)})
        name = f"{parent}/{kind}/{call.query.get('pipelineJobId', '1')}"
        return 200, {"name": name, "displayName": call.body.get("displayName", "") if call.body else ""}

    with loopback(answer) as url, pytest.MonkeyPatch.context() as patch:
        private = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {"type": "service_account", "project_id": PROJECT, "private_key_id": "1", "token_uri": f"{url}/token"}
        account |= {"client_email": f"loop@{PROJECT}.iam.gserviceaccount.com", "private_key": private.decode()}
        key.write_text(json.dumps(account))
        if "STORAGE_EMULATOR_HOST" not in os.environ:
            patch.setenv("STORAGE_EMULATOR_HOST", url)
        boundary = "google.auth.credentials.CredentialsWithRegionalAccessBoundary"  # looked up at Google, with retries
        patch.setattr(f"{boundary}._is_regional_access_boundary_lookup_required", lambda self: False)
        patch.setattr(aiplatform.initializer.global_config, "_api_endpoint", url)
        patch.setattr(aiplatform.initializer.global_config, "_api_transport", "rest")
        yield Service(url, submitted)


@contextmanager
def azureml(folder: Path) -> Iterator[Service]:
    """Start an Azure Resource Manager of one AzureML workspace, with a managed identity for Azure's default credential.

    What is submitted are jobs, schedules, components and environments, each with its `path`.
    """
    import jwt

    submitted: list[Manifest] = []
    there: dict[str, Manifest] = {}
    identity_token = jwt.encode({"aud": "https://ml.azure.com", "tid": "a-tenant", "oid": "a"}, "k" * 32)

    def answer(call: Call) -> tuple[int, Any]:
        if call.path == "/metadata":
            cloud = {"name": "loopback", "portal": "https://portal.azure.com", "resourceManager": url}
            return 200, [cloud | {"authentication": {"loginEndpoint": url}, "suffixes": {"storage": "example.com"}}]
        if call.method == "PUT":
            submitted.append(copy.deepcopy(call.body) | {"path": call.path})
            made = there[call.path] = call.body | {"id": call.path, "name": call.path.rpartition("/")[2]}
            made["properties"] |= {"provisioningState": "Succeeded"}
            if "/jobs/" in call.path:
                made["properties"]["services"] = {"Studio": {"jobServiceType": "Studio", "endpoint": f"{url}/studio"}}
            return 201, made
        if call.path in there:
            return 200, there[call.path]
        if call.path.rpartition("/")[0].endswith("/workspaces"):
            return 200, {
                "id": call.path,
                "name": call.path.rpartition("/")[2],
                "location": "a-region",
                "properties": {},
            }
        return 404, {"error": {"code": "ResourceNotFound", "message": call.path}}

    def token(call: Call) -> tuple[int, Any]:
        return 200, {
            "access_token": identity_token,
            "expires_on": "4102444800",
            "token_type": "Bearer",
            "resource": "a",
        }

    with loopback(answer, folder) as url, loopback(token) as identity, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARM_CLOUD_METADATA_URL", f"{url}/metadata")
        patch.setenv("AZUREML_CURRENT_CLOUD", "loopback")
        patch.setenv("IDENTITY_ENDPOINT", identity)
        patch.setenv("IDENTITY_HEADER", "a-header")
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.crt"))
        yield Service(url, submitted)


def azureml_environments(submitted: Sequence[Manifest]) -> dict[str, dict[str, str]]:
    """Return the environment of each step that was submitted to AzureML, which is in its command line."""
    found = {}
    for component in (sent["properties"]["componentSpec"] for sent in submitted if "/components/" in sent["path"]):
        words = component["command"].split()
        encoded = words[words.index("--zenml_env_variables") + 1]
        found[component["name"]] = json.loads(base64.b64decode(encoded))
    return found
