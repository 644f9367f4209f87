"""Read a stack file: ZenML's own export shape, and what belongs to the place besides."""

import os
import re
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from loop.config import ROOT, UserError, known, names, yaml_fault
from loop.deploying.containers import user

STACKS = ROOT / "stacks"

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;]+)\s*(?:;\s*(.*))?$")


KINDS = (
    "orchestrator", "artifact_store", "alerter", "annotator", "container_registry", "data_validator", "deployer",
    "experiment_tracker", "feature_store", "image_builder", "log_store", "model_deployer", "model_registry",
    "sandbox", "step_operator",
)  # fmt: skip
"""Of components, as ZenML calls them; the test of this list asks ZenML."""


class Part(BaseModel):
    """What a stack file is made of: no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(Part):
    """One component, as `zenml stack export` writes it."""

    name: str
    type: str
    flavor: str
    configuration: dict[str, Any] = {}
    connector: str | None = None
    """ZenML's service connector whose credentials it uses, in place of this machine's own. ZenML exports none."""


class StepRun(Part):
    """What one step needs of the place, over what all need."""

    settings: dict[str, dict[str, Any]] = {}


class Run(Part):
    """How runs are made on this stack: a part of ZenML's run configuration, in ZenML's words."""

    environment: dict[str, str] = {}
    """Of the steps, where they do not run in this process."""
    settings: dict[str, dict[str, Any]] = {}
    """`docker`, `orchestrator`, `resources`, as ZenML knows them."""
    steps: dict[str, StepRun] = {}


class Stack(Part):
    """One stack file. `zenml stack import` reads the first three fields and passes over the others."""

    stack_name: str
    zenml_version: str
    components: dict[str, list[Component]] = Field(min_length=1)
    server: str | None = None
    """URL of the ZenML server that holds stack, runs and registry; None: the files of this clone."""
    requires: str | None = None
    """File of pinned packages, below the project's folder: needed here, and installed in the images of the steps."""
    run: Run = Run()
    missing: tuple[str, ...] = ()
    """Variables that the file names, by `${NAME}` without a default, and that are not set."""

    @field_validator("components")
    @classmethod
    def _are_of_known_kinds(cls, components: dict[str, list[Component]]) -> dict[str, list[Component]]:
        for kind, listed in components.items():
            if kind not in KINDS:
                raise ValueError(f"no kind '{kind}' of component; {known('ZenML', KINDS, kind)}")
            if other := next((component for component in listed if component.type != kind), None):
                raise ValueError(f"'{other.name}' is of type {other.type}, it stands below {kind}")
        if absent := {"orchestrator", "artifact_store"} - components.keys():
            raise ValueError(
                f"a stack needs orchestrator and artifact_store, it has no {' and no '.join(sorted(absent))}"
            )
        for store in components["artifact_store"]:
            path = str(store.configuration.get("path", "/"))
            if not path.startswith(("/", "$")) and "://" not in path:
                raise ValueError(f"artifact_store '{store.name}' needs a URL or an absolute path, it is '{path}'")
        return components

    @property
    def all(self) -> list[Component]:
        """Return the components of every kind, in the file's order."""
        return [component for listed in self.components.values() for component in listed]

    @property
    def runs_here(self) -> bool:
        """Say whether the steps run in this very process, so that its files and packages are theirs."""
        return any(component.flavor == "local" for component in self.components.get("orchestrator", []))

    @property
    def contained(self) -> bool:
        """Say whether the steps run in containers of this machine, which this process starts one by one."""
        return any(component.flavor == "local_docker" for component in self.components["orchestrator"])

    @property
    def tracks_here(self) -> bool:
        """Say whether MLflow's files, if any, are this clone's own."""
        return not any("tracking_uri" in c.configuration for c in self.components.get("experiment_tracker", []))

    def packages(self) -> list[str]:
        """Return the lines of `requires`, without comments."""
        if self.requires is None:
            return []
        try:
            text = (ROOT / self.requires).read_text(encoding="utf-8")
        except OSError as err:
            raise UserError(f"stack {self.stack_name} requires {self.requires}, which is not there") from err
        return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]

    def pins(self) -> dict[str, str]:
        """Return the version of each package that this Python needs."""
        from packaging.markers import Marker

        found = (_PIN.match(line) for line in self.packages())
        return {pin[1]: pin[2] for pin in found if pin and (not pin[3] or Marker(pin[3]).evaluate())}

    def options(self, steps: Container[str]) -> dict[str, Any]:
        """Return what `with_options` of a pipeline with these steps takes for runs in this place."""
        settings = {key: dict(value) for key, value in self.run.settings.items()}
        if "docker" in settings and self.requires:
            settings["docker"]["requirements"] = self.packages()
        return {
            "settings": settings,
            "environment": {} if self.runs_here else self.run.environment,
            "steps": {name: {"settings": step.settings} for name, step in self.run.steps.items() if name in steps},
        }


def read(name: str) -> Stack:
    """Read stacks/NAME.yaml with its variables filled in; a file that is no stack is a UserError."""
    path = STACKS / f"{name}.yaml"
    try:
        missing, filled = fill(path, name)
        return Stack.model_validate({**filled, "missing": missing})
    except yaml.YAMLError as err:
        raise UserError(f"{path} {yaml_fault(err)}") from err
    except ValidationError as err:
        raise UserError(f"{path} is not a stack: {'; '.join(map(_fault, err.errors()))}") from err
    except TypeError as err:
        raise UserError(f"{path} is not a stack: it has no keys and values") from err


def _fault(error: Any) -> str:
    """Turn one pydantic error into words: where, what came, what would do."""
    *above, key = error["loc"]
    where = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    parts = {"components": Component, "run": StepRun if "steps" in above else Run}
    fields = parts.get(str(above[0]), Stack).model_fields if above else Stack.model_fields
    return f"no key '{where}'; {known('it', fields, str(key))}"


def fill(path: Path, name: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return a file's values with variables filled in, and the names of those that are not set."""
    if not path.is_file():
        raise UserError(f"no stack '{name}'; {known('stacks/', names('stacks'), name)}")
    missing: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1]) or (OF_THE_MACHINE[match[1]]() if match[1] in OF_THE_MACHINE else match[2])
        if value is None:
            missing.append(match[1])
        return match[0] if value is None else value

    filled = _filled(yaml.safe_load(path.read_text(encoding="utf-8")), value_of)
    return tuple(dict.fromkeys(missing)), filled


def docker_group() -> str:
    """Return the number of the group that may use this machine's Docker."""
    socket = Path("/var/run/docker.sock")
    return str(socket.stat().st_gid if socket.exists() else 0)


OF_THE_MACHINE: dict[str, Callable[[], str]] = {
    "DOCKER_GROUP": docker_group,
    "CONTAINER_USER": lambda: "{}:{}".format(*user()),
}
"""Variables that are found out where they are not set."""


def _filled(value: Any, value_of: Callable[[re.Match[str]], str]) -> Any:
    """Fill variables into every string of a file, keys too.

    A variable that is empty takes its key along, and the last key of a group takes the group.
    """
    if isinstance(value, dict):
        filled = {_filled(key, value_of): _filled(held, value_of) for key, held in value.items()}
        pairs = zip(filled.items(), value.values(), strict=True)
        return {key: new for (key, new), held in pairs if new not in ("", {}) or held == new}
    if isinstance(value, list):
        return [_filled(held, value_of) for held in value]
    return _VARIABLE.sub(value_of, value) if isinstance(value, str) else value
