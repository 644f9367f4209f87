"""Settle what of the caller's shell comes into a run, so that the same command does the same from any shell."""

import codecs
import errno
import io
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loop.config import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PLACES = ("ZENML_CONFIG_PATH", "SERVING_HOME")
"""Variables that name a folder of state; cron and systemd start without those of the shell."""

UNREADABLE = "%?"
"""What ZenML takes no path with: its migrations fill in what follows a %, SQLAlchemy cuts at a ?."""

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
ANOTHER = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""Of a path below the state at which something else stands."""

DAMAGED = ("file is not a database", "database disk image is malformed")
SQLITE_FORBIDDEN = ("attempt to write a readonly database", "unable to open database file")
NO_ROOM = 2**20  # bytes that are free on a disk when SQLite's "disk I/O error" is for want of room

_ASCII = {"✓": "+", "✗": "x", "›": ">", "·": ".", "–": "-", "−": "-", "×": "x", "…": "...", "→": "->", "≥": ">="}


def settle() -> None:
    """Print anywhere, reach this machine without a proxy, and name the folders of state by whole paths."""
    codecs.register_error("plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="plain")
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(dict.fromkeys([*filter(None, direct.split(",")), *LOOPBACK]))
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), direct if direct.strip() == "*" else hosts)
    for place in PLACES:
        if given := os.environ.get(place):
            os.environ[place] = str(Path(given).expanduser().absolute())
        else:
            os.environ.pop(place, None)


def drop(*prefixes: str, but: Sequence[str] = ()) -> None:
    """Take variables out of this process's environment, by prefix."""
    for name in [name for name in os.environ if name.startswith(prefixes) and name not in but]:
        del os.environ[name]


def check_path(path: str) -> None:
    """Refuse a folder that ZenML cannot keep its database in, or be installed in."""
    shown = path.encode(errors="replace").decode()
    wrong = [f"no {sign} in a path" for sign in UNREADABLE if sign in path]
    wrong += ["only a path in UTF-8"] if shown != path else []
    if wrong:
        raise UserError(f"ZenML cannot work in {shown}: it takes {wrong[0]}; move or rename the folder")


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may read."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if status.st_mode & 0o077 and status.st_uid == os.getuid():
        folder.chmod(0o700)


@contextmanager
def disk_faults(folder: Path) -> Iterator[None]:
    """Raise what is the fault of the disk that holds the state as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as err:
        if fault := disk_fault(err, folder):
            raise UserError(fault) from err
        raise


def disk_fault(err: BaseException, folder: Path) -> str | None:
    """Say what the disk that holds the state has to do with an exception, whatever library it came through."""
    for cause in _chain(err):
        words = str(cause) if isinstance(cause, sqlite3.Error) else ""
        number = cause.errno if isinstance(cause, OSError) else None
        if (number in FORBIDDEN and getattr(cause, "filename", None)) or words.startswith(SQLITE_FORBIDDEN):
            where, why = (cause.filename, cause.strerror) if isinstance(cause, OSError) else (folder, words)
            return f"{where} cannot be read or written ({why}); make that possible and run it again"
        if number in ANOTHER and folder in (at := Path(getattr(cause, "filename", None) or ""), *at.parents):
            return f"something else is at {at} ({os.strerror(number)}); move it away and run it again"
        if number == errno.ENOENT and not folder.exists():
            return f"{folder} was moved or deleted meanwhile; put it back and run it again"
        home, at = Path(os.environ.get("ZENML_CONFIG_PATH", folder)), Path(getattr(cause, "filename", None) or "")
        if number in (errno.ENOENT, *ANOTHER) and home in (at, *at.parents):
            return f"ZENML_CONFIG_PATH is {home}, where no folder can be made ({os.strerror(number)}); name another"
        if words.startswith(DAMAGED):
            return f"a database in {folder} is damaged ({words}); put a copy of it back, or move it away to begin anew"
        full = next((place for place in (folder, folder.parent, Path(tempfile.gettempdir())) if _is_full(place)), None)
        if number in FULL or "disk is full" in words or ("disk I/O error" in words and full):
            return f"the disk is full at {full or folder}; make room and run it again"
    return None


def _is_full(folder: Path) -> bool:
    if not folder.exists():
        return False
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize < NO_ROOM


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it came from."""
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _plain(err: UnicodeError) -> tuple[str, int]:
    """Spell what a terminal cannot show."""
    assert isinstance(err, UnicodeEncodeError)  # noqa: S101  (it is registered for output alone)
    return "".join(_ASCII.get(sign, "?") for sign in err.object[err.start : err.end]), err.end
