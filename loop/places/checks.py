"""Find what a stack needs of this machine and of others, in words, and touch none of it."""

import importlib.metadata
import json
import os
import re
import shlex
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loop.config import ROOT, UserError, known
from loop.places.files import Component, Stack

CONTAINERS = ("local_docker", "bento_docker")
"""Flavors that need a Docker engine on this machine."""

CLOUDS = {
    "s3": "aws", "aws": "aws", "sagemaker": "aws",
    "gcp": "gcp", "vertex": "gcp",
    "azure": "azure", "azureml": "azure",
}  # fmt: skip
"""Whose credentials a flavor needs."""

OWN_CREDENTIALS = {
    "key", "token", "credentials", "connection_string", "account_key", "sas_token", "authentication_secret",
    "service_account_path", "aws_access_key_id",
}  # fmt: skip
"""Keys by which a component brings its own."""

TIMEOUT_SECONDS = 1.5


def faults(stack: Stack) -> list[str]:
    """Return all that is missing and that can be found without asking ZenML."""
    plural = "s" if len(stack.missing) > 1 else ""
    found = [f"set the variable{plural} {', '.join(stack.missing)}"] if stack.missing else []
    here = importlib.metadata.version("zenml")
    if stack.zenml_version != here:
        found.append(
            f"the file is for ZenML {stack.zenml_version}, here is {here}; set zenml_version: {here} once it was "
            f"tried, or pip install zenml=={stack.zenml_version}"
        )
    found += [*_packages(stack), *_steps(stack), *_credentials(stack), *_services(stack)]
    if any(component.flavor in CONTAINERS for component in stack.all) or _builds_here(stack):
        found += _docker()
    return found


def server_faults(stack: Stack) -> list[str]:
    """Return why the stack's ZenML server cannot be used; nothing else can be asked then."""
    if stack.server is None or "${" in stack.server:
        return []
    url = stack.server.rstrip("/")
    try:
        with urllib.request.urlopen(f"{url}/api/v1/info", timeout=2 * TIMEOUT_SECONDS) as answer:  # noqa: S310
            version = json.load(answer)["version"]
    except (OSError, ValueError, KeyError) as err:
        return [f"no ZenML server answers at {stack.server} ({getattr(err, 'reason', None) or type(err).__name__})"]
    here = importlib.metadata.version("zenml")
    found = [] if version == here else [f"the ZenML server at {url} is {version}, here is {here}; install the same"]
    if not (os.environ.get("ZENML_STORE_API_KEY") or os.environ.get("ZENML_STORE_USERNAME") or _logged_in(url)):
        home = shlex.quote(os.environ["ZENML_CONFIG_PATH"])
        found.append(
            f"log in to {url}: set ZENML_STORE_API_KEY to a service account's key, or run: "
            f"ZENML_CONFIG_PATH={home} zenml login {url}"
        )
    return found


def zenml_command(arguments: str) -> str:
    """Return a `zenml` command as one can paste it: with the variables that lead it to the state that is in use."""
    url = os.environ.get("ZENML_STORE_URL", "")
    server = f"ZENML_STORE_URL={shlex.quote(url)} " if url.startswith("http") else ""
    return f"ZENML_CONFIG_PATH={shlex.quote(os.environ['ZENML_CONFIG_PATH'])} {server}zenml {arguments}"


def _logged_in(url: str) -> bool:
    from zenml.login.credentials_store import get_credentials_store

    store = get_credentials_store()
    return store.get_token(url) is not None or store.can_login(url)


def _packages(stack: Stack) -> Iterator[str]:
    try:
        pins = stack.pins()
    except UserError as err:
        yield str(err)
        return
    wrong = []
    for name, version in pins.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(name)
        else:
            wrong += [f"{name} {version}"] if here != version else []
    if wrong:
        some = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        yield f"packages are missing or of another version ({some}): pip install -r {stack.requires}"


def _steps(stack: Stack) -> Iterator[str]:
    steps = sorted(path.stem for path in (ROOT / "steps").glob("[!_]*.py"))
    for name in stack.run.steps:
        if name not in steps:
            yield f"run.steps: no step '{name}'; {known('steps/', steps, name)}"


