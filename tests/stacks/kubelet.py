"""Run the pods of a `Cluster` as child processes: their manifest's command, environment and service account.

Unlike a real node it retries a failed pod at once, and runs pods of one container only.
"""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]
Find = Callable[[str, str, str], list[Manifest]]

SOURCES = {
    "secretRef": "secrets",
    "configMapRef": "configmaps",
    "secretKeyRef": "secrets",
    "configMapKeyRef": "configmaps",
}


class Waits(Exception):
    """Say why a container cannot start, in the words that Kubernetes has for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.state = {"waiting": {"reason": reason, "message": message}}


class Kubelet:
    """Start every pod in a folder of its own; `images` are those that can be pulled (all, if None)."""

    def __init__(self, folder: Path, images: Collection[str] | None, find: Find) -> None:
        self.folder, self.images, self.find = folder, images, find
        self.environment: Mapping[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock, self._closed = threading.Lock(), False

    def log(self, pod: str) -> str:
        path = self.folder / pod / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run_job(self, job: Manifest, create_pod: Callable[[str, Manifest], Manifest]) -> None:
        """Run pods until one succeeds, the policy says stop, or the limit is reached."""
        metadata, spec, status = job["metadata"], job["spec"], job["status"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True, "blockOwnerDeletion": True}
        owner |= {"name": metadata["name"], "uid": metadata["uid"]}
        while status["active"]:
            template = deepcopy(spec["template"])
            template["metadata"] = (template.get("metadata") or {}) | {"ownerReferences": [owner]}
            template["metadata"]["name"] = f"{metadata['name']}-{uuid.uuid4().hex[:5]}"
            template["metadata"].setdefault("labels", {})["job-name"] = metadata["name"]
            pod = create_pod(metadata["namespace"], template)
            while pod["status"]["phase"] in ("Pending", "Running"):
                time.sleep(0.05)
                if self._closed or not self.find("jobs", metadata["name"], metadata["namespace"]):
                    return
            code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
            rules = spec.get("podFailurePolicy", {}).get("rules", [])
            stop = code and next((rule["action"] for rule in rules if _applies(rule, code)), "Count") == "FailJob"
            status["failed"] += int(code != 0)
            if code == 0:
                condition = {"type": "Complete"}
            elif stop or status["failed"] > spec.get("backoffLimit", 6):
                condition = {"type": "Failed", "message": f"a pod ended with exit code {code}"}
                condition["reason"] = "PodFailurePolicy" if stop else "BackoffLimitExceeded"
            else:
                continue
            job["status"] = status = status | {"active": 0, "conditions": [condition | {"status": "True"}]}

    def run_pod(self, pod: Manifest) -> None:
        """Run a pod to its end and keep its phase."""
        try:
            process = self._start(pod)
        except Waits as err:
            return _set(pod, "Pending", err.state)
        if process is None:
            return None
        _set(pod, "Running", {"running": {}})
        code = process.wait()
        code = 128 - code if code < 0 else code
        ended = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        return _set(pod, "Failed" if code else "Succeeded", ended)

    def stop(self, uid: str, how: int = signal.SIGTERM) -> None:
        if process := self._processes.get(uid):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        for uid, process in self._processes.items():
            self.stop(uid, signal.SIGKILL)
            process.wait()

    def _start(self, pod: Manifest) -> subprocess.Popen[bytes] | None:
        name, namespace, spec = pod["metadata"]["name"], pod["metadata"]["namespace"], pod["spec"]
        container, home = spec["containers"][0], self.folder / name
        if spec.get("initContainers") or len(spec["containers"]) > 1:
            raise Waits("CreateContainerConfigError", "this cluster runs pods of one container")
        if self.images is not None and container["image"] not in self.images:
            raise Waits("ErrImagePull", f"{container['image']} was not found")
        environment = {"PATH": os.environ["PATH"], "HOSTNAME": name, **self.environment, **self._wanted(pod)}
        path = filter(None, (str(Path(__file__).parent / "node"), self.environment.get("PYTHONPATH")))
        environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join(path)}
        (home / "app").mkdir(parents=True)
        (home / "account").write_text(f"{namespace}/{spec.get('serviceAccountName', 'default')}")
        command = [*container.get("command", []), *container.get("args", [])]
        command[0] = {"python": sys.executable}.get(command[0], command[0])
        with self._lock, (home / "log").open("wb") as log:
            if self._closed or not self.find("pods", name, namespace):
                return None
            process = subprocess.Popen(
                command, cwd=home / "app", env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            self._processes[pod["metadata"]["uid"]] = process
        return process

    def _wanted(self, pod: Manifest) -> dict[str, str]:
        """Return the environment that the manifest asks for, with what it refers to."""
        container, namespace = pod["spec"]["containers"][0], pod["metadata"]["namespace"]
        environment: dict[str, str] = {}
        for source in container.get("envFrom", []):
            for kind, reference in source.items():
                environment |= self._data(kind, reference["name"], namespace)
        for variable in container.get("env", []):
            environment[variable["name"]] = variable.get("value") or ""
            for kind, reference in variable.get("valueFrom", {}).items():
                data = self._data(kind, reference["name"], namespace)
                if reference["key"] not in data:
                    raise Waits("CreateContainerConfigError", f"no key {reference['key']} in {reference['name']}")
                environment[variable["name"]] = data[reference["key"]]
        return environment

    def _data(self, kind: str, name: str, namespace: str) -> dict[str, str]:
        if kind not in SOURCES:
            raise Waits("CreateContainerConfigError", f"this cluster cannot resolve a {kind}")
        found = self.find(SOURCES[kind], name, namespace)
        if not found:
            raise Waits("CreateContainerConfigError", f'{SOURCES[kind]} "{name}" not found')
        data = found[0].get("data") or {}
        if SOURCES[kind] == "configmaps":
            return data
        return {key: base64.b64decode(value).decode() for key, value in data.items()} | found[0].get("stringData", {})


def _applies(rule: Manifest, code: int) -> bool:
    wanted = rule.get("onExitCodes")
    return bool(wanted) and (code in wanted["values"]) == (wanted["operator"] == "In")


def _set(pod: Manifest, phase: str, state: Manifest) -> None:
    container = pod["spec"]["containers"][0]
    status = {"name": container["name"], "image": container["image"], "imageID": "", "ready": phase == "Running"}
    pod["status"] = {"phase": phase, "containerStatuses": [status | {"restartCount": 0, "state": state}]}
