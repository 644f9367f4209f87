"""Say which rows depend on one another, so that intervals draw them together and count what they are worth."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Data
from loop.data.table import as_kind, exact_hashes, row_hashes

Groups = npt.NDArray[np.intp]
"""(n,): which group each row belongs to, from 0."""

STRETCHES = 30
"""Stretches of time that rows are cut into, at least; of many rows it is the root of their number, so that both the
stretches and the rows of each grow (Politis & Romano 1994, J. Amer. Statist. Assoc. 89:1303)."""


def groups_of(rows: pd.DataFrame, data: Data, features: Sequence[str]) -> Groups | None:
    """Return which rows belong together, or None where each stands alone.

    Rows of one `data.group`, else of one `data.id`, else of one stretch of `data.time`, else those that are alike in
    all features, where most rows are not: of a few contents, as in a survey, being alike says nothing.
    """
    named = list(data.group or data.id)
    if named and {*named} <= {*rows.columns}:
        found = _numbered(row_hashes(rows, named), rows[named].isna().any(axis=1).to_numpy())
        if found is not None or data.group:
            return found
    if data.time is not None and data.time in rows.columns:
        return _stretches(as_kind(rows[data.time], "datetime"))
    if named:
        return None
    columns = [name for name in features if name in rows.columns]
    hashes = exact_hashes(rows, columns)
    return _numbered(hashes, np.zeros(len(rows), bool)) if 2 * len(np.unique(hashes)) >= len(rows) else None


def design_effect(values: npt.NDArray[Any], groups: Groups | None) -> float:
    """Return by how much dependence within groups widens the variance of the mean of values (n,): 1 where it does not.

    Kish (1965); a group of equal values counts as one row, and no group counts as less than one.
    """
    if groups is None:
        return 1.0
    off = values - values.mean()
    total = float(off @ off)
    counts = np.bincount(groups)
    if not total > 0:
        return float((counts**2).sum() / counts.sum())
    within = float((np.bincount(groups, off) ** 2).sum()) / total
    return float(np.clip(within, 1.0, (counts**2).sum() / counts.sum()))


def groups_worth(groups: Groups) -> float:
    """Return how many groups of one size say as much as these do."""
    sizes = np.bincount(groups)
    return float(len(groups) ** 2 / (sizes**2).sum())


def _numbered(hashes: npt.NDArray[np.uint64], alone: npt.NDArray[np.bool_]) -> Groups | None:
    codes = pd.factorize(hashes)[0]
    codes[alone] = len(codes) + np.arange(int(alone.sum()))  # an id that is missing says nothing of who it is
    codes, groups = pd.factorize(codes)
    return None if len(groups) == len(codes) else codes.astype(np.intp)


def _stretches(times: pd.Series) -> Groups | None:
    """Cut rows in the order of time into stretches of as many rows; one without a time stands alone."""
    known = times.notna().to_numpy()
    n = int(known.sum())
    length = n // max(STRETCHES, math.isqrt(n))
    if length < 2:
        return None
    order = np.argsort(times[known].to_numpy(), kind="stable")
    places = np.empty(n, np.intp)
    places[order] = np.arange(n) // length
    found = np.empty(len(times), np.intp)
    found[known] = places
    found[~known] = places.max() + 1 + np.arange(len(times) - n)
    return found
