"""Draw the pages people read: evaluation, data contract, verdict, deployment. Each is one self-contained HTML file."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.data.checks import ContractReport
from loop.data.contract import Column, DataContract
from loop.training.bundle import Bundle
from loop.training.compiled.preparation import read_parts, sources
from loop.training.compiled.spec import NotCompilable
from loop.training.gate import Condition, Verdict
from loop.training.metrics import Estimate, Predictions, constant_predictions, default_metric, measure, narrow, unit

IMPORTANCE_ROWS, IMPORTANCE_REPEATS = 2000, 5
IMPORTANCE_COLUMNS = 50
"""Columns shuffled one by one; each costs five predictions of a matrix that is as wide as the table."""
_CELLS = 10_000_000  # of a matrix that the estimator scores in one call: 80 MB
_FIRST_LOOKS = 500_000_000  # cells to score for a first look at all columns: 3,000 numbers on 50 rows
_ENTRIES = 50  # of the log of decisions, on one page
_CATEGORIES = 8  # named in the contract's table; the JSON holds them all


def evaluation_page(
    bundle: Bundle, rows: pd.DataFrame, predictions: Predictions, estimates: dict[str, Estimate]
) -> str:
    """Show metrics with intervals, the plots of the task, column importance, and the model's origin."""
    from loop.pages.plots import draw_plots  # with scikit-learn, which other pages do without

    constant = constant_predictions(predictions, bundle.card.prior)
    return _page(
        "evaluation.html",
        card=bundle.card,
        estimator=type(bundle.pipeline[-1]).__name__,
        rows=len(rows),
        estimates=estimates,
        constant={name: measure(name, constant) for name in estimates},
        units={name: unit(name, predictions) for name in estimates},
        narrow=narrow(predictions),
        plots=draw_plots(predictions),
        importance=column_importance(bundle, rows, predictions),
        importance_metric=default_metric(predictions.task),
        importance_repeats=IMPORTANCE_REPEATS,
    )


def contract_page(name: str, report: ContractReport, contract: DataContract) -> str:
    """Show what was found in the rows and what the contract says of each column."""
    return _page("contract.html", name=name, report=report, contract=contract)


def verdict_page(name: str, verdict: Verdict) -> str:
    """Show the decision with its reasons and every condition."""
    return _page("verdict.html", name=name, verdict=verdict)


def compare_page(comparison: Any) -> str:
    """Show how two versions differ; `comparison` is a `loop.training.compare.Comparison`."""
    return _page("compare.html", c=comparison)


def deployment_page(deployment: Any) -> str:
    """Show what serves, and what it showed before it got traffic; `deployment` is the deployment step's result."""
    return _page("deployment.html", d=deployment)


def window_page(report: Any, settings: Any) -> str:
    """Show what was found in a window of traffic; `report` is a `loop.watching.monitor.WindowReport`."""
    return _page("window.html", r=report, s=settings)


def decision_page(name: str, decision: Any, entries: Sequence[Any]) -> str:
    """Show what was decided after a window and after those before it; `decision` is a `watching.policy.Decision`."""
    return _page("decision.html", name=name, d=decision, entries=list(entries)[-_ENTRIES:][::-1])


class Importance(NamedTuple):
    """Say what the default metric loses when a column is shuffled (Breiman 2001)."""

    losses: list[tuple[str, float]]
    """Column and loss, greatest first; nothing where the metric is undefined on these rows."""
    rows: int
    columns: int
    """All of the model's; where there are more than `IMPORTANCE_COLUMNS`, those are shuffled that moved the scores most
    when shuffled on a few rows."""
    first_rows: int
    """So many; 0 where every column was shuffled."""


