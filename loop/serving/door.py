"""Speak HTTP with strangers: limits on what they send before the service looks at it, and on how long they take.

uvicorn and its parser take heads of any size and wait for them without end. What is limited here is what comes
before a request has a path and a token: heads, connections that say nothing, and answers that nobody takes.
`loop.serving.bodies` limits the rest.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 2**16  # of a head, and of what follows a body's last chunk; Apache and nginx take 8 to 32 KB a header
HEADERS = 100  # as Apache and gunicorn
URL_BYTES = 8192  # RFC 9110 asks for 8,000 at least
PARTS = 2**15  # of a body, such as chunks, however small; each costs about a microsecond
PART_BYTES = 256  # on average, where there are more
PIPELINED = 64  # requests of a connection that wait for the one before; a browser sends none so
DROPPED_BYTES = 2**25  # that may follow an answer which ends the connection: twice the largest body
REFUSED_BYTES = 2**20  # the same behind what was no good request
SECONDS = 10.0  # for a head to be complete, for an answer to be taken; with retries a slow phone needs about 3

log = logging.getLogger(__name__)


class Protocol(HttpToolsProtocol):
    """HTTP as uvicorn speaks it, with limits, and one packet an answer."""

    transport: Any
    """A OneWrite."""
    _refusal = (400, "this is not HTTP/1.1")
    """What is said when the parser gives up."""
    _fruitless = 0
    """Bytes since a head was complete or a part of a body came."""
    _parts = _size = _trailers = 0
    """Of the body, and of what follows its last chunk."""
    _debt: tuple[Any, ...] | None = None
    """What the client owes: the rest of a head or of a body that was answered, or to take an answer."""
    _since = 0.0
    _refused = False
    _last = b""
    """A refusal that waits for the answers to earlier requests of its connection."""
    _declined = False
    """Whether the client asked for another protocol, which ends the connection."""

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        super().connection_made(OneWrite(transport, self._still_sends))  # type: ignore[arg-type]

    def eof_received(self) -> bool:  # type: ignore[override]  # as asyncio has it
        """Answer a client that has said all and only listens, as `nc -N` does; then close."""
        self.transport.flush()
        if self._last:
            return True
        cycle = self.cycle
        waits = cycle is not None and not cycle.response_complete and not cycle.more_body
        if waits:
            cycle.keep_alive = False
        return waits

    def data_received(self, data: bytes) -> None:
        """Read on, in pieces of limited size, unless a head grows too large."""
        if self.transport.lingers or self._last:
            self._fruitless += len(data)
            if self._fruitless > (REFUSED_BYTES if self._refused else DROPPED_BYTES):
                self.transport.abort()
            return
        if len(data) > HEAD_BYTES:
            for start in range(0, len(data), HEAD_BYTES):
                if not self.transport.is_closing():
                    self.data_received(data[start : start + HEAD_BYTES])
            return
        self._fruitless += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.refuse(*self._refusal)
        except httptools.HttpParserUpgrade as stop:
            self._decline(data[stop.args[0] :])
        if self._fruitless > HEAD_BYTES and not self.transport.is_closing():
            self.refuse(431, f"the head of a request may have {HEAD_BYTES:,} bytes at most")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless there are too many: 64 KB hold 10,000, which would hold up the others for 15 ms."""
        if len(self.headers) + self._trailers >= HEADERS:
            self._refusal = (431, f"a request may have {HEADERS} headers at most")
            raise ValueError(self._refusal[1])  # the parser stops, and `data_received` refuses
        if "method" in self.scope:  # behind the body: a head is what came as one (RFC 9110, 6.5.1)
            self._trailers += 1
        else:
            HttpToolsProtocol.on_header(self, name, value)

    def on_headers_complete(self) -> None:
        """Begin a request, unless its head is too large."""
        self._fruitless = self._parts = self._size = self._trailers = 0
        if len(self.url) > URL_BYTES:
            self._refusal = (414, f"a URL may have {URL_BYTES:,} bytes at most")
        elif len(self.pipeline) >= PIPELINED:
            self._refusal = (503, f"{PIPELINED} requests of this connection wait for their answers; read those first")
        else:
            HttpToolsProtocol.on_headers_complete(self)
            return
        raise ValueError(self._refusal[1])

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless it came in too many."""
        self._fruitless = 0
        self._parts += 1
        self._size += len(body)
        if self._parts > PARTS and self._parts * PART_BYTES > self._size:
            self._refusal = (413, f"a body in more than {PARTS:,} parts needs {PART_BYTES} bytes a part on average")
            raise ValueError(self._refusal[1])
        HttpToolsProtocol.on_body(self, body)

    def refuse(self, status: int, sentence: str) -> None:
        """Answer with one JSON sentence behind the answers that are due before it, and close the connection."""
        if self._refused:
            return
        log.warning("closed a connection: %s", sentence)
        content = json.dumps({"error": sentence}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
        self._refused, refusal = True, STATUS_LINE[status] + head + content
        if self.pipeline and self.pipeline[0][0].more_body:  # the request that is refused, which waits for its turn
            self.pipeline.popleft()
        elif self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self._close_with(refusal)
            return
        self._last = refusal

    def on_response_complete(self) -> None:
        """Go on with the next request of the connection, or end it with the refusal that waits."""
        if self._last and not self.pipeline:
            self._close_with(self._last)
        else:
            HttpToolsProtocol.on_response_complete(self)

    def close_if_slow(self, now: float) -> None:
        """Close a connection whose client has owed the same for too long; called about once a second.

        It owes nothing while its request is worked on, where `timeout_seconds` holds, nor while it rests between two
        requests, where uvicorn's `timeout_keep_alive` does.
        """
        unsent, cycle = self.transport.get_write_buffer_size(), self.cycle
        half = self.scope is not None and "method" not in self.scope
        served = cycle is not None and not cycle.response_complete
        rests = self.timeout_keep_alive_task is not None and not half and not cycle.more_body
        ends = self.transport.lingers
        debt = (ends,) if ends else None if not unsent and (served or rests) else (cycle, unsent)
        if debt is None or debt != self._debt:
            self._debt, self._since = debt, now
        elif now - self._since > SECONDS and half and not unsent and not ends:
            self.refuse(408, f"the head of a request must be complete within {SECONDS:g} s")
        elif now - self._since > SECONDS:
            log.warning("closed a connection whose client was silent, or did not take its answer")
            self.transport.abort()

    def _close_with(self, refusal: bytes) -> None:
        self.transport.write(refusal)
        self.transport.close()

    def _still_sends(self) -> bool:
        cycle = self.cycle
        return self._refused or (cycle is not None and cycle.more_body and not cycle.disconnected)

    def _decline(self, data: bytes) -> None:
        """Answer in HTTP/1.1 and close; the parser waits for the other protocol, so a new one reads the body."""
        self.cycle.keep_alive = False
        framing = [header for header in self.headers if header[0] in (b"content-length", b"transfer-encoding")]
        if not framing or self._declined or self.cycle.response_complete:
            return
        self._declined = self.cycle.more_body = True
        self.parser = httptools.HttpRequestParser(Body(self))
        head = b"".join(b"%s: %s\r\n" % header for header in framing)
        self.data_received(b"POST / HTTP/1.1\r\n%s\r\n%s" % (head, data))


class Body:
    """Hand the body of one request to a connection, and nothing that follows it."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol, self._complete = protocol, False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self._complete:
            self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        """End the body."""
        if not self._complete:
            self._complete = True
            self._protocol.on_message_complete()


class OneWrite:
    """A transport that sends at once what is written within one turn of the loop, and closes so that it is read.

    uvicorn writes head and body of an answer by themselves; a call to the kernel costs more than the model. Closing
    where bytes of the client are unread resets the connection, and the answer is lost with it (RFC 9112, 9.6).
    """

    lingers = False
    """Whether nothing is sent any more, and what comes is dropped until the client closes."""

    def __init__(self, transport: Any, still_sends: Callable[[], bool]) -> None:
        self._transport, self._held, self._still_sends = transport, list[bytes](), still_sends
        self._soon = asyncio.get_running_loop().call_soon

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it soon."""
        if not self._held:
            self._soon(self.flush)
        self._held.append(data)

    def close(self) -> None:
        """Close behind what was written."""
        self.flush()
        if self.lingers or self._transport.is_closing() or not self._still_sends():
            self._transport.close()
            return
        self.lingers = True
        self._transport.write_eof()
        self._transport.resume_reading()

    def flush(self) -> None:
        """Send it now, if anybody still reads it."""
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            if not self.lingers and not self._transport.is_closing():
                self._transport.write(data)
