"""Answer what is asked besides running a pipeline; each function is one action of the command line."""

import os
import re
import subprocess
import sys
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loop.config import ROOT, Config, Serving, UserError, command, printable
from loop.places import apply, files, plan

CONFIGS = ROOT / "configs"
_PORT = re.compile(r"\bport: *(\d+)")


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
    for part in filled["components"].get("model_deployer", []):
        if source := plan.FLAVORS.get(part["flavor"]):
            print(f"# first, in this project's folder: zenml model-deployer flavor register {source}")
    print(yaml.safe_dump(filled, sort_keys=False), end="")
    return 0


def show_history(use_case: Config) -> int:
    """Print every version of a model, what level its holdout has left, then its promotion log."""
    from loop.cli import console
    from loop.registry import champions
    from loop.training.level import spend

    versions, entries = champions.versions(use_case.name), champions.history(use_case.name)
    if not versions and not entries:
        raise UserError(f"'{use_case.name}' has no champion yet; train one: {command('--pipeline training')}")
    console.show_versions(versions, entries[-1].version if entries else None, use_case.gate.metric)
    if versions and versions[-1].look is not None:
        look = versions[-1].look + (not versions[-1].passed)
        level = 100 * spend(use_case.evaluation, look).confidence
        rows = f"the holdout rows of version {versions[-1].number}"
        print(f"next: look {look:.3g} at {rows}, judged at one-sided {level:.6g} %; new rows bring new level")
    for entry in entries:
        before = f", replacing version {entry.replaces}" if entry.replaces else ""
        by = f"{entry.kind} by {entry.user}" + (f" in run {entry.run}" if entry.run else "")
        print(f"{entry.time:%Y-%m-%d %H:%M:%S} UTC  version {entry.version}{before} ({by})")
        for reason in entry.reasons:
            print(f"    {printable(reason)}")
    return 0


def compare(use_case: Config, versions: Sequence[int], folder: Path) -> int:
    """Print what differs between two versions, and draw it."""
    from loop.cli import console
    from loop.pages.report import compare_page
    from loop.registry import champions

    first, second = versions
    costs = use_case.model.threshold.costs
    found = champions.compare(use_case.name, first, second, use_case.evaluation, costs)
    page = folder / f"compare-{first}-{second}.html"
    folder.mkdir(parents=True, exist_ok=True)
    page.write_text(compare_page(found), encoding="utf-8")
    console.show_comparison(found, page)
    return 0


def show_status() -> int:
    """Print what is deployed on the stack, under every name."""
    from loop.cli import console
    from loop.deploying import deployer

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
    from loop.deploying import containers

    with suppress(subprocess.SubprocessError, OSError):
        found = containers.relays(_home().with_name("docker"))
        return {name: address for name, address in found.items() if name not in shown}
    return {}


def _home() -> Path:
    return Path(os.environ.get("SERVING_HOME", ROOT / ".local/serving")).resolve()


def show_still_served(name: str, champion: int) -> None:
    """Say so where a server still answers with another version than the champion."""
    from zenml.client import Client

    from loop.deploying.contract import Deployer

    place = Client().active_stack.model_deployer
    status = place.status(name) if isinstance(place, Deployer) else None
    if status is not None and status.state == "running" and status.version != str(champion):
        then = command("--pipeline deployment")
        print(f"the server at {status.url} still answers with version {status.version}; to change that: {then}")


def simulate(use_case: Config, options: dict[str, Any]) -> int:
    """Replay the use case's stream against its server; return 1 if a request failed."""
    from loop.cli import console, traffic
    from loop.deploying import deployer

    place = deployer.active()
    status = place.status(use_case.name)
    if status is None or status.url is None:
        raise UserError(f"no server of '{use_case.name}' runs; deploy its champion: {command('--pipeline deployment')}")
    with console.replaying() as progress:
        log = place.log(use_case.name)
        replayed = traffic.simulate(use_case, status.url, log, place.token, progress, **options)
    console.show_replay(replayed)
    if not traffic.is_stream(use_case.data):
        what = f"rows of {use_case.data.shown_source}, which the model may have learned from"
        console.fields([("for trying out", f"these were {what}; what came of them is in the log like any other")])
    return 1 if replayed.failed else 0


