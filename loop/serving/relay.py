"""Pass connections on to the live release: `python -m loop.serving.relay FILE`, in a container that outlives releases.

Two containers cannot share a port of the host, so this one holds it. FILE holds the host:port of the live release
and is read for each new connection: a switch is one write, and no connection that is open is touched. Bytes go both
ways as they come; the client's end is passed on and leaves the other direction open, the release's end ends both, so
that a connection lasts no longer than the release allows.
"""

import asyncio
import logging
import signal
import socket
import sys
from asyncio import StreamReader, StreamWriter
from pathlib import Path

import uvloop

from loop.serving.process import limit_output, raise_file_limit

log = logging.getLogger(__name__)

PORT = 3000
CONNECT_SECONDS = 5.0  # a release that is started again, or was replaced since the file was read
DRAIN_SECONDS = 5.0
TAKE_SECONDS = 30.0  # a side that takes nothing for so long is gone
CHUNK = 2**16


class Relay:
    """A listening socket and the connections that came through it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until SIGTERM, then give open connections a moment to end."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = await asyncio.start_server(self.pass_on, port=PORT, backlog=2048)
        await stop.wait()
        server.close()
        if self.open:
            await asyncio.wait(self.open, timeout=DRAIN_SECONDS)

    async def pass_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection; where no release can be reached, close it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self.open.add(task)
        try:
            upstream_reader, upstream_writer = await self.connect()
            try:
                async with asyncio.TaskGroup() as both:
                    requests = both.create_task(pump(reader, upstream_writer))
                    await pump(upstream_reader, writer)
                    requests.cancel()
            finally:
                upstream_writer.close()
        except* OSError as errors:  # a side that went away, or never was there
            log.warning("a connection ended: %r", errors.exceptions[0])
            writer.transport.abort()
        finally:
            writer.close()
            self.open.discard(task)

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        """Reach the release that is live now, or the one that is a moment later."""
        async with asyncio.timeout(CONNECT_SECONDS):
            while True:
                try:
                    host, port = self.file.read_text(encoding="utf-8").split(":")
                    return await asyncio.open_connection(host, int(port), limit=CHUNK)
                except (OSError, socket.gaierror):
                    await asyncio.sleep(0.1)


async def pump(reader: StreamReader, writer: StreamWriter) -> None:
    """Pass bytes on until they end, no faster than they are taken; then pass the end on."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        async with asyncio.timeout(TAKE_SECONDS):
            await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    limit_output()
    raise_file_limit()
    uvloop.run(Relay(Path(sys.argv[1])).run())
