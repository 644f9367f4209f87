"""Read labels as businesses have them, a table by their own ids, and put them on record."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from loop.config import Data, UserError
from loop.data.contract import DataContract
from loop.data.sources import find_options, read_rows
from loop.data.table import as_text
from loop.log.records import RecordWriter, in_audit, label_lines, read_labels, read_predictions

_AT_ONCE = 10_000  # labels of one append, some half a megabyte


def read_label_table(path: Path, data: Data, contract: DataContract) -> tuple[list[str], list[list[str]]]:
    """Return names and cells of a file of labels, read as the model's table is; '' is a missing value."""
    if not path.exists():
        raise UserError(f"no file '{path}' of labels")
    target = Data(source=str(path), target=data.target, options=data.options)
    found = target.model_copy(update={"options": {**data.options, **find_options(target)}})
    table = read_rows(found, labelled=False, contract=contract).astype(object)
    texts = table.map(as_text).where(table.notna(), "")
    return list(map(str, texts.columns)), texts.to_numpy().tolist()


def audit_table(log: str, ids: Sequence[str], share: float) -> tuple[pd.DataFrame, int]:
    """Return the predictions of the audit sample without a label, oldest first, and how many have one.

    Columns: `prediction_id`, when it was answered, of which row it is by its own `ids`, and `label`, to be filled in.
    """
    rows = read_predictions(f"{log}/predictions")
    rows = rows[in_audit(rows["prediction_id"], share)]
    is_open = ~rows["prediction_id"].isin(read_labels(f"{log}/labels")["prediction_id"])
    asked = rows[is_open]
    known = [name for name in ids if name in asked]
    rows_of = asked[known].to_numpy(object)  # as many as there are, also where no id is known
    of = [", ".join(f"{name} {as_text(value)}" for name, value in zip(known, row, strict=True)) for row in rows_of]
    columns = {"prediction_id": asked["prediction_id"], "time": asked["prediction_time"], "of": of, "label": ""}
    return pd.DataFrame(columns), int((~is_open).sum())


def write_labels(log: str, model: str, pairs: Sequence[tuple[str, Any]]) -> None:
    """Append labels to the log of a model, as its server does."""
    writer = RecordWriter(Path(log) / "labels", {"kind": "labels", "model": model})
    try:
        for first in range(0, len(pairs), _AT_ONCE):
            now = datetime.now(UTC)
            writer.append(label_lines(pairs[first : first + _AT_ONCE], now), now)
    finally:
        writer.close()
