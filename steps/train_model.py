"""Fit the model."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Recipe
from loop.data.contract import DataContract
from loop.data.split import SplitRule
from loop.registry.materializers import ModelBundle
from loop.training.bundle import Bundle
from loop.training.fit import train


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
