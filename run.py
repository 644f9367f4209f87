"""Run a pipeline of this project, or ask it something: `python run.py --help`."""

import argparse
import gc
import importlib
import importlib.util
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

if __name__ == "__main__":  # what PYTHONSAFEPATH, PYTHONWARNINGS and the like say does not reach a run
    harmless = ("PATH", "IOENCODING", "UNBUFFERED", "DONTWRITEBYTECODE", "PYCACHEPREFIX", "UTF8")
    others = [name for name in os.environ if re.match(f"PYTHON(?!({'|'.join(harmless)})$)[A-Z]", name)]
    if others or sys.flags.safe_path or sys.getfilesystemencoding() != "utf-8":
        world = {name: value for name, value in os.environ.items() if name not in others}
        world = {"PYTHONIOENCODING": sys.stdout.encoding, **world, "PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.argv], world)  # noqa: S606  (this program again)
    added = [str(Path(place).absolute()) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[1:] = sorted(sys.path[1:], key=added.__contains__)  # behind the packages of this environment

if importlib.util.find_spec("zenml") is None:
    fix = "run: make training, once, and then: .venv/bin/python run.py, or . .venv/bin/activate where it was not moved"
    print(f"error: this Python has no ZenML; {fix}", file=sys.stderr)
    sys.exit(2)

import commands
import config
import environment
import scheduling
import unfinished
from config import ROOT, Config, UserError, known
from stacks import apply, files

LOCAL, DEFAULT = ROOT / ".local", commands.CONFIGS / "breast_cancer.yaml"
ENVIRONMENT = {
    "ZENML_REPOSITORY_PATH": str(ROOT),             # no settings from a .zen folder further up
    "ZENML_ANALYTICS_OPT_IN": "false",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "ZENML_LOGGING_VERBOSITY": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",                            # evidently
    "BENTOML_DO_NOT_TRACK": "True",
    "OMP_WAIT_POLICY": "PASSIVE",                   # scikit-learn's threads spin: on a busy machine, for minutes
}  # fmt: skip

ZENML_KEPT = ("ZENML_CONFIG_PATH", "ZENML_LOGGING_VERBOSITY", "ZENML_AUTO_OPEN_DASHBOARD")
"""What of ZenML's variables counts on this clone's own files."""

MLFLOW_DROPPED = ("MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_")
"""Variables of MLflow that count nowhere; the others say how a team's server is reached."""

ELSEWHERE = {"SERVING_HOME": "/tmp/loop/serving", "BENTOML_HOME": "/tmp/loop/bentoml"}  # noqa: S108
"""Folders of a step's container, which goes with it; a stack file names others where they outlive it."""

FOLLOWS = {
    "monitoring": ("decide_retraining", "decision", "action", "retrain", "feedback"),
    "feedback": ("weigh_feedback", "retraining_decision", "action", "retrain", "retraining"),
    "retraining": ("register_model", "registration", "decision", "promote", "deployment"),
}
"""Step, artifact, field and value of it that ask for another pipeline, and which."""

QUIET = {
    "zenml.orchestrators": "CRITICAL",              # what fails there is raised as well
    "zenml.log_stores": "CRITICAL",                 # a full disk, which is told in one line
    "zenml.integrations.mlflow": "ERROR",           # warns of frameworks that are not in use
    "zenml.zen_stores.base_zen_store": "ERROR",     # warns that a new home gets its first settings
    "mlflow.store.db.utils": "CRITICAL",            # tells of each table it creates; what fails is raised as well
}  # fmt: skip

POLL_SECONDS = 2.0

TRAFFIC = ("scenario", "rows", "label_delay", "seed", "start", "batch")
GOES_WITH = {
    "target": "new_config", "dry_run": "pipeline", "reason": "rollback", "deploy": "rollback", "schedule": "pipeline",
    **dict.fromkeys(TRAFFIC, "simulate"),
}  # fmt: skip


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


def parser() -> Parser:
    """Return the command line; each action excludes the others."""
    parse = Parser(prog="run.py", description=__doc__, allow_abbrev=False)
    act = parse.add_mutually_exclusive_group(required=True)
    act.add_argument("--pipeline", metavar="NAME", help="run this pipeline")
    act.add_argument("--list", action="store_true", help="list pipelines, configs and stacks")
    act.add_argument("--history", action="store_true", help="every version, and who was champion when, and why")
    act.add_argument("--compare", nargs=2, type=number, metavar="VERSION",
                     help="what differs between two versions, and how they do on the same rows")  # fmt: skip
    act.add_argument("--rollback", nargs="?", type=number, const=0, metavar="VERSION",
                     help="make the previous champion (or this earlier one) current again")  # fmt: skip
    act.add_argument("--reproduce", type=number, metavar="VERSION",
                     help="retrain a registered version from its record; exit 1 on a difference")  # fmt: skip
    act.add_argument("--plan", action="store_true",
                     help="what applying the stack would do, and what stands in its way; nothing is done")  # fmt: skip
    act.add_argument("--export", action="store_true",
                     help="print the stack file with its variables filled in, for `zenml stack import`")  # fmt: skip
    act.add_argument("--status", action="store_true", help="what is deployed where")
    act.add_argument("--stop", action="store_true", help="stop the server of the config's model")
    act.add_argument("--prune", action="store_true",
                     help="remove stopped containers, and bentos and images that no champion needs")  # fmt: skip
    act.add_argument("--simulate", action="store_true",
                     help="replay the config's stream against its server, labels arriving later")  # fmt: skip
    act.add_argument("--labels", type=Path, metavar="FILE",
                     help="put the labels of a CSV or Parquet file on record, by data.id or prediction id")  # fmt: skip
    act.add_argument("--audit", type=Path, metavar="FILE",
                     help="write the predictions of the audit sample without a label, for --labels")  # fmt: skip
    act.add_argument("--new-config", metavar="TABLE", help="write configs/NAME.yaml for your own table")
    act.add_argument("--schema", action="store_true", help="print the JSON schema of configs/*.yaml")
    parse.add_argument("--config", type=Path, default=DEFAULT, metavar="FILE",
                       help="the use case (default: configs/breast_cancer.yaml)")  # fmt: skip
    parse.add_argument("--stack", default="local", metavar="NAME", help="where to run (default: local)")
    parse.add_argument("--change-shared", action="store_true",
                       help="change also what other stacks use, where the stack file differs")  # fmt: skip
    parse.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", dest="changes",
                       help="change one value of the config; repeatable")  # fmt: skip
    parse.add_argument("--dry-run", action="store_true",
                       help="with --pipeline training: judge the model, register nothing")  # fmt: skip
    parse.add_argument("--no-cache", action="store_true", help="run every step again")
    parse.add_argument("--schedule", metavar="CRON", help="with --pipeline: run it by the clock, as at '7 * * * *'")
    parse.add_argument("--target", metavar="COLUMN", help="with --new-config: the column to predict")
    parse.add_argument("--deploy", action="store_true", help="with --rollback: deploy it too")
    parse.add_argument("--reason", metavar="TEXT", help="with --rollback: why")
    parse.add_argument("--scenario", metavar="NAME", help="with --simulate: the drift of the stream (default: none)")
    parse.add_argument("--rows", type=int, metavar="N", help="with --simulate: how many rows (default: 5000)")
    parse.add_argument("--label-delay", type=int, metavar="N",
                       help="with --simulate: a row's label comes N rows later (default: 0)")  # fmt: skip
    parse.add_argument("--seed", type=int, metavar="N", help="with --simulate: of the stream, instead of the config's")
    parse.add_argument("--start", type=int, metavar="N",
                       help="with --simulate: the first row (default: the first one never sent)")  # fmt: skip
    parse.add_argument("--batch", type=int, metavar="N", help="with --simulate: rows a request (default: 10)")
    return parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks; return 0, or 1 for a difference or fault, 2 for a user's mistake."""
    environment.settle()
    os.environ[config.OPTIONS] = ""
    try:
        with environment.disk_faults(LOCAL):
            return act(parser().parse_args(arguments))
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as err:
        print(str(err) or "stopped; the champion is as it was", file=sys.stderr)
        return 130
    finally:
        os.environ.pop(config.OPTIONS, None)


def act(given: argparse.Namespace) -> int:
    """Load, validate, apply the stack, run."""
    asked = {name: value for name, value in vars(given).items() if value is not None and value is not False}
    for option, action in GOES_WITH.items():
        if option in asked and action not in asked:
            raise UserError(f"--{option} goes with --{action}".replace("_", "-"))
    if given.schema:
        print(config.json_schema(), end="")
        return 0
    if given.list:
        for what, found in (
            ("pipelines", pipelines()),
            ("configs", config.names("configs")),
            ("stacks", config.names("stacks")),
        ):
            print(f"{what:<10} {', '.join(found)}")
        return 0
    if given.new_config:
        return commands.new_config(given.new_config, given.target, given.changes)
    if given.pipeline and given.pipeline not in pipelines():
        raise UserError(f"no pipeline '{given.pipeline}'; {known('pipelines/', pipelines(), given.pipeline)}")
    if given.dry_run and (given.pipeline != "training" or given.schedule is not None):
        raise UserError("--dry-run goes with --pipeline training, without --schedule: nothing else runs dry")
    if given.schedule is not None:
        given.schedule = scheduling.USUAL.get(given.schedule.strip(), given.schedule)
        scheduling.read_cron(given.schedule)
    os.environ.setdefault("LOCAL_FOLDER", str(LOCAL))  # for stack files
    if given.export:
        return commands.export_stack(given.stack)
    if given.plan:
        stack = files.read(given.stack)
        start_zenml(stack)
        return commands.show_plan(stack, shared=given.change_shared)
    os.environ[config.OPTIONS] = options_of(given)
    use_case = config.load(given.config, given.changes)
    stack = files.read(given.stack)
    if stack.runs_here and given.pipeline:
        check_here(given.pipeline, use_case)
    traffic = {name: asked[name] for name in TRAFFIC if name in asked}
    if given.simulate:
        from serving.traffic import check_traffic

        check_traffic(use_case, **traffic)
    job = None if given.schedule is None else scheduled_job(given, use_case)  # before use_stack sets its variables
    use_stack(stack, shared=given.change_shared)
    if job is not None:
        return schedule_pipeline(given, use_case, stack, job)
    import registry

    if not given.stop:
        unfinished.close_killed()
        registry.repair(use_case.name)
    if given.pipeline:
        return run_pipeline(given.pipeline, use_case, stack, cache=not given.no_cache, dry=given.dry_run)
    if given.history:
        return commands.show_history(use_case)
    if given.compare:
        return commands.compare(use_case, given.compare, LOCAL / "reports" / use_case.name)
    if given.reproduce is not None:
        return commands.reproduce(use_case.name, given.reproduce)
    if given.status:
        return commands.show_status()
    if given.labels is not None:
        return commands.take_labels(use_case, given.labels)
    if given.audit is not None:
        return commands.list_audit(use_case, given.audit)
    if given.prune:
        return commands.prune()
    if given.simulate:
        return commands.simulate(use_case, traffic)
    if given.stop:
        return commands.stop_server(use_case.name)
    entry = registry.rollback(use_case.name, given.rollback or None, given.reason or "no reason given")
    print(f"version {entry.version} of {use_case.name} is champion again; it replaces version {entry.replaces}")
    if not given.deploy:
        commands.show_still_served(use_case.name, entry.version)
        return 0
    try:
        return run_pipeline("deployment", use_case, stack, cache=True)
    except UserError as err:
        then = f"then deploy version {entry.version}: {config.command('--pipeline deployment')}"
        raise UserError(f"{err}; {then}") from err


def options_of(given: argparse.Namespace) -> str:
    """Return the options that any other command on this use case, as it is here and now, needs too."""
    options = [] if given.config == DEFAULT else ["--config", str(given.config)]
    options += [] if given.stack == "local" else ["--stack", given.stack]
    return shlex.join([*options, *(word for change in given.changes for word in ("--set", change))])


def pipelines() -> list[str]:
    """Return the pipelines there are: one a file."""
    return sorted(path.stem for path in (ROOT / "pipelines").glob("[!_]*.py"))


def check_here(pipeline: str, use_case: Config) -> None:
    """Find what can be found wrong with source, estimator and a small table before anything heavy is imported."""
    if pipeline == "inference":
        from core.sources import batch_parts

        batch_parts(use_case)
    elif pipeline == "training":
        from core.estimators import check_estimator
        from core.preflight import check_rows_here
        from core.sources import check_source

        check_source(use_case.data)
        check_estimator(use_case.model)
        check_rows_here(use_case)


def zenml_home(folder: Path) -> dict[str, str]:
    """Return the settings that put ZenML into a folder.

    The URL keeps runs on the database file after `zenml login --local` has pointed the folder's settings at a
    dashboard that may be gone.
    """
    database = folder / "local_stores/default_zen_store/zenml.db"
    return {"ZENML_CONFIG_PATH": str(folder), "ZENML_STORE_URL": f"sqlite:///{database}"}


def use_stack(stack: files.Stack, *, shared: bool = False) -> None:
    """Start ZenML on this clone's own state, or the stack's server, and make the stack this process's active one."""
    start_zenml(stack)
    apply.apply(stack, shared=shared)
    gc.freeze()


def start_zenml(stack: files.Stack) -> None:
    """Settle where ZenML and the others keep their state, and what they print."""
    own = LOCAL / "zenml"
    if stack.server is not None:
        folder = LOCAL / "servers" / re.sub(r"[^\w.-]+", "_", stack.server.partition("://")[2])
        os.environ.setdefault("ZENML_CONFIG_PATH", str(folder))
        os.environ["ZENML_STORE_URL"] = stack.server.rstrip("/")
    elif os.environ.setdefault("ZENML_CONFIG_PATH", str(own)) == str(own):  # or another ZenML, by all its variables
        environment.drop("ZENML_", but=ZENML_KEPT)
        os.environ |= zenml_home(own)
    environment.drop(
        "BENTOML_", "OTEL_", "ZENML_REPOSITORY_PATH", *(("MLFLOW_",) if stack.tracks_here else MLFLOW_DROPPED)
    )
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", str(not sys.stdout.isatty()).lower())
    levels = logging.getLevelNamesMapping().keys() - {"FATAL"}
    if (level := os.environ["ZENML_LOGGING_VERBOSITY"]).upper() not in levels:
        names = known("ZenML", levels, level.upper())
        raise UserError(f"ZENML_LOGGING_VERBOSITY is '{level}', which is no level; {names}")
    home = Path(os.environ.setdefault("SERVING_HOME", str(LOCAL / "serving")))
    os.environ["BENTOML_HOME"] = str(home.with_name("bentoml"))
    if stack.server is None:
        for path in (os.environ["ZENML_CONFIG_PATH"], sys.prefix):
            environment.check_path(path)
    environment.make_private(LOCAL)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)
    gc.set_threshold(100_000, 50, 50)  # importing makes millions of objects that live to the end


