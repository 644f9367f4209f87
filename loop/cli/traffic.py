"""Send a use case's rows to its live service over HTTP, and their labels later, as its clients would."""

import http.client
import importlib
import inspect
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loop.config import Config, Data, UserError
from loop.data.sources import check_source, read_rows

if TYPE_CHECKING:  # the check of the options does without pandas
    import pandas as pd

SECONDS = 30.0  # for an answer
PAUSE = 0.1  # after a request that failed: a worker that died is back in a second
GIVE_UP = 20  # requests in a row that failed: then nobody is there


@dataclass
class Replay:
    """What came of a replay, so far."""

    rows: int = 0
    """Asked for."""
    start: int = 0
    """Place of the first row in the stream."""
    ids: list[str | None] = field(default_factory=list)
    """Prediction id of each row sent; None where there was no answer."""
    refused: Counter[str] = field(default_factory=Counter)
    """Rows outside the data contract, by what the service said of them."""
    refused_labels: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    """Requests that a connection or the service failed, by why."""
    labels: int = 0
    """Accepted by the service."""
    due: int = 0
    """Labels of answered rows that were not sent, since their delay goes beyond the replay."""
    seconds: float = 0.0
    stopped: str = ""
    """Why it ended before its last row."""

    @property
    def answered(self) -> int:
        """Return the number of rows with an answer."""
        return len(self.ids) - self.ids.count(None)


Progress = Callable[[Replay], None]


def simulate(
    use_case: Config, url: str, log: str, token: str | None, progress: Progress, *,
    scenario: str = "none", rows: int = 5000, label_delay: int = 0, seed: int | None = None,
    start: int | None = None, batch: int = 10,
) -> Replay:  # fmt: skip
    """Replay what comes next in the use case's stream: what neither its training rows nor its logs hold yet."""
    data = use_case.data
    if start is None:
        start = next_row(data, log)
    table = stream_rows(data, rows, scenario=scenario, seed=seed, start=start)
    columns = [str(name) for name in table if name != data.target and name not in data.drop]
    replayed = replay(
        url, table, data.target, columns, label_delay=label_delay, token=token, batch=batch, progress=progress
    )
    replayed.start = start
    return replayed


def check_traffic(use_case: Config, *, scenario: str = "none", **numbers: int) -> None:
    """Refuse options that cannot be met, before anything is started."""
    for name, number in numbers.items():
        if number < (least := 1 if name in ("rows", "batch") else 0):
            raise UserError(f"--{name.replace('_', '-')} must be {least} or more, it is {number}")
    if scenario == "none":
        return
    if not _stream(use_case.data):
        raise UserError(
            f"{use_case.name} has no scenario '{scenario}': its rows come from {use_case.data.shown_source}, which "
            "makes no drift; use --config configs/fraud.yaml"
        )
    stream_rows(use_case.data, 1, scenario=scenario)


def next_row(data: Data, log: str) -> int:
    """Return the place in the stream after the training rows and what the logs hold.

    A refused row leaves one refusal or two, so that a few rows may be left out, but none is sent twice.
    """
    from loop.log.records import read_predictions, read_refusals

    sent = len(read_predictions(f"{log}/predictions")) + len(read_refusals(f"{log}/refusals"))
    parameters = _stream(data)
    if not parameters:
        return sent
    trained = data.rows or (parameters["rows"].default if "rows" in parameters else 0)
    return int(data.options.get("start", 0)) + int(trained) + sent


def stream_rows(
    data: Data, rows: int, *, scenario: str = "none", seed: int | None = None, start: int = 0
) -> "pd.DataFrame":
    """Return rows `start` to `start + rows` of a use case's stream; the same arguments give the same rows.

    A `module:function` source with the parameters `scenario` and `start` is a stream; the rows of any other source are
    drawn with replacement, those that a model was trained on among them.
    """
    if _stream(data):
        options = {**data.options, "scenario": scenario, "start": start}
        options |= {} if seed is None else {"seed": seed}
        return read_rows(data.model_copy(update={"rows": rows, "options": options}))
    import numpy as np

    table = read_rows(data)
    drawn = np.random.default_rng(seed or 0).random(start + rows)[start:]
    return table.iloc[(drawn * len(table)).astype(int)].reset_index(drop=True)


