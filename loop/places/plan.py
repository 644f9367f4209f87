"""Say what applying a stack file would do, and all that stands in its way at once, before anything is done."""

import importlib
import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from loop.config import known
from loop.places import checks
from loop.places.files import Component, Stack

OWNER = {"managed_by": "stacks/apply.py"}
"""Label of what this project created; it changes nothing else."""

FLAVORS = {
    "bento_local": "loop.deploying.local.LocalFlavor",
    "bento_docker": "loop.deploying.docker.DockerFlavor",
    "bento_kubernetes": "loop.deploying.kubernetes.KubernetesFlavor",
}
"""Source of each flavor of ours; ZenML learns it with the first stack that names it."""

OWN_RESOURCES = {"kubernetes": "pod_settings.resources", "sagemaker": "instance_type", "azureml": "size",
                 "local_docker": "run_args"}  # fmt: skip
"""Orchestrators that pass over `resources`, and where among their own settings it is said."""

CONNECTOR = "connector"
"""Key of a component beside its configuration."""

_SECRET = re.compile(r"\{\{\s*([\w-]+)\.([\w-]+)\s*\}\}")


class Change(NamedTuple):
    """Say what applying does to one component, or to the stack itself."""

    kind: str
    name: str
    what: Literal["create", "change", "leave"]
    keys: tuple[str, ...] = ()
    """Of the configuration, that change; values may be secrets."""
    id: Any = None
    """Of what is there already."""

    @property
    def sentence(self) -> str:
        """Say it in words."""
        return f"{self.what:<6} {self.kind} {self.name}" + (f": {', '.join(self.keys)}" if self.keys else "")


def changes(client: Any, stack: Stack) -> list[Change]:
    """Compare a stack file with what ZenML holds: its components in order, then the stack."""
    there = {
        (held.type.value, held.name): held
        for name in {component.name for component in stack.all}
        for held in client.list_stack_components(name=f"equals:{name}", size=100, hydrate=True).items
    }
    found = [_change(component, there.get((component.type, component.name))) for component in stack.all]
    stacks = client.list_stacks(name=f"equals:{stack.stack_name}", hydrate=True).items
    if not stacks:
        return [*found, Change("stack", stack.stack_name, "create")]
    held = {kind.value: {c.name for c in listed} for kind, listed in stacks[0].components.items()}
    wanted = {kind: {c.name for c in listed} for kind, listed in stack.components.items()}
    moved = tuple(kind for kind in sorted(held.keys() | wanted) if held.get(kind) != wanted.get(kind))
    return [*found, Change("stack", stack.stack_name, "change" if moved else "leave", moved, stacks[0].id)]


def file_faults(stack: Stack) -> list[str]:
    """Return what is wrong with the file, or missing for it, that can be said without ZenML's database."""
    found = checks.faults(stack)
    for component in stack.all:
        found += _component_faults(component)
    return [*dict.fromkeys([*found, *_setting_faults(stack)])]


def faults(client: Any, stack: Stack, planned: list[Change], *, shared: bool = False) -> list[str]:
    """Return what keeps a stack from being applied by what ZenML holds; nothing is changed.

    `shared` lets components be changed that other stacks use too.
    """
    wanted: dict[str, dict[str, None]] = {}
    for name, key in _SECRET.findall(repr([component.configuration for component in stack.all])):
        wanted.setdefault(name, {})[key] = None
    found = [fault for name, keys in wanted.items() if (fault := _secret_fault(client, name, keys))]
    found += [said for component in stack.all if (said := _connector_fault(client, component))]
    for component, change in zip(stack.all, planned, strict=False):
        if change.what == "change":
            found += _owner_faults(client, stack, component, change, shared)
    if planned[-1].what == "change" and not owned(client.get_stack(planned[-1].id).labels):
        found.append(f"stack '{stack.stack_name}' exists and differs from its file, and was not made by it; rename one")
    return list(dict.fromkeys(found))


