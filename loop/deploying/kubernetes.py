"""Write the manifests of a bento's service for Kubernetes, and apply nothing: that is for whoever may.

`start` writes them beside those of the release before, `switch` puts them in their place.
"""

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator
from zenml.model_deployers.base_model_deployer import BaseModelDeployerConfig

from loop.config import UserError
from loop.deploying.contract import Bento, Status
from loop.deploying.local import BentoDeployer, BentoFlavor
from loop.serving import container

USER = 10001
RELEASE = "serving/release"
LEAVE_SECONDS = 5  # between a pod's end being decided and every node sending it no more
DISKS = ("gp2", "gp3", "ebs-sc", "standard-rwo", "premium-rwo", "managed-csi", "managed-csi-premium")
"""Storage classes of the clouds' disks, as they are commonly named: one node mounts them."""
Manifest = dict[str, Any]


class Part(BaseModel):
    """A group of keys of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ingress(Part):
    """How clients from outside the cluster reach the service; which controller answers, the cluster says."""

    host: str
    class_name: str | None = None
    """Default: the cluster's."""
    tls_secret: str | None = None
    """Holds the certificate; cert-manager makes it where an annotation asks for that."""
    annotations: dict[str, str] = {}

    @model_validator(mode="after")
    def _is_encrypted(self) -> "Ingress":
        if not self.tls_secret and not self.annotations:
            raise ValueError("needs tls_secret, or annotations that bring a certificate: clients send a token")
        return self


class Autoscaling(Part):
    """Between how many pods, and at which share of the CPU that they ask for."""

    min_replicas: int = Field(2, ge=1)
    max_replicas: int = Field(ge=2)
    cpu_percent: int = Field(70, ge=1, le=100)

    @model_validator(mode="after")
    def _is_a_range(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"needs a max_replicas of {self.min_replicas} (min_replicas) or more")
        return self


class KubernetesConfig(BaseModelDeployerConfig):
    """Where the image lies, and what the cluster gives."""

    repository: str
    """The image is REPOSITORY/NAME:RELEASE."""
    folder: str | None = None
    """Of the manifests, a folder a model; default: .local/manifests."""
    namespace: str | None = None
    """Is made too; without one, the manifests go where kubectl points."""
    secret: str = "serving"  # noqa: S105  (its name)
    """Holds `token`, which clients must send, and `hash-key`, for personal columns; made by hand."""
    replicas: int = Field(2, ge=1)
    memory: str = "1Gi"
    """Of a pod, with all its workers."""
    log_size: str = "10Gi"
    log_access: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """Pods write to one log, each to files of its own; ReadWriteOnce, all that a disk can, is for one pod."""
    log_class: str | None = None
    """Storage class; default: the cluster's."""
    log: str | None = None
    """Path or URL under which monitoring and feedback find the log, NAME below it: where the claim is mounted."""
    ingress: Ingress | None = None
    autoscaling: Autoscaling | None = None
    """In place of `replicas`."""
    image_pull_secrets: list[str] = Field([])
    """Names of the namespace's secrets that log in to the registry."""
    service_account_annotations: dict[str, str] | None = None
    """Makes an account of the model's name, with what gives it a role in the cloud; default: the namespace's own."""
    network_policy: list[str] | None = None
    """Namespaces whose pods may reach the service, beside its own; the service then reaches nothing. Default: open."""
    labels: dict[str, str] = Field({})
    """Of all that is made, pods too: a team, a cost centre."""
    node_selectors: dict[str, str] = Field({})
    tolerations: list[dict[str, str]] = Field([])

    @model_validator(mode="after")
    def _log_fits(self) -> "KubernetesConfig":
        if self.log_access == "ReadWriteOnce" and (self.replicas > 1 or self.autoscaling):
            raise ValueError(
                "log_access ReadWriteOnce is a disk of one node: it needs replicas 1 and no autoscaling, or "
                "ReadWriteMany with a log_class of shared files, such as EFS, Filestore or Azure Files"
            )
        if self.log_access == "ReadWriteMany" and self.log_class in DISKS:
            raise ValueError(
                f"log_class {self.log_class} is of disks, which are ReadWriteOnce; set log_access to that, with "
                "replicas 1, or take a class of shared files, such as EFS, Filestore or Azure Files"
            )
        return self


class Plain(yaml.SafeDumper):
    """Write what occurs twice twice, as people do."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say so of everything."""
        return True


