"""Run one worker of a service: `python -m loop.serving.worker`, started by `loop.serving.supervisor`.

A worker first listens on a port of its own, where it can be checked. On SIGUSR1 it also takes requests from the
public socket, which the supervisor holds open and all workers share: whoever stops listening there loses
nothing, since the queue is the socket's. On SIGTERM it goes on answering for a moment, each answer with
`Connection: close`, so that clients come back on a new connection to another worker; then it stops.
"""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from loop.config import UserError
from loop.serving import service
from loop.serving.door import Protocol
from loop.serving.process import limit_output
from loop.serving.state import live, remove, write

DRAIN_SECONDS = 1.0  # a client that sends at least once a second never meets a closed connection
SWITCH_SECONDS = 0.0005  # a small request waits so long for the thread that reads a large one; Python's default is 5 ms
GRACE_SECONDS = 20.0  # for what was begun; the supervisor kills after 30


class Server(uvicorn.Server):
    """A uvicorn server that can open a second socket while it runs, and drains before it stops."""

    def __init__(self, config: uvicorn.Config, app: Any, public: socket.socket | None, ready: Path) -> None:
        super().__init__(config)
        self._app, self._public, self._ready, self._wanted = app, public, ready, False
        self._parent, self._public_servers = os.getppid(), list[asyncio.Server]()

    def open(self, *_: Any) -> None:
        """Take requests from the public socket from the next tick on."""
        self._wanted = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the worker's own port, then say so."""
        await super().startup(sockets)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.open)
        write(self._ready, {"pid": os.getpid(), "port": sockets[0].getsockname()[1], "open": False})  # type: ignore[index]

    async def on_tick(self, counter: int) -> bool:
        """Open the public socket when asked to; close slow connections; stop when the supervisor is gone."""
        if self._wanted and self._public is not None:
            await self._listen(self._public)
            self._public = None
            state = json.loads(self._ready.read_text())
            write(self._ready, {**state, "open": True})
        self.should_exit |= os.getppid() != self._parent
        if counter % 10 == 0:  # about once a second
            now = time.monotonic()
            for connection in [*self.server_state.connections]:
                connection.close_if_slow(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what comes for a moment and close each connection behind its answer; then stop.

        A release that another has replaced takes no new connections meanwhile: those are for the other.
        """
        self._app.draining = True
        if live(self._ready.parents[2]) not in (None, self._ready.parent.name):
            for server in self._public_servers:
                server.close()
        remove(self._ready)
        await asyncio.sleep(DRAIN_SECONDS)
        for server in self.servers:
            server.close()
        waited = 0.0
        while self.server_state.connections and waited < DRAIN_SECONDS:  # accepted, and not answered yet
            await asyncio.sleep(0.05)
            waited += 0.05
        await super().shutdown(sockets)
        self._app.close()

    async def _listen(self, public: socket.socket) -> None:
        protocol_class: Any = self.config.http_protocol_class
        protocol = partial(
            protocol_class,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        server = await asyncio.get_running_loop().create_server(protocol, sock=public, backlog=self.config.backlog)
        self.servers.append(server)
        self._public_servers.append(server)


def main(slot: int, sha256: str, ready: Path, fd: int | None) -> None:
    """Serve until told to stop."""
    limit_output()
    os.environ |= {"SERVING_RELEASE_SHA256": sha256, "SERVING_SLOT": str(slot)}
    try:
        app = service.app()
    except UserError as err:
        print(f"error: {err}", file=sys.stderr)
        sys.exit(2)
    private = socket.create_server(("127.0.0.1", 0))
    public = None if fd is None else socket.socket(fileno=fd)
    config = uvicorn.Config(
        service.Ours(service.Predictor.to_asgi()),  # type: ignore[attr-defined]
        loop="uvloop",
        http=Protocol,
        ws="none",  # else whoever asks for one holds a connection for good
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody here asks who the client is
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(GRACE_SECONDS),
        backlog=2048,
    )
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # what was loaded lives to the end; else the collector looks at it all, again and again
    gc.set_threshold(50_000, 20, 20)
    Server(config, app, public, ready).run(sockets=[private])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
