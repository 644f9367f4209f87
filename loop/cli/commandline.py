"""Read the command line and do what it asks: each action is an entry of a table."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from loop import config
from loop.cli import actions, environment, runs, scheduling
from loop.config import Config, UserError, known
from loop.places import files

DEFAULT, LOCAL = actions.CONFIGS / "breast_cancer.yaml", "local"
"""Config and stack where none is named."""

Given = argparse.Namespace
Kind = dict[str, Any]
"""How argparse reads an option."""

FLAG: Kind = {"action": "store_true"}


class Action(NamedTuple):
    """What is asked for by one option, with the options that it takes."""

    do: Callable[[Given], int]
    """Its docstring is what the help says of it."""
    example: str
    kind: Kind
    shared: tuple[str, ...]
    """Options that other actions take too, by their names in SHARED."""
    own: Mapping[str, Kind] = {}
    """Options that go with this action alone."""

    @property
    def help(self) -> str:
        """Return what the action does, as the help says it."""
        said = str(self.do.__doc__).removesuffix(".")
        some = f" (with {', '.join(map(_flag, self.shared))})" if 0 < len(self.shared) < len(SHARED) else ""
        return said[:1].lower() + said[1:] + some


class Parser(argparse.ArgumentParser):
    """Refuse in one line, like everything else here, and name the nearest option."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse an option that there is not before one is missed."""
        for given in (text.partition("=")[0] for text in (sys.argv[1:] if args is None else args)):
            if len(given) > 2 and given.startswith("--") and given not in self._option_string_actions:
                self.error(f"unrecognized arguments: {given}")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError instead of printing the usage."""
        if found := re.search(r"unrecognized arguments: (\S+)", message):
            raise UserError(f"no option '{found[1]}'; {known('run.py', self._option_string_actions, found[1])}")
        raise UserError(message)


def number(text: str) -> int:
    """Return the number of a version."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"needs the number of a version, 1 or more, it is '{text}'")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return 0, or 1 for a difference or fault, 2 for a user's mistake."""
    environment.settle()
    os.environ[config.OPTIONS] = ""
    try:
        with environment.disk_faults(runs.LOCAL):
            given = parser().parse_args(arguments)
            return chosen(given).do(given)
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as err:
        print(str(err) or "stopped; the champion is as it was", file=sys.stderr)
        return 130
    finally:
        os.environ.pop(config.OPTIONS, None)


def parser() -> Parser:
    """Return the command line, whose help shows each action with its options and an example."""
    shaped = argparse.RawDescriptionHelpFormatter
    usage = "python run.py ACTION [OPTIONS]"
    about = "Run a pipeline of this project, or ask it something: one action at a time."
    parse = Parser(prog="run.py", usage=usage, description=about, allow_abbrev=False, formatter_class=shaped)
    for name, action in ACTIONS.items():
        _add(parse, f"python run.py {action.example}", {name: {**action.kind, "help": action.help}, **action.own})
    _add(parse, "most actions take these too, the others those that they name", SHARED)
    return parse


def _add(parse: Parser, about: str, kinds: Mapping[str, Kind]) -> None:
    group = parse.add_argument_group(description=about)
    for option, kind in kinds.items():
        group.add_argument(_flag(option), **kind)


def chosen(given: Given) -> Action:
    """Return the one action that was asked for; an option that it does not take is a UserError."""
    asked = [name for name, value in vars(given).items() if value is not None and value is not False]
    actions = [name for name in ACTIONS if name in asked]
    if not actions:
        raise UserError(f"name an action: one of {', '.join(map(_flag, ACTIONS))}; see --help")
    if len(actions) > 1:
        raise UserError(f"{_flag(actions[1])} is not allowed with {_flag(actions[0])}: one action at a time")
    action = ACTIONS[actions[0]]
    for option in asked:
        if option not in (actions[0], *action.shared, *action.own):
            owner = next((name for name in ACTIONS if option in ACTIONS[name].own), None)
            fault = f"goes with {_flag(owner)}" if owner else f"does not go with {_flag(actions[0])}"
            raise UserError(f"{_flag(option)} {fault}")
    return action


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def run(given: Given) -> int:
    """Run this pipeline, now or by the clock, and what it asks for next."""
    name = given.pipeline
    if name not in (there := runs.pipelines()):
        raise UserError(f"no pipeline '{name}'; {known('pipelines/', there, name)}")
    if given.dry_run and (name != "training" or given.schedule is not None):
        raise UserError("--dry-run goes with --pipeline training, without --schedule: nothing else runs dry")
    when = None if given.schedule is None else scheduling.USUAL.get(given.schedule.strip(), given.schedule)
    if when is not None:
        scheduling.read_cron(when)
    use_case, stack = read_use_case(given), read_stack(given)
    if stack.runs_here:
        runs.check_here(name, use_case)
    if when is not None:
        job = scheduled_job(given, use_case)  # before use_stack sets its variables
        runs.use_stack(stack, shared=given.change_shared)
        return runs.schedule_pipeline(name, use_case, stack, job, when, cache=not given.no_cache)
    runs.begin(use_case, stack, shared=given.change_shared)
    return runs.run_pipeline(name, use_case, stack, cache=not given.no_cache, dry=given.dry_run)


