"""Ask a server that has no traffic yet whether it answers, answers right, and answers in time."""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from loop.config import Section, Serving, UserError
from loop.log.records import check_names
from loop.serving.release import Served
from loop.serving.schema import Refused, Row, Schema, check_personal
from loop.serving.values import as_requests
from loop.training.bundle import Bundle
from loop.training.compiled import TOLERANCE, difference
from loop.training.gate import Verdict

ROWS = 200  # of the holdout: as many requests as a 99th percentile needs
WARM_UP = 20


class Check(Section):
    """What one worker showed."""

    address: str
    rows: int
    left_out: int
    """Holdout rows that the contract does not let in, among those looked at."""
    difference: float
    """Largest between an answer's score and the offline prediction, in units of loop.training.compiled.TOLERANCE."""
    tolerance: float
    p50_ms: float
    p99_ms: float
    budget_ms: float

    @property
    def sentence(self) -> str:
        """Say it in words."""
        speed = f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        return f"{self.rows} rows, scores {self.difference:.2g} apart at most, {speed}"


@dataclass(frozen=True)
class Admitted:
    """Rows of a holdout that the contract lets in."""

    sent: list[dict[str, Any]]
    """As clients that have the source's rows send them."""
    values: list[Row]
    """As the service reads them."""
    table: pd.DataFrame
    """As training had them."""
    left_out: int
    """How many were looked at and may not come in."""


def admitted(schema: Schema, rows: pd.DataFrame) -> Admitted:
    """Return the first rows that a request may hold; that there is none is a UserError."""
    looked_at = rows.head(2 * ROWS)
    dropped = {name for name, reason in schema.contract.left_out.items() if reason == "dropped"}
    names = [name for name in schema.columns if name in rows and name not in dropped]
    sent, values, places, why = [], [], [], ""
    for place, row in enumerate(as_requests(looked_at, names)):
        try:
            values += schema.rows(msgspec.json.encode(row))
        except Refused as err:
            why = why or err.sentence.removeprefix("row 1: ")
            continue
        sent.append(row)
        places.append(place)
    if not values:
        raise UserError(
            f"none of {len(looked_at)} holdout rows is within the contract, so nothing can be checked: {why}"
        )
    return Admitted(sent[:ROWS], values[:ROWS], looked_at.iloc[places[:ROWS]], len(looked_at) - len(values))


def undeployable(bundle: Bundle, rows: pd.DataFrame, serving: Serving) -> str | None:
    """Say why a model could not be deployed, judged by holdout rows before it is promoted; None where it can.

    What only a running server shows, its time to answer, is left to the deployment. So is ONNX: a model that does not
    compile is served by its pipeline.
    """
    contract = bundle.card.contract
    try:
        logged = (name for name in contract.left_out if contract.left_out[name] != "dropped")
        check_names((*contract.features, *logged), contract.classes)
        check_personal(contract, serving)
        found = admitted(Schema(bundle.card, serving), rows)
    except UserError as err:
        return str(err)
    features = pd.DataFrame([row[: len(contract.features)] for row in found.values], columns=list(contract.features))
    apart = difference(bundle.scores(found.table), bundle.scores(features), contract)
    return None if apart <= TOLERANCE else f"a service would score holdout rows otherwise, by up to {apart:.3g}"


def hold_undeployable(verdict: Verdict, model: Bundle, rows: pd.DataFrame, serving: Serving) -> Verdict:
    """Return a verdict to promote as a hold if the model could not be deployed, with the reason."""
    fault = undeployable(model, rows, serving) if verdict.decision == "promote" else None
    return verdict if fault is None else verdict.held(f"it could not be deployed: {fault}")


def check_server(
    address: str, served: Served, rows: pd.DataFrame, token: str | None, secret: str | None = None
) -> Check:
    """Compare answers with offline predictions, all at once and one by one; any fault is a UserError.

    Without the secret (`loop.serving.release.check_secret`) the rows are traffic, and on record.
    """
    found = admitted(Schema(served.card, served.release.serving), rows)
    expected = served.bundle.scores(found.table)
    headers = {"content-type": "application/json"} | ({"x-check": secret} if secret else {})
    if token:
        headers["authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(address, timeout=served.release.serving.timeout_seconds)
    try:
        at_once = _scores(connection, found.sent, headers)
        one_by_one, seconds = [], []
        for number in range(-WARM_UP, len(found.sent)):
            start = time.perf_counter()
            answer = _scores(connection, [found.sent[max(number, 0)]], headers)
            if number >= 0:
                seconds.append(time.perf_counter() - start)
                one_by_one += answer
    except (OSError, http.client.HTTPException) as err:
        raise UserError(f"the new server at {address} does not answer: {err}") from err
    finally:
        connection.close()
    contract = served.card.contract
    apart = max(difference(expected, np.asarray(scores), contract) for scores in (at_once, one_by_one))
    p50, p99 = (1000 * float(np.quantile(seconds, level)) for level in (0.5, 0.99))
    check = Check(
        address=address,
        rows=len(found.sent),
        left_out=found.left_out,
        difference=apart,
        tolerance=TOLERANCE,
        p50_ms=p50,
        p99_ms=p99,
        budget_ms=served.release.serving.latency_budget_ms,
    )
    if not apart <= TOLERANCE:  # a NaN is no agreement
        raise UserError(
            f"the new server's scores differ from the offline predictions by up to {apart:.3g} on {len(found.sent)} "
            f"holdout rows, allowed is {TOLERANCE:g}; it gets no traffic"
        )
    if p99 > check.budget_ms:
        raise UserError(
            f"the new server's 99th percentile is {p99:.1f} ms for one row, serving.latency_budget_ms is "
            f"{check.budget_ms:g}; it gets no traffic"
        )
    return check


def _scores(connection: http.client.HTTPConnection, rows: list[dict[str, Any]], headers: dict[str, str]) -> list[Any]:
    connection.request("POST", "/predict", msgspec.json.encode(rows), headers)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise UserError(f"the new server refuses holdout rows ({response.status}): {content.decode()[:300]}")
    return list(json.loads(content)["scores"])
