"""What strangers send is limited in size and time, and a good client beside them notices nothing."""

import asyncio
import gc
import json
import logging
import resource
import socket
import struct
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from load import traffic
from servers import TOKEN, Running, breast_cancer, in_process, request_rows, running
from uvicorn.server import ServerState

from loop.config import Serving
from loop.serving import door, process
from loop.serving.app import App
from loop.serving.bodies import ARRIVING, LARGEST, SMALL, Bodies
from loop.serving.door import HEAD_BYTES, HEADERS, PARTS, PIPELINED, URL_BYTES, Protocol
from loop.serving.process import OnceASecond
from loop.serving.schema import Refused

SECONDS = 60
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server of few slots from a shell that allows few open files, as the usual one does."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with running(tmp_path_factory.mktemp("door"), breast_cancer(), max_concurrency=8) as found:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
            yield found
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("guarded"), breast_cancer(), token=TOKEN) as found:
        yield found


def connect(server: Running, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", urlsplit(server.url).port), timeout=SECONDS)
    connection.sendall(sent)
    return connection


def answered(server: Running, sent: bytes) -> str:
    """Return all that comes until the server closes the connection."""
    with connect(server, sent) as connection, connection.makefile("rb") as stream:
        return stream.read().decode()


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(2**16) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def wait(until: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def memory(server: Running, of: str) -> int:
    """Return a number of /proc, in kB, of the server's only worker."""
    (worker,) = server.server.workers(server.release.id)
    status = Path(f"/proc/{worker['pid']}/status").read_text()
    return int(status.partition(f"{of}:")[2].split()[0])


def output(server: Running) -> str:
    """Return what the server's workers printed."""
    return (server.server.folder / f"{server.release.id}.log").read_text()


def good_body() -> bytes:
    return json.dumps(request_rows(breast_cancer(), 1)[0]).encode()


def complete(body: bytes, header: bytes = b"") -> bytes:
    return POST + header + b"Content-Length: %d\r\n\r\n" % len(body) + body


CHUNKED = POST + b"Authorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n" % TOKEN.encode()
LONG = b"a" * (HEAD_BYTES + 1)
TOO_LARGE = {
    "one header": (GET + b"X: " + LONG, 431, f"{HEAD_BYTES:,} bytes"),
    "a header's name": (GET + LONG, 431, f"{HEAD_BYTES:,} bytes"),
    "many headers": (GET + b"X: 1\r\n" * HEADERS + b"\r\n", 431, f"{HEADERS} headers"),
    "a URL": (b"GET /?" + b"a" * URL_BYTES + b" HTTP/1.1\r\n\r\n", 414, f"{URL_BYTES:,} bytes"),
    "a URL without end": (b"GET /?" + LONG, 431, f"{HEAD_BYTES:,} bytes"),
    "behind a body": (CHUNKED + b"0\r\nX: " + 2 * LONG, 431, f"{HEAD_BYTES:,} bytes"),
    "a chunk's extension": (CHUNKED + b"1;" + 2 * LONG, 431, f"{HEAD_BYTES:,} bytes"),
    "no HTTP": (b"SSH-2.0-x\r\n\r\n", 400, "not HTTP/1.1"),
}


@pytest.mark.parametrize("case", TOO_LARGE)
def test_a_head_that_is_too_large_is_refused_before_the_token_is_looked_at(guarded: Running, case: str) -> None:
    sent, status, words = TOO_LARGE[case]
    head, _, body = answered(guarded, sent).partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert "connection: close" in head
    assert words in json.loads(body)["error"]


def test_heads_within_the_limits_are_read(server: Running) -> None:
    body = good_body()
    headers = b"".join(b"X-%d: %s\r\n" % (n, b"a" * 600) for n in range(HEADERS - 4))
    large = complete(body, headers + b"Connection: close\r\n")
    assert HEAD_BYTES > len(large) > 0.85 * HEAD_BYTES
    assert answered(server, large).startswith("HTTP/1.1 200 ")
    long = b"GET /livez?" + b"a" * (URL_BYTES - 20) + b" HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert answered(server, long).startswith("HTTP/1.1 200 ")
    with connect(server) as slow:
        for part in (large[:9], large[9:70], large[70:40_000], large[40_000:]):
            slow.sendall(part)
        assert slow.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_endless_heads_cost_no_memory_and_a_good_client_nothing(server: Running) -> None:
    quiet = memory(server, "VmRSS")
    sent = 0
    with traffic(server.url, request_rows(breast_cancer(), 60), clients=1) as seen:
        for _ in range(10):
            with connect(server, GET + b"X: ") as endless, suppress(ConnectionError):
                for _ in range(15):
                    endless.sendall(b"a" * 2**20)
                    sent += 2**20
    assert sent < 100 * 2**20
    assert memory(server, "VmHWM") < 2 * quiet
    assert len(seen.ids) > 0
    assert not seen.faults


def test_no_more_requests_than_can_be_held_wait_on_one_connection(server: Running) -> None:
    answers = answered(server, (GET + b"\r\n") * 2 * PIPELINED)
    assert f"{PIPELINED} requests of this connection wait" in answers


@pytest.mark.parametrize(
    ("follows", "status"),
    [
        (b"BREW\r\n\r\n", 400),
        (GET + b"X: 1\r\n" * HEADERS + b"\r\n", 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\nno chunk\r\n", 400),
    ],
    ids=["no HTTP", "many headers", "a body"],
)
def test_what_a_connection_asked_before_a_fault_is_answered_before_it_is_told(
    server: Running, follows: bytes, status: int
) -> None:
    """Else the client takes the refusal for that of its first request, which is on record."""
    answers = answered(server, 3 * complete(good_body()) + follows)
    assert answers.count('"ids"') == 3
    assert answers.rpartition("HTTP/1.1 ")[2].startswith(f"{status} ")
    assert answers.count("HTTP/1.1 ") == 4
    assert "Exception in callback" not in output(server)


def test_clients_that_ask_twice_and_leave_are_no_faults_of_the_server(server: Running) -> None:
    for _ in range(50):
        with connect(server, 2 * complete(good_body())) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    answered(server, GET + b"Connection: close\r\n\r\n")
    assert "Exception in callback" not in output(server)


@pytest.mark.parametrize("trailer", [b"Content-Type: text/csv", b"Content-Encoding: br", b"Host: example.com"])
def test_what_follows_a_body_says_nothing_of_it_however_its_bytes_come(server: Running, trailer: bytes) -> None:
    body = good_body()
    framed = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(body), body, trailer)
    sent = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + framed
    assert answered(server, sent).startswith("HTTP/1.1 200 ")


def test_half_a_thousand_silent_and_half_open_connections_are_closed_and_a_good_client_notices_nothing(
    server: Running,
) -> None:
    begun = [b"", b"GET", GET, GET + b"X:", b"\r\n", GET + b"\r\nGET", complete(b"{}") + GET]
    unfinished = b"POST /nowhere HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"  # answered, and more is to come
    with traffic(server.url, request_rows(breast_cancer(), 60), clients=2, pause=0.01) as seen, ExitStack() as stack:
        opened = [stack.enter_context(connect(server, begun[n % len(begun)])) for n in range(500)]
        slow = [stack.enter_context(connect(server, sent)) for sent in (GET, unfinished) for _ in range(5)]

        def all_closed() -> bool:
            for connection in slow:
                with suppress(OSError):
                    connection.send(b"a")
            return all(map(is_closed, [*opened, *slow]))

        with connect(server, GET) as told:
            wait(all_closed)
            assert told.recv(2**16).startswith(b"HTTP/1.1 408 ")
    assert len(seen.ids) > 100
    assert not seen.faults


class Transport(asyncio.Transport):
    """A connection whose client takes nothing but what a test says."""

    unsent, aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        self.unsent += len(data)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def write_eof(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize(
    ("sizes", "aborted"), [((9, 9, 9), True), ((9, 8, 7), False), ((9, 0, 0), False)], ids=["none", "some", "all"]
)
def test_a_client_that_does_not_take_its_answer_is_left(sizes: tuple[int, ...], aborted: bool) -> None:
    async def talk() -> bool:
        config = uvicorn.Config(hello, http=Protocol, ws="none", log_config=None)
        connection, transport = Protocol(config, ServerState(), {}), Transport()
        connection.connection_made(transport)
        connection.data_received(GET + b"\r\n")
        while not transport.unsent:
            await asyncio.sleep(0)
        for second, transport.unsent in enumerate(sizes):
            connection.close_if_slow(second * 0.9 * door.SECONDS)
        connection.connection_lost(None)
        return transport.aborted

    assert asyncio.run(talk()) == aborted


def test_a_client_that_goes_on_sending_behind_a_refusal_is_left() -> None:
    async def talk() -> list[bool]:
        config = uvicorn.Config(hello, http=Protocol, ws="none", log_config=None)
        connection, transport = Protocol(config, ServerState(), {}), Transport()
        connection.connection_made(transport)
        connection.data_received(b"BREW\r\n\r\n")
        seen = [transport.aborted]
        for second in (0, 0.9, 1.8):
            connection.data_received(b"a" * 9)
            connection.close_if_slow(second * door.SECONDS)
            seen.append(transport.aborted)
        return seen

    assert asyncio.run(talk()) == [False, False, False, True]


@pytest.mark.parametrize("length", [b"Content-Length: %d", b"Transfer-Encoding: chunked"], ids=["told", "not told"])
def test_a_client_that_sends_all_of_a_body_that_is_too_large_reads_why(server: Running, length: bytes) -> None:
    body = b" " * 20 * 2**20
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    length, framed = (length % len(body), body) if b"%d" in length else (length, chunk)
    for _ in range(5):
        assert answered(server, POST + length + b"\r\n\r\n" + framed).startswith("HTTP/1.1 413 ")


def test_a_client_that_has_said_all_and_only_listens_is_answered(server: Running) -> None:
    with connect(server, complete(good_body())) as connection, connection.makefile("rb") as stream:
        connection.shutdown(socket.SHUT_WR)
        assert stream.read().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [complete(b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
                                  GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"])  # fmt: skip
def test_a_client_that_asks_for_another_protocol_is_answered_and_closed(server: Running, sent: bytes) -> None:
    answer = answered(server, sent)
    assert answer.startswith("HTTP/1.1 4" if sent.startswith(b"POST") else "HTTP/1.1 200 ")
    assert "connection: close" in answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("apart", [0, 1, 2])
def test_a_body_behind_a_request_for_another_protocol_is_read(server: Running, chunked: bool, apart: int) -> None:
    """Java's client asks for HTTP/2 so, whatever it sends, unless it is told not to."""
    body = good_body()
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n" + length
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    sent = head + b"\r\n\r\n" + framed + head + b"\r\n\r\n" + framed  # what follows is not answered any more
    ends = (len(sent), len(head) + 4 + len(body) // 2, len(head) + 4)[apart]
    with connect(server, sent[:ends]) as connection, connection.makefile("rb") as stream:
        time.sleep(0.1)
        connection.sendall(sent[ends:])
        answer = stream.read().decode()
    assert answer.startswith("HTTP/1.1 200 ")
    assert (answer.count("HTTP/1.1"), answer.count('"ids"')) == (1, 1)
    assert "connection: close" in answer


@pytest.mark.parametrize("path", [b"/predict", b"/nowhere"])
def test_a_body_of_tiny_chunks_ends_before_others_notice_it(server: Running, path: bytes) -> None:
    head = POST.replace(b"/predict", path) + b"Transfer-Encoding: chunked\r\n\r\n"
    sent = 0
    with suppress(OSError), connect(server, head) as connection:
        for _ in range(400):
            connection.sendall(b"1\r\n \r\n" * 10_000)
            sent += 1
    assert sent < 300  # the rest is what the system holds


def test_a_body_of_as_many_small_chunks_as_may_be_is_read(server: Running) -> None:
    body, chunks = good_body(), b""
    for start in range(0, len(body), 2):
        part = body[start : start + 2]
        chunks += b"%x\r\n%s\r\n" % (len(part), part)
    blanks = b"1\r\n \r\n" * (PARTS - len(body))
    sent = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + blanks + chunks + b"0\r\n\r\n"
    assert answered(server, sent).startswith("HTTP/1.1 200 ")


def test_a_length_of_thousands_of_digits_is_a_number_like_any_other(server: Running) -> None:
    body = good_body()
    zeros = POST + b"Connection: close\r\nContent-Length: " + b"0" * 4_400
    assert answered(server, zeros + b"%d\r\n\r\n" % len(body) + body).startswith("HTTP/1.1 200 ")
    assert answered(server, zeros + b"9" * 18 + b"\r\n\r\n").startswith("HTTP/1.1 413 ")


def test_slow_bodies_take_no_place_from_those_that_are_complete(server: Running) -> None:
    body = good_body()
    with traffic(server.url, request_rows(breast_cancer(), 60), clients=2) as seen, ExitStack() as stack:
        slow = [stack.enter_context(connect(server, complete(body)[:-1])) for _ in range(64)]
        wait(lambda: len(seen.ids) > 200)
        for connection in slow:
            connection.sendall(body[-1:])
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200 ")
    assert not seen.faults


def test_faults_of_clients_do_not_fill_the_log_of_a_worker(server: Running) -> None:
    log = server.server.folder / f"{server.release.id}.log"
    before = log.stat().st_size
    for _ in range(300):
        assert answered(server, b"BREW\r\n\r\n").startswith("HTTP/1.1 400 ")
    wait(lambda: answered(server, b"BREW\r\n\r\n") and log.stat().st_size > before)  # the next second has a line
    lines = log.read_text()[before:].splitlines()
    assert len(lines) < 150
    assert all(len(line) < 200 for line in lines)


def receives(*parts: bytes, then: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    left = list(parts)

    async def receive() -> Any:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        return await then()

    return receive


async def no_more() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_one_slow_body_too_many_ends_the_wait_for_the_slowest(tmp_path: Path) -> None:
    async def ask() -> tuple[list[bool], str]:
        bodies, forever = Bodies(Serving()), asyncio.Event().wait
        slow = [asyncio.create_task(bodies.read({}, receives(b"{", then=forever))) for _ in range(ARRIVING)]
        await asyncio.sleep(0)
        assert await bodies.read({}, receives(b"{}", then=no_more)) == b"{}"
        with pytest.raises(Refused) as refused:
            await slow[0]
        still = [not task.done() for task in slow[1:]]
        for task in slow:
            task.cancel()
        return still, f"{refused.value.status} {refused.value.sentence}"

    still, refusal = asyncio.run(ask())
    assert all(still)
    assert refusal.startswith("503 too many bodies arrive slowly")


def test_bodies_under_way_are_limited_together_and_small_ones_always_find_room() -> None:
    large = b" " * Serving(max_bytes=2**20).max_bytes

    async def ask() -> None:
        bodies, forever = Bodies(Serving(max_bytes=2**20)), asyncio.Event().wait
        held = [await bodies.read({}, receives(large, then=no_more)) for _ in range(4)]
        stuck = [asyncio.create_task(bodies.read({}, receives(large, then=forever))) for _ in range(LARGEST - 4)]
        await asyncio.sleep(0)
        half = SMALL * LARGEST  # what does not count
        with pytest.raises(Refused, match="as large as this server can hold") as refused:
            [await bodies.read({}, receives(large, then=no_more)) for _ in range(2)]
        assert refused.value.status == 503
        assert len(await bodies.read({}, receives(b" " * SMALL, then=no_more))) == SMALL
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
        for body in held:
            bodies.free(body)
        assert bodies._room >= LARGEST * len(large) - half
        assert await bodies.read({}, receives(large, then=no_more)) == large

    asyncio.run(ask())


def test_a_request_that_waits_for_its_turn_is_told_so_in_time_and_too_many_are_told_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, begun, go_on = request_rows(breast_cancer(), 200), Event(), Event()
    limits: dict[str, Any] = {"timeout_seconds": 0.2, "max_concurrency": 2}
    with in_process(tmp_path, breast_cancer(), **limits) as (app, client), ThreadPoolExecutor(2) as pool:
        score = app._scores

        def slow(rows: Any) -> Any:
            begun.set()
            go_on.wait(SECONDS)
            return score(rows)

        monkeypatch.setattr(app, "_scores", slow)
        try:
            first = pool.submit(client.post, "/predict", json=rows)
            assert begun.wait(SECONDS)
            second = pool.submit(client.post, "/predict", json=rows)
            refused = second.result(SECONDS / 4)
            assert (refused.status_code, first.done()) == (503, False)
            assert "larger requests were before this one" in refused.json()["error"]
        finally:
            go_on.set()
        assert first.result(SECONDS).status_code == 200


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    content, statuses = b"[{}" + b" " * 2**22 + b"]", []
    scope = {"path": "/predict", "method": "POST", "headers": []}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status"))

    async def ask(app: App) -> AsyncIterator[int]:
        for _ in range(4):
            await app(scope, receives(content, then=no_more), send)
            yield tracemalloc.get_traced_memory()[0]

    async def sizes(app: App) -> list[int]:
        return [size async for size in ask(app)]

    with in_process(tmp_path, breast_cancer()) as (app, _):
        gc.disable()  # it runs seldom in a worker
        tracemalloc.start()
        try:
            first, *_, last = asyncio.run(sizes(app))
        finally:
            tracemalloc.stop()
            gc.enable()
    assert set(statuses) == {422, None}
    assert last - first < 2 * len(content)  # the thread may hold the last one


def record(line: int = 1, error: BaseException | None = None) -> logging.LogRecord:
    found = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("server", logging.ERROR, "app.py", line, "%s failed", ("it",), found)


def test_each_kind_of_line_is_printed_once_a_second_and_its_traceback_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(process.time, "monotonic", lambda: now)
    once, error = OnceASecond(), ValueError("of a client")
    passed = [one for one in (record(error=error) for _ in range(1000)) if once.filter(one)]
    assert [one.exc_info is not None for one in passed] == [True]
    assert once.filter(record(line=2))
    assert once.filter(record(error=KeyError("another")))
    now += 1
    later = record(error=error)
    assert once.filter(later)
    assert later.getMessage() == "it failed (999 more like it): ValueError, as before"
    assert later.exc_info is None