def _credentials(stack: Stack) -> Iterator[str]:
    """Look for credentials where the clouds' own libraries look, without asking over the network."""
    home = Path.home()
    where = {
        "aws": (
            ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            (Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE", home / ".aws/credentials")), home / ".aws/config"),
            "aws configure",
        ),
        "gcp": (
            ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"),
            (home / ".config/gcloud/application_default_credentials.json",),
            "gcloud auth application-default login",
        ),
        "azure": (
            ("AZURE_CLIENT_ID", "IDENTITY_ENDPOINT", "AZURE_STORAGE_CONNECTION_STRING"),
            (home / ".azure",),
            "az login",
        ),
    }
    bare = [component for component in stack.all if component.connector is None]
    clouds = {CLOUDS[c.flavor] for c in bare if c.flavor in CLOUDS and not OWN_CREDENTIALS & set(c.configuration)}
    for cloud in sorted(clouds):
        variables, files, login = where[cloud]
        if not any(os.environ.get(name) for name in variables) and not any(file.exists() for file in files):
            yield f"no credentials for {cloud}: set {' or '.join(variables[:2])}, or run: {login}"
    for component in bare:
        if context := component.configuration.get("kubernetes_context"):
            yield from _context(component, context)
        elif component.flavor == "kubernetes" and not component.configuration.get("incluster"):
            yield f"{component.type} '{component.name}': set KUBE_CONTEXT, or KUBE_CONNECTOR to a service connector"


def _context(component: Component, context: str) -> Iterator[str]:
    """Say what is wrong with a Kubernetes context of the user's."""
    import yaml

    what = f"{component.type} '{component.name}'"
    path = Path(os.environ.get("KUBECONFIG", Path.home() / ".kube/config")).expanduser()
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
        contexts = {found["name"]: found["context"]["cluster"] for found in held["contexts"]}
        servers = {found["name"]: found["cluster"]["server"] for found in held["clusters"]}
    except OSError:
        yield f"{what}: no kubeconfig at {path}; set KUBECONFIG"
    except (yaml.YAMLError, KeyError, TypeError):
        yield f"{what}: {path} is not a kubeconfig"
    else:
        if context not in contexts:
            yield f"{what}: no context '{context}' in {path}; {known('kubectl config get-contexts', contexts, context)}"
        elif not _answers(url := servers[contexts[context]]):
            yield f"{what}: no cluster answers at {url}"


def _services(stack: Stack) -> list[str]:
    """Say which addresses of the components nobody listens at; all are tried at once."""
    found = {
        (f"{component.type} '{component.name}'", address): None
        for component in stack.all
        for address in _addresses(component.configuration)
    }
    for component in stack.components.get("container_registry", []):
        if re.match(r"[\w.-]+:\d+(/|$)", uri := str(component.configuration.get("uri", ""))):
            found[f"container_registry '{component.name}'", uri.partition("/")[0]] = None
    if not found:
        return []
    with ThreadPoolExecutor(len(found)) as pool:
        answered = pool.map(lambda pair: _answers(pair[1]), found)
        return [f"{what}: nothing answers at {a}" for (what, a), here in zip(found, answered, strict=True) if not here]


def _addresses(value: Any) -> Iterator[str]:
    """Yield scheme and host of every web address in a configuration; no password is part."""
    if isinstance(value, dict):
        for held in value.values():
            yield from _addresses(held)
    elif isinstance(value, str) and re.match(r"https?://", value) and "${" not in value:
        parts = urlsplit(value)
        yield f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _answers(address: str) -> bool:
    parts = urlsplit(address if "://" in address else f"//{address}")
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def _builds_here(stack: Stack) -> bool:
    """Say whether images of steps are built by this machine's Docker."""
    builders = stack.components.get("image_builder", [])
    skip = stack.run.settings.get("docker", {}).get("skip_build")
    return not stack.runs_here and not skip and any(component.flavor == "local" for component in builders)


def _docker() -> Iterator[str]:
    import docker

    try:
        engine = docker.from_env()
        try:
            engine.ping()
        finally:
            engine.close()
    except docker.errors.DockerException:
        yield "Docker does not run, or may not be used by this user; start it, see: docker info"
