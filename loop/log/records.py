"""Keep what a model service answered and refused, and the labels that come later: append-only logs, read as tables.

A log is a folder of segments, `20261124T150000.123456Z-9f86d081.jsonl`: the UTC start and eight random digits. The
first line of a segment is its header, a JSON object; each further line is one request, `[request id, time, rows,
scores, labels]`, one label, `[prediction id, label, time]`, or one refusal, `[time, path, field, rule, rows,
answered]`.
The times of a segment lie within SEGMENT_SECONDS of its start, so a window is read without opening the files of
other hours.
"""

import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import numpy as np
import pandas as pd

from loop.config import UserError
from loop.data.table import as_text

FORMAT = 1
SEGMENT_SECONDS = 3600  # longest segment; readers skip files by it, so a smaller number would hide old records
SEGMENT_BYTES = 64 * 2**20  # 100,000 rows of 30 floats, which take a second to read
LOOK_SECONDS = 1.0  # whether another file stands in the open segment's place; that none does is seen at once
ATTEMPTS = 3  # segments that vanish under one record, before it is refused
PREDICTION_ID = re.compile(r"^[0-9a-f]{12}-[0-9a-f]{6,12}-(0|[1-9][0-9]{0,8})$(?!\n)")  # $ alone allows a last \n
"""One row's answer: the request, and the place of the row in it, e.g. `9f86d081884c-7d659a2feaa0-0`."""

Kind = Literal["predictions", "labels", "refusals"]
Rule = Literal[
    "missing_column", "extra_column", "wrong_type", "new_nulls", "unseen_category", "out_of_range", "other",
]  # fmt: skip
"""What a refused request broke: a rule of the data contract (`config.Rules`), or the form of a request."""
Window = tuple[datetime, datetime]

_STAMP = "%Y%m%dT%H%M%S.%fZ"
_SEGMENT = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-[0-9a-f]{8}\.jsonl")
_FIXED = ("prediction_id", "prediction_time", "prediction_version", "prediction_score", "prediction_label")
TRUTH, TRUTH_TIME = "prediction_truth", "prediction_truth_time"
"""What a label and its time are called beside the prediction they belong to: a column may be called `label`."""
_ENCODER = msgspec.json.Encoder()
_Row = TypeVar("_Row")
_Score = TypeVar("_Score")
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class LogUnavailable(Exception):
    """A record could not be kept, so its request must not be answered as if it were."""


