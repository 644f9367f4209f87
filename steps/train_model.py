"""Fit the model."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Recipe
from core.bundle import Bundle
from core.contract import DataContract
from core.model import train
from core.split import SplitRule
from steps.materializers import ModelBundle


@step(enable_artifact_metadata=True, output_materializers=ModelBundle)
def train_model(
    train_rows: pd.DataFrame,
    accepted_contract: DataContract,
    split_rule: SplitRule,
    recipe: Recipe,
    recalled: Bundle | None,
) -> Annotated[Bundle, "model"]:
    """Fit preprocessing and estimator, and choose the threshold, on the training rows alone.

    A model that was recalled is there already.
    """
    return recalled or train(train_rows, accepted_contract, split_rule, recipe)
