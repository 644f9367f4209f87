"""Draw the pages people read: evaluation, data contract, verdict. Each is one self-contained HTML file."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from sklearn.calibration import CalibrationDisplay
from sklearn.inspection import permutation_importance
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    PredictionErrorDisplay,
    RocCurveDisplay,
)

from core.bundle import Bundle
from core.contract import ContractReport, DataContract, encode_target
from core.gate import Verdict
from core.metrics import Estimate, Predictions, default_metric
from core.table import as_features

IMPORTANCE_ROWS, IMPORTANCE_REPEATS = 2000, 5


def evaluation_page(
    bundle: Bundle, rows: pd.DataFrame, predictions: Predictions, estimates: dict[str, Estimate]
) -> str:
    """Show metrics with intervals, the plots of the task, column importance, and the model's origin."""
    importance = column_importance(bundle, rows)
    plots = REGRESSION if predictions.task == "regression" else CLASSIFICATION
    return _page(
        "evaluation.html",
        card=bundle.card,
        rows=len(rows),
        confidence=next(iter(estimates.values())).confidence,
        estimates=estimates,
        plots=[_svg(title, draw, predictions) for title, draw in plots.items()],
        importance=importance,
        importance_metric=default_metric(predictions.task),
        importance_rows=min(len(rows), IMPORTANCE_ROWS),
        importance_repeats=IMPORTANCE_REPEATS,
        top=max([value for _, value in importance] + [1e-12]),
    )


def contract_page(name: str, report: ContractReport, contract: DataContract) -> str:
    """Show what was found in the rows and what the contract says of each column."""
    return _page("contract.html", name=name, report=report, contract=contract)


def verdict_page(name: str, verdict: Verdict) -> str:
    """Show the decision with its reasons and every condition."""
    return _page("verdict.html", name=name, verdict=verdict)


def column_importance(bundle: Bundle, rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Return (column, loss of the default metric when it is shuffled), greatest first (Breiman 2001)."""
    rows = rows.iloc[:IMPORTANCE_ROWS]
    contract = bundle.card.contract
    features = as_features(rows, contract.features)
    found = permutation_importance(
        bundle.pipeline,
        features,
        encode_target(rows[contract.target], contract),
        scoring=default_metric(contract.task),
        n_repeats=IMPORTANCE_REPEATS,
        random_state=0,
    )
    pairs = zip(features.columns, found.importances_mean, strict=True)
    return sorted(((str(n), float(v)) for n, v in pairs), key=lambda pair: -pair[1])


def _confusion(predictions: Predictions, axes: Any) -> None:
    ConfusionMatrixDisplay.from_predictions(
        predictions.truth,
        predictions.decisions,
        labels=range(len(predictions.labels)),
        display_labels=predictions.labels,
        ax=axes,
        colorbar=False,
        cmap="Blues",
    )


def _curves(display: Any, **options: Any) -> Any:
    """Return a plot of one curve for the positive class, or one a class against the rest."""

    def draw(predictions: Predictions, axes: Any) -> None:
        if predictions.task == "binary":
            display.from_predictions(predictions.truth, predictions.scores, ax=axes, **options)
            return
        for code, label in enumerate(predictions.labels):
            truth = (predictions.truth == code).astype(int)
            display.from_predictions(truth, predictions.scores[:, code], ax=axes, name=label, **options)

    return draw


def _errors(kind: str) -> Any:
    """Return a plot of predicted against actual values, or of the residuals."""

    def draw(predictions: Predictions, axes: Any) -> None:
        PredictionErrorDisplay.from_predictions(
            predictions.truth, predictions.scores, kind=kind, ax=axes, subsample=1000, random_state=0
        )

    return draw


CLASSIFICATION = {
    "Confusion": _confusion,
    "ROC": _curves(RocCurveDisplay),
    "Precision and recall": _curves(PrecisionRecallDisplay),
    "Calibration": _curves(CalibrationDisplay, n_bins=10, strategy="quantile"),
}
REGRESSION = {
    "Actual against predicted": _errors("actual_vs_predicted"),
    "Residuals": _errors("residual_vs_predicted"),
}


def _svg(title: str, draw: Any, predictions: Predictions) -> str:
    """Return one plot as inline SVG, the same bytes for the same predictions."""
    import matplotlib as mpl

    with mpl.rc_context({"backend": "agg", "svg.hashsalt": title, "svg.fonttype": "none"}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4.2), layout="constrained")
        axes = figure.subplots()
        draw(predictions, axes)
        axes.set_title(title)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def number(value: Any) -> str:
    """Write a number with as many digits as a reader can use; anything else as it is."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    templates.globals["number"] = number
    return templates


def _page(template: str, **values: Any) -> str:
    return _templates().get_template(template).render(values)