def take_labels(use_case: Config, path: Path) -> int:
    """Put the labels of a file on record, each for the prediction it belongs to; say how many belong to none."""
    from loop.cli import console
    from loop.deploying import deployer
    from loop.log.labels import read_label_table, write_labels
    from loop.log.own_ids import TAKEN_FOR, OwnIds
    from loop.log.records import read_identities
    from loop.registry import champions
    from loop.serving.schema import Refused, Schema

    found = champions.load_champion(use_case.name)
    if found is None:
        raise UserError(f"'{use_case.name}' has no champion, so nothing was predicted; train one and deploy it first")
    card, log = found[1].card, deployer.active().log(use_case.name)
    ids = card.contract.id
    if "://" in log or {*ids} & {*use_case.serving.personal}:
        why = f"the log is at {log}" if "://" in log else "serving.personal hides the ids in the log"
        raise UserError(f"{why}, so only the server can take labels: post the file to /feedback_csv")
    try:
        names, labels = Schema(card, use_case.serving).label_table(
            *read_label_table(path, use_case.data, card.contract)
        )
    except Refused as err:
        raise UserError(f"{path}: {err.sentence}") from err
    if names:
        pairs, unknown = OwnIds(f"{log}/predictions", names).resolve(labels)
    else:
        made = {prediction_id for _, _, prediction_id in read_identities(f"{log}/predictions", ())}
        pairs = [(key[0], label) for key, label, _ in labels if key[0] in made]
        unknown = len(labels) - len(pairs)
    known_by = f"{' and '.join(names)} (before its date)" if names else "prediction_id"
    nobody = f"no prediction with this {known_by} is on record"
    if not pairs:
        raise UserError(f"{path}: none of its {unknown:,} labels can be taken: {nobody}")
    write_labels(log, use_case.name, pairs)
    told = [("labels", f"{len(pairs):,} of {len(labels):,} are on record" + (f", for {TAKEN_FOR}" if names else ""))]
    if unknown:
        told.append(("unknown", f"{unknown:,}: {nobody}"))
    console.fields([*told, ("next", command("--pipeline feedback"))])
    return 0


def list_audit(use_case: Config, path: Path) -> int:
    """Write which predictions of the audit sample have no label yet, as a table to be filled in."""
    from loop.cli import console
    from loop.deploying import deployer
    from loop.log.labels import audit_table

    share = use_case.feedback.audit
    if not share:
        raise UserError("feedback.audit is 0, so no prediction is to be labelled; set the share that is, such as 0.02")
    table, labelled = audit_table(deployer.active().log(use_case.name), use_case.data.id, share)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    count = len(table) + labelled
    console.fields(
        [
            ("audit", f"{labelled:,} of {count:,} predictions of the sample are labelled"),
            ("to label", f"{len(table):,} in {path}: fill in 'label', take out what nobody knows"),
            ("next", command(f"--labels {path}")),
        ]
    )
    return 0


def stop_server(name: str) -> int:
    """Stop the server of a model."""
    from loop.deploying import deployer

    if not deployer.active().stop(name):
        raise UserError(f"no server of '{name}' runs; see: {command('--status')}")
    print(f"the server of {name} is stopped; what it had begun was answered")
    return 0


def stop_all() -> int:
    """Stop every server of this clone, as processes and in containers."""
    from loop.deploying import containers
    from loop.deploying.process import LocalServer

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
    from functools import cache

    import bentoml

    from loop.deploying import containers
    from loop.deploying.process import LocalServer
    from loop.registry import champions

    home = _home()
    live = {f"{folder.name}:{LocalServer(folder).live()}" for folder in home.glob("*/")}

    @cache
    def versions(name: str) -> set[int | None]:
        return {version for entry in champions.history(name)[-1:] for version in (entry.version, entry.replaces)}

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
    from loop.registry import champions

    found = champions.reproduce(name, version)
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
    from loop.cli.new_config import draft_config

    text = draft_config(table, target, changes)
    used = {int(found) for other in CONFIGS.glob("*.yaml") for found in _PORT.findall(other.read_text("utf-8"))}
    port = next(port for port in range(Serving().port + 1, 2**16) if port not in used)
    text += f"\n# Each use case needs a port of its own.\nserving: {{port: {port}}}\n"
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
