"""What version 0.1.0 stored names modules by where they stood then."""

import importlib
import subprocess
import sys

import pytest

import loop
from loop.config import ROOT


@pytest.mark.parametrize("former", [name for name in loop.FORMER if name not in ("config", "registry")])
def test_a_module_under_its_former_name_is_that_of_today(former: str) -> None:
    found = importlib.import_module(former)
    today = importlib.import_module(loop.FORMER[former])
    assert found is today
    assert today.__spec__ is not None
    assert today.__spec__.name == today.__name__ == loop.FORMER[former]


def test_names_that_the_folders_of_the_tests_hide_are_found_in_a_clone() -> None:
    code = "import loop, config, registry; from registry import Promotion; print(config.__name__, Promotion.__module__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "loop.config loop.registry.champions\n", done.stderr


def test_other_names_are_as_missing_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"core\.nothing"):
        importlib.import_module("core.nothing")