def show_names(given: Given) -> int:
    """List pipelines, configs and stacks."""
    for what, names in (
        ("pipelines", runs.pipelines()),
        ("configs", config.names("configs")),
        ("stacks", config.names("stacks")),
    ):
        print(f"{what:<10} {', '.join(names)}")
    return 0


def history(given: Given) -> int:
    """Show every version, and who was champion when, and why."""
    return actions.show_history(begun(given))


def compare(given: Given) -> int:
    """Show what differs between two versions, and how they do on the same rows."""
    use_case = begun(given)
    return actions.compare(use_case, given.compare, runs.LOCAL / "reports" / use_case.name)


def roll_back(given: Given) -> int:
    """Make the previous champion (or this earlier one) current again."""
    from loop.registry import champions

    use_case, stack = read_use_case(given), read_stack(given)
    runs.begin(use_case, stack, shared=given.change_shared)
    entry = champions.rollback(use_case.name, given.rollback or None, given.reason or "no reason given")
    print(f"version {entry.version} of {use_case.name} is champion again; it replaces version {entry.replaces}")
    if not given.deploy:
        actions.show_still_served(use_case.name, entry.version)
        return 0
    try:
        return runs.run_pipeline("deployment", use_case, stack, cache=True)
    except UserError as err:
        then = f"then deploy version {entry.version}: {config.command('--pipeline deployment')}"
        raise UserError(f"{err}; {then}") from err


def reproduce(given: Given) -> int:
    """Train a registered version again from its record; exit 1 on a difference."""
    return actions.reproduce(begun(given).name, given.reproduce)


def plan(given: Given) -> int:
    """Show what applying the stack would do, and what stands in its way; nothing is done."""
    stack = read_stack(given)
    runs.start_zenml(stack)
    return actions.show_plan(stack, shared=given.change_shared)


def export(given: Given) -> int:
    """Print the stack file with its variables filled in, for `zenml stack import`."""
    name_folder()
    return actions.export_stack(given.stack or LOCAL)


def status(given: Given) -> int:
    """Show what is deployed where."""
    begun(given)
    return actions.show_status()


def stop(given: Given) -> int:
    """Stop the server of the config's model."""
    use_case = read_use_case(given)
    runs.use_stack(read_stack(given), shared=given.change_shared)
    return actions.stop_server(use_case.name)


def prune(given: Given) -> int:
    """Remove stopped containers, and bentos and images that no champion needs."""
    begun(given)
    return actions.prune()


def simulate(given: Given) -> int:
    """Replay the config's stream against its server, labels arriving later."""
    from loop.cli.traffic import check_traffic

    use_case = read_use_case(given)
    traffic = {name: value for name in TRAFFIC if (value := getattr(given, name)) is not None}
    check_traffic(use_case, **traffic)
    runs.begin(use_case, read_stack(given), shared=given.change_shared)
    return actions.simulate(use_case, traffic)


def take_labels(given: Given) -> int:
    """Put the labels of a CSV or Parquet file on record, by data.id or prediction id."""
    return actions.take_labels(begun(given), given.labels)


def list_audit(given: Given) -> int:
    """Write the predictions of the audit sample without a label, for --labels."""
    return actions.list_audit(begun(given), given.audit)


def new_config(given: Given) -> int:
    """Write configs/NAME.yaml for your own table."""
    return actions.new_config(given.new_config, given.target, given.set or [])


def show_schema(given: Given) -> int:
    """Print the JSON schema of configs/*.yaml."""
    print(config.json_schema(), end="")
    return 0


def begun(given: Given) -> Config:
    """Return the use case, when its stack is this process's and what was left unfinished is repaired."""
    use_case = read_use_case(given)
    runs.begin(use_case, read_stack(given), shared=given.change_shared)
    return use_case


