"""Read bodies that clients compressed, never to more than a request may hold."""

import zlib

from loop.serving.schema import Body, Refused
from loop.serving.values import shown

_GZIP = 16 + zlib.MAX_WBITS  # with the header and checksum of RFC 1952


class UnknownEncoding(Refused):
    """A body in an encoding that is not taken; the header tells clients that its media type is not the fault."""

    headers = ((b"accept-encoding", b"gzip, identity"),)


def is_compressed(said: bytes) -> bool:
    """Say whether a Content-Encoding is gzip's; any but that and `identity` is refused."""
    codings = [coding.strip() for coding in said.lower().split(b",")]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if codings not in ([], [b"gzip"], [b"x-gzip"]):
        raise UnknownEncoding(415, f"Content-Encoding needs gzip or identity, it is {shown(said.decode('latin-1'))}")
    return bool(codings)


def inflated(body: Body, limit: int) -> bytes:
    """Return what one gzip member of a body holds; no more than one byte beyond the limit is ever made of it."""
    reader = zlib.decompressobj(_GZIP)
    try:
        content = reader.decompress(body, limit + 1)
    except zlib.error as err:
        raise Refused(400, f"the body is not gzip: {err}") from None
    if len(content) > limit:
        raise Refused(
            413, f"one request takes at most {limit:,} bytes (serving.max_bytes), also when they were compressed"
        )
    if not reader.eof:
        raise Refused(400, "the body is not gzip: its end is missing")
    if reader.unused_data:
        raise Refused(400, "the body is not gzip: something follows its end")
    return content
