"""Keep on disk what a server should run and what it runs, so that any process can ask and none has to be asked.

lock                  held by the supervisor while it lives, so a server that died is never taken for running
server.json           the supervisor: pid, host, port, since when
wanted/RELEASE.json   what should run; a file taken away is a release to stop
live                  the release that gets the public traffic
ready/RELEASE/SLOT.json   a worker that answers: pid, its own port, whether it takes public traffic
failed/RELEASE        why the workers of a release could not start
RELEASE.log           what its workers printed
"""

import fcntl
import json
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

GONE = (FileNotFoundError, NotADirectoryError)
"""What a file is whose folder was deleted, or replaced by something else."""


def write(path: Path, state: dict[str, Any] | str) -> None:
    """Replace a small file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(state if isinstance(state, str) else json.dumps(state), encoding="utf-8")
    new.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """Return what a file holds, or None if it is gone."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except GONE:
        return None
    return found


def read_all(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each JSON file of a folder holds, by its name without the ending."""
    found = {path.stem: read(path) for path in sorted(folder.glob("*.json"))}
    return {name: content for name, content in found.items() if content is not None}


def live(folder: Path) -> str | None:
    """Return the release that gets the public traffic."""
    try:
        return (folder / "live").read_text(encoding="utf-8") or None
    except GONE:
        return None


def remove(path: Path) -> None:
    """Delete a file, if it is there."""
    with suppress(*GONE):
        path.unlink()


def lock(folder: Path) -> IO[str] | None:
    """Take the supervisor's lock, or return None while a supervisor lives; the kernel frees it when one dies."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
