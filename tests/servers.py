"""Real servers of small real models: trained once, started on free ports, stopped whatever happens."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pandas as pd

from loop import config
from loop.config import ROOT, Serving
from loop.data.contract import learn_contract
from loop.data.sources import read_rows
from loop.data.split import resolve
from loop.deploying.assemble import assemble
from loop.deploying.process import LocalServer
from loop.serving.app import App
from loop.serving.release import Release, Served
from loop.training.bundle import Bundle
from loop.training.fit import train

TOKEN, HASH_KEY = "correct-horse-battery", "k" * 64


class Model(NamedTuple):
    bundle: Bundle
    holdout: pd.DataFrame


@cache
def model(use_case: str, *changes: str) -> Model:
    """Train a use case as the pipeline does, without ZenML."""
    settings = config.load(ROOT / f"configs/{use_case}.yaml", changes)
    rows = read_rows(settings.data)
    rule = resolve(rows, settings.data, settings.split)
    held_out = rule.held_out(rows)
    train_rows, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    contract = learn_contract(train_rows, settings.data, settings.contract)
    return Model(train(train_rows, contract, rule, settings.recipe), holdout)


def breast_cancer() -> Model:
    return model("breast_cancer")


def fraud() -> Model:
    return model("fraud", "data.rows=6000", "model.params.max_iter=20")


def release(folder: Path, trained: Model, version: int = 1, audit: float = 0.0, **serving: Any) -> Release:
    """Lay out a release as a bento holds it."""
    made, _ = assemble(
        folder, trained.bundle, trained.holdout, Serving(**serving), audit, version=version, promoted=datetime.now(UTC)
    )
    return made


def request_rows(trained: Model, count: int, *, named: bool = True) -> list[Any]:
    """Return holdout rows that the contract lets in, as a client would send them."""
    from loop.serving.schema import Refused, Schema
    from loop.training.compiled import as_values

    schema = Schema(trained.bundle.card, Serving())
    found = []
    for values in as_values(trained.holdout, trained.bundle.card.contract):
        row = json.loads(json.dumps(values, default=lambda moment: moment.isoformat()))
        try:
            schema.rows(json.dumps([row]).encode())
        except Refused:
            continue
        found.append(dict(zip(schema.features, row, strict=True)) if named else row)
    return (found * (1 + count // len(found)))[:count]


class InProcess(httpx.BaseTransport):
    """Let an httpx client ask an application of this process, without a socket."""

    def __init__(self, app: App) -> None:
        self._asgi = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def answer() -> httpx.Response:
            response = await self._asgi.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

        return asyncio.run(answer())


@contextmanager
def in_process(
    folder: Path, trained: Model, *, token: str | None = None, hash_key: str | None = None, **settings: Any
) -> Iterator[tuple[App, httpx.Client]]:
    """Serve one release in this process; its log is in `folder/log`, as a server's is."""
    release(folder / "v1", trained, **settings)
    served = Served(folder / "v1/release")
    app = App(served, folder / "log", folder / "metrics", token=token, hash_key=hash_key)
    try:
        with httpx.Client(transport=InProcess(app), base_url="http://localhost") as client:
            yield app, client
    finally:
        app.close()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Running(NamedTuple):
    server: LocalServer
    release: Release
    url: str
    log: Path


@contextmanager
def running(
    folder: Path, trained: Model, *, workers: int = 1, token: str | None = None, **settings: Any
) -> Iterator[Running]:
    """Start a server of one release, with the public traffic."""
    port, server, log = free_port(), LocalServer(folder / "server"), folder / "log"
    made = release(folder / "v1", trained, **settings)
    try:
        start(server, made, folder / "v1", port, log, workers=workers, token=token)
        server.switch(made.id)
        yield Running(server, made, f"http://127.0.0.1:{port}", log)
    finally:
        server.stop()


def start(
    server: LocalServer, made: Release, code: Path, port: int, log: Path, *, workers: int = 1, token: str | None = None
) -> list[str]:
    """Start a release beside what runs."""
    wanted = {"id": made.id, "folder": str(code), "sha256": made.hash, "workers": workers, "log": str(log)}
    return server.start(wanted, "127.0.0.1", port, token, {"SERVING_HASH_KEY": HASH_KEY})
