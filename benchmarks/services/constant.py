"""Answer any request with a constant: what uvicorn costs by itself."""

from collections.abc import Awaitable, Callable
from typing import Any

BODY = b'{"scores":[0.5]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]

Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]],
    Awaitable[None],
]


def service() -> Application:
    """Return a bare ASGI application that reads the body and looks at nothing."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": BODY})

    return answer
