"""Let Evidently draw what changed, for people; nothing is decided by it."""

import warnings
from collections.abc import Sequence
from typing import Annotated

import pandas as pd
from zenml import step
from zenml.types import HTMLString

from loop.config import Kind, Monitoring
from loop.data.table import as_features
from loop.registry.materializers import Page
from loop.training.bundle import Bundle
from loop.watching.drift import ColumnDrift
from loop.watching.monitor import WindowReport

COLUMNS = 50
"""Columns drawn at most: each takes a tenth of a second and 50 KB."""


@step(enable_cache=False, output_materializers=Page)
def draw_drift(
    promoted_model: Bundle,
    check_rows: pd.DataFrame,
    window_rows: pd.DataFrame,
    window_report: WindowReport,
    settings: Monitoring,
) -> Annotated[HTMLString, "drift_report"]:
    """Return Evidently's interactive report of the window beside holdout rows, each as a sample."""
    wanted = settings.report == "always" or (settings.report == "alarm" and window_report.alarms)
    if not wanted or not window_report.enough:
        why = "monitoring.report" if window_report.enough else "there were too few rows"
        return HTMLString(f"<p>Not drawn: {why}.</p>")
    columns = drawn_columns(window_report.columns)
    features = {name: kind for name, kind in promoted_model.card.contract.features.items() if name in columns}
    window, reference = (_as_text(_sample(side, settings.report_rows), features) for side in (window_rows, check_rows))
    features = {_text(name): kind for name, kind in features.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Evidently and what it imports use much that is deprecated elsewhere
        html = _draw(window, reference, features)
    present = sum(column.rows > 0 for column in window_report.columns)
    note = f"<p>Of {present:,} columns, the {len(columns)} that moved most.</p>" if present > len(columns) else ""
    return HTMLString(html.replace("<body>", f"<body>{note}", 1))


def drawn_columns(drifts: Sequence[ColumnDrift]) -> set[str]:
    """Return the columns to draw: all that have values or, of many, those that moved most."""
    present = [drift for drift in drifts if drift.rows]
    present.sort(key=lambda drift: (not (drift.drifted or drift.missing_drifted), -(drift.psi or 0)))
    return {drift.name for drift in present[:COLUMNS]}


def _draw(window: pd.DataFrame, reference: pd.DataFrame, features: dict[str, Kind]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    kinds = {
        "numerical_columns": [name for name, kind in features.items() if kind == "numeric"],
        "categorical_columns": [name for name, kind in features.items() if kind in ("categorical", "boolean")],
        "datetime_columns": [name for name, kind in features.items() if kind == "datetime"],
    }
    drawn = [name for names in kinds.values() for name in names if reference[name].notna().any()]
    definition = DataDefinition(**{kind: [n for n in names if n in drawn] for kind, names in kinds.items()})
    datasets = [Dataset.from_pandas(side[drawn], definition) for side in (window, reference)]
    tested = [name for name in drawn if features[name] != "datetime"]
    report = Report([DataDriftPreset(columns=tested), DataSummaryPreset()])
    html: str = report.run(*datasets).get_html_str(as_iframe=False)
    return html


def _as_text(rows: pd.DataFrame, features: dict[str, Kind]) -> pd.DataFrame:
    """Return features as Evidently bears them.

    It puts names and values into a script as they are, and Plotly takes tags: so there are none. Truth values are
    words, since it refuses them as numbers.
    """
    found = as_features(rows, features)
    for name, kind in features.items():
        if kind == "boolean":
            found[name] = found[name].map({0.0: "false", 1.0: "true"})
    return found.replace("<", "‹", regex=True).rename(columns=_text)


def _text(name: str) -> str:
    return name.replace("<", "‹")


def _sample(rows: pd.DataFrame, size: int) -> pd.DataFrame:
    return rows.sample(size, random_state=0).sort_index() if len(rows) > size else rows
