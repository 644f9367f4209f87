"""Bring the labels that came to the predictions they belong to."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Config
from loop.deploying import deployer
from loop.log.records import read_labels, read_predictions
from loop.registry.materializers import Table
from loop.watching.feedback import FeedbackReport, with_labels
from loop.watching.feedback import join_labels as join


@step(enable_cache=False, output_materializers={"labelled_rows": Table, "answers": Table})
def join_labels(
    config: Config,
) -> tuple[
    Annotated[pd.DataFrame, "labelled_rows"],
    Annotated[FeedbackReport, "feedback_report"],
    Annotated[pd.DataFrame, "answers"],
]:
    """Return the newest labelled predictions, what is to be said of the labels, and all answers since the first."""
    log = deployer.active().log(config.name)
    predictions, labels = read_predictions(f"{log}/predictions"), read_labels(f"{log}/labels", history=True)
    labelled_rows, report = join(predictions, labels, config.feedback)
    first = labelled_rows["prediction_time"].min()
    answers = with_labels(predictions[predictions["prediction_time"] >= first], labels)
    return labelled_rows, report, answers  # names, or ZenML takes them for one output