def run_pipeline(
    name: str, use_case: Config, stack: files.Stack, *, cache: bool, after: str | None = None, dry: bool = False
) -> int:
    """Run a pipeline, show its progress, say what came of it, and run what it asks for next.

    `after` is the run that asked; its name is a tag of this one, so the dashboard finds both together.
    """
    import console
    import dashboard
    import tracking

    if name == "retraining":
        use_case = as_in_production(use_case)
    if name in ("retraining", "deployment") and stack.runs_here:
        import deployer

        if told := deployer.active().check(use_case.name, use_case.serving.port):
            print(f"note        {told}")
    if tracking.has_tracker():
        with apply.one_at_a_time():
            tracking.create_database()
    elif name == "training":
        print(f"tracking is off: stack {stack.stack_name} has no experiment tracker")
    module = importlib.import_module(f"pipelines.{name}")
    run_name = f"{name}-{use_case.name}-{datetime.now():%Y_%m_%d-%H_%M_%S_%f}"
    holding = unfinished.held(run_name) if stack.runs_here else nullcontext()
    title = f"{name} of {use_case.name} on stack {stack.stack_name}"
    with holding, console.progress(run_name, title, contained=stack.contained):
        tags = [f"after {after}"] if after else []
        options = where(stack, module) | {"run_name": run_name, "enable_cache": None if cache else False, "tags": tags}
        pipeline = getattr(module, name).with_options(**options)
        if stack.contained:
            give_to_containers()
        try:
            start(pipeline, use_case, None if stack.runs_here else run_name, **({"dry_run": True} if dry else {}))
            run = finished(run_name)
        except KeyboardInterrupt as err:
            said = "" if stack.runs_here else f"no longer waiting; what has begun of run {run_name} goes on where it is"
            if stack.contained:
                said = f"stopped, run {run_name} has failed; the step in a container ends there, and no other starts"
            raise KeyboardInterrupt(said) from err
    if not run.status.is_successful:
        for step in run.steps.values():
            if step.exception_info is not None:
                if step.exception_info.source == "config.UserError":
                    raise UserError(step.exception_info.message)
                print(step.exception_info.traceback, file=sys.stderr)
        print(f"run {run_name} is {run.status.value}", file=sys.stderr)
        return 1
    getattr(console, f"show_{name}")(run, use_case.name, LOCAL / "reports" / use_case.name)
    print(f"run      {dashboard.run_url(run)}")  # whole, so that a terminal opens it
    then = follow_up(name, run)
    return run_pipeline(then, use_case, stack, cache=cache, after=run_name) if then else 0