def read_use_case(given: Given) -> Config:
    """Return the config with its changes; commands that are printed from now on name both, and the stack."""
    options = [] if given.config is None else ["--config", str(given.config)]
    options += [] if given.stack in (None, LOCAL) else ["--stack", given.stack]
    os.environ[config.OPTIONS] = shlex.join([*options, *_changes(given)])
    return config.load(given.config or DEFAULT, given.set or [])


def read_stack(given: Given) -> files.Stack:
    """Return the stack that was chosen."""
    name_folder()
    return files.read(given.stack or LOCAL)


def name_folder() -> None:
    """Let stack files name the folder of this clone's state."""
    os.environ.setdefault("LOCAL_FOLDER", str(runs.LOCAL))


def _changes(given: Given) -> list[str]:
    return [word for change in given.set or [] for word in ("--set", change)]


def scheduled_job(given: Given, use_case: Config) -> scheduling.Job:
    """Return the command line as it is, for the clock to start."""
    options = ["--pipeline", given.pipeline, "--config", str((given.config or DEFAULT).resolve())]
    options += ["--stack", given.stack or LOCAL, *_changes(given), *(["--no-cache"] if given.no_cache else [])]
    return scheduling.Job(f"{given.pipeline}-{use_case.name}", options, runs.LOCAL)


SHARED: dict[str, Kind] = {
    "config": {"type": Path, "metavar": "FILE", "help": "the use case (default: configs/breast_cancer.yaml)"},
    "stack": {"metavar": "NAME", "help": "where to run (default: local)"},
    "set": {"action": "append", "metavar": "A.B=VALUE", "help": "change one value of the config; repeatable"},
    "change_shared": {**FLAG, "help": "change also what other stacks use, where the stack file differs"},
}
RUNNING: dict[str, Kind] = {
    "dry_run": {**FLAG, "help": "of training: judge the model, register nothing"},
    "no_cache": {**FLAG, "help": "run every step again"},
    "schedule": {"metavar": "CRON", "help": "run it by the clock, as at '7 * * * *'"},
}
BACK: dict[str, Kind] = {
    "deploy": {**FLAG, "help": "deploy it too"},
    "reason": {"metavar": "TEXT", "help": "why"},
}
TRAFFIC: dict[str, Kind] = {
    "scenario": {"metavar": "NAME", "help": "the drift of the stream (default: none)"},
    "rows": {"type": int, "metavar": "N", "help": "how many rows (default: 5000)"},
    "label_delay": {"type": int, "metavar": "N", "help": "a row's label comes N rows later (default: 0)"},
    "seed": {"type": int, "metavar": "N", "help": "of the stream, instead of the config's"},
    "start": {"type": int, "metavar": "N", "help": "the first row (default: the first one never sent)"},
    "batch": {"type": int, "metavar": "N", "help": "rows a request (default: 10)"},
}
TARGET: dict[str, Kind] = {"target": {"metavar": "COLUMN", "help": "the column to predict"}}
ALL = tuple(SHARED)
VERSION: Kind = {"type": number, "metavar": "VERSION"}
FILE: Kind = {"type": Path, "metavar": "FILE"}

ACTIONS = {
    "pipeline": Action(run, "--pipeline training --config configs/fraud.yaml", {"metavar": "NAME"}, ALL, RUNNING),
    "list": Action(show_names, "--list", FLAG, ()),
    "history": Action(history, "--history --config configs/fraud.yaml", FLAG, ALL),
    "compare": Action(compare, "--compare 1 2", {**VERSION, "nargs": 2}, ALL),
    "rollback": Action(roll_back, '--rollback --deploy --reason "…"', {**VERSION, "nargs": "?", "const": 0}, ALL, BACK),
    "reproduce": Action(reproduce, "--reproduce 1", VERSION, ALL),
    "plan": Action(plan, "--plan --stack docker", FLAG, ("stack", "change_shared")),
    "export": Action(export, "--export --stack aws > aws.yaml", FLAG, ("stack",)),
    "status": Action(status, "--status --stack docker", FLAG, ALL),
    "stop": Action(stop, "--stop", FLAG, ALL),
    "prune": Action(prune, "--prune", FLAG, ALL),
    "simulate": Action(
        simulate, "--simulate --scenario concept --rows 6000 --config configs/fraud.yaml", FLAG, ALL, TRAFFIC
    ),
    "labels": Action(take_labels, "--labels labels.csv", FILE, ALL),
    "audit": Action(list_audit, "--audit audit.csv", FILE, ALL),
    "new_config": Action(new_config, "--new-config claims.csv --target fraud", {"metavar": "TABLE"}, ("set",), TARGET),
    "schema": Action(show_schema, "--schema", FLAG, ()),
}
"""Every action, by its option."""