class KubernetesDeployer(BentoDeployer):
    """Write manifests to a folder."""

    @property
    def config(self) -> KubernetesConfig:
        """Return the component's configuration."""
        return self._config  # type: ignore[return-value]

    def start(self, bento: Bento, port: int, workers: int) -> list[str]:
        """Write the manifests beside the current ones; nothing runs, so there is no address to check."""
        new = self._new(bento.name)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for place, manifest in enumerate(manifests(bento, port, workers, self.config)):
            path = new / f"{place}-{manifest['kind'].lower()}.yaml"  # kubectl applies a folder by name
            path.write_text(yaml.dump(manifest, Dumper=Plain, sort_keys=False), encoding="utf-8")
        return []

    def switch(self, bento: Bento) -> None:
        """Put the new manifests in place of the old ones; `status` says how to apply them."""
        shutil.rmtree(self._folder(bento.name), ignore_errors=True)
        self._new(bento.name).rename(self._folder(bento.name))

    def discard(self, bento: Bento) -> None:
        """Remove the manifests that were not put in place."""
        shutil.rmtree(self._new(bento.name), ignore_errors=True)

    def names(self) -> list[str]:
        """Return the names that have manifests."""
        return sorted(path.name for path in self._home().glob("[a-z]*") if path.is_dir() and not path.suffix)

    def status(self, name: str) -> Status | None:
        """Say what was written; whether it runs, the cluster knows."""
        files = sorted(self._folder(name).glob("*-deployment.yaml"))
        if not files:
            return None
        written = yaml.safe_load(files[0].read_text(encoding="utf-8"))
        return Status(
            name=name,
            state="written, not applied",
            release=written["metadata"]["annotations"][RELEASE],
            since=datetime.fromtimestamp(files[0].stat().st_mtime, UTC),
            process=f"kubectl apply -f {self._folder(name)}",
        )

    def written(self, name: str) -> dict[str, str]:
        """Return the manifests: the step that wrote them may have run in a pod that is gone."""
        return {path.name: path.read_text(encoding="utf-8") for path in sorted(self._folder(name).glob("*.yaml"))}

    def log(self, name: str) -> str:
        """Return the folder of a model's logs, if the component says where it is mounted."""
        if self.config.log is None:
            raise UserError(
                "the log lies in a volume of the cluster; say where it is mounted or copied to, in `log` of the "
                "model deployer (stacks/kubernetes.yaml)"
            )
        return f"{self.config.log.rstrip('/')}/{name}"

    def stop(self, name: str) -> bool:
        """Refuse: what was not applied from here is not stopped from here."""
        if self.status(name) is None:
            return False
        raise UserError(f"nothing was applied from here; to stop it, run: kubectl delete -f {self._folder(name)}")

    def _home(self) -> Path:
        given = self.config.folder
        return Path(given).resolve() if given else Path(os.environ["SERVING_HOME"]).resolve().parent / "manifests"

    def _folder(self, name: str) -> Path:
        return self._home() / name

    def _new(self, name: str) -> Path:
        return self._home() / f"{name}.new"


class KubernetesFlavor(BentoFlavor):
    """Manifests for a cluster."""

    called, config, deployer = "bento_kubernetes", KubernetesConfig, KubernetesDeployer


def manifests(bento: Bento, port: int, workers: int, config: KubernetesConfig) -> Iterator[Manifest]:
    """Yield the manifests in the order in which they are applied."""
    name = bento.name.replace("_", "-").rstrip("-")  # a DNS label
    ours = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "bento-kubernetes"}
    labels = config.labels | ours
    selector = {"matchLabels": ours}  # of a Deployment it never changes

    def manifest(version: str, kind: str, suffix: str = "", **content: Any) -> Manifest:
        metadata: Manifest = {"name": name + suffix, "labels": labels, "annotations": {RELEASE: bento.release}}
        if config.namespace:
            metadata["namespace"] = config.namespace
        metadata["annotations"] |= content.pop("annotations", {})
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}

    if config.namespace:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": config.namespace}}
    if config.service_account_annotations is not None:
        yield manifest("v1", "ServiceAccount", annotations=config.service_account_annotations)
    yield manifest("v1", "PersistentVolumeClaim", "-log", spec=_claim(config))
    template = {"metadata": {"labels": labels}, "spec": _pod(bento, name, workers, config, selector)}
    # The new pod first, then the old one.
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = {"selector": selector, "strategy": rolling, "template": template, "revisionHistoryLimit": 3}
    scaling = config.autoscaling  # which an applied number would undo
    yield manifest("apps/v1", "Deployment", spec=spec if scaling else {"replicas": config.replicas, **spec})
    ports = [{"name": "http", "port": port, "targetPort": "http"}]
    yield manifest("v1", "Service", spec={"selector": ours, "ports": ports})
    if (scaling.min_replicas if scaling else config.replicas) > 1:  # else it would keep a node from being drained
        spec = {"maxUnavailable": 1, "selector": selector}
        yield manifest("policy/v1", "PodDisruptionBudget", spec=spec)
    if scaling:
        yield manifest("autoscaling/v2", "HorizontalPodAutoscaler", spec=_scaling(name, scaling))
    if config.ingress:
        spec, annotations = _ingress(name, config.ingress), config.ingress.annotations
        yield manifest("networking.k8s.io/v1", "Ingress", spec=spec, annotations=annotations)
    if config.network_policy is not None:
        spec = {"podSelector": selector, **_policy(config.network_policy)}
        yield manifest("networking.k8s.io/v1", "NetworkPolicy", spec=spec)


