"""Ask a server that has no traffic yet whether it answers, answers right, and answers in time."""

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from config import Section, UserError
from core.compiled import TOLERANCE, as_values, difference
from serving.release import Served
from serving.schema import Refused, Row, Schema

ROWS = 200  # of the holdout: as many requests as a 99th percentile needs
WARM_UP = 20


class Check(Section):
    """What one worker showed."""

    address: str
    rows: int
    left_out: int
    """Holdout rows that the contract does not let in, among those looked at."""
    difference: float
    """Largest between an answer's score and the offline prediction, in units of core.compiled.TOLERANCE."""
    tolerance: float
    p50_ms: float
    p99_ms: float
    budget_ms: float


def admitted(served: Served, rows: pd.DataFrame) -> tuple[list[Row], pd.DataFrame, int]:
    """Return the first rows that a request may hold, as values and as a table, and how many it may not."""
    schema, looked_at = Schema(served.card, served.release.serving), rows.head(2 * ROWS)
    values, places = [], []
    for place, row in enumerate(as_values(looked_at, served.card.contract)):
        try:
            schema.rows(msgspec.json.encode([row]))
        except Refused:
            continue
        values.append(row)
        places.append(place)
    if not values:
        raise UserError(f"none of {len(looked_at)} holdout rows is within the contract, so nothing can be checked")
    return values[:ROWS], looked_at.iloc[places[:ROWS]], len(looked_at) - len(values)


def check_server(address: str, served: Served, rows: pd.DataFrame, token: str | None) -> Check:
    """Compare answers with offline predictions, all at once and one by one; any fault is a UserError."""
    values, table, left_out = admitted(served, rows)
    expected = served.bundle.scores(table)
    headers = {"content-type": "application/json", "x-check": served.release.hash}
    if token:
        headers["authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(address, timeout=served.release.serving.timeout_seconds)
    try:
        at_once = _scores(connection, values, headers)
        one_by_one, seconds = [], []
        for number in range(-WARM_UP, len(values)):
            start = time.perf_counter()
            answer = _scores(connection, [values[max(number, 0)]], headers)
            if number >= 0:
                seconds.append(time.perf_counter() - start)
                one_by_one += answer
    except (OSError, http.client.HTTPException) as err:
        raise UserError(f"the new server at {address} does not answer: {err}") from err
    finally:
        connection.close()
    contract = served.card.contract
    apart = max(difference(expected, np.asarray(found), contract) for found in (at_once, one_by_one))
    p50, p99 = (1000 * float(np.quantile(seconds, level)) for level in (0.5, 0.99))
    check = Check(
        address=address,
        rows=len(values),
        left_out=left_out,
        difference=apart,
        tolerance=TOLERANCE,
        p50_ms=p50,
        p99_ms=p99,
        budget_ms=served.release.serving.latency_budget_ms,
    )
    if not apart <= TOLERANCE:  # a NaN is no agreement
        raise UserError(
            f"the new server's scores differ from the offline predictions by up to {apart:.3g} on {len(values)} "
            f"holdout rows, allowed is {TOLERANCE:g}; it gets no traffic"
        )
    if p99 > check.budget_ms:
        raise UserError(
            f"the new server's 99th percentile is {p99:.1f} ms for one row, serving.latency_budget_ms is "
            f"{check.budget_ms:g}; it gets no traffic"
        )
    return check


def _scores(connection: http.client.HTTPConnection, rows: Sequence[Row], headers: dict[str, str]) -> list[Any]:
    connection.request("POST", "/predict", msgspec.json.encode(rows), headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise UserError(f"the new server refuses holdout rows ({response.status}): {content.decode()[:300]}")
    return list(json.loads(content)["scores"])
