"""Write what MLflow shows: one run a training, one registered version a model, the two aliases.

MLflow follows ZenML and is never asked who is champion. On a stack without a tracker nothing here is called.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from loop.config import ROOT, Data, Section
from loop.data.contract import DataContract
from loop.data.table import as_features
from loop.registry.sqlite import is_whole, made_whole
from loop.training.bundle import Bundle
from loop.training.metrics import Scorecard

if TYPE_CHECKING:
    from mlflow import MlflowClient

ZENML_VERSION = "zenml_version"
"""Tag of an MLflow version: the number of the ZenML version it mirrors."""

RECIPE = "recipe.json"
PAGES = {"contract": "contract_report", "evaluation": "scorecard", "verdict": "verdict"}
"""What MLflow shows, and the artifact that it is the page of."""
KIND = "mlflow.experimentKind", "custom_model_development"
"""Tag of an experiment that is no language model's."""
METRICS = "workflowType=machine_learning&compareRunsMode=CHART"
"""What of an address makes MLflow open an experiment on its runs' metrics, not on the traces that it has none of."""
_LONGEST = 6000  # characters of a parameter's value in MLflow


def has_tracker() -> bool:
    """Say whether the active stack has an MLflow experiment tracker."""
    from zenml.client import Client

    return "experiment_tracker" in {kind.value for kind in Client().active_stack_model.components}


def options(name: str) -> dict[str, Any]:
    """Return the options of a step that is tracked where there is a tracker: one experiment a use case."""
    if not has_tracker():
        return {}
    return {"experiment_tracker": True, "settings": {"experiment_tracker": {"experiment_name": name}}}


def create_database() -> None:
    """Make the SQLite file of a local tracker where there is none, whole or not at all."""
    from zenml.client import Client

    tracker: Any = Client().active_stack.experiment_tracker
    kind, _, name = tracker.get_tracking_uri().partition(":///")
    if kind != "sqlite" or is_whole(path := Path(name), "SELECT 1 FROM runs"):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with made_whole(path) as new:
        # As a URI, where a quote is %27: MLflow writes the place of its default experiment into SQL as it stands.
        root = path.with_name("mlruns").as_uri()
        SqlAlchemyStore(f"sqlite:///{new}", root).engine.dispose()  # type: ignore[no-untyped-call]


def is_registered(name: str, version: int) -> bool:
    """Say whether MLflow already mirrors this ZenML version."""
    _configure()
    return version in _mirrored(name)


@contextmanager
def resumed(name: str, run_name: str) -> Iterator[None]:
    """Go on with the MLflow run of a pipeline run that was killed, in the experiment of its use case, or begin it."""
    import mlflow

    tracker = _configure()
    experiment = tracker._set_active_experiment(name)  # it alone knows where the files belong
    run_id = tracker.get_run_id(experiment_name=name, run_name=run_name)
    with mlflow.start_run(run_id, experiment.experiment_id, run_name, nested=True):
        yield


def record(
    name: str,
    version: int,
    bundle: Bundle,
    scorecard: Scorecard,
    pages: Mapping[str, str],
) -> None:
    """Log params, metrics, data, pages and model to the step's MLflow run, and register the model.

    What MLflow tells of the columns comes from the contract: it would read every row for it, and show some.
    """
    import mlflow
    import skops.io
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.exceptions import MlflowException

    card = bundle.card
    mlflow.set_experiment_tag(*KIND)
    mlflow.set_tags({ZENML_VERSION: version, "data": card.data, "code": card.code, "model": card.model})
    mlflow.log_params(_parameters(card.recipe))
    mlflow.log_text(card.recipe.model_dump_json(indent=1), RECIPE)
    metrics = {f"cv_{metric}": value for metric, value in card.cross_validation.items()}
    for metric, found in scorecard.estimates.items():
        metrics |= {metric: found.value, f"{metric}_low": found.low, f"{metric}_high": found.high}
    mlflow.log_metrics(metrics)
    example = _example(card.contract)
    signature = mlflow.models.infer_signature(as_features(example, card.contract.features), bundle.scores(example))
    data = MetaDataset(  # type: ignore[abstract]  # MLflow annotates a property that has a default
        source=CodeDatasetSource(tags={"source": card.recipe.data.shown_source, "rows": card.contract.rows}),
        name=name,
        digest=card.data[:32],
        schema=signature.inputs,
    )
    try:
        mlflow.log_input(data, context="training")
    except MlflowException as err:
        if "UNIQUE constraint failed: datasets" not in str(err):
            raise
        mlflow.log_input(data, context="training")  # a run at the same time was first with the same rows
    show(pages)
    logged = mlflow.sklearn.log_model(
        bundle.pipeline,
        name="model",
        signature=signature,
        input_example=as_features(example, card.contract.features),
        pip_requirements=[f"{p}=={v}" for p, v in card.environment.items() if p != "python"],
        # So that it loads away from this clone.
        code_paths=[str(ROOT / name) for name in ("loop", "model")],
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(bundle.pipeline)),  # made here
    )
    client = _registry()
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


