"""A Kubernetes API server on loopback: it checks and records what it gets, and runs the pods on this machine.

Like the real one it refuses objects in no known namespace, pods of an unknown service account, and calls of a pod that
no role allows. Unlike it, it refuses unknown fields too. It serves no watches and no discovery.
"""

import copy
import re
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import yaml
from kubelet import Kubelet, Manifest
from loopback import Call, loopback

VERSION = kubernetes_validate.latest_version()
CORE, BATCH, RBAC = "v1", "batch/v1", "rbac.authorization.k8s.io/v1"
KINDS = {
    "namespaces": (CORE, "Namespace"),
    "serviceaccounts": (CORE, "ServiceAccount"),
    "secrets": (CORE, "Secret"),
    "configmaps": (CORE, "ConfigMap"),
    "services": (CORE, "Service"),
    "pods": (CORE, "Pod"),
    "jobs": (BATCH, "Job"),
    "cronjobs": (BATCH, "CronJob"),
    "roles": (RBAC, "Role"),
    "rolebindings": (RBAC, "RoleBinding"),
}
PATH = re.compile(
    r"^/(?:api|apis)/(?P<version>(?:[^/]+/)?v1)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?P<part>/log)?$"
)


VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete", "PUT": "update"}


class Request(NamedTuple):
    """What was asked, by which service account (None: who holds the kubeconfig), and the code of the answer."""

    verb: str
    path: str
    body: Manifest
    account: str | None
    code: int


