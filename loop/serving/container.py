"""Run the release of an image as the first process of a container: `python -m loop.serving.container`.

The same supervisor and workers as on a laptop, on 0.0.0.0:3000. Their state is under /tmp, the prediction log under
/data. From the environment: SERVING_RELEASE_SHA256, which says what was deployed; SERVING_WORKERS, SERVING_TOKEN and
SERVING_HASH_KEY.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

from loop.config import ROOT
from loop.serving import state
from loop.serving.supervisor import Supervisor

STATE = Path("/tmp/serving")  # noqa: S108  (nobody else is in the container)
RELEASE = "release"  # an image has but one
PORT = 3000
STOP_SECONDS = 35  # the supervisor kills after 30 what did not end by itself


class Container(Supervisor):
    """A supervisor that is process 1: its words go to the container's log, it inherits orphans, and it may end."""

    def _reconcile(self) -> None:
        super()._reconcile()
        self._reap()
        if (self.folder / "failed" / RELEASE).exists():  # whoever runs the container says when to try again
            sys.exit("error: the release does not start; its workers said why")

    def _reap(self) -> None:
        """Let orphans go that have ended; the exit code of a worker is left to the supervisor."""
        ours = {worker.process.pid for worker in self.workers.values() if worker.process is not None}
        with contextlib.suppress(ChildProcessError):
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None and ended.si_pid not in ours:
                os.waitpid(ended.si_pid, 0)

    def _output(self, name: str) -> IO[bytes]:
        return os.fdopen(os.dup(sys.stderr.fileno()), "wb")

    def _last_words(self, name: str) -> str:
        return ""


def main() -> None:
    """Serve until SIGTERM."""
    sha256 = os.environ.get("SERVING_RELEASE_SHA256")
    if not sha256:
        sys.exit("error: SERVING_RELEASE_SHA256 is not set; it names the release that may be served")
    release = {
        "id": RELEASE,
        "folder": str(ROOT),
        "sha256": sha256,
        "workers": int(os.environ.get("SERVING_WORKERS", "1")),
        "log": "/data",
    }
    state.write(STATE / "wanted" / f"{RELEASE}.json", release)
    state.write(STATE / "live", RELEASE)
    Container(STATE, "0.0.0.0", PORT).run()  # noqa: S104  (the container's own network)


if __name__ == "__main__":
    main()