def pages(server: str) -> dict[str, str]:
    """Return where a server of the active stack's MLflow shows each use case."""
    import mlflow

    _configure()
    found = mlflow.search_experiments(order_by=["name"], filter_string=f"tags.`{KIND[0]}` = '{KIND[1]}'")
    return {each.name: f"{server}/#/experiments/{each.experiment_id}/runs?{METRICS}" for each in found}


def show(pages: Mapping[str, str]) -> None:
    """Add pages to the step's MLflow run."""
    import mlflow

    for page, text in pages.items():
        mlflow.log_text(text, f"{page}.html")


def point_aliases(name: str, champion: int | None, challenger: int | None) -> None:
    """Let the aliases `champion` and `challenger` name the MLflow versions of these ZenML versions."""
    _configure()
    client, mirrored = _registry(), _mirrored(name)
    for alias, version in (("champion", champion), ("challenger", challenger)):
        if version in mirrored:
            client.set_registered_model_alias(name, alias, mirrored[version])
        elif mirrored:
            client.delete_registered_model_alias(name, alias)


def _configure() -> Any:
    """Point MLflow at the stack's tracker, and return that."""
    from zenml.client import Client

    tracker: Any = Client().active_stack.experiment_tracker
    tracker.configure_mlflow()
    return tracker


def _registry() -> "MlflowClient":
    """Return a client of the tracker's own registry; MLflow would ask the one that MLFLOW_REGISTRY_URI names."""
    import mlflow

    return mlflow.MlflowClient(registry_uri=mlflow.get_tracking_uri())


def _mirrored(name: str) -> dict[int, str]:
    """Return the MLflow version of each ZenML version."""
    found = _registry().search_model_versions(f"name='{name}'")
    return {int(v.tags[ZENML_VERSION]): v.version for v in found if ZENML_VERSION in v.tags}


def _example(contract: DataContract) -> pd.DataFrame:
    """Make a row such as training had, and one with a gap wherever it had one."""
    columns = {}
    for column in contract.columns:
        value: Any = column.minimum
        if column.kind == "categorical":
            value = max(zip(column.shares, column.categories, strict=True))[1]
        elif column.kind == "datetime":
            value = pd.Timestamp(str(value))
        dtype = {"categorical": "object", "datetime": "datetime64[us]"}.get(column.kind, "float64")
        columns[column.name] = pd.Series([value, None if column.nullable else value], dtype=dtype)
    return pd.DataFrame(columns)


def _parameters(section: Section, prefix: str = "") -> dict[str, str]:
    """Name each value of the recipe by its dotted key; a mapping is one JSON value, since MLflow restricts names.

    MLflow would cut what is longer than it takes, so `recipe.json` has that alone.
    """
    found: dict[str, str] = {}
    dumped = section.model_dump(mode="json") | ({"source": section.shown_source} if isinstance(section, Data) else {})
    for key, value in section:
        if isinstance(value, Section):
            found |= _parameters(value, f"{prefix}{key}.")
            continue
        text = json.dumps(dumped[key], ensure_ascii=False) if isinstance(dumped[key], dict) else str(dumped[key])
        found[prefix + key] = text if len(text) <= _LONGEST else f"{len(text):,} characters, see {RECIPE}"
    return found
