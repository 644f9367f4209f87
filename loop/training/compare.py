"""Say how two versions of a model differ: in their recipe, their data, and on rows that neither learned from."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from loop.config import Evaluation, Recipe
from loop.training.bundle import Bundle, Card
from loop.training.gate import Group
from loop.training.metrics import (
    Estimate,
    constant_predictions,
    estimate,
    estimate_difference,
    measure,
    metric_names,
    unit,
)
from loop.training.stand_in import StandIn


class Difference(NamedTuple):
    """One fact in which two versions differ."""

    what: str
    first: str
    second: str


class Pair(NamedTuple):
    """One metric of two versions on the same rows."""

    metric: str
    unit: str
    first: Estimate
    second: Estimate
    lead: Estimate
    """How much better the second is, whatever the metric's direction."""
    constant: float


class Comparison(NamedTuple):
    """What differs between two versions of a model."""

    name: str
    versions: tuple[int, int]
    config: tuple[Difference, ...]
    data: tuple[Difference, ...]
    rows: int
    """Holdout rows that neither has learned from."""
    metrics: tuple[Pair, ...]
    note: str
    """Why there are no metrics, or how a version was represented."""
    slices: tuple[tuple[int, Group], ...]
    """Parts of the rows that a version was judged on, as its verdict holds them."""


def compare_versions(
    name: str,
    versions: tuple[int, int],
    models: tuple[Bundle | StandIn, Bundle | StandIn],
    holdout: pd.DataFrame | None,
    evaluation: Evaluation,
    costs: tuple[float, float],
    slices: tuple[tuple[int, Group], ...] = (),
) -> Comparison:
    """Compare two versions; both are measured at these costs of a false positive and a false negative."""
    cards = [model.card for model in models]
    first, second = cards
    config: tuple[Difference, ...] = ()
    data: tuple[Difference, ...] = ()
    if first is not None and second is not None:
        config = tuple(differences(settings(first.recipe), settings(second.recipe)))
        data = tuple(differences(_facts(first), _facts(second)))
    faults = [
        f"version {version} cannot be loaded ({model.fault}): what it said when it was registered is compared"
        for version, model in zip(versions, models, strict=True)
        if isinstance(model, StandIn)
    ]
    empty = Comparison(name, versions, config, data, 0, (), "", slices)
    if holdout is None or first is None or second is None:
        return empty._replace(note="; ".join([*faults, "the holdout rows are gone, so nothing can be measured"]))
    splits = second.split, first.split
    rows = holdout[np.logical_and(*(model.unseen(holdout, by) for model, by in zip(models, splits, strict=True)))]
    if first.contract.classes != second.contract.classes or first.contract.target != second.contract.target:
        return empty._replace(note="they do not name the same classes, so nothing can be measured on the same rows")
    if rows.empty:
        return empty._replace(note="; ".join([*faults, "no holdout row is unknown to both"]))
    one, other = (replace(model.predictions(rows), costs=costs) for model in models)
    names = metric_names(one.task)
    estimates = [estimate(predictions, names, evaluation) for predictions in (one, other)]
    constant = constant_predictions(other, second.prior)
    metrics = tuple(
        Pair(
            metric,
            unit(metric, other),
            estimates[0][metric],
            estimates[1][metric],
            estimate_difference(metric, other, one, evaluation),
            measure(metric, constant),
        )
        for metric in names
    )
    return empty._replace(rows=len(rows), metrics=metrics, note="; ".join(faults))


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return each value of a recipe by its dotted key; of the source what may be shown."""
    dumped = recipe.model_dump(mode="json", exclude={"name"})
    dumped["data"]["source"] = recipe.data.shown_source
    return dict(_flat(dumped))


def differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Difference]:
    """Yield what two mappings do not have in common; a dash stands for what one lacks."""
    for what in dict.fromkeys([*first, *second]):
        one, other = first.get(what), second.get(what)
        if one != other:
            yield Difference(what, "–" if one is None else str(one), "–" if other is None else str(other))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value or None if isinstance(value, dict | list) else value


def _facts(card: Card) -> dict[str, Any]:
    """Return what else made a model: rows, columns, threshold, code, packages."""
    columns = {f"column {column.name}": column.kind for column in card.contract.columns}
    environment = {f"package {package}": version for package, version in card.environment.items()}
    return {
        "training rows": f"{card.contract.rows:,} ({card.data[:12]})",
        "threshold": None if card.threshold is None else f"{card.threshold:.6g}",
        **columns,
        "code": card.code[:12],
        **environment,
    }