class RecordWriter:
    """Append records to a log; each process has a writer of its own, made after any fork.

    A record is with the operating system before `append` returns: it survives the death of the process, also by
    kill -9. A power cut may take the last half minute, which Linux has not yet written to disk. Where the segment was
    moved or deleted, the record goes into a new one, in a new folder if need be.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        *,
        segment_seconds: float = SEGMENT_SECONDS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Take what the header of each segment says; a logged column that bears a name of ours is a UserError.

        The header has `kind` and `model`; for predictions also `version`, `release`, `columns` and `classes`.
        """
        if segment_seconds > SEGMENT_SECONDS:
            raise ValueError(f"readers rely on segments of at most {SEGMENT_SECONDS} s, not {segment_seconds}")
        check_names(header.get("columns", ()), header.get("classes", ()))
        self._folder = folder
        self._header = _ENCODER.encode({"format": FORMAT, **header}) + b"\n"
        self._seconds, self._bytes = timedelta(seconds=segment_seconds), segment_bytes
        self._file: int | None = None
        self._first = self._last = datetime.min
        self._lock = threading.Lock()

    def append(self, line: bytes, now: datetime) -> None:
        """Write one line, or several with newlines between them, whole or not at all; `now` is their time, with zone.

        LogUnavailable says why nothing was written; the next append tries again.
        """
        with self._lock:
            try:
                self._write(line + b"\n", now)
            except OSError as err:
                raise LogUnavailable(f"the log in {self._folder} cannot be written: {err.strerror}") from err

    def close(self) -> None:
        """End the segment; a later append starts another."""
        with self._lock:
            self._end()

    def _segment(self, now: datetime) -> int:
        """Return the open segment, or a new one if there is none or `now` is not of its time."""
        if self._file is not None and self._first <= now <= self._last:
            return self._file
        self._end()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._path = f"{self._folder}/{now.astimezone(UTC).strftime(_STAMP)}-{secrets.token_hex(4)}.jsonl"
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        self._first, self._last, self._looked = now, now + self._seconds, time.monotonic()
        return self._file

    def _write(self, lines: bytes, now: datetime) -> None:
        """Write into a segment that is still in its place behind the write: else nobody would read it there."""
        for _ in range(ATTEMPTS):
            file = self._segment(now)
            size = os.lseek(file, 0, os.SEEK_END)
            self._put(file, lines if size else self._header + lines, size)
            if self._is_in_place(file):
                if size + len(lines) >= self._bytes:
                    self._end()
                return
            self._cut(file, size)
            self._end()
        raise OSError(errno.ENOENT, "its files are removed as fast as they are made")

    def _put(self, file: int, lines: bytes, size: int) -> None:
        """Write lines behind the first `size` bytes, whole or not at all."""
        try:
            written = os.write(file, lines)
            while written < len(lines):  # a nearly full disk takes a part and refuses the rest
                written += os.write(file, lines[written:])
        except OSError:
            self._cut(file, size)
            raise

    def _is_in_place(self, file: int) -> bool:
        if not os.access(self._path, os.F_OK):  # a third of the price of `stat`
            return False
        if (now := time.monotonic()) - self._looked < LOOK_SECONDS:
            return True
        self._looked = now
        try:
            return os.path.samestat(os.fstat(file), Path(self._path).stat())
        except FileNotFoundError:
            return False

    def _cut(self, file: int, size: int) -> None:
        """Take back an unfinished line; where that fails, let it end its segment: readers skip it there."""
        try:
            os.ftruncate(file, size)
        except OSError:
            self._end()

    def _end(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def check_names(columns: Iterable[str], classes: Sequence[str] = ()) -> None:
    """Refuse columns, to be logged for a model of these classes, that bear a name of ours: no other is taken."""
    if taken := {*_FIXED, TRUTH, TRUTH_TIME, *_score_names(classes)}.intersection(columns):
        raise UserError(f"column '{min(taken)}' has a name that the prediction log needs itself; rename it")


def request_ids() -> Iterator[str]:
    """Make ids such as `9f86d081884c-7d659a2feaa0` without end: 96 random bits, which no other client can guess.

    Ask for them in the process that uses them. Among 10,000,000,000 two are the same with probability 6e-10.
    """
    while True:
        digits = secrets.token_hex(12 * 1000)  # asking the system for each would take longer than all the rest
        for place in range(0, len(digits), 24):
            yield f"{digits[place : place + 12]}-{digits[place + 12 : place + 24]}"


def prediction_ids(request_id: str, rows: int) -> list[str]:
    """Return the id of each row of a request."""
    return [f"{request_id}-{row}" for row in range(rows)]


def is_audited(prediction_id: str, share: float) -> bool:
    """Say whether a prediction is of the random share that is to be labelled; a larger share holds the smaller one."""
    return int.from_bytes(hashlib.blake2b(prediction_id.encode(), digest_size=8).digest()) < share * 2**64


def in_audit(prediction_ids: Iterable[str], share: float) -> np.ndarray:
    """Return which predictions are of that share."""
    return np.array([is_audited(name, share) for name in prediction_ids], bool)


def prediction_line(
    request_id: str,
    time: datetime,
    rows: Sequence[Sequence[Any]] | msgspec.Raw,
    scores: Sequence[float] | Sequence[Sequence[float]],
    labels: Sequence[str] | None,
) -> bytes:
    """Encode a request's answer as one line; `time` has a zone, rows hold values in the header's order of columns.

    Scores are P(positive) or the value, shape (rows,), or class probabilities (rows, classes); labels are the
    decisions, none for regression. Rows that are JSON already (`msgspec.Raw`: arrays, not objects) go in as they are.
    """
    line = _ENCODER.encode((request_id, time, rows, scores, labels))
    return line.replace(b"\n", b" ")  # a client may spread its JSON over lines; within strings a newline is escaped


def label_lines(labels: Iterable[tuple[str, str | float | bool]], time: datetime) -> bytes:
    """Encode pairs of prediction id and label, as given, for one append; `time` has a zone."""
    return b"\n".join(_ENCODER.encode((prediction_id, label, time)) for prediction_id, label in labels)


def refusal_line(time: datetime, path: str, field: str | None, rule: Rule, rows: int = 1, answered: int = 0) -> bytes:
    """Encode a refused request, or rows that were refused beside `answered` others of their request.

    `time` has a zone, `field` is a column the model knows, never a client's word.
    """
    return _ENCODER.encode((time, path, field, rule, rows, answered))


def read_identities(
    source: str | Path, names: Sequence[str], start: datetime | None = None
) -> Iterator[tuple[tuple[str, ...], datetime, str]]:
    """Yield the spelling of these columns, time and id of each prediction since `start` that was asked with them all.

    Faults are as in `read_predictions`.
    """
    for header, records in _read(source, "predictions", _window(start, None)):
        if not {*names} <= {*header.columns}:
            continue
        places = [header.columns.index(name) for name in names]
        for record in records:
            for prediction_id, row in zip(prediction_ids(record.id, len(record.rows)), record.rows, strict=True):
                values = [row[place] if place < len(row) else None for place in places]
                if None not in values:
                    yield tuple(map(as_text, values)), record.time, prediction_id


def read_predictions(source: str | Path, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
    """Return a row for each prediction with start <= time < end (UTC where no zone is given), by time.

    Columns: `prediction_id`, `prediction_time` (datetime64[us], UTC without zone), `prediction_version`,
    `prediction_score` (multiclass: one `prediction_score_<class>` each), `prediction_label` (str or None), then the
    logged ones, the newest release's first; what another release did not log is missing. Each of these has a plain type
    that holds all its values exactly, text where no other does; datetimes stay ISO 8601 text. A folder that is empty or
    not there has no predictions; an unfinished last line was never answered and is skipped; any other fault is a
    UserError.
    """
    window, headers, frames = _window(start, end), [], []
    for header, records in _read(source, "predictions", window):
        headers.append(header)
        if records:
            frames.append(_prediction_frame(header, records))
    scores = [name for header in reversed(headers) for name in _score_names(header.classes)] or ["prediction_score"]
    logged = [name for header in reversed(headers) for name in header.columns]
    columns = list(dict.fromkeys([*_FIXED[:3], *scores, "prediction_label", *logged]))
    frames = frames or [_prediction_frame(_Header(), [])]
    table = pd.DataFrame({name: _together(frames, name) for name in columns})
    table = table.sort_values("prediction_time", kind="stable", ignore_index=True)
    return table.drop_duplicates("prediction_id", ignore_index=True)  # of a segment that was copied


def read_labels(
    source: str | Path, start: datetime | None = None, end: datetime | None = None, *, history: bool = False
) -> pd.DataFrame:
    """Return the labels given with start <= time < end (UTC where no zone is given), by time.

    Columns: `prediction_id`, `label` (object, as it was given), `label_time` (datetime64[us], UTC without zone).
    Of several labels of a prediction the latest counts, unless the whole `history` is wanted. Empty folders,
    unfinished lines and faults are as in `read_predictions`.
    """
    found = [label for _, labels in _read(source, "labels", _window(start, end)) for label in labels]
    table = pd.DataFrame(
        {
            "prediction_id": pd.Series([label.id for label in found], dtype="str"),
            "label": pd.Series([label.label for label in found], dtype=object),
            "label_time": _times(found),
        }
    )
    table = table.sort_values("label_time", kind="stable", ignore_index=True)
    return table if history else table.drop_duplicates("prediction_id", keep="last", ignore_index=True)


def read_refusals(source: str | Path, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
    """Return the requests refused with start <= time < end (UTC where no zone is given), by time.

    Columns: `time` (datetime64[us], UTC without zone), `path`, `field` (object, None where no column is to blame),
    `rule` (one of `Rule`), `rows` (how many were refused with it) and `answered` (how many others of their request
    were not, 0 where it was refused whole), `version` (of the model that refused, 0 where the log does not say). In
    a log of an earlier version each refusal counts as one row. A refusal has no id, so those of a copied segment
    count twice. Empty folders, unfinished lines and faults are as in `read_predictions`.
    """
    parts = list(_read(source, "refusals", _window(start, end)))
    found = [refusal for _, refusals in parts for refusal in refusals]
    table = pd.DataFrame(
        {
            "time": _times(found),
            "path": pd.Series([refusal.path for refusal in found], dtype="str"),
            "field": pd.Series([refusal.field for refusal in found], dtype=object),
            "rule": pd.Series([refusal.rule for refusal in found], dtype="str"),
            "rows": pd.Series([refusal.rows for refusal in found], dtype="int64"),
            "answered": pd.Series([refusal.answered for refusal in found], dtype="int64"),
            "version": pd.Series([head.version for head, of in parts for _ in of], dtype="int64"),
        }
    )
    return table.sort_values("time", kind="stable", ignore_index=True)


class _Format(msgspec.Struct):
    format: int
    kind: str


class _Header(msgspec.Struct):
    version: int = 0
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


class _Prediction(msgspec.Struct, Generic[_Row, _Score], array_like=True, gc=False):
    id: str
    time: _Time
    rows: list[_Row]
    scores: list[_Score]
    labels: list[str] | None

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.scores) == len(self.rows if self.labels is None else self.labels):
            raise ValueError("rows, scores and labels differ in number")


class _Label(msgspec.Struct, array_like=True, gc=False):
    id: str
    label: str | bool | int | float
    time: _Time


class _Refusal(msgspec.Struct, array_like=True, gc=False):
    time: _Time
    path: str
    field: str | None
    rule: Rule
    rows: int = 1
    answered: int = 0


def _read(source: str | Path, kind: Kind, window: Window) -> Iterator[tuple[_Header, list[Any]]]:
    """Yield the header of each segment that may reach into the window, and its records within."""
    for path, content in _segments(source, window):
        lines = content[: content.rfind(b"\n") + 1]
        if lines:
            first, _, body = lines.partition(b"\n")
            header = _header(path, first, kind)
            records = _records(path, body, _decoder(header, kind))
            yield header, [record for record in records if window[0] <= record.time < window[1]]


def _segments(source: str | Path, window: Window) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the segments, by start; only a file with a name of ours is skipped by its name."""
    from fsspec.core import url_to_fs

    try:
        system, folder = url_to_fs(str(source))
        system.invalidate_cache()  # object stores remember their listings, and a log grows
        try:
            paths = system.ls(folder, detail=False)
        except FileNotFoundError:
            return
        for path in sorted(paths):
            if path.endswith(".jsonl") and _may_reach(path.rpartition("/")[2], window):
                yield path, system.cat_file(path)
    # fsspec's plug-ins share no base class, and their own words may hold a signed URL.
    except Exception as err:
        reason = err.strerror if isinstance(err, OSError) and err.strerror else type(err).__name__
        raise UserError(f"the log '{source}' cannot be read: {reason}; look at the path and the rights") from err


def _may_reach(name: str, window: Window) -> bool:
    match = _SEGMENT.fullmatch(name)
    if not match:
        return True
    start = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
    return start < window[1] and window[0] <= start + timedelta(seconds=SEGMENT_SECONDS)


def _header(path: str, line: bytes, kind: Kind) -> _Header:
    try:
        found = msgspec.json.decode(line, type=_Format)
        if found.format != FORMAT:
            fix = "read it with the code that wrote it"
            raise UserError(f"{path} has format {found.format}, this code reads {FORMAT}; {fix}")
        if found.kind != kind:
            raise UserError(f"{path} holds {found.kind}, not {kind}; name the folder of the {kind}")
        return msgspec.json.decode(line, type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise UserError(f"{path} line 1 is not the header of a log: {err}; repair or remove the file") from err


def _decoder(header: _Header, kind: Kind) -> msgspec.json.Decoder[Any]:
    """Return what decodes a record; a row may leave out its last values, as a request's may."""
    if kind != "predictions":
        return msgspec.json.Decoder(_Label if kind == "labels" else _Refusal)
    classes = len(_score_names(header.classes))
    row = Annotated[list[Any], msgspec.Meta(max_length=len(header.columns))]
    many = Annotated[list[float | None], msgspec.Meta(min_length=classes, max_length=classes)]
    score = many if classes > 1 else float | None  # JSON has no NaN: it is null
    return msgspec.json.Decoder(_Prediction[row, score])  # type: ignore[valid-type]


def _records(path: str, body: bytes, decoder: msgspec.json.Decoder[Any]) -> list[Any]:
    try:
        return decoder.decode_lines(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        number, fault = next(_faults(body, decoder))
        raise UserError(f"{path} line {number} is not a record: {fault}; repair or remove the line") from err


def _faults(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Iterator[tuple[int, Exception]]:
    """Yield number in the file and fault of each line that cannot be decoded by itself."""
    for number, line in enumerate(body.split(b"\n"), 2):
        try:
            decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as err:
            yield number, err


def _prediction_frame(header: _Header, records: Sequence[_Prediction[Any, Any]]) -> pd.DataFrame:
    """Spread the requests of one segment over a row for each prediction."""
    counts = [len(record.rows) for record in records]
    ids = [name for record in records for name in prediction_ids(record.id, len(record.rows))]
    scores = np.array([score for record in records for score in record.scores], np.float64)
    labels: list[str | None] = []
    for record in records:
        labels += record.labels or [None] * len(record.rows)
    names = _score_names(header.classes)
    fixed = {
        "prediction_id": pd.Series(ids, dtype="str"),
        "prediction_time": _times(records).repeat(counts),
        "prediction_version": header.version,
        **dict(zip(names, scores.reshape(-1, len(names)).T, strict=True)),
        "prediction_label": pd.Series(labels, dtype=object),
    }
    rows = pd.DataFrame([row for record in records for row in record.rows], dtype=object)
    rows = rows.reindex(columns=range(len(header.columns)))
    logged = {name: _exactly(rows[place]) for place, name in enumerate(header.columns)}
    return pd.DataFrame(fixed | logged)


def _together(frames: Sequence[pd.DataFrame], name: str) -> pd.Series:
    """Join a column of all segments; one that did not log it has no values."""
    parts = [frame[name] if name in frame else pd.Series([None] * len(frame), dtype=object) for frame in frames]
    if len({part.dtype for part in parts}) == 1:
        return pd.concat(parts, ignore_index=True)
    return _exactly(pd.concat([part.astype(object) for part in parts], ignore_index=True))


def _exactly(values: pd.Series) -> pd.Series:
    """Return what JSON held as a column of one plain type, none of whose values is rounded: an id may have 64 bits."""
    from loop.data.dtypes import plain  # a server has no pyarrow

    whole_and_not = pd.api.types.infer_dtype(values, skipna=True) == "mixed-integer-float"
    if whole_and_not and any(isinstance(value, int) and int(float(value)) != value for value in values):
        values = values.map(as_text, na_action="ignore")
    return plain(values)


def _score_names(classes: Sequence[str]) -> list[str]:
    return [f"prediction_score_{name}" for name in classes] if len(classes) > 2 else ["prediction_score"]


def _times(records: Sequence[Any]) -> pd.DatetimeIndex:
    times = pd.DatetimeIndex(pd.to_datetime([record.time for record in records], utc=True))
    return times.tz_localize(None).as_unit("us")


def _window(start: datetime | None, end: datetime | None) -> Window:
    """Return the borders in UTC; an open side reaches as far as time does."""
    return _utc(start or datetime.min), _utc(end or datetime.max)


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