def as_in_production(use_case: Config) -> Config:
    """Return a use case with the champion's recipe, unless the config's is asked for; say what differs."""
    import registry

    settled, differences = registry.in_production(use_case)
    for place, difference in enumerate(differences):
        print(f"{'' if place else 'recipe':<12}{difference}")
    if differences:
        print(
            f"{'':<12}to train the config's: {config.command('--pipeline retraining --set retraining.recipe=config')}"
        )
    return settled


def give_to_containers() -> None:
    """Let steps write to the state: a container's user is not root, who may be the one that starts them."""
    from zenml.client import Client
    from zenml.config.global_config import GlobalConfiguration

    from serving import containers

    store = Path(Client().active_stack.artifact_store.path)
    for name in ("logs", "mlflow_artifacts"):  # which this process would make later
        (store / name).mkdir(parents=True, exist_ok=True)
    for folder in (LOCAL, Path(GlobalConfiguration().local_stores_path)):
        containers.give(folder)


def where(stack: files.Stack, pipeline: ModuleType) -> dict[str, Any]:
    """Return the options that make a pipeline run in a stack's place; steps elsewhere get this process's manners.

    Where the orchestrator cannot stop at the first failure, what does not depend on the failed step goes on.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    options = stack.options(vars(pipeline))
    if ExecutionMode.FAIL_FAST not in Client().active_stack.orchestrator.supported_execution_modes:
        options["execution_mode"] = ExecutionMode.CONTINUE_ON_FAILURE
    if not stack.runs_here:
        manners = {key: value for key, value in ENVIRONMENT.items() if key != "ZENML_REPOSITORY_PATH"}
        manners[config.OPTIONS] = os.environ[config.OPTIONS]
        options["environment"] = manners | ELSEWHERE | options["environment"]
    return options


def start(pipeline: Any, use_case: Config, elsewhere: str | None, **how: bool) -> None:
    """Build the steps' image where they need one, and run; an image that cannot be built is a UserError.

    A step that fails `elsewhere`, in a run of that name, is an exception of the orchestrator; its own is on record.
    """
    try:
        pipeline(config=use_case, **how)
    except UserError:
        raise
    except Exception as err:
        if (said := str(err)).startswith("Docker error: "):
            said = f"the image of the steps cannot be built: {said.removeprefix('Docker error: ')}"
            raise UserError(f"{said}; BASE_IMAGE and PIP_INDEX_URL say what it is made of") from err
        if elsewhere is None or not has_failed(elsewhere):
            raise


def has_failed(run_name: str) -> bool:
    """Say whether a step of a run has failed, and its exception is on record."""
    from zenml.client import Client

    found = Client().list_pipeline_runs(name=f"equals:{run_name}", size=1, hydrate=True).items
    return bool(found) and any(step.exception_info is not None for step in found[0].steps.values())


def finished(run_name: str) -> Any:
    """Return a run when it has ended: some orchestrators return as soon as they have taken it."""
    from zenml.client import Client

    while not (run := Client().get_pipeline_run(run_name)).status.is_finished:
        time.sleep(POLL_SECONDS)
    return run


def scheduled_job(given: argparse.Namespace, use_case: Config) -> scheduling.Job:
    """Return the command line as it is, for the clock to start."""
    options = ["--pipeline", given.pipeline, "--config", str(given.config.resolve()), "--stack", given.stack]
    options += [word for change in given.changes for word in ("--set", change)]
    options += ["--no-cache"] if given.no_cache else []
    return scheduling.Job(f"{given.pipeline}-{use_case.name}", options, LOCAL)


def schedule_pipeline(given: argparse.Namespace, use_case: Config, stack: files.Stack, job: scheduling.Job) -> int:
    """Have the stack's orchestrator run a pipeline by the clock; where it cannot, say what to install here."""
    from zenml.client import Client

    if not Client().active_stack.orchestrator.config.is_schedulable:
        print(job.instructions(given.schedule))
        return 0
    module = importlib.import_module(f"pipelines.{given.pipeline}")
    options = where(stack, module) | {"enable_cache": False if given.no_cache else None}
    scheduling.submit(getattr(module, given.pipeline).with_options(**options), use_case, job.name, given.schedule)
    print(f"stack {given.stack} runs {job.name} at '{given.schedule}'; what it decides it starts only under run.py")
    return 0


def follow_up(name: str, run: Any) -> str | None:
    """Return the pipeline that a run asks for: monitoring acts if it may, and what was promoted is deployed."""
    if name not in FOLLOWS:
        return None
    step, artifact, field, value, then = FOLLOWS[name]
    return then if getattr(run.steps[step].outputs[artifact][0].load(), field) == value else None


if __name__ == "__main__":
    exit_code = main()
    logging.shutdown()  # now: OpenTelemetry's handler wants a thread to flush, and later there are none
    logging.raiseExceptions = False
    sys.exit(exit_code)
