"""The engine: what a project of this template runs on, and what a newer version of the template replaces whole."""

import importlib
import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any

FORMER = {
    "config": "loop.config",
    "core.bundle": "loop.training.bundle",
    "core.checks": "loop.data.checks",
    "core.contract": "loop.data.contract",
    "core.features": "loop.training.features",
    "core.feedback": "loop.watching.feedback",
    "core.fraud": "model.fraud",
    "core.gate": "loop.training.gate",
    "core.metrics": "loop.training.metrics",
    "core.monitor": "loop.watching.monitor",
    "core.policy": "loop.watching.policy",
    "core.sources": "loop.data.sources",
    "core.split": "loop.data.split",
    "core.stand_in": "loop.training.stand_in",
    "registry": "loop.registry.champions",
    "serving.check": "loop.deploying.check",
    "serving.deployment": "loop.deploying.contract",
    "stacks.deployers": "loop.deploying.local",
    "stacks.docker_deployer": "loop.deploying.docker",
    "stacks.kubernetes_deployer": "loop.deploying.kubernetes",
    "steps.materializers": "loop.registry.materializers",
}
"""Modules by the names under which version 0.1.0 stored what they define: artifacts, models and flavors."""


class _Former(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A finder of modules under their former names, which is asked last."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """Return where a module, or the package that held it, is now."""
        packages = {former.partition(".")[0] for former in FORMER if "." in former}
        if name not in FORMER and name not in packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=name in packages)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return the module of today; a package of yesterday is an empty one."""
        if spec.name not in FORMER:
            return None
        module = importlib.import_module(FORMER[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give it back what it is called today; it has been executed under that name."""
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


sys.meta_path.append(_Former())