def replay(
    url: str, rows: "pd.DataFrame", target: str, columns: Sequence[str], *,
    label_delay: int = 0, token: str | None = None, batch: int = 10, progress: Progress = lambda replayed: None,
) -> Replay:  # fmt: skip
    """Send the columns of the rows in order, `batch` rows a request, over one connection that is kept.

    A row's label follows once `label_delay` more rows have been sent; what is not due when the rows end is not sent.
    A 422 refuses a whole request, so its rows are sent again one by one. A request that fails is counted and not
    repeated, since it may be on record. Ctrl-C ends the replay, as do GIVE_UP failures in a row; any other refusal
    would meet every request, and is a UserError.
    """
    from loop.serving.values import as_json, as_requests  # with pandas, which the check of the options does without

    sent, labels, labelled = as_requests(rows, columns), as_json(rows[target]), 0
    replayed, begun = Replay(rows=len(rows)), time.monotonic()

    def known(places: slice) -> list[dict[str, Any]]:
        pairs = zip(replayed.ids[places], labels[places], strict=False)
        return [{"id": name, "label": label} for name, label in pairs if name is not None and label is not None]

    with closing(_Service(url, token, replayed)) as service:
        try:
            for first in range(0, len(sent), batch):
                for count, answer in service.ask("/predict", sent[first : first + batch], replayed.refused):
                    replayed.ids += answer["ids"] if answer else [None] * count
                due = max(labelled, len(replayed.ids) - label_delay)
                if told := known(slice(labelled, due)):
                    for _, answer in service.ask("/feedback", told, replayed.refused_labels):
                        replayed.labels += answer["accepted"] if answer else 0
                labelled, replayed.seconds = due, time.monotonic() - begun
                progress(replayed)
                if service.failures >= GIVE_UP:
                    replayed.stopped = f"{GIVE_UP} requests in a row failed"
                    break
        except KeyboardInterrupt:
            replayed.stopped = "by Ctrl-C"
    replayed.seconds = time.monotonic() - begun
    replayed.due = len(known(slice(labelled, None)))
    return replayed


class _Service:
    """A client that keeps its connection and counts what goes wrong."""

    def __init__(self, url: str, token: str | None, replayed: Replay) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection, self._base = kind(parts.netloc, timeout=SECONDS), parts.path.rstrip("/")
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._failed = replayed.failed
        self.failures = 0
        """Requests in a row that failed, up to now."""

    def close(self) -> None:
        self._connection.close()

    def ask(self, path: str, items: Sequence[Any], refused: Counter[str]) -> Iterator[tuple[int, Any]]:
        """Yield how many items were sent and what was answered, None where they were refused or the request failed."""
        status, answer = self._post(path, items)
        if status == 422 and len(items) > 1:
            for item in items:
                yield from self.ask(path, [item], refused)
            return
        sentence = "" if status == 200 else str(answer.get("error", f"status {status} without a reason"))
        failed = status in (0, 408) or status >= 500
        self.failures = self.failures + 1 if failed else 0
        if failed:
            self._failed[sentence] += 1
            time.sleep(PAUSE)
        elif status == 422:
            refused[_reason(sentence)] += 1
        elif status != 200:
            raise UserError(f"the service refuses what it is sent to {path} ({status}): {sentence}")
        yield len(items), answer if status == 200 else None

    def _post(self, path: str, items: Sequence[Any]) -> tuple[int, dict[str, Any]]:
        """Return status and answer; where none came, status 0 and why."""
        try:
            self._connection.request("POST", self._base + path, json.dumps(items), self._headers)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as err:
            self._connection.close()
            return 0, {"error": f"no answer: {getattr(err, 'strerror', None) or err}"}
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        return response.status, answer if isinstance(answer, dict) else {}


def is_stream(data: Data) -> bool:
    """Say whether a source makes new rows whenever it is asked, rather than those of a table."""
    return bool(_stream(data))


def _stream(data: Data) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a source's function if it makes a stream, else none."""
    match = re.fullmatch(r"([\w.]+):(\w+)", data.source)
    if match is None or match[1] == "sklearn":
        return {}
    check_source(data)
    function = getattr(importlib.import_module(match[1]), match[2], None)
    parameters = inspect.signature(function).parameters if callable(function) else {}
    return parameters if {"scenario", "start"} <= set(parameters) else {}


def _reason(sentence: str) -> str:
    """Return what was needed, without the row and the value, so that like refusals can be counted."""
    return re.sub(r", it is (?:(?!, it is ).)*$", "", re.sub(r"^(row|label) \d+:? ", "", sentence))
