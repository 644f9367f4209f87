"""Say what applying a stack file would do, and all that stands in its way at once, before anything is done."""

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from config import known

OWNER = {"managed_by": "stacks/apply.py"}
"""Label of what this project created; it changes nothing else."""

FLAVORS = {
    "bento_local": "stacks.deployers.LocalFlavor",
    "bento_docker": "stacks.docker_deployer.DockerFlavor",
    "bento_kubernetes": "stacks.kubernetes_deployer.KubernetesFlavor",
}
"""Source of each flavor of ours; ZenML learns it with the first stack that names it."""

CONTAINERS = ("local_docker", "bento_docker")
"""Flavors that need a Docker engine on this machine."""

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


def changes(client: Any, stack: Any) -> list[Change]:
    """Compare a stack file with what ZenML holds; `stack` is a `stacks.apply.Stack`."""
    found = [_component(client, component) for listed in stack.components.values() for component in listed]
    stacks = client.list_stacks(name=f"equals:{stack.stack_name}", hydrate=True).items
    if not stacks:
        return [*found, Change("stack", stack.stack_name, "create")]
    held = {kind.value: {c.name for c in listed} for kind, listed in stacks[0].components.items()}
    wanted = {kind: {c.name for c in listed} for kind, listed in stack.components.items()}
    moved = tuple(kind for kind in sorted(held.keys() | wanted) if held.get(kind) != wanted.get(kind))
    return [*found, Change("stack", stack.stack_name, "change" if moved else "leave", moved, stacks[0].id)]


def faults(client: Any, stack: Any, planned: list[Change]) -> list[str]:
    """Return everything that keeps a stack from being applied and used, in words; nothing is changed."""
    found = [f"set the variable {name}" for name in stack.missing]
    here = importlib.metadata.version("zenml")
    if stack.zenml_version != here:
        found.append(f"the file is for ZenML {stack.zenml_version}, here is {here}")
    listed = [component for of_kind in stack.components.values() for component in of_kind]
    for component, change in zip(listed, planned, strict=False):
        found += _component_faults(client, component)
        if change.what == "change":
            found += _owner_faults(client, stack, component, change)
    if planned[-1].what == "change" and not owned(client.get_stack(planned[-1].id).labels):
        found.append(f"stack '{stack.stack_name}' exists and differs from its file, and was not made by it; rename one")
    if any(component.flavor in CONTAINERS for component in listed) and (fault := _docker_fault()):
        found.append(fault)
    return list(dict.fromkeys(found))


def owned(labels: Any) -> bool:
    """Say whether this project made what bears these labels."""
    return bool((labels or {}).get("managed_by") == OWNER["managed_by"])


def _component(client: Any, wanted: Any) -> Change:
    from zenml.enums import StackComponentType

    kind = StackComponentType(wanted.type)
    there = client.list_stack_components(name=f"equals:{wanted.name}", type=kind, hydrate=True).items
    if not there:
        return Change(wanted.type, wanted.name, "create")
    held = there[0].configuration
    keys = {key for key in held.keys() | wanted.configuration.keys() if held.get(key) != wanted.configuration.get(key)}
    keys |= {"flavor"} if there[0].flavor_name != wanted.flavor else set()
    return Change(wanted.type, wanted.name, "change" if keys else "leave", tuple(sorted(keys)), there[0].id)


def _component_faults(client: Any, component: Any) -> Iterator[str]:
    from zenml.enums import StackComponentType
    from zenml.stack.flavor import Flavor

    what, kind = f"{component.type} '{component.name}'", StackComponentType(component.type)
    flavors = {flavor.name: flavor for flavor in client.list_flavors(type=kind, size=1000, hydrate=True).items}
    if component.flavor in FLAVORS:
        module, _, name = FLAVORS[component.flavor].rpartition(".")
        yield from _config_faults(what, getattr(importlib.import_module(module), name)().config_class, component)
    elif component.flavor not in flavors:
        yield f"{what}: no flavor '{component.flavor}'; {known(component.type, flavors, component.flavor)}"
    else:
        try:
            kind_of_config = Flavor.from_model(flavors[component.flavor]).config_class
        except ImportError:
            yield f"{what} needs packages: pip install {' '.join(_packages(flavors[component.flavor].integration))}"
        else:
            yield from _config_faults(what, kind_of_config, component)
    for value in component.configuration.values():
        yield from filter(None, (_secret_fault(client, *match) for match in _SECRET.findall(str(value))))


def _config_faults(what: str, config_class: type[BaseModel], component: Any) -> Iterator[str]:
    for key in component.configuration:
        if key not in config_class.model_fields:
            yield f"{what}: no key '{key}'; {known(component.flavor, config_class.model_fields, key)}"
            return
    try:
        config_class(**component.configuration)
    except ValidationError as err:
        for fault in err.errors():
            where = ".".join(str(part) for part in fault["loc"])
            yield f"{what}: '{where}' {fault['msg'][:1].lower()}{fault['msg'][1:]}"
    except KeyError:
        return  # a secret that is not there, which is said by itself


def _owner_faults(client: Any, stack: Any, component: Any, change: Change) -> Iterator[str]:
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
    if others:
        yield f"{what} is also part of {', '.join(sorted(others))}, which would change with it; give it another name"


def _secret_fault(client: Any, name: str, key: str) -> str:
    """Return what is missing of a secret; the empty string if nothing is."""
    try:
        held = client.get_secret(name, allow_partial_name_match=False).values
    except KeyError:
        return f"create the secret: zenml secret create {name} --{key}=…"
    return "" if key in held else f"add a key to the secret: zenml secret update {name} --{key}=…"


def _packages(integration: str | None) -> list[str]:
    from zenml.integrations.registry import integration_registry

    try:
        return [f"'{name}'" for name in integration_registry.select_integration_requirements(integration)]
    except KeyError:
        return [f"'zenml[{integration}]'"]


def _docker_fault() -> str:
    import docker

    try:
        engine = docker.from_env()
        try:
            engine.ping()
        finally:
            engine.close()
    except docker.errors.DockerException:
        return "Docker does not run, or may not be used by this user; start it, see: docker info"
    return ""
