"""Make a stack file true in ZenML and use it in this process only."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config import ROOT, UserError, known, names
from stacks import plan

STACKS = ROOT / "stacks"

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


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
    missing: tuple[str, ...] = ()
    """Variables that the file names, by `${NAME}` without a default, and that are not set."""

    @property
    def runs_here(self) -> bool:
        """Say whether the steps run in this very process, so that its files and packages are theirs."""
        return any(component.flavor == "local" for component in self.components.get("orchestrator", []))


def read(name: str) -> Stack:
    """Read stacks/NAME.yaml."""
    path = STACKS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no stack '{name}'; {known('stacks/', names('stacks'), name)}")
    missing: list[str] = []

    def fill_in(match: re.Match[str]) -> str:
        value = os.environ.get(match[1], match[2])
        if value is None:
            missing.append(match[1])
        return match[0] if value is None else value

    try:
        raw = _filled(yaml.safe_load(path.read_text(encoding="utf-8")), fill_in)
        return Stack.model_validate({**raw, "missing": tuple(dict.fromkeys(missing))})
    except yaml.YAMLError as err:
        raise UserError(f"{path} is not readable YAML: {' '.join(str(err).split())}") from err
    except ValidationError as err:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in err.errors())
        raise UserError(f"{path} is not a stack: {faults}") from err


def apply(stack: Stack) -> None:
    """Create or update the stack and its components, and make it this process's active one.

    All that stands in its way is one UserError, before anything is done. Applying twice changes nothing. Which stack is
    active in the user's other shells stays as it is.
    """
    with _zenml() as client:
        planned = plan.changes(client, stack)
        news = stack.missing or any(change.what != "leave" for change in planned)
        if news and (faults := plan.faults(client, stack, planned)):
            raise UserError(f"stack {stack.stack_name} cannot be applied: {'; '.join(faults)}")
        _open_dashboard_without_survey(client)
        components = [component for listed in stack.components.values() for component in listed]
        made: dict[str, list[UUID]] = {}
        for component, change in zip(components, planned, strict=False):
            made.setdefault(component.type, []).append(_apply_component(client, component, change))
        stack_id = _apply_stack(client, stack.stack_name, made, planned[-1])
    os.environ["ZENML_ACTIVE_STACK_ID"] = str(stack_id)


def look(stack: Stack) -> tuple[list[plan.Change], list[str]]:
    """Return what applying the stack would do and what stands in its way; nothing is changed."""
    with _zenml() as client:
        planned = plan.changes(client, stack)
        return planned, plan.faults(client, stack, planned)


@contextmanager
def _zenml() -> Iterator[Any]:
    """Open ZenML for one process at a time."""
    os.environ.pop("ZENML_ACTIVE_STACK_ID", None)  # while it is set, updates are written to the user's settings
    with one_at_a_time():
        _tune_sqlite()
        from zenml.client import Client  # importing it creates the database on a fresh clone
        from zenml.utils.source_utils import set_custom_source_root

        set_custom_source_root(str(ROOT))
        yield Client()


def _filled(value: Any, fill_in: Any) -> Any:
    """Fill variables into every string of a file's values."""
    if isinstance(value, dict):
        return {key: _filled(held, fill_in) for key, held in value.items()}
    if isinstance(value, list):
        return [_filled(held, fill_in) for held in value]
    return _VARIABLE.sub(fill_in, value) if isinstance(value, str) else value


def _open_dashboard_without_survey(client: Any) -> None:
    """Answer the questions that a clone's own dashboard would ask for before it shows a run: no name, no mail."""
    user, answered = client.active_user, "finished_onboarding_survey"
    if client.zen_store.type.value == "sql" and answered not in user.user_metadata:
        metadata = {**user.user_metadata, answered: True}
        client.update_user(user.id, updated_email_opt_in=False, updated_metadata=metadata)


def _apply_component(client: Any, wanted: Component, change: plan.Change) -> UUID:
    from zenml.enums import StackComponentType

    kind = StackComponentType(wanted.type)
    if wanted.flavor in plan.FLAVORS and not client.list_flavors(name=f"equals:{wanted.flavor}", type=kind).items:
        client.create_flavor(plan.FLAVORS[wanted.flavor], kind)
    if change.what == "create":
        made = client.create_stack_component(
            name=wanted.name,
            flavor=wanted.flavor,
            component_type=kind,
            configuration=wanted.configuration,
            labels=plan.OWNER,
        )
        return UUID(str(made.id))
    if change.what == "change":
        gone = {key: None for key in change.keys if key not in wanted.configuration}  # updates only merge
        client.update_stack_component(change.id, kind, configuration={**wanted.configuration, **gone})
    return UUID(str(change.id))


def _apply_stack(client: Any, name: str, components: Mapping[str, list[UUID]], change: plan.Change) -> UUID:
    from zenml.enums import StackComponentType

    wanted = {StackComponentType(kind): ids for kind, ids in components.items()}
    if change.what == "create":
        return UUID(str(client.create_stack(name=name, components=wanted, labels=plan.OWNER).id))
    if change.what == "change":
        client.update_stack(change.id, component_updates=wanted)
    return UUID(str(change.id))


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
