"""Name the service to BentoML: `bentoml serve` and `bentoml containerize` work on the bento as on any other."""

import os
from functools import cache
from pathlib import Path
from typing import Any

import bentoml

from loop.config import ROOT
from loop.serving.app import App
from loop.serving.release import Served

FOLDER = ROOT / "release"


@cache
def app() -> App:
    """Open the release beside this code, as the environment says: where the log is, the token, the key for hashes."""
    return App(
        Served(FOLDER, os.environ.get("SERVING_RELEASE_SHA256")),
        log_folder=Path(os.environ.get("SERVING_LOG", "log")),
        metrics_folder=Path(os.environ.get("SERVING_STATE", "state")) / "metrics",
        slot=int(os.environ.get("SERVING_SLOT") or bentoml.server_context.worker_index or 0),
        token=os.environ.get("SERVING_TOKEN") or None,
        hash_key=os.environ.get("SERVING_HASH_KEY") or None,
    )


class Ours:
    """Answer every path but BentoML's files, before BentoML's own layers where it stands outermost."""

    def __init__(self, bento: Any) -> None:
        """Wrap BentoML's application; nothing is opened, so that a bento can be built from this module."""
        self._bento = bento

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._bento(scope, receive, send)
            return
        ours, path = app(), scope["path"]
        prefix = ours.serving.prefix
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):  # a proxy passed it on
            path = path.removeprefix(prefix) or "/"
            scope = {**scope, "path": path}
        await (self._bento if path.startswith("/static_content/") else ours)(scope, receive, send)


@bentoml.service(
    metrics={"enabled": False},             # its own count every path that is asked for, without bound; ours do not
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},      # 0.4 ms a request otherwise, also when nobody traces
    traffic={"timeout": 60},                # ours is shorter
)  # fmt: skip
class Predictor:
    """The model's service: everything it answers is in `loop.serving.app`."""

    def __init__(self) -> None:
        """Refuse to start with a release that was tampered with."""
        app()

    def __is_ready__(self) -> bool:
        """Say whether this worker takes requests."""
        return not app().draining


Predictor.add_asgi_middleware(Ours)  # type: ignore[attr-defined]
