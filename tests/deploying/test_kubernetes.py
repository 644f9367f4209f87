"""The manifests for Kubernetes: valid by its own schemas, hardened, and honest about what was not done."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
import yaml

from loop.config import ROOT, UserError
from loop.deploying.contract import Bento

FIRST = Bento(
    name="breast_cancer", version=1, release="v1-0123456789ab", sha256="a" * 64, tag="breast_cancer:v1-0123456789ab",
    path="/nowhere", runtime="onnx", note="",
)  # fmt: skip
SECOND = FIRST.model_copy(update={"version": 2, "release": "v2-0123456789ab", "tag": "breast_cancer:v2-0123456789ab"})


KUBERNETES = kubernetes_validate.latest_version()
BLOCK = re.compile(r"^```yaml\n# (model_deployer|run) of (stacks/\w+\.yaml)\n(.+?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def deployer(zenml: None, tmp_path: Path) -> Any:
    from zenml.enums import StackComponentType

    from loop.deploying.kubernetes import KubernetesConfig, KubernetesDeployer

    now = datetime.now(UTC)
    config = KubernetesConfig(repository="registry.example.com/models", folder=str(tmp_path), namespace="models")
    return KubernetesDeployer(
        name="kubernetes", id=uuid4(), config=config, flavor="bento_kubernetes",
        type=StackComponentType.MODEL_DEPLOYER, user=None, created=now, updated=now,
    )  # fmt: skip


def made(**configuration: Any) -> dict[str, Any]:
    """Return the valid manifests of a configuration by kind."""
    from loop.deploying.kubernetes import KubernetesConfig, manifests

    config = KubernetesConfig(**({"repository": "registry.example.com/models"} | configuration))
    found = {manifest["kind"]: manifest for manifest in manifests(FIRST, 3000, 2, config)}
    for manifest in found.values():
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    return found


def pod(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]
    return spec


def blocks(what: str) -> list[Any]:
    """Return file and YAML of the page's blocks for a part of a stack file."""
    page = (ROOT / "stacks/clusters.md").read_text(encoding="utf-8")
    return [
        pytest.param(file, yaml.safe_load(text), id=file) for part, file, text in BLOCK.findall(page) if part == what
    ]


def written(folder: Path) -> dict[str, Any]:
    found = [yaml.safe_load(path.read_text()) for path in sorted((folder / "breast_cancer").iterdir())]
    return {manifest["kind"]: manifest for manifest in found}


def test_every_manifest_is_valid_and_the_pod_is_locked_down(deployer: Any, tmp_path: Path) -> None:
    assert deployer.start(FIRST, 3000, 2) == []
    deployer.switch(FIRST)
    found = written(tmp_path)
    assert list(found) == ["Namespace", "PersistentVolumeClaim", "Deployment", "Service", "PodDisruptionBudget"]
    for manifest in found.values():
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
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
    from loop.serving.supervisor import KILL_SECONDS

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


