"""Draw predictions as inline SVG, the same bytes for the same predictions."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from loop.training.metrics import Predictions

_INK, _SOFT, _LINE, _BLUE = "#1c2430", "#5d6b7e", "#dde3ea", "#3b6ea5"  # as in templates/page.html
_POINTS = 1000  # in a scatter plot; more hide one another
_NAMED = 10  # classes with a colour and a place in the legend; of more, one cannot tell the lines apart
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: the reader's fonts have signs that matplotlib's have not
    "text.parse_math": False,  # a label may hold dollars
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


def draw_plots(predictions: Predictions) -> dict[str, str]:
    """Return the plots of the task as SVG, by title."""
    plots = _REGRESSION if predictions.task == "regression" else _CLASSIFICATION
    return {title: _svg(title, draw, predictions) for title, draw in plots.items()}


def _svg(title: str, draw: Callable[[Any, Predictions], None], predictions: Predictions) -> str:
    import matplotlib as mpl

    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # the reader's browser draws it
        from matplotlib.figure import Figure

        figure, file = Figure(figsize=(4.6, 3.8), layout="constrained"), io.StringIO()
        draw(figure.subplots(), predictions)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    svg = re.sub(r' id="\w+_\d+"', "", file.getvalue())  # these would stand on the page once a plot
    return svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _confusion(axes: Any, predictions: Predictions) -> None:
    codes = range(len(predictions.labels))
    counts = confusion_matrix(predictions.truth, predictions.decisions, labels=list(codes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.pcolormesh(codes, codes, shares, cmap="Blues", vmin=0, vmax=1.8)  # never so dark that ink is lost
    axes.invert_yaxis()
    if len(codes) <= 2 * _NAMED:
        for (actual, decided), count in np.ndenumerate(counts):
            if count:
                axes.text(decided, actual, f"{count:,}", ha="center", va="center", color=_INK)
        names = [_short(label) for label in predictions.labels]
        axes.set_xticks(codes, names, rotation=90 if len("".join(names)) > 45 else 0)
        axes.set_yticks(codes, names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="actual")


def _curves(axes: Any, predictions: Predictions) -> Iterator[tuple[npt.NDArray[Any], Any, dict[str, Any]]]:
    """Yield truth 0/1, scores and line style of the positive class, or of each class against the rest."""
    styles: list[dict[str, Any]] = [{"color": _BLUE, "alpha": 0.5} for _ in predictions.labels]
    if predictions.task == "binary":
        lines = [(predictions.truth, predictions.scores, {"color": _BLUE})]
    else:
        if len(styles) <= _NAMED:
            styles = [{"color": f"C{i}", "label": _short(name)} for i, name in enumerate(predictions.labels)]
        of_class = [(predictions.truth == code).astype(int) for code in range(len(styles))]
        lines = list(zip(of_class, predictions.scores.T, styles, strict=True))
    drawn = [line for line in lines if 0 < line[0].mean() < 1]
    yield from drawn
    if not drawn:
        axes.text(0.5, 0.5, "needs rows of two classes", ha="center", color=_SOFT)
    elif "label" in drawn[0][2]:
        axes.legend()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _roc(axes: Any, predictions: Predictions) -> None:
    axes.plot([0, 1], [0, 1], color=_LINE)
    for truth, scores, style in _curves(axes, predictions):
        false_positives, true_positives, _ = roc_curve(truth, scores)
        axes.plot(false_positives, true_positives, **style)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")


def _precision_recall(axes: Any, predictions: Predictions) -> None:
    for truth, scores, style in _curves(axes, predictions):
        precision, recall, _ = precision_recall_curve(truth, scores)
        axes.plot(recall, precision, drawstyle="steps-post", **style)
    axes.set(xlabel="recall", ylabel="precision")


def _calibration(axes: Any, predictions: Predictions) -> None:
    axes.plot([0, 1], [0, 1], color=_LINE)
    for truth, scores, style in _curves(axes, predictions):
        observed, predicted = calibration_curve(truth, np.clip(scores, 0, 1), strategy="quantile", n_bins=10)
        axes.plot(predicted, observed, marker="o", **style)
    axes.set(xlabel="predicted probability, in tenths of the rows", ylabel="share that came true")


def _actual(axes: Any, predictions: Predictions) -> None:
    said, truth = _points(predictions)
    ends = [min(said.min(), truth.min()), max(said.max(), truth.max())]
    axes.plot(ends, ends, color=_LINE)
    axes.scatter(said, truth, s=9, color=_BLUE, alpha=0.5, linewidths=0)
    axes.locator_params(nbins=6)
    axes.set(xlabel="predicted", ylabel="actual")


def _residuals(axes: Any, predictions: Predictions) -> None:
    said, truth = _points(predictions)
    axes.axhline(0, color=_LINE)
    axes.scatter(said, truth - said, s=9, color=_BLUE, alpha=0.5, linewidths=0)
    axes.locator_params(nbins=6)
    axes.set(xlabel="predicted", ylabel="actual − predicted")


def _points(predictions: Predictions) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    picked = np.random.default_rng(0).permutation(len(predictions.truth))[:_POINTS]
    return predictions.scores[picked], predictions.truth[picked]


def _short(label: str) -> str:
    """Shorten a label; a leading underscore would keep it out of the legend."""
    label = label if len(label) <= 16 else label[:15] + "…"
    return f" {label}" if label.startswith("_") else label


_CLASSIFICATION = {
    "Confusion": _confusion,
    "ROC": _roc,
    "Precision and recall": _precision_recall,
    "Calibration": _calibration,
}
_REGRESSION = {"Actual against predicted": _actual, "Residuals": _residuals}
