"""Measure what reading a table costs, beside what pandas alone takes: `python -m benchmarks.reading`.

Each figure is of a process of its own: seconds, and memory beyond what was there before, in sizes of the frame.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from loop.config import Data
from loop.data.sources import read_rows


def write(folder: Path, rows: int) -> None:
    """Write 30 columns, 24 of them fractions with all their digits, as CSV and Parquet."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(rows, 24)), columns=[f"x{place}" for place in range(24)])
    for place in range(3):
        table[f"c{place}"] = random.choice(["alpha", "beta", "gamma"], rows)
    table["n"], table["b"] = random.integers(0, 1000, rows), random.random(rows) > 0.5
    table["y"] = (table["x0"] > 0).astype(int)
    table.to_csv(folder / "t.csv", index=False)
    table.to_parquet(folder / "t.parquet")


def measured(read: Callable[[str], pd.DataFrame], path: str) -> tuple[float, float]:
    """Return the seconds, and the most memory in sizes of the frame, that a reading took."""
    before, start = _peak(), time.perf_counter()
    table = read(path)
    seconds = time.perf_counter() - start
    return seconds, (_peak() - before) / table.memory_usage(deep=True).sum()


def theirs(ending: str, path: str) -> pd.DataFrame:
    """Read as pandas does by itself."""
    table: pd.DataFrame = pd.read_csv(path) if ending == "csv" else pd.read_parquet(path)
    return table


def ours(path: str) -> pd.DataFrame:
    """Read as a pipeline does."""
    return read_rows(Data(source=path, target="y"))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print a line for each format."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    rows = arguments.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), rows)
        print(f"{rows:,} rows x 30 columns; seconds, and memory in frames")
        for ending in ("csv", "parquet"):
            path, found = f"{folder}/t.{ending}", []
            for read in (partial(theirs, ending), ours):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                    found.append(alone.submit(measured, read, path).result())
            (seconds, _), (our_seconds, memory) = found
            times = f"pandas {seconds:.1f} s, ours {our_seconds:.1f} s = {our_seconds / seconds:.2f} x"
            print(f"{ending:<8} {times}, {memory:.1f} frames")


if __name__ == "__main__":
    main()
