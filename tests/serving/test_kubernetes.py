"""The manifests for Kubernetes: valid by its own schemas, hardened, and honest about what was not done."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml

from config import UserError
from serving.deployment import Bento

FIRST = Bento(
    name="breast_cancer", version=1, release="v1-0123456789ab", sha256="a" * 64, tag="breast_cancer:v1-0123456789ab",
    path="/nowhere", runtime="onnx", note="",
)  # fmt: skip
SECOND = FIRST.model_copy(update={"version": 2, "release": "v2-0123456789ab", "tag": "breast_cancer:v2-0123456789ab"})


@pytest.fixture
def deployer(zenml: None, tmp_path: Path) -> Any:
    from zenml.enums import StackComponentType

    from stacks.kubernetes_deployer import KubernetesConfig, KubernetesDeployer

    now = datetime.now(UTC)
    config = KubernetesConfig(repository="registry.example.com/models", folder=str(tmp_path), namespace="models")
    return KubernetesDeployer(
        name="kubernetes", id=uuid4(), config=config, flavor="bento_kubernetes",
        type=StackComponentType.MODEL_DEPLOYER, user=None, created=now, updated=now,
    )  # fmt: skip


def written(folder: Path) -> dict[str, Any]:
    found = [yaml.safe_load(path.read_text()) for path in sorted((folder / "breast_cancer").iterdir())]
    return {manifest["kind"]: manifest for manifest in found}


def test_every_manifest_is_valid_and_the_pod_is_locked_down(deployer: Any, tmp_path: Path) -> None:
    assert deployer.start(FIRST, 3000, 2) == []
    deployer.switch(FIRST)
    found = written(tmp_path)
    assert list(found) == ["Namespace", "PersistentVolumeClaim", "Deployment", "Service", "PodDisruptionBudget"]
    for manifest in found.values():
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = pod["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["image"] == "registry.example.com/models/breast_cancer:v1-0123456789ab"
    assert found["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    template = found["Deployment"]["spec"]["template"]
    assert found["Service"]["spec"]["selector"] == template["metadata"]["labels"]


def test_token_comes_from_a_secret_and_stands_in_no_manifest(
    deployer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVING_TOKEN", "correct-horse-battery")
    deployer.start(FIRST, 3000, 1)
    deployer.switch(FIRST)
    environment = written(tmp_path)["Deployment"]["spec"]["template"]["spec"]["containers"][0]["env"]
    token = next(one for one in environment if one["name"] == "SERVING_TOKEN")
    assert token["valueFrom"]["secretKeyRef"] == {"name": "serving", "key": "token"}
    assert not any("correct-horse-battery" in path.read_text() for path in tmp_path.rglob("*.yaml"))


def test_a_pod_has_the_time_to_finish_what_it_began(deployer: Any, tmp_path: Path) -> None:
    from serving.supervisor import KILL_SECONDS

    deployer.start(FIRST, 3000, 1)
    deployer.switch(FIRST)
    pod = written(tmp_path)["Deployment"]["spec"]["template"]["spec"]
    waits = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > waits + KILL_SECONDS


def test_says_that_nothing_was_applied_and_what_to_run(deployer: Any, tmp_path: Path) -> None:
    deployer.start(FIRST, 3000, 1)
    assert deployer.status("breast_cancer") is None
    deployer.switch(FIRST)
    deployer.start(SECOND, 3000, 1)
    deployer.discard(SECOND)
    status = deployer.status("breast_cancer")
    assert (status.state, status.release, status.url) == ("written, not applied", FIRST.release, None)
    assert status.process.endswith(f"kubectl apply -f {tmp_path}/breast_cancer")
    deployer.start(SECOND, 3000, 1)
    deployer.switch(SECOND)
    assert deployer.status("breast_cancer").release == SECOND.release
    assert deployer.names() == ["breast_cancer"]
    with pytest.raises(UserError, match="nothing was applied from here; to stop it, run: kubectl delete"):
        deployer.stop("breast_cancer")
    assert not deployer.stop("another")
