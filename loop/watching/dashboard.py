"""Generate the Grafana dashboard: `python -m loop.watching.dashboard` writes dashboard.json.

The builders are Grafana's own, so mypy knows a misspelt option; that each query finds something is tested on a real
Prometheus.
"""

import json
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import stat, timeseries
from grafana_foundation_sdk.builders.common import GraphThresholdsStyleConfig, ReduceDataOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, QueryVariable, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, BigValueTextMode, GraphThresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)

from loop.config import ROOT

FILE = ROOT / "monitoring/dashboard.json"
PROMETHEUS = DataSourceRef("prometheus", "prometheus")  # as provisioned in grafana/datasource.yaml


@dataclass(frozen=True)
class Panel:
    """One question and the query that answers it."""

    title: str
    query: str
    legend: str
    unit: str = "short"
    kind: Literal["over time", "now"] = "over time"
    width: int = 8
    """Of 24."""
    red_from: float | None = None
    """Where a reader should look twice."""


def _requests(*matchers: str) -> str:
    posts = 'model=~"$model"', 'path=~"/predict.*|/invocations|/feedback|/explain"'
    return f"rate(serving_requests_total{{{', '.join((*posts, *matchers))}}}[5m])"


PANELS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel("Serving", 'max by (model, version, release) (serving_model_info{model=~"$model"})',
              "{{model}} {{release}}", kind="now"),
        Panel("Alerts that fire", 'count by (alertname, model) (ALERTS{alertstate="firing", model=~"$model"})',
              "{{alertname}} {{model}}", kind="now", red_from=1),
        Panel("Since monitoring ran",
              'time() - max by (model) (monitoring_last_run_timestamp_seconds{model=~"$model"})',
              "{{model}}", "s", kind="now", width=4, red_from=3 * 3600),
        Panel("Retraining is due", 'max by (model) (monitoring_retraining_due{model=~"$model"})',
              "{{model}}", kind="now", width=4, red_from=1),
    ),
    "Traffic": (
        Panel("Requests by answer", f"sum by (model, status) ({_requests()}) > 0", "{{model}} {{status}}", "reqps"),
        Panel("Share of requests that fail", 'model:serving_errors:ratio5m{model=~"$model"}', "{{model}}",
              "percentunit", red_from=0.05),
        Panel("Share of requests refused", 'model:serving_refused:ratio5m{model=~"$model"}', "{{model}}",
              "percentunit"),
        Panel("Latency, median", 'model:serving_request_seconds:p50_5m{model=~"$model"}', "{{model}}", "s"),
        Panel("Latency, 99th percentile", 'model:serving_request_seconds:p99_5m{model=~"$model"}', "{{model}}", "s"),
        Panel("Rows", 'sum by (model) (rate(serving_batch_rows_sum{model=~"$model"}[5m]))', "{{model}}", "cps"),
        Panel("Outside the contract, by field",
              'sum by (model, field) (rate(serving_out_of_contract_total{model=~"$model"}[5m])) > 0',
              "{{model}} {{field}}", "cps"),
        Panel("Answers kept from clients, since the log could not be written",
              'sum by (model) (increase(serving_log_errors_total{model=~"$model"}[5m]))', "{{model}}", red_from=1),
        Panel("Labels that came back", 'sum by (model) (rate(serving_labels_total{model=~"$model"}[5m]))',
              "{{model}}", "cps"),
        Panel("Decisions",
              'sum by (model, label) (rate(serving_decisions_total{model=~"$model"}[5m])) / on (model) group_left () '
              '(sum by (model) (rate(serving_decisions_total{model=~"$model"}[5m])) > 0)',
              "{{model}} {{label}}", "percentunit", width=12),
        Panel("Mean score",
              'sum by (model) (rate(serving_score_sum{model=~"$model"}[5m])) '
              '/ (sum by (model) (rate(serving_score_count{model=~"$model"}[5m])) > 0)',
              "{{model}}", width=12),
    ),
    "Drift": (
        Panel("Alarms", 'max by (model, kind) (monitoring_alarm{model=~"$model"})', "{{model}} {{kind}}", red_from=1),
        Panel("Columns furthest from the reference (PSI)",
              'topk(10, max by (model, column) (monitoring_column_psi{model=~"$model"}))', "{{model}} {{column}}"),
        Panel("Missing values, most by column",
              'topk(10, max by (model, column) (monitoring_column_missing_share{model=~"$model"}))',
              "{{model}} {{column}}", "percentunit"),
        Panel("Scores against the reference (PSI)", 'max by (model) (monitoring_prediction_psi{model=~"$model"})',
              "{{model}}", width=6),
        Panel("Window told from the reference (ROC AUC; 0.5: cannot)",
              'max by (model) (monitoring_reference_auc{model=~"$model"})', "{{model}}", width=6),
        Panel("Share of the window refused", 'max by (model) (monitoring_refused_share{model=~"$model"})',
              "{{model}}", "percentunit", width=6),
        Panel("Rows in the window", 'max by (model) (monitoring_window_rows{model=~"$model"})', "{{model}}", width=6),
    ),
    "Quality": (
        Panel("Performance on labels that came, with its interval",
              'max by (model, metric, bound) (monitoring_performance{model=~"$model"})',
              "{{model}} {{metric}} {{bound}}"),
        Panel("Performance as the scores promise",
              'max by (model, metric) (monitoring_estimated_performance{model=~"$model"})', "{{model}} {{metric}}"),
        Panel("Share of the window with labels", 'max by (model) (monitoring_label_coverage{model=~"$model"})',
              "{{model}}", "percentunit"),
    ),
}  # fmt: skip


def generate() -> str:
    """Return the dashboard as the JSON that Grafana reads."""
    model = (
        QueryVariable("model").datasource(PROMETHEUS).query("label_values(serving_model_info, model)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True).all_value(".+")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )  # fmt: skip
    board = (
        Dashboard("Models in service").uid("models-in-service").tags(["models"]).time("now-6h", "now").refresh("10s")
        .readonly().with_variable(model)
    )  # fmt: skip
    for row, panels in PANELS.items():
        board.with_row(Row(row))
        for panel in panels:
            board.with_panel(_built(panel))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _built(panel: Panel) -> stat.Panel | timeseries.Panel:
    query = Dataquery().expr(panel.query).legend_format(panel.legend).datasource(PROMETHEUS).ref_id("A")
    found: stat.Panel | timeseries.Panel
    if panel.kind == "now":
        query.instant()
        found = stat.Panel().text_mode(BigValueTextMode.VALUE_AND_NAME).graph_mode(BigValueGraphMode.NONE)
        found.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    else:
        lines = GraphThresholdsStyleMode.OFF if panel.red_from is None else GraphThresholdsStyleMode.LINE
        found = timeseries.Panel().thresholds_style(GraphThresholdsStyleConfig().mode(lines))
    steps = [Threshold(color="green")]
    if panel.red_from is not None:
        steps.append(Threshold(panel.red_from, "red"))
    found.title(panel.title).unit(panel.unit).datasource(PROMETHEUS).span(panel.width).height(7)
    found.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return found.with_target(query)


if __name__ == "__main__":
    FILE.write_text(generate(), encoding="utf-8")
