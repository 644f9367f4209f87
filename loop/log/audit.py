"""Remember which predictions of the audit sample have no label yet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from loop.log.records import is_audited, read_identities, read_labels

_LATE = timedelta(minutes=1)  # a worker may write a record a little later than it is dated


class AuditSample:
    """List what is still to be labelled; each look reads on where the log has grown."""

    def __init__(self, log: Path, share: float) -> None:
        """Take the folder of a model's log, and the share of predictions that is to be labelled."""
        self._log, self._share = log, share
        self._asked, self._labelled = dict[str, datetime](), set[str]()
        self._since: datetime | None = None

    def waiting(self) -> list[str]:
        """Return the ids of the sample without a label, the newest first."""
        now = datetime.now(UTC)
        made = read_identities(self._log / "predictions", (), self._since)
        self._asked |= {name: time for _, time, name in made if is_audited(name, self._share)}
        told = read_labels(self._log / "labels", self._since)["prediction_id"]
        self._labelled.update(name for name in told if is_audited(name, self._share))
        self._since = now - _LATE
        waiting = self._asked.keys() - self._labelled
        return sorted(waiting, key=lambda name: self._asked[name], reverse=True)
