"""Set up a process of a server: as many open files as it may have, and output that no client can make long."""

import logging
import resource
import socket
import time
from contextlib import suppress

OUTPUT_SECONDS = 1.0  # nobody rotates the file that a local server prints to


def raise_file_limit() -> None:
    """Allow as many open files, and so connections, as the system does; the usual limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says "infinite" and allows fewer
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_output() -> None:
    """Print warnings and errors of all libraries to standard error, each kind once a second at most."""
    handler = logging.StreamHandler()
    handler.addFilter(OnceASecond())
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", handlers=[handler], force=True)


class OnceASecond(logging.Filter):
    """Pass one record of a kind a second, with the number of those left out, and a traceback once."""

    def __init__(self) -> None:
        super().__init__()
        self._left_out: dict[tuple[object, ...], int] = {}
        self._last: dict[tuple[object, ...], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to print it: records of one line of code are of a kind, errors also by where they came from."""
        kind = (record.pathname, record.lineno, *_origin(record))
        now, last = time.monotonic(), self._last.get(kind)
        if last is not None and now - last < OUTPUT_SECONDS:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return False
        self._last[kind] = now
        if more := self._left_out.pop(kind, 0):
            record.msg, record.args = f"{record.getMessage()} ({more:,} more like it)", ()
        if last is not None and record.exc_info and record.exc_info[0]:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[0].__name__}, as before", ()
            record.exc_info = record.exc_text = None
        return True


def _origin(record: logging.LogRecord) -> tuple[object, ...]:
    """Return an error's type and the line of code that raised it."""
    if not record.exc_info:
        return ()
    kind, _, last = record.exc_info
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    return (kind,) if last is None else (kind, last.tb_frame.f_code.co_filename, last.tb_lineno)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens; a port that is taken is an OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)
