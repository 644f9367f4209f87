"""Find the predictions that were made for the ids a business has."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from loop.log.records import read_identities

_LATE = timedelta(minutes=1)  # a worker may write a record a little later than another a newer one
TAKEN_FOR = "the newest prediction of each id, made before the label's date where it has one"


class OwnIds:
    """Remember which predictions were made for which id; each look reads on where the log has grown."""

    def __init__(self, log: str | Path, names: Sequence[str]) -> None:
        """Take the folder of the log of predictions, and the columns of `data.id`."""
        self._log, self._names = log, names
        self._made: dict[tuple[str, ...], dict[str, datetime]] = {}
        self._newest: datetime | None = None

    def resolve(
        self, labels: Iterable[tuple[tuple[str, ...], Any, datetime | None]]
    ) -> tuple[list[tuple[str, Any]], int]:
        """Return prediction ids and labels, those without a date last, and how many belong to no prediction."""
        self._read_on()
        found, unknown = [], 0
        for key, label, date in sorted(labels, key=lambda item: item[2] or datetime.max):
            made = sorted((time, name) for name, time in self._made.get(key, {}).items())
            place = len(made) if date is None else bisect_right(made, date.replace(tzinfo=UTC), key=lambda one: one[0])
            if place:
                found.append((made[place - 1][1], label))
            else:
                unknown += 1
        return found, unknown

    def _read_on(self) -> None:
        since = None if self._newest is None else self._newest - _LATE
        for key, time, prediction_id in read_identities(self._log, self._names, since):
            self._made.setdefault(key, {})[prediction_id] = time
            self._newest = time if self._newest is None else max(self._newest, time)
