"""Find and stop this clone's servers in containers by Docker's command line, whatever stack they are of."""

import subprocess
from pathlib import Path

from serving import state
from serving.container import STOP_SECONDS

SHOWN = '{{.Label "serving.name"}} {{.Label "serving.role"}} {{.ID}} {{.Label "serving.port"}}'


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


def _running(home: Path) -> list[list[str]]:
    if not any(":" in (state.live(path.parent) or "") for path in home.glob("*/live")):
        return []
    shown = _docker("ps", f"--filter=label=serving.home={home}", "--format", SHOWN)
    return [line.split(" ", 3) for line in shown.splitlines()]


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=True)  # noqa: S603, S607
    return done.stdout