def column_importance(bundle: Bundle, rows: pd.DataFrame, predictions: Predictions) -> Importance:
    """Return which columns the model looks at, on a sample of the rows and of wide tables the columns that matter."""
    metric, random = default_metric(predictions.task), np.random.default_rng(0)
    contract = bundle.card.contract
    names = list(contract.features)
    try:
        owners = sources(read_parts(bundle.pipeline, contract))
    except NotCompilable:  # of a preparation that is not understood, rows are shuffled and prepared again
        owners = ()
    parts: dict[str, list[int]] = {name: [] for name in names}
    for place, owner in enumerate(owners):
        parts[names[owner]].append(place)
    sample = _sample(predictions, min(IMPORTANCE_ROWS, max(_CELLS // len(owners or names), 2)))
    predictions, rows = predictions.take(sample), rows.iloc[sample]
    whole = measure(metric, predictions)
    if math.isnan(whole):
        return Importance([], len(sample), len(names), 0)
    matrix = bundle.prepare(rows)
    first_rows = 0
    if len(names) > IMPORTANCE_COLUMNS:
        first_rows = min(len(matrix), max(_FIRST_LOOKS // (len(names) * matrix.shape[1]), 10))
        places = np.linspace(0, len(matrix) - 1, first_rows).astype(int)
        moved = (
            _movements(bundle, matrix[places], parts, random)
            if owners
            else _row_movements(bundle, rows.iloc[places], names, random)
        )
        names = sorted(names, key=lambda name: -moved[name])[:IMPORTANCE_COLUMNS]
    losses = {}
    for name in names:
        scores = []
        for _ in range(IMPORTANCE_REPEATS):
            order = random.permutation(len(rows))
            scores.append(
                _without(bundle, matrix, parts[name], order) if owners else _shuffled(bundle, rows, name, order)
            )
        left = [measure(metric, replace(predictions, scores=each)) for each in scores]
        losses[name] = whole - float(np.mean(left))
    return Importance(sorted(losses.items(), key=lambda loss: -loss[1]), len(sample), len(parts), first_rows)


def _without(
    bundle: Bundle, matrix: npt.NDArray[np.float64], part: list[int], order: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return the scores without a column, of rows prepared once: it decides its own part of the matrix alone."""
    before = matrix[:, part]
    matrix[:, part] = before[order]
    scores = bundle.estimate(matrix)
    matrix[:, part] = before
    return scores


def _shuffled(bundle: Bundle, rows: pd.DataFrame, name: str, order: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Return the scores of rows whose values in a column stand in another order."""
    return bundle.scores(rows.assign(**{name: rows[name].to_numpy()[order]}))


def _row_movements(
    bundle: Bundle, rows: pd.DataFrame, names: Sequence[str], random: np.random.Generator
) -> dict[str, float]:
    """Return how far the scores move when each column is shuffled."""
    known, order = bundle.scores(rows), random.permutation(len(rows))
    return {name: float(np.abs(_shuffled(bundle, rows, name, order) - known).sum()) for name in names}


def _movements(
    bundle: Bundle,
    matrix: npt.NDArray[np.float64],
    parts: dict[str, list[int]],
    random: np.random.Generator,
) -> dict[str, float]:
    """Return how far the scores move when each part of the matrix is shuffled; one call scores many parts."""
    known, moved = bundle.estimate(matrix), {}
    ordered, size = list(parts), max(_CELLS // matrix.size, 1)
    for start in range(0, len(ordered), size):
        names = ordered[start : start + size]
        copies = np.tile(matrix, (len(names), 1, 1))
        for copy, name in zip(copies, names, strict=True):
            copy[:, parts[name]] = matrix[random.permutation(len(matrix))][:, parts[name]]
        scores = bundle.estimate(copies.reshape(-1, matrix.shape[1]))
        for name, found in zip(names, np.split(scores, len(names)), strict=True):
            moved[name] = float(np.abs(found - known).sum())
    return moved


def _sample(predictions: Predictions, size: int) -> npt.NDArray[np.intp]:
    """Return rows for shuffling; if binary as many of each class, since ROC AUC does not mind their mix."""
    order = np.random.default_rng(0).permutation(len(predictions.truth))
    if predictions.task != "binary":
        return order[:size]
    classes = [order[predictions.truth[order] == code] for code in (0, 1)]
    return np.concatenate([rows[: size // 2] for rows in classes])


def number(value: float) -> str:
    """Write a number with as many digits as a reader can use; an undefined one is a dash."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:#.4g}"


def _extent(column: Column) -> str:
    """Say in one line what values a column held."""
    if column.kind == "categorical":
        pairs = sorted(zip(column.categories, column.shares, strict=True), key=lambda pair: -pair[1])
        shown = ", ".join(f"{name} {share:.0%}" for name, share in pairs[:_CATEGORIES])
        more = len(pairs) - _CATEGORIES
        return f"{shown} and {more} more" if more > 0 else shown
    if column.kind == "boolean":
        return f"true {column.mean:.0%}"
    low, high = column.minimum, column.maximum
    if isinstance(low, str) or isinstance(high, str):
        return f"{_moment(low)} to {_moment(high)}"
    return " ".join([number(low or 0), "to", number(high or 0)])


def _moment(text: Any) -> str:
    """Shorten ISO 8601: no midnight, a space for the T."""
    return str(text).removesuffix("T00:00:00").replace("T", " ")


def _places(found: Condition | Estimate) -> dict[str, float] | None:
    """Place low, value, high and bound, else zero, on a scale from 0 to 100; None if one of them is undefined."""
    values = {name: float(getattr(found, name, 0)) for name in ("low", "value", "high", "bound")}
    if not all(map(math.isfinite, values.values())):
        return None
    start, span = min(values.values()), np.ptp(list(values.values())) or 1.0
    return {name: round(5 + 90 * (value - start) / span, 1) for name, value in values.items()}


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.globals |= {"number": number, "extent": _extent, "places": _places}
    return templates


def _page(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)
