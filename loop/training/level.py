"""Spend the gate's level over repeated looks at a holdout, so that many tries do not let one through by chance.

The k-th model that is judged on the same rows gets 1 / (k (k + 1)) of the level: a half, a sixth, a twelfth, …, which
sum to one (alpha spending). Earlier models that passed do not count, since a right promotion spends nothing: of the
models that are worse than the margin, the j-th is at least the j-th look, whatever came between, so by Bonferroni all
of them together are promoted in at most the level (the fallback procedure, Wiens 2003; online: Tian & Ramdas 2021).
An earlier look counts by the share of today's rows that it saw, so new rows bring new level.

That holds for challengers which were not made from the holdout's own labels; against those no level helps.
"""

import math
from collections.abc import Sequence

import pandas as pd

from loop.config import Evaluation
from loop.training.stand_in import StandIn

BEYOND = 10
"""Resamples that are to lie beyond a bound, on average."""
MOST = 10_000
"""Resamples at most: from the seventh look on fewer lie beyond, and each look costs 1 / MOST more than its share."""


def look_at(rows: pd.DataFrame, earlier: Sequence[StandIn]) -> float:
    """Return which look at these rows comes next: 1 at rows that no earlier model was judged on and did not pass."""
    return 1 + sum(float(record.holds(rows).mean()) for record in earlier) if len(rows) else 1.0


def spend(evaluation: Evaluation, look: float) -> Evaluation:
    """Return the evaluation at the share of its level that a look gets, with the resamples that this asks for."""
    tail = (1 - evaluation.confidence) / (look * (look + 1))
    resamples = max(evaluation.resamples, min(math.ceil(BEYOND / tail), MOST))
    return evaluation.model_copy(update={"confidence": 1 - tail, "resamples": resamples})


def look_sentence(look: float, rows: int, evaluation: Evaluation) -> str:
    """Say how much of the level is left for a look."""
    level = 100 * spend(evaluation, look).confidence
    return (
        f"look {look:.3g} at these {rows:,} holdout rows, after models that did not pass: judged at one-sided "
        f"{level:.6g} %; new rows bring new level"
    )
