"""Make a base image of this machine's own Python: tests need no registry, and the interpreter is the one in use."""

import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import untried

TAG = f"zenml-loop-test-base:{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
STEPS_TAG = TAG.replace("-base", "-steps-base")
TOOLS = ("sh", "find", "rm", "sleep", "chmod", "chown")
IMPORTED = (
    "zenml.client", "zenml.entrypoints.step_entrypoint_configuration", "zenml.integrations.mlflow.experiment_trackers",
    "sklearn.ensemble", "sklearn.linear_model", "matplotlib.pyplot", "mlflow.sklearn", "pyarrow.parquet", "s3fs",
    "skl2onnx", "onnxruntime", "bentoml", "docker", "skops.io",
)  # fmt: skip
UNNEEDED = ("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "lib2to3", "config-[^/]*")
WHEELS_NEED = (
    "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6",
    "libutil.so.1",
)  # fmt: skip
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/pip.conf": f"[global]\ncert = {CERTIFICATES}\n",  # of the machine's own index, if it has one
}


@contextmanager
def docker_engine(what: str) -> Iterator[Any]:
    """Connect to the machine's Docker; without it the test is skipped, and in CI it fails."""
    import docker

    try:
        found = docker.from_env(timeout=600)
    except docker.errors.DockerException:
        untried(f"no Docker runs here, {what}; try: apt-get install docker.io, then dockerd")
    try:
        yield found
    finally:
        found.close()


def ensure(client: Any) -> str:
    """Import the image unless it is there; return its tag."""
    if not client.images.list(name=TAG):
        repository, tag = TAG.split(":")
        client.api.import_image_from_data(_tar(), repository=repository, tag=tag)
    return TAG


def ensure_for_steps(client: Any, packages: Path) -> str:
    """Add pip and packages, so that the images of all stacks' steps are made in a moment; return the tag.

    It knows the machine's certificates, for whatever else is installed in it.
    """
    if not client.images.list(name=STEPS_TAG):
        steps = (
            f"FROM {ensure(client)}",
            f"ENV SSL_CERT_FILE={CERTIFICATES}",
            "RUN python -m ensurepip --default-pip && pip install --quiet --root-user-action=ignore uv",
            "COPY requirements.txt /",
            "RUN uv pip install --system --quiet --no-cache -r /requirements.txt",
            f"RUN python -c 'import {', '.join(IMPORTED)}'",  # compiles what is used: all of it takes a minute
        )
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            _add(tar, "Dockerfile", "\n".join(steps))
            _add(tar, "requirements.txt", packages.read_text(encoding="utf-8"))
        context.seek(0)
        client.images.build(fileobj=context, custom_context=True, tag=STEPS_TAG, rm=True, network_mode="host")
    return STEPS_TAG


def _tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", dereference=True) as tar:
        python, version = Path(sys.executable).resolve(), f"python{sys.version_info[0]}.{sys.version_info[1]}"
        stdlib = Path(sysconfig.get_path("stdlib"))
        tar.add(python, "usr/local/bin/python")
        tar.add(stdlib, f"usr/local/lib/{version}", filter=_needed)
        tools = [Path(found) for tool in TOOLS if (found := shutil.which(tool))]
        for tool in tools:
            tar.add(tool, f"bin/{tool.name}")
        for library in _libraries([python, *tools, *stdlib.glob("lib-dynload/*.so")]):
            tar.add(library, library.lstrip("/"))
        if CERTIFICATES.exists():
            tar.add(CERTIFICATES, str(CERTIFICATES).lstrip("/"))
        for name, text in FILES.items():
            _add(tar, name, text)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
    return made.getvalue()


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    file = tarfile.TarInfo(name)
    file.size = len(text.encode())
    tar.addfile(file, io.BytesIO(text.encode()))


def _needed(file: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if re.search(rf"/({'|'.join(UNNEEDED)})(/|$)", file.name) else file


def _libraries(programs: list[Path]) -> set[str]:
    """Return the paths of all shared libraries, and of the loader, that programs and wheels ask for."""
    found = subprocess.run(["ldd", *programs], capture_output=True, text=True).stdout
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in WHEELS_NEED:
        found += next(line for line in cache.splitlines() if line.strip().startswith(name)) + " (0x0)\n"
    return set(re.findall(r"(/\S+\.so\S*) \(0x", found))