def bucket_faults(stack: Stack) -> Iterator[str]:
    """Say why S3 buckets cannot take artifacts: an upload is begun there and given up, so nothing is made.

    The stack has no other faults.
    """
    for component in stack.components.get("artifact_store", []):
        if component.flavor == "s3":
            config: Any = _flavors()["artifact_store"]["s3"].config_class(**component.configuration)
            bucket, _, folder = config.path.removeprefix("s3://").partition("/")
            if why := _upload_fault(bucket, folder, config):
                yield f"artifact_store '{component.name}': s3://{bucket}: {why}"


def owned(labels: Any) -> bool:
    """Say whether this project made what bears these labels."""
    return bool((labels or {}).get("managed_by") == OWNER["managed_by"])


def _change(wanted: Component, there: Any) -> Change:
    if there is None:
        return Change(wanted.type, wanted.name, "create")
    held = there.configuration
    keys = {key for key in held.keys() | wanted.configuration.keys() if held.get(key) != wanted.configuration.get(key)}
    keys |= {"flavor"} if there.flavor_name != wanted.flavor else set()
    linked = there.connector and there.connector.name
    keys |= {CONNECTOR} if wanted.connector not in (None, linked) else set()  # a link by hand stays
    return Change(wanted.type, wanted.name, "change" if keys else "leave", tuple(sorted(keys)), there.id)


@cache
def _flavors() -> dict[str, dict[str, Any]]:
    """Return ZenML's own flavors and ours, of each kind by name."""
    from zenml.stack.flavor_registry import FlavorRegistry

    found: dict[str, dict[str, Any]] = {}
    registry = FlavorRegistry()
    for kind in (*registry.builtin_flavors, *registry.integration_flavors):
        flavor = kind()
        found.setdefault(flavor.type.value, {})[flavor.name] = flavor
    for name, source in FLAVORS.items():
        module, _, called = source.rpartition(".")
        found.setdefault("model_deployer", {})[name] = getattr(importlib.import_module(module), called)()
    return found


def _component_faults(component: Component) -> Iterator[str]:
    what, flavors = f"{component.type} '{component.name}'", _flavors().get(component.type)
    if component.type == "artifact_store" and (path := str(component.configuration.get("path", ""))).count("://") > 1:
        yield f"{what}: no store is at {path}; its variable takes the bare name, {path.rpartition('://')[2]}"
    if flavors is None:
        yield f"no kind of component '{component.type}'; {known('stacks', _flavors(), component.type)}"
    elif component.flavor not in flavors:
        yield f"{what}: no flavor '{component.flavor}'; {known(component.type, flavors, component.flavor)}"
    elif component.flavor == "mlflow" and _lacks_login(component.configuration):
        yield f"{what}: set MLFLOW_USER and MLFLOW_PASSWORD, or MLFLOW_TOKEN; a server that asks for no login takes any"
    else:
        yield from _config_faults(what, flavors[component.flavor].config_class, component.configuration)


def _lacks_login(configuration: dict[str, Any]) -> bool:
    """Say whether a tracker over the network has no login, which ZenML wants also where the server asks for none."""
    over_network = str(configuration.get("tracking_uri", "")).startswith("http")
    return over_network and not configuration.keys() & {"tracking_username", "tracking_password", "tracking_token"}