def test_an_ingress_brings_the_host_to_the_service_under_its_certificate(zenml: None) -> None:
    asked = {"host": "models.example.com", "class_name": "nginx", "tls_secret": "models-tls"}
    found = made(ingress=asked | {"annotations": {"cert-manager.io/cluster-issuer": "letsencrypt"}})
    spec = found["Ingress"]["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"hosts": ["models.example.com"], "secretName": "models-tls"}]
    (rule,) = spec["rules"]
    assert rule["host"] == "models.example.com"
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == found["Service"]["metadata"]["name"]
    assert backend["port"]["name"] == found["Service"]["spec"]["ports"][0]["name"]
    assert found["Ingress"]["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "letsencrypt"
    assert "Ingress" not in made()


def test_autoscaling_takes_the_place_of_a_number_of_replicas(zenml: None) -> None:
    found = made(autoscaling={"min_replicas": 2, "max_replicas": 8, "cpu_percent": 60})
    spec = found["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 8)
    assert spec["metrics"][0]["resource"] == {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}
    }  # fmt: skip
    assert spec["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert "replicas" not in found["Deployment"]["spec"]  # each kubectl apply would undo what was scaled
    assert "PodDisruptionBudget" in found
    alone = made(autoscaling={"min_replicas": 1, "max_replicas": 2})
    assert "PodDisruptionBudget" not in alone
    assert made()["Deployment"]["spec"]["replicas"] == 2


def test_pull_secrets_nodes_and_a_role_in_the_cloud_are_the_pods(zenml: None) -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/models"}
    toleration = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
    nodes: dict[str, Any] = {"node_selectors": {"pool": "serving"}, "tolerations": [toleration]}
    found = made(image_pull_secrets=["registry"], service_account_annotations=role, **nodes)
    assert pod(found)["imagePullSecrets"] == [{"name": "registry"}]
    assert pod(found)["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"] == "breast-cancer"
    assert role.items() <= found["ServiceAccount"]["metadata"]["annotations"].items()
    assert (pod(found)["nodeSelector"], pod(found)["tolerations"]) == ({"pool": "serving"}, [toleration])
    assert not {"imagePullSecrets", "serviceAccountName", "nodeSelector", "tolerations"} & pod(made()).keys()


def test_a_closed_network_lets_in_the_listed_namespaces_and_nothing_out(zenml: None) -> None:
    spec = made(network_policy=["ingress-nginx"])["NetworkPolicy"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == []
    (allowed,) = spec["ingress"]
    named = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
    assert allowed == {"from": [{"podSelector": {}}, named], "ports": [{"port": "http"}]}
    assert spec["podSelector"] == made()["Deployment"]["spec"]["selector"]
    assert "NetworkPolicy" not in made()


def test_labels_for_costs_are_on_all_and_change_no_selector(zenml: None) -> None:
    plain, found = made(), made(labels={"team": "claims"}, autoscaling={"max_replicas": 4}, network_policy=[])
    template = found["Deployment"]["spec"]["template"]
    labelled = [manifest["metadata"]["labels"] for manifest in (*found.values(), template)]
    assert {labels["team"] for labels in labelled} == {"claims"}
    assert len(labelled) == 7
    assert found["Deployment"]["spec"]["selector"] == plain["Deployment"]["spec"]["selector"]
    assert found["Service"]["spec"]["selector"] == plain["Service"]["spec"]["selector"]


def test_a_log_on_a_disk_is_one_pods_and_a_new_release_starts_where_it_is(zenml: None) -> None:
    found = made(log_access="ReadWriteOnce", log_class="gp3", replicas=1)
    claim = found["PersistentVolumeClaim"]["spec"]
    assert (claim["accessModes"], claim["storageClassName"]) == (["ReadWriteOnce"], "gp3")
    (rule,) = pod(found)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert rule["labelSelector"] == found["Deployment"]["spec"]["selector"]
    assert "affinity" not in pod(made())


UNFIT = {
    "disk of two": ({"log_access": "ReadWriteOnce"}, "it needs replicas 1 and no autoscaling"),
    "disk that scales": (
        {"log_access": "ReadWriteOnce", "replicas": 1, "autoscaling": {"max_replicas": 4}},
        "it needs replicas 1 and no autoscaling",
    ),
    "EBS for many": ({"log_class": "gp3"}, "log_class gp3 is of disks, which are ReadWriteOnce"),
    "no certificate": ({"ingress": {"host": "models.example.com"}}, "'ingress' needs tls_secret, or annotations"),
    "range": ({"autoscaling": {"min_replicas": 5, "max_replicas": 4}}, "needs a max_replicas of 5 (min_replicas)"),
    "key of a group": ({"ingress": {"hots": "x", "tls_secret": "y"}}, "'ingress.hots'"),
}


@pytest.mark.parametrize("fault", UNFIT)
def test_what_does_not_fit_is_one_sentence_of_the_plan(zenml: None, fault: str) -> None:
    from loop.places.files import Component
    from loop.places.plan import _component_faults

    values, message = UNFIT[fault]
    configuration = {"repository": "r"} | values
    component = Component(name="k", type="model_deployer", flavor="bento_kubernetes", configuration=configuration)
    found = list(_component_faults(component))
    assert any(message in sentence for sentence in found)
    assert all(sentence.startswith("model_deployer 'k': ") for sentence in found)


@pytest.mark.parametrize(("file", "block"), blocks("model_deployer"))
def test_a_block_of_the_page_for_the_service_makes_valid_manifests(zenml: None, file: str, block: Any) -> None:
    assert "Ingress" in made(**block["configuration"])
    assert (ROOT / file).exists()


@pytest.mark.parametrize(("file", "block"), blocks("run"))
def test_a_block_of_the_page_for_a_step_has_settings_that_zenml_knows(zenml: None, file: str, block: Any) -> None:
    from loop.places import checks, files
    from loop.places.plan import _setting_faults

    stack = files.read(Path(file).stem)
    found = stack.model_copy(update={"run": files.Run(settings=stack.run.settings, **block)})
    assert [*_setting_faults(found), *checks._steps(found)] == []
    broken = {"steps": {"train_model": {"settings": {"orchestrator": {"no_such_key": 1}}}}}
    assert "no key 'no_such_key'" in "".join(_setting_faults(stack.model_copy(update={"run": files.Run(**broken)})))


@pytest.mark.parametrize("name", ["kubernetes", "kubeflow", "aws", "gcp", "azure", "airflow"])
def test_a_host_and_its_certificate_are_variables_of_every_stack_file_that_serves_from_a_cluster(
    zenml: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loop.places import files

    def configuration() -> dict[str, Any]:
        (deployer,) = files.read(name).components["model_deployer"]
        return deployer.configuration

    inside = made(**configuration())
    assert "Ingress" not in inside
    assert inside["Deployment"]["metadata"]["labels"]["project"] == "zenml-loop"
    monkeypatch.setenv("SERVING_HOST", "models.example.com")
    monkeypatch.setenv("TLS_SECRET", "models-tls")
    assert made(**configuration())["Ingress"]["spec"]["rules"][0]["host"] == "models.example.com"
