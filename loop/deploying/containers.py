"""Find and stop this clone's servers in containers by Docker's command line, whatever stack they are of."""

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from loop.serving import state
from loop.serving.container import STOP_SECONDS

USER = 10001  # of the images; root's containers run as this too
SHOWN = '{{.Label "serving.name"}} {{.Label "serving.role"}} {{.ID}} {{.Label "serving.port"}}'


def user() -> tuple[int, int]:
    """Return who runs in containers, and their group: whoever starts them, so that files are theirs, but never root."""
    return (os.getuid(), os.getgid()) if os.getuid() else (USER, USER)


def give(folder: Path) -> None:
    """Let whoever runs in containers write to all of a folder: what root made is theirs from now on."""
    if os.getuid():
        return
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # another process's, which is gone
            os.chown(path, *user(), follow_symlinks=False)


def relays(home: Path) -> dict[str, str]:
    """Return the address of each server, by name; nothing is asked where none ever served from a container.

    Docker that is away is a SubprocessError or an OSError.
    """
    return {name: f"127.0.0.1:{port}" for name, role, _, port in _running(home) if role == "relay"}


def stop(home: Path) -> list[str]:
    """Stop all servers, which answer what they have begun; return their names."""
    found = sorted(_running(home), key=lambda one: one[1] == "relay")  # what sends the traffic goes last
    for _, _, container, _ in found:
        _docker("stop", f"--time={STOP_SECONDS}", container)
    return sorted({name for name, *_ in found})


def prune(home: Path, keep: Callable[[str], bool]) -> list[str]:
    """Remove what this clone made and needs no more; return what that was.

    These are containers that have stopped, and images: those of releases, NAME:RELEASE, that are not to be kept, and
    what has lost its name to a newer one. What runs stays with its image, and so does the image of the steps.
    """
    removed = []
    for label in (f"steps.home={home.parent}", f"serving.home={home}"):
        ours = f"--filter=label={label}"
        ended = _docker("ps", "--all", ours, "--filter=status=exited", "--format={{.Names}}").split()
        for container in ended:
            _docker("rm", container)
        used = _docker("ps", "--all", "--format={{.Image}}").split()
        named = _docker("image", "ls", ours, "--filter=dangling=false", "--format={{.Repository}}:{{.Tag}}").split()
        old = [tag for tag in named if label.startswith("serving") and tag not in used and not keep(tag)]
        for tag in old:
            _docker("image", "rm", tag)
        nameless = _docker("image", "ls", "--quiet", ours, "--filter=dangling=true").split()
        _docker("image", "prune", "--force", ours)
        _docker("network", "prune", "--force", ours)
        removed += [f"container {name}" for name in ended] + [f"image {name}" for name in (*old, *nameless)]
    return removed


def _running(home: Path) -> list[list[str]]:
    if not any(":" in (state.live(path.parent) or "") for path in home.glob("*/live")):
        return []
    shown = _docker("ps", f"--filter=label=serving.home={home}", "--format", SHOWN)
    return [line.split(" ", 3) for line in shown.splitlines()]


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=True)  # noqa: S603, S607
    return done.stdout