class Refused(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status: Manifest = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        self.status |= {"reason": reason, "message": message}


class Cluster:
    """Hold the objects of a cluster, and its node."""

    def __init__(self, folder: Path, images: Collection[str] | None) -> None:
        self.kubeconfig, self.requests = folder / "kubeconfig", list[Request]()
        self.node = Kubelet(folder / "pods", images, self.find)
        self._objects: dict[tuple[str, str, str], Manifest] = {}
        self._submitted: list[tuple[str, Manifest]] = []
        self._lock = threading.RLock()

    def submitted(self, plural: str) -> list[Manifest]:
        """Return the manifests of a kind as they came, in their order."""
        return [manifest for kind, manifest in self._submitted if kind == plural]

    def find(self, plural: str, name: str = "", namespace: str = "") -> list[Manifest]:
        """Return the objects of a kind that exist now, with their status."""
        with self._lock:
            found = [(key, thing) for key, thing in self._objects.items() if key[0] == plural]
            return [copy.deepcopy(thing) for key, thing in found if namespace in ("", key[1]) and name in ("", key[2])]

    def logs(self) -> str:
        """Return what all pods printed, for a test that failed."""
        names = [pod["metadata"]["name"] for pod in self.find("pods")]
        return "\n".join(f"== {name}\n{self.node.log(name)}" for name in names)

    def apply(self, *manifests: Manifest) -> None:
        """Create objects as an administrator would."""
        plurals = {kind: plural for plural, (_, kind) in KINDS.items()}
        for manifest in manifests:
            self._create(plurals[manifest["kind"]], manifest["metadata"].get("namespace", ""), manifest)

    def trigger(self, name: str) -> Manifest:
        """Start a cron job now, as `kubectl create job --from=cronjob/NAME` does."""
        (cron_job,) = self.find("cronjobs", name)
        template = cron_job["spec"]["jobTemplate"]
        metadata = {key: value for key, value in template["metadata"].items() if key in ("labels", "annotations")}
        metadata["name"] = f"{name[:50]}-{uuid.uuid4().hex[:5]}"
        return self._create("jobs", cron_job["metadata"]["namespace"], {"metadata": metadata, "spec": template["spec"]})

    def reply(self, call: Call) -> tuple[int, Any]:
        """Do what a request asks, record it, and return the answer: an object, a list, a status or a log."""
        asked, verb = PATH.match(call.path), VERBS[call.method]
        verb = "list" if verb == "get" and asked and not asked["name"] else verb
        account = call.headers.get("authorization", "").rpartition(" ")[2] or None
        code, body = 201 if verb == "create" else 200, call.body or {}
        try:
            answer = self._answer(verb, call.path, call.query, body, account)
        except Refused as err:
            code, answer = err.status["code"], err.status
        self.requests.append(Request(verb, call.path, body, account, code))
        return code, answer

    def _answer(self, verb: str, path: str, query: Mapping[str, str], body: Manifest, account: str | None) -> Any:
        asked = PATH.match(path)
        if not asked or KINDS.get(asked["plural"], ("",))[0] != asked["version"] or "watch" in query:
            raise Refused(404, "NotFound", f"this cluster does not serve {verb} {path}")
        plural, namespace, name = asked["plural"], asked["namespace"] or "", asked["name"] or ""
        if account and not self._allows(account, verb, plural + (asked["part"] or ""), namespace):
            raise Refused(403, "Forbidden", f'service account "{account}" cannot {verb} {plural} in "{namespace}"')
        if verb == "list":
            items = [item for item in self.find(plural, "", namespace) if _selected(item, query)]
            return {"kind": f"{KINDS[plural][1]}List", "apiVersion": KINDS[plural][0], "metadata": {}, "items": items}
        if verb == "create":
            return copy.deepcopy(self._create(plural, namespace, body))
        with self._lock:
            if (plural, namespace, name) not in self._objects:
                raise Refused(404, "NotFound", f'{plural} "{name}" not found')
            if verb == "delete":
                return self._delete(plural, namespace, name)
            if asked["part"]:
                return self.node.log(name)
            found = self._objects[plural, namespace, name]
            if verb == "patch":
                _merge(found, body)
            return copy.deepcopy(found)

    def _create(self, plural: str, namespace: str, body: Manifest) -> Manifest:
        made = {"apiVersion": KINDS[plural][0], "kind": KINDS[plural][1]} | copy.deepcopy(body)
        metadata = made["metadata"]
        try:
            kubernetes_validate.validate(made, VERSION, strict=True)
        except kubernetes_validate.ValidationError as err:
            raise Refused(422, "Invalid", f"{made['kind']} {metadata['name']}: {err}") from err
        with self._lock:
            if namespace and not self.find("namespaces", namespace):
                raise Refused(404, "NotFound", f'namespaces "{namespace}" not found')
            if (plural, namespace, metadata["name"]) in self._objects:
                raise Refused(409, "AlreadyExists", f'{plural} "{metadata["name"]}" already exists')
            pod = made["spec"]["template"] if plural == "jobs" else made
            account = pod.get("spec", {}).get("serviceAccountName", "default")
            if account != "default" and not self.find("serviceaccounts", account, namespace):
                raise Refused(403, "Forbidden", f'service account "{namespace}/{account}" not found')
            if not metadata.get("ownerReferences") or plural != "pods":
                self._submitted.append((plural, copy.deepcopy(made)))
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": datetime.now(UTC).isoformat()}
            metadata |= {"namespace": namespace} if namespace else {}
            self._objects[plural, namespace, metadata["name"]] = made
            if plural == "pods":
                made["status"] = {"phase": "Pending"}
                threading.Thread(target=self.node.run_pod, args=(made,), daemon=True).start()
            if plural == "jobs":
                for rule in made["spec"].get("podFailurePolicy", {}).get("rules", []):
                    for condition in rule.get("onPodConditions", []):
                        condition.setdefault("status", "True")  # as the real one does; ZenML leaves it out
                made["status"] = {"active": 1, "failed": 0}
                create_pod = lambda *pod: self._create("pods", *pod)  # noqa: E731
                threading.Thread(target=self.node.run_job, args=(made, create_pod), daemon=True).start()
        return made

    def _delete(self, plural: str, namespace: str, name: str) -> Manifest:
        gone = self._objects.pop((plural, namespace, name))
        self.node.stop(gone["metadata"]["uid"])
        for pod in self.find("pods", "", namespace) if plural == "jobs" else []:
            if pod["metadata"].get("labels", {}).get("job-name") == name:
                self._delete("pods", namespace, pod["metadata"]["name"])
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def _allows(self, account: str, verb: str, resource: str, namespace: str) -> bool:
        asked = {"apiGroups": KINDS[resource.split("/")[0]][0].rpartition("/")[0], "resources": resource, "verbs": verb}
        for binding in self.find("rolebindings", "", namespace):
            role = binding["roleRef"]
            if account not in {f"{who.get('namespace')}/{who['name']}" for who in binding.get("subjects", [])}:
                continue
            if role["kind"] == "ClusterRole" and role["name"] == "edit":
                return resource not in ("roles", "rolebindings", "namespaces")
            rules = [rule for found in self.find("roles", role["name"], namespace) for rule in found["rules"]]
            if any(all({"*", word} & set(rule[key]) for key, word in asked.items()) for rule in rules):
                return True
        return False


@contextmanager
def cluster(
    folder: Path,
    environment: Mapping[str, str] | None = None,
    *,
    images: Collection[str] | None = None,
    namespaces: Collection[str] = ("zenml",),
    context: str = "cluster",
) -> Iterator[Cluster]:
    """Start a cluster and write its kubeconfig, of one context.

    Pods get `environment` besides their manifest's and can pull `images` (all, if None).
    """
    running = Cluster(folder, images)
    with loopback(running.reply, folder) as url:
        inside = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": url.rpartition(":")[2]}
        running.node.environment = {**inside, "CLUSTER_CA": str(folder / "ca.crt"), **(environment or {})}
        where = {"server": url, "certificate-authority": str(folder / "ca.crt")}
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": context, "cluster": where}],
            "users": [{"name": context, "user": {}}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            "current-context": context,
        }
        running.kubeconfig.write_text(yaml.safe_dump(configuration))
        for namespace in namespaces:
            running.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        try:
            yield running
        finally:
            running.node.close()


def _selected(item: Manifest, query: Mapping[str, str]) -> bool:
    labels, status, metadata = item["metadata"].get("labels") or {}, item.get("status", {}), item["metadata"]
    known = {"status.phase": status.get("phase"), "metadata.name": metadata["name"]}
    pairs = [(labels, query.get("labelSelector", "")), (known, query.get("fieldSelector", ""))]
    for values, selector in pairs:
        for word in filter(None, selector.split(",")):
            key, _, value = word.partition("=")
            if values.get(key) != value.removeprefix("="):
                return False
    return True


def _merge(old: Manifest, new: Manifest) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        else:
            old[key] = value
