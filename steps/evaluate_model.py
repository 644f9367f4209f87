"""Measure the model on rows it never saw."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Evaluation
from core.bundle import Bundle
from core.metrics import Scorecard, estimate, metric_names
from core.report import evaluation_page
from core.stand_in import StandIn
from steps.materializers import Record, Report


@step(output_materializers={"scorecard": Report, "stand_in": Record})
def evaluate_model(
    model: Bundle, holdout_rows: pd.DataFrame, evaluation: Evaluation
) -> tuple[Annotated[Scorecard, "scorecard"], Annotated[StandIn, "stand_in"]]:
    """Return every metric of the task with its interval and the page that shows them, and what the model said."""
    predictions = model.predictions(holdout_rows)
    estimates = estimate(predictions, metric_names(predictions.task), evaluation)
    page = evaluation_page(model, holdout_rows, predictions, estimates)
    return Scorecard(estimates=estimates, page=page), StandIn.of(model, holdout_rows, predictions.scores)
