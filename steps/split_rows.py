"""Hold rows out of training, for good."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Data, Split
from loop.data.notes import Reading
from loop.data.split import SplitRule, check_sides, resolve
from loop.data.table import infer_task
from loop.registry.materializers import Table


@step(output_materializers={"train_rows": Table, "holdout_rows": Table})
def split_rows(
    rows: pd.DataFrame, reading: Reading, data: Data, split: Split
) -> tuple[
    Annotated[pd.DataFrame, "train_rows"],
    Annotated[pd.DataFrame, "holdout_rows"],
    Annotated[SplitRule, "split_rule"],
]:
    """Send each row to the side that its identity or its time decides, now and in every later run."""
    rule = resolve(rows, data, split, reading)
    held_out = rule.held_out(rows)
    task = infer_task(rows[data.target], data.task, data.kinds.get(data.target))
    check_sides(rows[data.target], held_out, task)
    return rows[~held_out].reset_index(drop=True), rows[held_out].reset_index(drop=True), rule