def _config_faults(what: str, config_class: type[BaseModel], values: dict[str, Any]) -> Iterator[str]:
    if unknown := [key for key in values if key not in config_class.model_fields]:
        for key in unknown:
            yield f"{what}: no key '{key}'; {known('its keys', config_class.model_fields, key)}"
        return
    from zenml.exceptions import AuthorizationException

    if "${" in repr(values):
        return  # a variable that is not set, which is said by itself
    try:
        config_class(**values)
    except ValidationError as err:
        for fault in err.errors():
            where, said = ".".join(str(part) for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")
            yield f"{what}: '{where}' {said[:1].lower()}{said[1:]}" if where else f"{what}: {said}"
    except (KeyError, ImportError, AuthorizationException):
        return  # a secret, a package or a login that is not there, which is said by itself
    except (ValueError, TypeError) as err:
        yield f"{what}: {err}"


def _setting_faults(stack: Stack) -> Iterator[str]:
    """Say which run settings ZenML would pass over in silence."""
    from zenml.config import DockerSettings, ResourceSettings

    orchestrator = next(iter(stack.components.get("orchestrator", [])), None)
    flavor = _flavors()["orchestrator"].get(orchestrator.flavor) if orchestrator else None
    kinds: dict[str, Any] = {"docker": DockerSettings, "resources": ResourceSettings}
    if flavor is not None:
        kinds["orchestrator"] = _settings_class(flavor)
    places = {"run": stack.run.settings} | {f"run.steps.{name}": s.settings for name, s in stack.run.steps.items()}
    for place, settings in places.items():
        for key, values in settings.items():
            if key not in kinds:
                yield f"{place}.settings: no '{key}'; {known('settings', kinds, key)}"
            elif key == "resources" and orchestrator and orchestrator.flavor in OWN_RESOURCES:
                where = OWN_RESOURCES[orchestrator.flavor]
                yield f"{place}.settings: {orchestrator.flavor} does not read 'resources'; set orchestrator.{where}"
            elif kinds[key] is not None:
                yield from _config_faults(f"{place}.settings.{key}", kinds[key], values)


def _settings_class(flavor: Any) -> Any:
    """Return the class of an orchestrator's run settings: its configuration inherits from it, where it has any."""
    from zenml.config.base_settings import BaseSettings

    bases = [base for base in flavor.config_class.__mro__ if base.__name__.endswith("Settings")]
    return next((base for base in bases if issubclass(base, BaseSettings) and base is not BaseSettings), None)


def _owner_faults(client: Any, stack: Stack, component: Component, change: Change, shared: bool) -> Iterator[str]:
    what = f"{component.type} '{component.name}'"
    there = client.get_stack_component(component.type, change.id)
    if not owned(there.labels):
        yield (
            f"{what} exists and differs from the stack file, and was not made by it; "
            "give the one in the file another name"
        )
    if "flavor" in change.keys:
        yield f"{what} has flavor {there.flavor_name}, which cannot be changed; give the component another name"
    others = [other.name for other in client.list_stacks(component_id=there.id).items if other.name != stack.stack_name]
    if others and not shared:
        yield (
            f"{what} is also part of {', '.join(sorted(others))}, which would change with it; "
            "give it another name, or say --change-shared"
        )


def _connector_fault(client: Any, component: Component) -> str | None:
    if component.connector is None or "${" in component.connector:
        return None
    names = [held.name for held in client.list_service_connectors(size=1000).items]
    if component.connector in names:
        return None
    what = f"{component.type} '{component.name}': no service connector '{component.connector}'"
    return f"{what}; {known('zenml service-connector list', names, component.connector)}"


def _upload_fault(bucket: str, folder: str, config: Any) -> str:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import get_session

    keys = {"aws_access_key_id": config.key, "aws_secret_access_key": config.secret, "aws_session_token": config.token}
    patience = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
    try:
        client = get_session().create_client("s3", config=patience, **keys, **(config.client_kwargs or {}))
        where = {"Bucket": bucket, "Key": f"{folder.rstrip('/')}/plan".lstrip("/")}
        client.abort_multipart_upload(**where, UploadId=client.create_multipart_upload(**where)["UploadId"])
    except (ClientError, BotoCoreError) as err:
        gone = isinstance(err, ClientError) and err.response["Error"]["Code"] == "NoSuchBucket"
        return "there is no such bucket; create it" if gone else f"it cannot be written ({err})"
    return ""


def _secret_fault(client: Any, name: str, keys: Iterable[str]) -> str:
    """Return what is missing of a secret; the empty string if nothing is."""
    try:
        held = client.get_secret(name, allow_partial_name_match=False).values
        say, do = "add to the secret", "update"
    except KeyError:
        held, say, do = {}, "create the secret", "create"
    values = " ".join(f"--{key}=…" for key in keys if key not in held)
    return f"{say}: {checks.zenml_command(f'secret {do} {name} {values}')}" if values else ""
