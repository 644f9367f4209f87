"""Write what MLflow shows: one run a training, one registered version a model, the two aliases.

MLflow follows ZenML and is never asked who is champion. On a stack without a tracker nothing here is called.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from config import ROOT
from core.bundle import Bundle
from core.metrics import Scorecard
from core.table import as_features

ZENML_VERSION = "zenml_version"
"""Tag of an MLflow version: the number of the ZenML version it mirrors."""

EXAMPLE_ROWS = 3


def has_tracker() -> bool:
    """Say whether the active stack has an MLflow experiment tracker."""
    from zenml.client import Client

    return "experiment_tracker" in {kind.value for kind in Client().active_stack_model.components}


def create_database() -> None:
    """Create the SQLite file of a local tracker, where it is not there yet; MLflow itself lets two runs collide."""
    from zenml.client import Client

    tracker: Any = Client().active_stack.experiment_tracker
    uri = tracker.get_tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        from mlflow import MlflowClient

        MlflowClient(uri).search_experiments(max_results=1)


def is_registered(name: str, version: int) -> bool:
    """Say whether MLflow already mirrors this ZenML version; asked inside a tracked step."""
    return version in _mirrored(name)


def record(
    name: str,
    version: int,
    bundle: Bundle,
    train_rows: pd.DataFrame,
    scorecard: Scorecard,
    pages: Mapping[str, str],
) -> None:
    """Log params, metrics, data, pages and model to the step's MLflow run, and register the model."""
    import mlflow
    import skops.io
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.exceptions import MlflowException

    card = bundle.card
    mlflow.set_tags({ZENML_VERSION: version, "data": card.data, "code": card.code, "model": card.model})
    mlflow.log_params(_flat(card.recipe.model_dump(mode="json")))
    metrics = {f"cv_{metric}": value for metric, value in card.cross_validation.items()}
    for metric, found in scorecard.estimates.items():
        metrics |= {metric: found.value, f"{metric}_low": found.low, f"{metric}_high": found.high}
    mlflow.log_metrics(metrics)
    # Whole numbers may miss a value one day; the model's own signature takes them as floats.
    warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
    data = from_pandas(
        train_rows,
        source=CodeDatasetSource(tags={"source": card.recipe.data.shown_source}),
        targets=card.contract.target,
        name=name,
        digest=card.data[:32],
    )
    try:
        mlflow.log_input(data, context="training")
    except MlflowException as err:
        if "UNIQUE constraint failed: datasets" not in str(err):
            raise
        mlflow.log_input(data, context="training")  # a run at the same time was first with the same rows
    for page, text in pages.items():
        mlflow.log_text(text, f"{page}.html")
    features = as_features(train_rows, card.contract.features)
    example = train_rows.iloc[:EXAMPLE_ROWS]
    logged = mlflow.sklearn.log_model(
        bundle.pipeline,
        name="model",
        signature=mlflow.models.infer_signature(features, bundle.scores(example)),
        input_example=features.iloc[:EXAMPLE_ROWS],
        pip_requirements=[f"{p}=={v}" for p, v in card.environment.items() if p != "python"],
        code_paths=[str(ROOT / "core"), str(ROOT / "config.py")],  # so that it loads away from this clone
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(bundle.pipeline)),  # made here
    )
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(name)
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":  # a run at the same time may have been first
            raise
    client.create_model_version(
        name,
        source=logged.model_uri,
        run_id=logged.run_id,
        model_id=logged.model_id,
        tags={ZENML_VERSION: str(version)},
    )


def point_aliases(name: str, champion: int | None, challenger: int | None) -> None:
    """Let the aliases `champion` and `challenger` name the MLflow versions of these ZenML versions."""
    from mlflow import MlflowClient
    from zenml.client import Client

    tracker: Any = Client().active_stack.experiment_tracker
    tracker.configure_mlflow()
    client, mirrored = MlflowClient(), _mirrored(name)
    for alias, version in (("champion", champion), ("challenger", challenger)):
        if version in mirrored:
            client.set_registered_model_alias(name, alias, mirrored[version])
        elif mirrored:
            client.delete_registered_model_alias(name, alias)


def _mirrored(name: str) -> dict[int, str]:
    """Return the MLflow version of each ZenML version."""
    from mlflow import MlflowClient

    found = MlflowClient().search_model_versions(f"name='{name}'")
    return {int(v.tags[ZENML_VERSION]): v.version for v in found if ZENML_VERSION in v.tags}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested sections into dotted keys: {"gate": {"margin": 1}} → {"gate.margin": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
