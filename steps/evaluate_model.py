"""Measure the model on rows it never saw."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Evaluation
from loop.pages.report import evaluation_page
from loop.registry.materializers import Record, Report
from loop.training.bundle import Bundle
from loop.training.metrics import Scorecard, estimate, metric_names
from loop.training.stand_in import StandIn


@step(output_materializers={"scorecard": Report, "stand_in": Record})
def evaluate_model(
    model: Bundle, holdout_rows: pd.DataFrame, evaluation: Evaluation
) -> tuple[Annotated[Scorecard, "scorecard"], Annotated[StandIn, "stand_in"]]:
    """Return every metric of the task with its interval and the page that shows them, and what the model said."""
    predictions = model.predictions(holdout_rows)
    estimates = estimate(predictions, metric_names(predictions.task), evaluation)
    page = evaluation_page(model, holdout_rows, predictions, estimates)
    return Scorecard(estimates=estimates, page=page), StandIn.of(model, holdout_rows, predictions.scores)
