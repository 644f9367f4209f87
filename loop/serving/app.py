"""Answer requests: a plain ASGI application, since each layer of a web framework costs more than the model.

A request passes, in this order: `serving.door`, its path and method, whose page sent it, the token, its content type,
`serving.bodies`, the number of requests under way, the data contract, the model, the prediction log, the metrics. Only
then it is answered, so every answered prediction is on record. What the contract refuses is on record too, without its
values: else nobody who reads the logs could see that the clients' data has changed.
"""

import asyncio
import collections
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
import numpy as np
import pandas as pd

from loop.config import UserError
from loop.data.table import as_text
from loop.log.audit import AuditSample
from loop.log.own_ids import TAKEN_FOR, OwnIds
from loop.log.records import (
    FORMAT,
    LogUnavailable,
    RecordWriter,
    Rule,
    is_audited,
    label_lines,
    prediction_ids,
    prediction_line,
    refusal_line,
    request_ids,
)
from loop.serving.bodies import Bodies, Receive
from loop.serving.callers import Callers
from loop.serving.encodings import inflated, is_compressed
from loop.serving.invocations import VERSION, invoked_rows
from loop.serving.metrics import Constant, Counter, Histogram, Metrics
from loop.serving.openapi import cell, page
from loop.serving.published import Monitored
from loop.serving.release import Served, check_secret
from loop.serving.schema import ARRAYS, Body, Refused, Row, Rows, Schema, check_personal

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Handler(Protocol):
    """Answer a body; a check before deployment is no traffic, and not on record."""

    def __call__(self, body: Body, check: bool) -> bytes:
        """Return the answer's content."""


ROW_MARKS = (b"{", b"[", b"\n")  # one of them stands before or behind each row, in JSON and CSV
INLINE_ROWS = 256  # scored on the event loop in about a millisecond; more rows go to a thread
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
TENTHS = tuple(round(0.1 * i, 1) for i in range(1, 11))
STATUSES = ("200", "400", "401", "403", "404", "405", "408", "413", "415", "422", "500", "503")
JSON, CSV, TEXT = b"application/json", b"text/csv", b"text/plain; version=0.0.4; charset=utf-8"
MEDIA = {"/metrics": TEXT, "/": b"text/html; charset=utf-8", "/audit_csv": CSV}
AUDIT = ("/audit", "/audit_csv")
GETS = ("/livez", "/readyz", "/metrics", "/model", "/openapi.json", "/", "/ping", "/health", "/version", *AUDIT)
POSTS = ("/predict", "/predict_csv", "/feedback", "/explain", "/invocations", "/feedback_csv")
PREDICTS = ("/predict", "/predict_csv", "/invocations")
OPEN = ("/livez", "/readyz", "/", "/ping", "/health")  # probes carry no token, and the page holds nothing
MOST_AUDITED = 1000  # ids of an answer, a day's work; what follows comes once these have labels
BODY = "(body)"  # where no field is to blame
TOO_FAR = "a value is so far out of range that the model finds no number for it"

encode = msgspec.json.Encoder().encode


class Noted(bytes):
    """An answer's content, of which headers tell more."""

    headers: list[tuple[bytes, bytes]]


