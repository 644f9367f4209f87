"""Take in the bodies of requests: each of limited size and time, all together no more than a worker can hold."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loop.config import Serving
from loop.serving.schema import Body, Refused

Receive = Callable[[], Awaitable[dict[str, Any]]]

LARGEST = 6  # bodies of the largest size that a worker holds at once: 96 MiB, or 12 requests of 10,000 rows
SMALL = 2**16  # bytes of each body that do not count, so that a few rows find room beside bodies that stand still
ARRIVING = 256  # bodies that are not complete; a body of a few rows comes with its head and is never one for long


class Bodies:
    """The bodies that a worker waits for or holds."""

    def __init__(self, serving: Serving) -> None:
        self._most, self._seconds = serving.max_bytes, serving.timeout_seconds
        self._room = LARGEST * serving.max_bytes
        self._arriving: dict[asyncio.Timeout, None] = {}

    async def read(self, headers: dict[bytes, bytes], receive: Receive) -> Body:
        """Return a complete body, to be given back to `free`; the client's faults are Refused."""
        length = headers.get(b"content-length", b"").lstrip(b"0")
        if len(length) > 19 or int(length or b"0") > self._most:  # int() takes no more than 4,300 digits
            raise self._too_large()
        if is_here(receive):
            return await self._whole(receive)
        deadline = asyncio.timeout(self._seconds)
        try:
            async with deadline:
                self._begin(deadline)
                return await self._whole(receive)
        except TimeoutError:
            if deadline not in self._arriving:
                raise Refused(503, "too many bodies arrive slowly, this one for the longest time; try again") from None
            sentence = f"the body did not arrive within {self._seconds:g} s (serving.timeout_seconds)"
            raise Refused(408, sentence) from None
        finally:
            self._arriving.pop(deadline, None)

    def free(self, body: Body) -> None:
        """Give back the room of a body that is done with."""
        self._room += max(len(body) - SMALL, 0)

    async def _whole(self, receive: Receive) -> Body:
        """Return the parts as one, which grows with each: to join 16 MB in the end would hold up the loop for 17 ms."""
        body: Body = b""
        counted, more = 0, True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the client left before its body was complete")
                part, more = message.get("body", b""), message.get("more_body", False)
                size = len(body) + len(part)
                if size > self._most:
                    raise self._too_large()
                if (grows := size - SMALL - counted) > 0:
                    self._take(grows)
                    counted += grows
                if body:
                    body = bytearray(body) if isinstance(body, bytes) else body
                    body += part
                else:
                    body = part
        except BaseException:
            self._room += counted
            raise
        return body

    def _begin(self, deadline: asyncio.Timeout) -> None:
        """Wait for one more body, at the cost of the one that has been arriving for the longest time."""
        if len(self._arriving) >= ARRIVING:
            slowest = next(iter(self._arriving))
            del self._arriving[slowest]
            if not slowest.expired():
                slowest.reschedule(0)
        self._arriving[deadline] = None

    def _take(self, size: int) -> None:
        if size > self._room:
            raise Refused(503, "the bodies under way are as large as this server can hold; try again")
        self._room -= size

    def _too_large(self) -> Refused:
        return Refused(413, f"one request takes at most {self._most:,} bytes (serving.max_bytes)")


def is_here(receive: Receive) -> bool:
    """Say whether nobody need wait for a body, as uvicorn knows; a deadline costs 3 % of a request of one row."""
    return getattr(getattr(receive, "__self__", None), "more_body", True) is False
