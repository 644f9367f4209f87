"""Answer what is asked besides running a pipeline; each function is one action of the command line."""

import os
import sys
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from config import ROOT, Config, UserError, command, printable
from stacks import apply, files

CONFIGS = ROOT / "configs"


def show_plan(stack: files.Stack, *, shared: bool) -> int:
    """Print what applying a stack would do; what stands in its way is one UserError."""
    planned, faults = apply.look(stack, shared=shared)
    for change in planned:
        print(change.sentence)
    apply.refuse(stack, faults)
    return 0


def export_stack(name: str) -> int:
    """Print a stack file with its variables filled in; secrets stay references."""
    import yaml

    missing, filled = files.fill(files.STACKS / f"{name}.yaml", name)
    if missing:
        raise UserError(f"stack {name} cannot be exported: set the variables {', '.join(missing)}")
    print(yaml.safe_dump(filled, sort_keys=False), end="")
    return 0


def show_history(name: str) -> int:
    """Print the promotion log of a model."""
    import registry

    entries = registry.history(name)
    if not entries:
        raise UserError(f"'{name}' has no champion yet; train one: {command('--pipeline training')}")
    for entry in entries:
        before = f", replacing version {entry.replaces}" if entry.replaces else ""
        by = f"{entry.kind} by {entry.user}" + (f" in run {entry.run}" if entry.run else "")
        print(f"{entry.time:%Y-%m-%d %H:%M:%S} UTC  version {entry.version}{before} ({by})")
        for reason in entry.reasons:
            print(f"    {printable(reason)}")
    return 0


def show_status() -> int:
    """Print what is deployed on the stack, under every name."""
    import console
    import deployer

    place = deployer.active()
    found = [status for name in place.names() if (status := place.status(name)) is not None]
    for status in found:
        console.show_status(status)
    others = _elsewhere({status.name for status in found})
    for other, address in others.items():
        print(f"{other} at {address}, in a container: python run.py --status --stack docker")
    if not found and not others:
        print(f"nothing is deployed; deploy a champion: {command('--pipeline deployment')}")
    return 0


def _elsewhere(shown: Container[str]) -> dict[str, str]:
    """Return the addresses of this clone's servers in containers, by name, but for those that were shown."""
    import subprocess

    from serving import containers

    with suppress(subprocess.SubprocessError, OSError):
        found = containers.relays(_home().with_name("docker"))
        return {name: address for name, address in found.items() if name not in shown}
    return {}


def _home() -> Path:
    return Path(os.environ.get("SERVING_HOME", ROOT / ".local/serving")).resolve()


def show_still_served(name: str, champion: int) -> None:
    """Say so where a server still answers with another version than the champion."""
    from zenml.client import Client

    from serving.deployment import Deployer

    place = Client().active_stack.model_deployer
    status = place.status(name) if isinstance(place, Deployer) else None
    if status is not None and status.state == "running" and status.version != str(champion):
        then = command("--pipeline deployment")
        print(f"the server at {status.url} still answers with version {status.version}; to change that: {then}")


def simulate(use_case: Config, options: dict[str, Any]) -> int:
    """Replay the use case's stream against its server; return 1 if a request failed."""
    import console
    import deployer
    from serving import traffic

    place = deployer.active()
    status = place.status(use_case.name)
    if status is None or status.url is None:
        raise UserError(f"no server of '{use_case.name}' runs; deploy its champion: {command('--pipeline deployment')}")
    with console.replaying() as progress:
        log = place.log(use_case.name)
        replayed = traffic.simulate(use_case, status.url, log, place.token, progress, **options)
    console.show_replay(replayed)
    return 1 if replayed.failed else 0


def stop_server(name: str) -> int:
    """Stop the server of a model."""
    import deployer

    if not deployer.active().stop(name):
        raise UserError(f"no server of '{name}' runs; see: {command('--status')}")
    print(f"the server of {name} is stopped; what it had begun was answered")
    return 0


def stop_all() -> int:
    """Stop every server of this clone, as processes and in containers."""
    import subprocess

    from serving import containers
    from serving.local import LocalServer

    home = _home()
    stopped = [folder.name for folder in sorted(home.glob("*/")) if LocalServer(folder).stop()]
    try:
        stopped += containers.stop(home.with_name("docker"))
    except (subprocess.SubprocessError, OSError) as err:
        print(f"error: Docker does not answer, so servers in containers may go on: {err}", file=sys.stderr)
        return 2
    print(f"stopped the servers of {', '.join(stopped)}" if stopped else "no server of this clone runs")
    return 0


def prune() -> int:
    """Remove stopped containers, and bentos and images that no champion needs, nor the one before it, nor a server."""
    import subprocess
    from functools import cache

    import bentoml

    import registry
    from serving import containers
    from serving.local import LocalServer

    home = _home()
    live = {f"{folder.name}:{LocalServer(folder).live()}" for folder in home.glob("*/")}

    @cache
    def versions(name: str) -> set[int | None]:
        return {version for entry in registry.history(name)[-1:] for version in (entry.version, entry.replaces)}

    def keep(tag: str) -> bool:
        name, _, release = tag.partition(":")
        return tag in live or release.partition("-")[0] in {f"v{version}" for version in versions(name)}

    old = [str(bento.tag) for bento in bentoml.list() if not keep(str(bento.tag))]
    for tag in old:
        bentoml.delete(tag)
    removed = [f"bento {tag}" for tag in old]
    try:
        removed += containers.prune(home.with_name("docker"), keep)
    except (subprocess.SubprocessError, OSError):
        print("Docker does not run here; containers and images are as they were")
    print("\n".join(f"removed {what}" for what in removed) or "nothing to remove")
    return 0


def reproduce(name: str, version: int) -> int:
    """Retrain a registered version from its record; say what differs."""
    import registry

    found = registry.reproduce(name, version)
    for note in found.notes:
        print(f"note: {note}")
    for difference in found.differences:
        print(f"different: {difference}")
    if found.differences:
        return 1
    print(f"version {version} of {name} is reproduced: model file and {found.rows:,} holdout predictions, bit for bit")
    return 0


def new_config(table: str, target: str | None, changes: Sequence[str] = ()) -> int:
    """Write configs/NAME.yaml for a table."""
    if target is None:
        raise UserError("--new-config needs --target COLUMN: the column to predict")
    from core.draft import draft_config

    text = draft_config(table, target, changes)
    name = next(line.removeprefix("name: ") for line in text.splitlines() if line.startswith("name: "))
    path = CONFIGS / f"{name}.yaml"
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as err:
        raise UserError(f"{shown} is there already; delete it or rename the table") from err
    print(f"wrote {shown}; next: python run.py --pipeline training --config {shown}")
    return 0
