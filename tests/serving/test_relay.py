"""The relay in front of containers: bytes go both ways, ends are passed on, and a switch is one write."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loop.serving import relay
from loop.serving.relay import Relay

Answer = Callable[[StreamReader, StreamWriter], Awaitable[None]]
SECONDS = 10
LARGE = bytes(range(256)) * 2**14  # 4 MB: more than all buffers on the way


def says(word: bytes) -> Answer:
    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(word + line)
        writer.close()

    return answer


async def answers_at_the_end(reader: StreamReader, writer: StreamWriter) -> None:
    writer.write(await reader.read())  # all of it, until the client has ended its side
    await writer.drain()
    writer.close()


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await asyncio.sleep(0.05)  # the other side's ends close


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def test_what_comes_after_the_client_ended_its_side_still_arrives(tmp_path: Path) -> None:
    live = tmp_path / "live"

    async def talk() -> bytes:
        async with listening(answers_at_the_end) as release, listening(Relay(live).pass_on) as address:
            live.write_text(release)
            async with connection(address) as (reader, writer):
                writer.write(LARGE)
                writer.write_eof()
                return await reader.read()

    assert asyncio.run(talk()) == LARGE


def test_switch_sends_new_connections_elsewhere_and_leaves_open_ones_alone(tmp_path: Path) -> None:
    live = tmp_path / "live"

    async def ask(reader: StreamReader, writer: StreamWriter) -> bytes:
        writer.write(b"who\n")
        return await reader.readline()

    async def talk() -> list[bytes]:
        async with (
            listening(says(b"old ")) as old,
            listening(says(b"new ")) as new,
            listening(Relay(live).pass_on) as address,
        ):
            live.write_text(old)
            async with connection(address) as first:
                said = [await ask(*first)]
                live.write_text(new)
                async with connection(address) as second:
                    return [*said, await ask(*first), await ask(*second)]

    assert asyncio.run(talk()) == [b"old who\n", b"old who\n", b"new who\n"]


def test_connection_lasts_no_longer_than_the_release_allows_though_the_client_stays(tmp_path: Path) -> None:
    live = tmp_path / "live"

    async def closes(reader: StreamReader, writer: StreamWriter) -> None:
        writer.close()

    async def talk() -> bytes:
        relayed = Relay(live)
        async with listening(closes) as release, listening(relayed.pass_on) as address:
            live.write_text(release)
            async with connection(address) as (reader, _):
                said = await reader.read()
                async with asyncio.timeout(SECONDS):
                    while relayed.open:
                        await asyncio.sleep(0)
                return said

    assert asyncio.run(talk()) == b""


def test_connection_is_closed_where_no_release_can_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CONNECT_SECONDS", 0.2)

    async def talk() -> bytes:
        async with listening(Relay(tmp_path / "live").pass_on) as address, connection(address) as (reader, _):
            return await reader.read()

    assert asyncio.run(talk()) == b""
