"""Look back over all that a version answered: windows in a row, and what another model would have decided."""

import numpy as np
import pandas as pd

from loop.config import Monitoring, UserError, command
from loop.data.dtypes import plain_objects
from loop.log.records import TRUTH, read_labels, read_predictions, read_refusals
from loop.training.bundle import Bundle
from loop.watching.monitor import Window


def cut_windows(log: str, version: int, settings: Monitoring) -> list[Window]:
    """Cut what a version answered into windows of `window_rows`, oldest first, each with the labels there are by now.

    A last one of fewer than `min_rows` is left out, since nothing is judged by it; none at all is a UserError.
    """
    known = read_predictions(f"{log}/predictions")
    labels = read_labels(f"{log}/labels").set_index("prediction_id")["label"].rename(TRUTH)
    rows = plain_objects(known[known["prediction_version"] == version].join(labels, on="prediction_id"))
    if len(rows) < settings.min_rows:
        raise UserError(
            f"looking back needs {settings.min_rows:,} rows that version {version} answered, {log} holds "
            f"{len(rows):,}; first: {command('--pipeline deployment')}, then send it traffic: {command('--simulate')}"
        )
    refusals, size = read_refusals(f"{log}/refusals"), settings.window_rows or len(rows)
    parts = [rows.iloc[first : first + size].reset_index(drop=True) for first in range(0, len(rows), size)]
    found = []
    for part in parts:
        meanwhile = refusals["time"].between(part["prediction_time"].iloc[0], part["prediction_time"].iloc[-1])
        answered, refused = part.drop(columns=TRUTH), refusals[meanwhile].reset_index(drop=True)
        found.append(Window(rows=answered, judged=part, refusals=refused, other_versions=0))
    return [window for window in found if len(window.rows) >= settings.min_rows]


def changed_decisions(rows: pd.DataFrame, now: Bundle, then: Bundle) -> pd.DataFrame:
    """Return the labelled rows that another model decides otherwise, the largest change of a score first.

    Columns: `now` and `then`, the decisions as labels or numbers, the target, `change` of the score, then the others.
    """
    was, would = now.predictions(rows), then.predictions(rows)
    change = np.asarray(would.scores - was.scores)
    if change.ndim == 2:
        change = change[np.arange(len(change)), would.decisions]
    decided = [np.asarray(said.labels)[said.decisions] if said.labels else said.decisions for said in (was, would)]
    target = now.card.contract.target
    found = {"now": decided[0], "then": decided[1], target: rows[target], "change": change}
    others = rows.drop(columns=[name for name in found if name in rows])
    changed: pd.DataFrame = pd.concat([pd.DataFrame(found, index=rows.index), others], axis=1)[decided[0] != decided[1]]
    return changed.sort_values("change", key=abs, ascending=False, kind="stable", ignore_index=True)