class App:
    """One release, served; an ASGI application."""

    def __init__(
        self, served: Served, log_folder: Path, metrics_folder: Path, *,
        slot: int = 0, token: str | None = None, hash_key: str | None = None,
    ) -> None:  # fmt: skip
        self.served, self.release, self.serving = served, served.release, served.release.serving
        self.contract, self.threshold = served.card.contract, served.card.threshold
        self.schema = Schema(served.card, self.serving)
        self._few = 2 * len(self.schema.features) * INLINE_ROWS  # bytes of fewer than INLINE_ROWS rows, however short
        check_personal(self.contract, self.serving)
        self.draining = False
        self._busy, self._bodies = 0, Bodies(self.serving)
        self._check = check_secret(hash_key, self.release.hash).encode() if hash_key else None
        self._token = None if token is None else f"Bearer {token}".encode()
        self._ids, self._lock, self._thread = request_ids(), threading.Lock(), ThreadPoolExecutor(1)
        self._kept, self._hidden = self._columns(hash_key)
        all_kept = len(self._kept) == len(self.schema.columns) and not self._hidden
        # A time is logged in UTC and as ISO 8601, whatever its zone and spelling when it came.
        self._verbatim = all_kept and all(field.kind != "datetime" for field in self.schema.fields)
        header = {
            "format": FORMAT,
            "model": self.release.name,
            "version": self.release.version,
            "release": self.release.id,
        }
        columns = [self.schema.columns[place] for place in self._kept]
        self._predictions = RecordWriter(
            log_folder / "predictions",
            {**header, "kind": "predictions", "columns": columns, "classes": list(self.contract.classes)},
        )
        self._own_ids = OwnIds(log_folder / "predictions", self.contract.id)
        self._sample = AuditSample(log_folder, self.release.audit)
        self._labels = RecordWriter(log_folder / "labels", {**header, "kind": "labels"})
        self._refusals = RecordWriter(log_folder / "refusals", {**header, "kind": "refusals"})
        answers: tuple[Callable[[], bytes], ...] = (
            self._livez, self._readyz, self._metrics, cache(self._model), cache(self._openapi), self._page,
            self._ping, self._ping, VERSION.encode, self._audit, self._audit_csv,
        )  # fmt: skip
        self._gets = dict(zip(GETS, answers, strict=True))
        handlers: tuple[dict[bytes, Handler], ...] = (
            {JSON: self._predict}, {CSV: self._predict_csv}, {JSON: self._feedback}, {JSON: self._explain},
            {JSON: self._invocations, CSV: self._invocations_csv}, {CSV: self._feedback_csv},
        )  # fmt: skip
        self._posts = dict(zip(POSTS, handlers, strict=True))
        """What answers a body of each content type; the answer is of the first one."""
        self._callers = Callers(self.serving.origins, guarded=token is None)
        self.paths = frozenset((*GETS, *POSTS))
        seconds, base = self.serving.latency_budget_ms / 1000, self._base()
        budget = Constant("serving_latency_budget_seconds", "Highest 99th percentile for one row.", base, seconds)
        beside = (budget, Monitored(log_folder, self.release.name))
        self.metrics = Metrics(metrics_folder, slot, base, self._definitions(), beside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever happens, with one JSON sentence and no stack trace."""
        start = time.perf_counter()
        path = scope["path"]
        headers: list[tuple[bytes, bytes]] = []
        try:
            status, content, media = 200, *await self._respond(path, scope, receive)
            if type(content) is Noted:
                headers += content.headers
        except Refused as err:
            status, content, media = err.status, encode({"error": err.sentence}), JSON
            headers += err.headers
            if err.status == 405:
                headers.append((b"allow", self._methods(path)))
            if err.status == 422:
                self.metrics.count("serving_out_of_contract", err.field or BODY)
        except LogUnavailable as err:
            self._lost(err)
            why = getattr(err.__cause__, "strerror", None) or "no reason given"
            sentence = f"the server cannot keep its record ({why}), so it does not answer; try again"
            status, content, media = 503, encode({"error": sentence}), JSON
        except Exception:
            log.exception("a request to %s failed", path if path in self.paths else "an unknown path")
            status, content, media = 500, encode({"error": "the server failed; its log says why"}), JSON
        if status == 503:
            headers.append((b"retry-after", b"1"))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if self.draining or status in (408, 413):  # the rest of such a body is not read
            headers.append((b"connection", b"close"))
        if self._callers.origins:
            headers += self._callers.told(dict(scope["headers"]), self._methods(path))
        headers += [(b"content-type", media), (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})
        known = path if path in self.paths else "(other)"
        self.metrics.count("serving_requests", known, str(status))
        if path in self._posts:
            self.metrics.observe("serving_request_seconds", path, value=time.perf_counter() - start)

    def close(self) -> None:
        """Finish what has begun, and close the logs."""
        self._thread.shutdown()
        self._predictions.close()
        self._labels.close()
        self._refusals.close()

    async def _respond(self, path: str, scope: Scope, receive: Receive) -> tuple[bytes, bytes]:
        """Return content and media type of a 200."""
        if path not in self.paths:
            raise Refused(404, f"no such path; the service has {', '.join(sorted(self.paths))}")
        headers, method = dict(scope["headers"]), scope["method"]
        if method == "OPTIONS" and self._callers.is_preflight(headers):
            return b"", JSON
        if method not in (("POST",) if path in self._posts else ("GET", "HEAD")):
            raise Refused(405, f"{path} takes {'POST' if path in self._posts else 'GET'}")
        self._callers.check(method, headers)
        if path not in OPEN and not self._authorised(headers):
            raise Refused(401, "the header 'Authorization: Bearer TOKEN' is missing or wrong")
        if path in self._gets:
            answer, media = self._gets[path], MEDIA.get(path, JSON)
            if path not in AUDIT or not self.release.audit:
                return answer(), media
            return await self._counted(lambda _: answer(), b"", slow=True), media
        handlers = self._posts[path]
        media = next(iter(handlers))
        came = headers.get(b"content-type", media).split(b";")[0].strip().lower()
        # curl -d says it is a form: what it holds is looked at all the same.
        handler = handlers.get(media if came == b"application/x-www-form-urlencoded" else came)
        if handler is None:
            raise Refused(415, f"{path} takes {b' or '.join(handlers).decode()}")
        compressed = b"content-encoding" in headers and is_compressed(headers[b"content-encoding"])
        said = headers.get(b"x-check", b"")
        check = self._check is not None and hmac.compare_digest(said, self._check)
        self._check_busy()
        body = await self._bodies.read(headers, receive)
        try:
            slow = path == "/feedback_csv"  # it reads the log
            return await self._counted(partial(handler, check=check), body, compressed, slow=slow), media
        except Refused as err:
            if err.status == 422 and path in PREDICTS and not check:
                self._keep(path, [(err.field, err.rule, err.rows)])
            raise
        finally:
            self._bodies.free(body)

    def _check_busy(self) -> None:
        if self._busy >= self.serving.max_concurrency:
            raise Refused(
                503, f"{self._busy} requests are under way, which is the limit (serving.max_concurrency); try again"
            )

    def _keep(self, path: str, refused: Sequence[tuple[str | None, Rule, int]], answered: int = 0) -> None:
        """Put refusals of a request on record; where that fails the client is told of its faults all the same."""
        now = datetime.now(UTC)
        try:
            self._refusals.append(b"\n".join(refusal_line(now, path, *what, answered) for what in refused), now)
        except LogUnavailable as err:
            self._lost(err)

    def _lost(self, err: LogUnavailable) -> None:
        log.error("%s", err)
        self.metrics.count("serving_log_errors")

    def _methods(self, path: str) -> bytes:
        return b"POST" if path in self._posts else b"GET, HEAD"

    def _authorised(self, headers: dict[bytes, bytes]) -> bool:
        return self._token is None or hmac.compare_digest(headers.get(b"authorization", b""), self._token)

    async def _counted(
        self, handler: Callable[[Body], bytes], body: Body, compressed: bool = False, *, slow: bool
    ) -> bytes:
        """Answer in turn, as one of those under way."""
        self._check_busy()
        self._busy += 1
        try:
            return await self._in_turn(handler, body, compressed, slow)
        finally:
            self._busy -= 1

    async def _in_turn(self, handler: Callable[[Body], bytes], body: Body, compressed: bool, slow: bool) -> bytes:
        """Answer at once what holds few rows, and the rest one by one in a thread."""
        if not compressed and not slow and (len(body) < self._few or _holds_few_rows(body)):
            return handler(body)
        seconds = self.serving.timeout_seconds
        turn = self._thread.submit(lambda: handler(inflated(body, self.serving.max_bytes) if compressed else body))
        answer = asyncio.wrap_future(turn)
        try:
            await asyncio.wait([answer], timeout=seconds)
            if turn.cancel():  # what has begun is answered, however late, since it goes on record
                raise Refused(
                    503, f"larger requests were before this one for {seconds:g} s (serving.timeout_seconds); try again"
                )
            return await answer
        finally:
            del turn, answer  # an error would hold this frame, and so itself and the body

    def _predict(self, body: Body, check: bool) -> bytes:
        rows, as_they_are = self.schema.read(body)
        as_sent = msgspec.Raw(body) if as_they_are and self._verbatim and ARRAYS.match(body) else None
        ids, scores, labels = self._answer(rows, check, as_sent)
        said = {"version": self.release.version, "ids": ids, "scores": scores, "labels": labels, **self._marks(ids)}
        return self._noted(encode(self._spread(said, rows, "/predict", check)), rows)

    def _predict_csv(self, body: Body, check: bool) -> bytes:
        rows = self.schema.csv_rows(body)
        ids, scores, labels = self._answer(rows, check)
        lines = ["id,score,label" if self.contract.classes else "id,score"]
        for place, (row_id, score) in enumerate(zip(ids, scores, strict=True)):
            top = max(score) if isinstance(score, list) else score
            lines.append(f"{row_id},{top!r}" + (f",{cell(labels[place])}" if labels else ""))
        for name, marks in self._marks(ids).items():
            cells = (name, *("true" if mark else "false" for mark in marks))
            lines = [f"{line},{mark}" for line, mark in zip(lines, cells, strict=True)]
        told = self._spread({"lines": lines[1:]}, rows, "/predict_csv", check)
        if errors := told.get("errors"):
            nothing = "," * lines[0].count(",")
            pairs = zip(told["lines"], errors, strict=True)
            lines = [f"{lines[0]},error", *(f"{nothing},{cell(e)}" if e else f"{line}," for line, e in pairs)]
        return self._noted(("\n".join(lines) + "\n").encode(), rows)

    def _invocations(self, body: Body, check: bool) -> bytes:
        return self._invoked(invoked_rows(self.schema, body), check)

    def _invocations_csv(self, body: Body, check: bool) -> bytes:
        return self._invoked(self.schema.csv_rows(body), check)

    def _invoked(self, rows: list[Row], check: bool) -> bytes:
        """Return what MLflow's server would, values or the places of classes, and beside it what /predict does."""
        ids, scores, labels = self._answer(rows, check)
        predictions = scores if labels is None else [self.contract.classes.index(label) for label in labels]
        said = {"predictions": predictions, "version": self.release.version, "ids": ids, "scores": scores}
        told = {**said, "labels": labels, **self._marks(ids)}
        return self._noted(encode(self._spread(told, rows, "/invocations", check)), rows)

    def _marks(self, ids: list[str]) -> dict[str, list[bool]]:
        """Say of each prediction whether it is to be labelled, where some are."""
        share = self.release.audit
        return {"audit": [is_audited(name, share) for name in ids]} if share else {}

    def _spread(self, said: dict[str, Any], rows: list[Row], path: str, check: bool) -> dict[str, Any]:
        """Return what is said of the good rows in their places, and errors in those of the others, put on record."""
        if not isinstance(rows, Rows) or not rows.faults:
            return said
        for fault in rows.faults.values():
            self.metrics.count("serving_out_of_contract", fault.field or BODY)
        if not check:
            faults = collections.Counter((fault.field, fault.rule) for fault in rows.faults.values())
            self._keep(path, [(*what, count) for what, count in faults.items()], len(rows))
        spread = {name: rows.spread(of) if isinstance(of, list) else of for name, of in said.items()}
        faulty = [rows.faults.get(place) for place in range(len(rows) + len(rows.faults))]
        return {**spread, "errors": [fault and fault.sentence for fault in faulty]}

    def _noted(self, content: bytes, rows: list[Row]) -> bytes:
        """Return an answer that tells by headers which columns were left unread, if any were."""
        gone, unknown = self.schema.ignored(rows)
        if not gone and not unknown:
            return content
        answer = Noted(content)
        names = ",".join(quote(name, safe=" ") for name in (*gone, *unknown))
        answer.headers = [(b"x-ignored-columns", names.encode())]
        if gone:  # RFC 9745: deprecated since this version came
            answer.headers.append((b"deprecation", b"@%d" % self.release.promoted.timestamp()))
        return answer

    def _answer(
        self, rows: list[Row], check: bool, as_sent: msgspec.Raw | None = None
    ) -> tuple[list[str], list[Any], list[str] | None]:
        """Score rows, put them on record, count them; return ids, scores and decisions."""
        scores = self._scores(rows)
        labels = self._decide(scores)
        listed = scores.tolist()
        with self._lock:
            request = next(self._ids)
            if not check:
                now = datetime.now(UTC)
                self._predictions.append(
                    prediction_line(request, now, as_sent or self._logged(rows), listed, labels), now
                )
                self._count(rows, scores, labels)
        return prediction_ids(request, len(rows)), listed, labels

    def _scores(self, rows: list[Row]) -> np.ndarray:
        features = len(self.schema.features)
        if self.schema.extras:
            rows = [row[:features] for row in rows]
        try:
            if self.served.compiled is not None:
                return _finite(self.served.compiled.scores(rows))
            return _finite(self.served.bundle.scores(pd.DataFrame(rows, columns=list(self.schema.features))))
        except ValueError as err:  # scikit-learn's own word for a number that overflowed
            raise Refused(422, TOO_FAR, rule="out_of_range") from err

    def _decide(self, scores: np.ndarray) -> list[str] | None:
        classes = self.contract.classes
        if not classes:
            return None
        codes = scores.argmax(axis=1) if scores.ndim == 2 else (scores >= self.threshold).astype(int)
        return [classes[code] for code in codes.tolist()]

    def _logged(self, rows: list[Row]) -> Sequence[Sequence[Any]]:
        if len(self._kept) == len(self.schema.columns) and not self._hidden:
            return rows
        return [[self._hidden[p](row[p]) if p in self._hidden else row[p] for p in self._kept] for row in rows]

    def _columns(self, hash_key: str | None) -> tuple[list[int], dict[int, Callable[[Any], str | None]]]:
        """Return the places of the columns that the log keeps, and how personal ones are hidden."""
        ways = dict(self.serving.personal)
        dropped = {name for name, reason in self.contract.left_out.items() if reason in ("dropped", "gone")}
        kept = [p for p, name in enumerate(self.schema.columns) if ways.get(name) != "omit" and name not in dropped]
        hashed = [p for p in kept if ways.get(self.schema.columns[p]) == "hash"]
        if hashed and not hash_key:
            raise UserError("serving.personal hashes columns, which needs a key in SERVING_HASH_KEY; set one")
        key = hashlib.sha256((hash_key or "").encode()).digest()

        def hide(value: Any) -> str | None:
            if value is None:
                return None
            return hashlib.blake2b(as_text(value).encode(), key=key, digest_size=16).hexdigest()

        return kept, dict.fromkeys(hashed, hide)

    def _count(self, rows: list[Row], scores: np.ndarray, labels: list[str] | None) -> None:
        metrics = self.metrics
        shown = scores.max(axis=1) if scores.ndim == 2 else scores
        if len(rows) == 1:
            metrics.observe("serving_batch_rows", value=1)
            metrics.observe("serving_score", value=float(shown[0]))
        else:
            metrics.observe("serving_batch_rows", value=len(rows))
            metrics.observe_all("serving_score", values=shown)
        if labels and len(labels) == 1:
            metrics.count("serving_decisions", labels[0])
        elif labels:
            for label, count in collections.Counter(labels).items():
                metrics.count("serving_decisions", label, by=count)
        for field, count in self.schema.outside(rows):
            metrics.count("serving_out_of_contract", field, by=count)

    def _feedback(self, body: Body, check: bool) -> bytes:
        labels = self.schema.labels(body)
        with self._lock:
            now = datetime.now(UTC)
            self._labels.append(label_lines(labels, now), now)
            self.metrics.count("serving_labels", by=len(labels))
        return encode({"accepted": len(labels)})

    def _feedback_csv(self, body: Body, check: bool) -> bytes:
        names, labels = self.schema.label_rows(body)
        pairs, unknown, taken_for = [(key[0], label) for key, label, _ in labels], 0, "the prediction of each id"
        if names:
            places = [self.schema.columns.index(name) for name in names]
            if lost := [name for name, place in zip(names, places, strict=True) if place not in self._kept]:
                raise Refused(422, f"{lost[0]!r} is left out of the log (serving.personal), so it finds no prediction")
            hide: list[Callable[[Any], Any]] = [self._hidden.get(place, as_text) for place in places]
            spelt = [(tuple(f(v) for f, v in zip(hide, key, strict=True)), *more) for key, *more in labels]
            taken_for = TAKEN_FOR
            pairs, unknown = self._own_ids.resolve(spelt)
        if pairs:
            with self._lock:
                now = datetime.now(UTC)
                self._labels.append(label_lines(pairs, now), now)
                self.metrics.count("serving_labels", by=len(pairs))
        return f"accepted,unknown,taken_for\n{len(pairs)},{unknown},{cell(taken_for)}\n".encode()

    def _explain(self, body: Body, check: bool) -> bytes:
        compiled = self.served.compiled
        if compiled is None or not compiled.explainable:
            raise Refused(404, "this model has no explainer; linear models have one")
        rows = self.schema.rows(body)
        if len(rows) > INLINE_ROWS:
            raise Refused(413, f"/explain takes at most {INLINE_ROWS} rows, this request has {len(rows):,}")
        found = compiled.explain([row[: len(self.schema.features)] for row in rows])
        shares, base = _finite(found.contributions).tolist(), found.base.tolist()
        answer = {"version": self.release.version, "features": found.features, "base": base, "contributions": shares}
        return encode(answer)

    def _model(self) -> bytes:
        release, card = self.release, self.served.card
        return encode(
            {
                "name": release.name,
                "version": release.version,
                "release": release.id,
                "promoted": release.promoted,
                "reasons": release.reasons,
                "fingerprint": release.fingerprint,
                "estimator": card.recipe.model.estimator,
                "threshold": card.threshold,
                "metrics": {name: found.model_dump() for name, found in release.metrics.items()},
                "gone": [name for name, reason in card.contract.left_out.items() if reason == "gone"],
                "runtime": self.release.runtime,
                "contract": card.contract.model_dump(mode="json"),
            }
        )

    def _audit(self) -> bytes:
        waiting = self._waiting()
        return encode({"share": self.release.audit, "waiting": len(waiting), "ids": waiting[:MOST_AUDITED]})

    def _audit_csv(self) -> bytes:
        lines = ["prediction_id,label", *(f"{name}," for name in self._waiting()[:MOST_AUDITED])]
        return ("\n".join(lines) + "\n").encode()

    def _waiting(self) -> list[str]:
        return self._sample.waiting() if self.release.audit else []

    def _openapi(self) -> bytes:
        explains = self.served.compiled is not None and self.served.compiled.explainable
        title, version = f"{self.release.name}, version {self.release.version}", self.release.id
        explained = min(INLINE_ROWS, self.serving.max_rows) if explains else 0
        return encode(
            self.schema.openapi(
                title, version, explained=explained, audit=self.release.audit > 0, token=self._token is not None
            )
        )

    def _page(self) -> bytes:
        return page(self.serving.prefix)

    def _livez(self) -> bytes:
        return encode({"alive": True})

    def _readyz(self) -> bytes:
        if self.draining:
            raise Refused(503, "this server is stopping")
        return encode({"ready": True, "release": self.release.id})

    def _ping(self) -> bytes:
        self._readyz()
        return b"\n"

    def _metrics(self) -> bytes:
        return self.metrics.text()

    def _base(self) -> dict[str, str]:
        return {"model": self.release.name, "version": str(self.release.version), "release": self.release.id}

    def _definitions(self) -> list[Counter]:
        statistics = self.contract.target_statistics
        bounds = TENTHS if self.contract.classes else tuple(map(float, statistics.edges))
        classes = self.contract.classes
        return [
            Counter("serving_requests", "Requests answered.",
                    {"path": [*GETS, *POSTS, "(other)"], "status": STATUSES}),  # a set has another order in each worker
            Histogram("serving_request_seconds", "From its head to its answer.", {"path": [*self._posts]}, SECONDS),
            Histogram("serving_batch_rows", "Rows a request.", bounds=ROWS),
            Histogram("serving_score", "A row's P(positive), top probability, or value.", bounds=bounds),
            Counter("serving_decisions", "Rows by decision.", {"label": classes}),
            Counter("serving_labels", "Labels received."),
            Counter("serving_out_of_contract", "Rows refused, or accepted, outside the contract, by field.",
                    {"field": [*self.schema.columns, BODY]}),
            Counter("serving_log_errors", "Requests whose record could not be written."),
        ]  # fmt: skip


def _holds_few_rows(body: Body) -> bool:
    return len(body) < 100 * INLINE_ROWS and sum(map(body.count, ROW_MARKS)) <= INLINE_ROWS


def _finite(found: np.ndarray) -> np.ndarray:
    """Return what a model found for rows, if it is a number for each."""
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found).reshape(len(found), -1).all(axis=1))[0]) + 1
        raise Refused(422, f"row {row}: {TOO_FAR}", rule="out_of_range")
    return found
