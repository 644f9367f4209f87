"""Find an earlier champion that knows the world which has come back, before another one is trained."""

from collections.abc import Mapping

import pandas as pd

from loop.config import Evaluation, Gate
from loop.training.bundle import Bundle
from loop.training.metrics import (
    Estimate,
    check_metric,
    default_metric,
    estimate,
    estimate_difference,
    greater_is_better,
)


def choose_champion(
    champion: Bundle,
    earlier: Mapping[int, tuple[Bundle, dict[str, Estimate]]],
    rows: pd.DataFrame,
    gate: Gate,
    evaluation: Evaluation,
) -> int | None:
    """Return the version that does best on new labelled rows, if one is ahead of the champion and as good as ever.

    Ahead means beyond doubt, by its whole interval; as good as ever, that its interval reaches the one on its own
    holdout: one that is merely less wrong than the champion is no reason not to train. `earlier` holds each version
    with the metrics of its own holdout. The gate does not judge by these rows, so choosing among several costs it no
    level.
    """
    task, classes = champion.card.contract.task, champion.card.contract.classes
    metric, found = check_metric(gate.metric or default_metric(task), task, "gate.metric"), dict[int, float]()
    if len(rows) < gate.min_rows:
        return None
    old = champion.predictions(rows)
    for version, (model, before) in earlier.items():
        if (model.card.contract.task, model.card.contract.classes) != (task, classes) or metric not in before:
            continue
        new = model.predictions(rows)
        lead, now = estimate_difference(metric, new, old, evaluation), estimate(new, [metric], evaluation)[metric]
        as_good = now.high >= before[metric].low if greater_is_better(metric) else now.low <= before[metric].high
        if lead.low > 0 and as_good:
            found[version] = lead.value
    return max(found, key=lambda version: found[version], default=None)
