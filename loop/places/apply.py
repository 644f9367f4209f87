"""Make a stack file true in ZenML and use it in this process only."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from loop.config import ROOT, UserError
from loop.places import checks, moved, plan
from loop.places.files import Component, Stack
from loop.registry.sqlite import is_whole, made_whole

WHOLE = "SELECT 1 FROM pipeline_run UNION SELECT 1 FROM flavor WHERE name = 'evidently'"
"""Finds a run, or the flavor that ZenML registers last: what a database holds that was made by another command."""


def apply(stack: Stack, *, shared: bool = False) -> None:
    """Create or update the stack and its components, and make it this process's active one.

    All that stands in its way is one UserError, before anything is done. Applying twice changes nothing. Which stack is
    active in the user's other shells stays as it is. A component that other stacks use too is changed only if `shared`.
    """
    while True:
        planned, faults = _plan(stack, shared, always=stack.server is not None or not stack.runs_here)
        refuse(stack, faults)
        with _zenml() as client:
            from zenml.exceptions import EntityExistsError

            try:
                stack_id = _carry_out(client, stack, planned)
            except EntityExistsError:
                continue  # somebody at another machine was first; what they made is looked at again
        os.environ["ZENML_ACTIVE_STACK_ID"] = str(stack_id)
        return


def look(stack: Stack, *, shared: bool = False) -> tuple[list[plan.Change], list[str]]:
    """Return what applying the stack would do and what stands in its way; nothing is changed."""
    return _plan(stack, shared, always=True)


def refuse(stack: Stack, faults: list[str]) -> None:
    """Raise a UserError of all faults, if there are any."""
    if faults:
        raise UserError(f"stack {stack.stack_name} cannot be applied: {'; '.join(faults)}")


def _plan(stack: Stack, shared: bool, *, always: bool) -> tuple[list[plan.Change], list[str]]:
    """Return changes and faults; without `always`, a stack that is as its file says is not looked at any closer."""
    if absent := checks.server_faults(stack):
        return [], [*plan.file_faults(stack), *absent]
    if stack.server is not None and "${" in stack.server:
        return [], plan.file_faults(stack)
    with _zenml() as client:
        from zenml.exceptions import AuthorizationException

        try:
            planned = plan.changes(client, stack)
        except AuthorizationException as err:
            return [], [*plan.file_faults(stack), f"{stack.server} does not let you in: {err}"]
        if not always and not stack.missing and all(change.what == "leave" for change in planned):
            return planned, []
        faults = [*plan.file_faults(stack), *plan.faults(client, stack, planned, shared=shared)]
        return planned, faults or [*plan.bucket_faults(stack)]


@contextmanager
def _zenml() -> Iterator[Any]:
    """Open ZenML for one process at a time."""
    os.environ.pop("ZENML_ACTIVE_STACK_ID", None)  # while it is set, updates are written to the user's settings
    with one_at_a_time():
        _tune_sqlite()
        open_home()
        from zenml.client import Client
        from zenml.utils.source_utils import set_custom_source_root

        set_custom_source_root(str(ROOT))
        yield Client()


def _carry_out(client: Any, stack: Stack, planned: list[plan.Change]) -> UUID:
    _open_dashboard_without_survey(client)
    made: dict[str, list[UUID]] = {}
    for component, change in zip(stack.all, planned, strict=False):
        made.setdefault(component.type, []).append(_apply_component(client, component, change))
    return _apply_stack(client, stack.stack_name, made, planned[-1])


def _open_dashboard_without_survey(client: Any) -> None:
    """Answer the questions that a clone's own dashboard would ask for before it shows a run: no name, no mail."""
    if client.zen_store.type.value != "sql":
        return
    user, answered = client.active_user, "finished_onboarding_survey"
    if answered not in user.user_metadata:
        metadata = {**user.user_metadata, answered: True}
        client.update_user(user.id, updated_email_opt_in=False, updated_metadata=metadata)


def _apply_component(client: Any, wanted: Component, change: plan.Change) -> UUID:
    from zenml.enums import StackComponentType

    kind = StackComponentType(wanted.type)
    if change.what == "create":
        if wanted.flavor in plan.FLAVORS and not client.list_flavors(name=f"equals:{wanted.flavor}", type=kind).items:
            client.create_flavor(plan.FLAVORS[wanted.flavor], kind)
        made = client.create_stack_component(
            name=wanted.name,
            flavor=wanted.flavor,
            component_type=kind,
            configuration=wanted.configuration,
            labels=plan.OWNER,
        )
        change = change._replace(id=made.id)
    if change.what == "change":
        gone = dict.fromkeys({*change.keys} - {*wanted.configuration, plan.CONNECTOR})  # updates only merge
        client.update_stack_component(change.id, kind, configuration={**wanted.configuration, **gone})
    if wanted.connector and (change.what == "create" or plan.CONNECTOR in change.keys):
        connector = client.get_service_connector(wanted.connector, allow_name_prefix_match=False)
        linked = {"connector_id": connector.id, "connector_resource_id": connector.resource_id}
        client.update_stack_component(change.id, kind, **linked)
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
    Both make their engines themselves, so their files are told by the folder they are in: a source may be SQLite too.
    """
    from sqlite3 import Connection

    from sqlalchemy import Engine, event

    def tune(connection: Any, _: Any) -> None:
        if isinstance(connection, Connection) and _is_ours(connection.execute("PRAGMA database_list").fetchone()[2]):
            connection.execute("PRAGMA busy_timeout=30000")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(Engine, "connect", tune)


def _is_ours(file: str) -> bool:
    """Say whether a database file is in ZenML's home, or in that of its local stores."""
    homes = (os.environ.get(name) for name in ("ZENML_CONFIG_PATH", "ZENML_LOCAL_STORES_PATH"))
    return any(Path(file).is_relative_to(Path(home).resolve()) for home in homes if home)


def open_home() -> None:
    """Follow a clone that was moved, read ZenML's settings, and see that its database is there."""
    home = Path(os.environ["ZENML_CONFIG_PATH"])
    try:
        moved.follow(home)
        from zenml.config.global_config import GlobalConfiguration

        GlobalConfiguration()
    except (yaml.YAMLError, ValueError, TypeError) as err:  # ZenML writes the file in place, so a full disk cuts it off
        raise UserError(f"{home}/config.yaml is damaged; move it away and run it again, a new one is made") from err
    _make_database()


def _make_database() -> None:
    """Make ZenML's database on a fresh clone, whole or not at all; ZenML itself takes a half-made one for whole."""
    kind, _, name = os.environ.get("ZENML_STORE_URL", "").partition(":///")
    if kind != "sqlite" or is_whole(path := Path(name), WHOLE):
        return
    from zenml.config.store_config import StoreConfiguration
    from zenml.enums import StoreType
    from zenml.zen_stores.base_zen_store import BaseZenStore

    with made_whole(path) as new:
        store: Any = BaseZenStore.create_store(StoreConfiguration(type=StoreType.SQL, url=f"sqlite:///{new}"))
        store.engine.dispose()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one process at a time create databases and stacks; two at once crash on a fresh clone."""
    import fcntl

    folder = Path(os.environ["ZENML_CONFIG_PATH"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "apply.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
