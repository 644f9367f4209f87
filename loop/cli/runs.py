"""Start pipelines: settle where their state is and how they run, watch them, and go on with what they ask for."""

import gc
import importlib
import logging
import os
import re
import sys
import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from loop import config
from loop.cli import environment, scheduling, unfinished
from loop.config import ROOT, Config, UserError, known
from loop.places import apply, files

LOCAL = ROOT / ".local"
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

QUIET = {
    "zenml.orchestrators": "CRITICAL",              # what fails there is raised as well
    "zenml.log_stores": "CRITICAL",                 # a full disk, which is told in one line
    "zenml.integrations.mlflow": "ERROR",           # warns of frameworks that are not in use
    "zenml.zen_stores.base_zen_store": "ERROR",     # warns that a new home gets its first settings
    "mlflow.store.db.utils": "CRITICAL",            # tells of each table it creates; what fails is raised as well
}  # fmt: skip

POLL_SECONDS = 2.0


def zenml_home(folder: Path) -> dict[str, str]:
    """Return the settings that put ZenML into a folder.

    The URL keeps runs on the database file after `zenml login --local` has pointed the folder's settings at a
    dashboard that may be gone.
    """
    database = folder / "local_stores/default_zen_store/zenml.db"
    return {"ZENML_CONFIG_PATH": str(folder), "ZENML_STORE_URL": f"sqlite:///{database}"}


def pipelines() -> list[str]:
    """Return the pipelines there are: one a file."""
    return sorted(path.stem for path in (ROOT / "pipelines").glob("[!_]*.py"))


def written(name: str) -> ModuleType:
    """Return the module of a pipeline; one that Python cannot read, or whose steps it cannot, is a UserError."""
    try:
        return importlib.import_module(f"pipelines.{name}")
    except SyntaxError as err:
        place = Path(err.filename or "").name
        raise UserError(f"Python cannot read {place}, line {err.lineno}: {err.msg}; mend it and run it again") from err
    except ImportError as err:
        raise UserError(f"pipelines/{name}.py cannot be imported: {err}") from err


def check_here(pipeline: str, use_case: Config) -> None:
    """Find what can be found wrong with source, estimator and a small table before anything heavy is imported."""
    if pipeline == "inference":
        from loop.data.sources import batch_parts

        batch_parts(use_case)
    elif pipeline == "training":
        from loop.cli.preflight import check_rows_here
        from loop.data.sources import check_source

        check_source(use_case.data)
        check_rows_here(use_case)

        from loop.training.fit import check_estimator  # scikit-learn takes a second to import
        from loop.training.metrics import check_gate
        from loop.training.owner import owned

        check_estimator(use_case.model)
        check_gate(use_case.gate)
        owned("features", "derive")


def begin(use_case: Config, stack: files.Stack, *, shared: bool) -> None:
    """Make the stack this process's, and repair what a killed run has left."""
    from loop.registry import champions

    use_stack(stack, shared=shared)
    unfinished.close_killed()
    champions.repair(use_case.name)


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
    from loop.cli import console
    from loop.registry import tracking

    if name == "retraining":
        use_case = as_in_production(use_case)
    if name in ("retraining", "deployment") and stack.runs_here:
        from loop.deploying import deployer

        if told := deployer.active().check(use_case.name, use_case.serving.port):
            print(f"note        {told}")
    if tracking.has_tracker():
        with apply.one_at_a_time():
            tracking.create_database()
    elif name == "training":
        print(f"tracking is off: stack {stack.stack_name} has no experiment tracker")
    module = written(name)
    run_name = f"{name}-{use_case.name}-{datetime.now():%Y_%m_%d-%H_%M_%S_%f}"
    holding = unfinished.held(run_name) if stack.runs_here else nullcontext()
    title = f"{name} of {use_case.name} on stack {stack.stack_name}"
    with holding, console.progress(run_name, title, contained=stack.contained):
        tags = [f"after {after}"] if after else []
        options = where(stack, module, use_case) | {
            "run_name": run_name,
            "enable_cache": None if cache else False,
            "tags": tags,
        }
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
        from zenml.utils.exception_utils import reconstruct_exception

        for step in run.steps.values():
            if step.exception_info is not None:
                raised = reconstruct_exception(step.exception_info, run_name)
                if isinstance(raised, UserError):
                    raise raised
                print(step.exception_info.traceback, file=sys.stderr)
        print(f"run {run_name} is {run.status.value}", file=sys.stderr)
        return 1
    then = console.show(run, use_case.name, LOCAL / "reports" / use_case.name)
    return run_pipeline(then, use_case, stack, cache=cache, after=run_name) if then else 0


def as_in_production(use_case: Config) -> Config:
    """Return a use case with the champion's recipe, unless the config's is asked for; say what differs."""
    from loop.registry import champions

    settled, differences = champions.in_production(use_case)
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

    from loop.deploying import containers

    store = Path(Client().active_stack.artifact_store.path)
    for name in ("logs", "mlflow_artifacts"):  # which this process would make later
        (store / name).mkdir(parents=True, exist_ok=True)
    for folder in (LOCAL, Path(GlobalConfiguration().local_stores_path)):
        containers.give(folder)


def where(stack: files.Stack, pipeline: ModuleType, use_case: Config) -> dict[str, Any]:
    """Return the options that make a pipeline run in a stack's place; steps elsewhere get this process's manners.

    It stops at the first failure; where the orchestrator cannot, what does not depend on the failed step goes on.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionMode

    from loop.training.owner import packages

    added = {} if stack.runs_here else packages(use_case.model.estimator)
    options = stack.options(vars(pipeline), [f"{name}=={version}" for name, version in added.items()])
    stops = ExecutionMode.FAIL_FAST in Client().active_stack.orchestrator.supported_execution_modes
    options["execution_mode"] = ExecutionMode.FAIL_FAST if stops else ExecutionMode.CONTINUE_ON_FAILURE
    if not stack.runs_here:
        manners = {key: value for key, value in ENVIRONMENT.items() if key != "ZENML_REPOSITORY_PATH"}
        manners[config.OPTIONS] = os.environ[config.OPTIONS]
        if stack.contained:  # on this machine's processor, whose sums this process forms by the same kernel
            manners |= {key: value for key, value in os.environ.items() if key.startswith("OPENBLAS_")}
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


def schedule_pipeline(
    name: str, use_case: Config, stack: files.Stack, job: scheduling.Job, expression: str, *, cache: bool
) -> int:
    """Have the stack's orchestrator run a pipeline by the clock; where it cannot, say what to install here."""
    from zenml.client import Client

    if not Client().active_stack.orchestrator.config.is_schedulable:
        print(job.instructions(expression))
        return 0
    module = written(name)
    options = where(stack, module, use_case) | {"enable_cache": None if cache else False}
    scheduling.submit(getattr(module, name).with_options(**options), use_case, job.name, expression)
    print(f"stack {stack.stack_name} runs {job.name} at '{expression}'; what it decides it starts only under run.py")
    return 0
