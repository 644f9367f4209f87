"""Measure what a window of inputs costs to examine: `python -m benchmarks.drift_cost`.

Each figure is of a process of its own, once warm, on one core. `numpy` computes the same statistics of each column with
nothing around them; `columns` holds the rows to the contract and compares the columns; `examine` is all that monitoring
does without labels, with its classifier; `Evidently` is the drift preset as it comes.
"""

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
from scipy.stats import chi2

from benchmarks.drift import evidently, inputs, logged
from loop import config
from loop.config import Recipe
from loop.data.checks import check_rows
from loop.data.contract import Column, learn_contract
from loop.data.split import resolve
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.watching.drift import column_drifts
from loop.watching.monitor import Window, examine

SIZES = (10_000, 100_000, 1_000_000)
SMALL = {"params": {"max_iter": 20}, "folds": 2}


def _floor(rows: pd.DataFrame, columns: Sequence[Column], n: int) -> list[tuple[float, float]]:
    """Compute chi-square and PSI of each column with nothing around them."""
    found = []
    for column in columns:
        if column.kind == "categorical":
            now = rows[column.name].value_counts().reindex(list(column.categories), fill_value=0).to_numpy()
        else:
            values = rows[column.name].to_numpy()
            values = values[~np.isnan(values)]
            now = np.bincount(np.searchsorted(column.edges, values), minlength=len(column.shares))
        before = np.round(np.array(column.shares) * n * (1 - column.missing))
        p, q = (now + 0.5) / (now + 0.5).sum(), (before + 0.5) / (before + 0.5).sum()
        statistic = now.sum() * before.sum() * ((p - q) ** 2 / (now + before + 1)).sum()
        found.append((float(((p - q) * np.log(p / q)).sum()), float(chi2.sf(statistic, len(now) - 1))))
    return found


def _columns(rows: pd.DataFrame, bundle: Bundle, settings: config.Config) -> None:
    contract = bundle.card.contract
    check_rows(rows[list(contract.features)], contract, settings.contract)
    column_drifts(rows, contract.columns, 5000, settings.monitoring)


@dataclass(frozen=True)
class Cost:
    """Look at one window of inputs, in a process of its own."""

    rows: int
    by: Literal["numpy", "columns", "examine", "Evidently"]

    def __call__(self) -> tuple[float, float]:
        """Return seconds, once warm, and MB of memory above what the rows take."""
        random = np.random.default_rng(0)
        reference, holdout = (inputs(5000, random).assign(y=np.arange(5000) % 2) for _ in range(2))
        rows = pd.concat([inputs(min(self.rows, 50_000), random)] * max(1, self.rows // 50_000), ignore_index=True)
        recipe = Recipe.model_validate({"name": "cost", "data": {"source": "made", "target": "y"}, "model": SMALL})
        rule = resolve(reference, recipe.data, recipe.split)
        bundle = train(reference, learn_contract(reference, recipe.data, recipe.contract), rule, recipe)
        columns, settings = bundle.card.contract.columns, config.Config.model_validate(recipe.model_dump())
        window = logged(rows.assign(y=None), bundle)
        work: Callable[[Window], Any] = {
            "examine": lambda window: examine(window, bundle, 1, holdout, {}, settings),
            "numpy": lambda window: _floor(window.rows, columns, 5000),
            "columns": lambda window: _columns(window.rows, bundle, settings),
            "Evidently": lambda window: evidently(window.rows[rows.columns], reference[rows.columns]),
        }[self.by]
        few = Window(window.rows[:1000], window.judged[:1000], window.refusals, 0)
        work(few)
        ctypes.CDLL(None).malloc_trim(0)  # what making the rows left free would hide what the work takes (glibc)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the peak up to now (Linux)
        before, begun = _memory("VmRSS"), time.perf_counter()
        work(window)
        return time.perf_counter() - begun, _memory("VmHWM") - before


def _memory(of: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if of in line)
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print seconds and memory, the rows' own not counted."""
    for rows in SIZES:
        for by in ("numpy", "columns", "examine", "Evidently"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                seconds, memory = pool.submit(Cost(rows, by)).result()
            print(f"{rows:9,} rows {by:10} {seconds:8.3f} s {memory:7,.0f} MB", flush=True)


if __name__ == "__main__":
    main()
