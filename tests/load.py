"""Steady traffic from clients that keep their connections and count what they get."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Traffic:
    """What all clients together were answered."""

    ids: list[str] = field(default_factory=list)
    versions: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@contextmanager
def traffic(url: str, rows: list[Any], clients: int = 6, pause: float = 0.002) -> Iterator[Traffic]:
    """Send one row after another over each client's connection until the block ends."""
    seen, done = Traffic(), threading.Event()
    threads = [
        threading.Thread(target=_client, args=(url, rows[n::clients], seen, done, pause)) for n in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


def _client(url: str, rows: list[Any], seen: Traffic, done: threading.Event, pause: float) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    bodies = [json.dumps(row) for row in rows]
    number = 0
    while not done.is_set():
        try:
            connection.request("POST", "/predict", bodies[number % len(bodies)], {"content-type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as err:
            seen.faults.append(f"{type(err).__name__}: {err}")
            connection.close()
            continue
        if response.status != 200:
            seen.faults.append(f"{response.status}: {content[:200]!r}")
        else:
            answer = json.loads(content)
            seen.ids += answer["ids"]
            seen.versions[answer["version"]] += 1
        number += 1
        time.sleep(pause)
    connection.close()