def _claim(config: KubernetesConfig) -> Manifest:
    spec = {"accessModes": [config.log_access], "resources": {"requests": {"storage": config.log_size}}}
    return spec | ({"storageClassName": config.log_class} if config.log_class else {})


def _scaling(name: str, scaling: Autoscaling) -> Manifest:
    target = {"type": "Utilization", "averageUtilization": scaling.cpu_percent}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
    }


def _ingress(name: str, ingress: Ingress) -> Manifest:
    backend = {"service": {"name": name, "port": {"name": "http"}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec: Manifest = {"rules": [{"host": ingress.host, "http": {"paths": paths}}]}
    if ingress.class_name:
        spec["ingressClassName"] = ingress.class_name
    if ingress.tls_secret:
        spec["tls"] = [{"hosts": [ingress.host], "secretName": ingress.tls_secret}]
    return spec


def _policy(namespaces: list[str]) -> Manifest:
    others = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": one}}} for one in namespaces]
    allowed = {"from": [{"podSelector": {}}, *others], "ports": [{"port": "http"}]}
    return {"policyTypes": ["Ingress", "Egress"], "ingress": [allowed], "egress": []}


def _pod(bento: Bento, name: str, workers: int, config: KubernetesConfig, selector: Manifest) -> Manifest:
    pod = {
        "automountServiceAccountToken": False,  # the service asks the cluster nothing
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",  # else each start walks the whole log
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": LEAVE_SECONDS + container.STOP_SECONDS,
        "containers": [_container(bento, workers, config)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {"name": "log", "persistentVolumeClaim": {"claimName": f"{name}-log"}},
        ],
    }  # fmt: skip
    given: Manifest = {
        "serviceAccountName": None if config.service_account_annotations is None else name,
        "imagePullSecrets": [{"name": secret} for secret in config.image_pull_secrets],
        "nodeSelector": config.node_selectors,
        "tolerations": config.tolerations,
    }
    if config.log_access == "ReadWriteOnce":  # a new pod must begin where the old one holds the disk
        same_node = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
        given["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [same_node]}}
    return pod | {key: value for key, value in given.items() if value}


def _container(bento: Bento, workers: int, config: KubernetesConfig) -> Manifest:
    secret = {"name": config.secret, "key": "token"}
    hash_key = {"name": config.secret, "key": "hash-key", "optional": True}  # only if the config hashes columns
    resources = {"cpu": str(workers), "memory": config.memory}  # a worker is one core
    return {
        "name": "serving",
        "image": f"{config.repository}/{bento.tag}",
        "ports": [{"name": "http", "containerPort": container.PORT}],
        "env": [
            {"name": "SERVING_RELEASE_SHA256", "value": bento.sha256},
            {"name": "SERVING_WORKERS", "value": str(workers)},
            {"name": "SERVING_TOKEN", "valueFrom": {"secretKeyRef": secret}},  # a pod without one does not start
            {"name": "SERVING_HASH_KEY", "valueFrom": {"secretKeyRef": hash_key}},
        ],
        "resources": {"requests": resources, "limits": {"memory": config.memory}},  # a CPU limit only adds waiting
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "startupProbe": _probe("/readyz", period=2, failures=30),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "livenessProbe": _probe("/livez", period=10, failures=6),  # the supervisor in it restarts workers sooner
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(LEAVE_SECONDS)]}}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "log", "mountPath": "/data"}],  # noqa: S108
    }  # fmt: skip


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    get = {"path": path, "port": "http"}
    return {"httpGet": get, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures}
