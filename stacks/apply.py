"""Make a stack file true in ZenML and use it in this process only."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config import ROOT, UserError, known, names

OWNER = {"managed_by": "stacks/apply.py"}
"""Label of what this module created; it changes nothing else."""

FLAVORS = {
    "bento_local": "stacks.deployers.LocalFlavor",
    "bento_docker": "stacks.docker_deployer.DockerFlavor",
    "bento_kubernetes": "stacks.kubernetes_deployer.KubernetesFlavor",
}
"""Source of each flavor of ours; ZenML learns it with the first stack that names it."""


class Component(BaseModel):
    """One component, as `zenml stack export` writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: str
    flavor: str
    configuration: dict[str, Any] = {}


class Stack(BaseModel):
    """One stack file, as `zenml stack export` writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stack_name: str
    zenml_version: str
    components: dict[str, list[Component]] = Field(min_length=1)

    @property
    def runs_here(self) -> bool:
        """Say whether the steps run in this very process, so that its files and packages are theirs."""
        return any(component.flavor == "local" for component in self.components.get("orchestrator", []))


def read(name: str) -> Stack:
    """Read stacks/NAME.yaml."""
    path = ROOT / "stacks" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no stack '{name}'; {known('stacks/', names('stacks'), name)}")
    try:
        return Stack.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as err:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(err).split())}") from err
    except ValidationError as err:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in err.errors())
        raise UserError(f"{path} is not a stack: {faults}") from err


def apply(stack: Stack) -> None:
    """Create or update the stack and its components, and make it this process's active one.

    Applying twice changes nothing. Which stack is active in the user's other shells stays as it is.
    """
    os.environ.pop("ZENML_ACTIVE_STACK_ID", None)  # while it is set, updates are written to the user's settings
    with one_at_a_time():
        _tune_sqlite()
        from zenml.client import Client  # importing it creates the database on a fresh clone
        from zenml.utils.source_utils import set_custom_source_root

        set_custom_source_root(str(ROOT))
        client = Client()
        _open_dashboard_without_survey(client)
        components = {
            kind: [_apply_component(client, component) for component in listed]
            for kind, listed in stack.components.items()
        }
        stack_id = _apply_stack(client, stack.stack_name, components)
    os.environ["ZENML_ACTIVE_STACK_ID"] = str(stack_id)


def _open_dashboard_without_survey(client: Any) -> None:
    """Answer the questions that a clone's own dashboard would ask for before it shows a run: no name, no mail."""
    user, answered = client.active_user, "finished_onboarding_survey"
    if client.zen_store.type.value == "sql" and answered not in user.user_metadata:
        metadata = {**user.user_metadata, answered: True}
        client.update_user(user.id, updated_email_opt_in=False, updated_metadata=metadata)


def _apply_component(client: Any, wanted: Component) -> UUID:
    from zenml.enums import StackComponentType

    kind = StackComponentType(wanted.type)
    if wanted.flavor in FLAVORS and not client.list_flavors(name=f"equals:{wanted.flavor}", type=kind).items:
        client.create_flavor(FLAVORS[wanted.flavor], kind)
    found = client.list_stack_components(name=f"equals:{wanted.name}", type=kind, hydrate=True).items
    if not found:
        return UUID(
            str(
                client.create_stack_component(
                    name=wanted.name,
                    flavor=wanted.flavor,
                    component_type=kind,
                    configuration=wanted.configuration,
                    labels=OWNER,
                ).id
            )
        )
    current = found[0]
    if current.flavor_name == wanted.flavor and current.configuration == wanted.configuration:
        return UUID(str(current.id))
    if not _owned(current.labels):
        raise UserError(
            f"{wanted.type} '{wanted.name}' exists and differs from the stack file, and was not made by it; "
            "give the one in the file another name"
        )
    if current.flavor_name != wanted.flavor:
        raise UserError(
            f"{wanted.type} '{wanted.name}' has flavor {current.flavor_name}, the file says {wanted.flavor}; "
            "a flavor cannot be changed, give the component another name"
        )
    gone = {key: None for key in current.configuration if key not in wanted.configuration}  # updates only merge
    client.update_stack_component(current.id, kind, configuration={**wanted.configuration, **gone})
    return UUID(str(current.id))


def _apply_stack(client: Any, name: str, components: Mapping[str, list[UUID]]) -> UUID:
    from zenml.enums import StackComponentType

    wanted = {StackComponentType(kind): ids for kind, ids in components.items()}
    found = client.list_stacks(name=f"equals:{name}", hydrate=True).items
    if not found:
        return UUID(str(client.create_stack(name=name, components=wanted, labels=OWNER).id))
    current = found[0]
    held = {kind: sorted(c.id for c in listed) for kind, listed in current.components.items()}
    if any(held.get(kind) != sorted(ids) for kind, ids in wanted.items()):
        if not _owned(current.labels):
            raise UserError(f"stack '{name}' exists and differs from its file, and was not made by it; rename one")
        client.update_stack(current.id, component_updates=wanted)
    return UUID(str(current.id))


def _owned(labels: Mapping[str, Any] | None) -> bool:
    return (labels or {}).get("managed_by") == OWNER["managed_by"]


@cache
def _tune_sqlite() -> None:
    """Let readers and a writer of ZenML's and MLflow's SQLite files work at once, without a disk sync a commit.

    A killed process loses nothing so; a power cut can lose the last moments, never the file (sqlite.org/wal.html).
    """
    from sqlite3 import Connection

    from sqlalchemy import Engine, event

    def tune(connection: Any, _: Any) -> None:
        if isinstance(connection, Connection):
            connection.execute("PRAGMA busy_timeout=30000")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(Engine, "connect", tune)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process at a time create databases and stacks; two at once crash on a fresh clone."""
    import fcntl

    folder = Path(os.environ["ZENML_CONFIG_PATH"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "apply.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
