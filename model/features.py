"""Columns that are derived from a row, and how columns become numbers.

Both are part of the fitted model: training, service, batches and monitoring do the same with a row.
"""

from collections.abc import Mapping

import pandas as pd
from sklearn.compose import ColumnTransformer

from loop.config import Kind
from loop.training.features import preprocessing


def derive(rows: pd.DataFrame) -> pd.DataFrame:
    """Return columns to learn from besides those that clients send, each computed from its own row alone.

    Numbers and truth values come as floats, times as datetimes, categories as strings; any may be missing. It is asked
    for every use case, so one that is for some asks for its columns:

        if {"amount", "months"} <= {*rows}:
            return pd.DataFrame({"per_month": rows["amount"] / rows["months"]})
    """
    return pd.DataFrame(index=rows.index)


def prepare(columns: Mapping[str, Kind]) -> ColumnTransformer:
    """Return the unfitted transformer that makes numbers of these columns, derived ones included, of these kinds."""
    return preprocessing(columns)
