"""From a table to a promoted champion."""

from zenml import pipeline
from zenml.config import CachePolicy
from zenml.enums import ExecutionMode

from loop.config import Config
from loop.registry import tracking
from loop.training.bundle import cache_key
from steps.accept_rows import accept_rows
from steps.compare_models import compare_models
from steps.evaluate_model import evaluate_model
from steps.fetch_champion import fetch_champion
from steps.foresee_decision import foresee_decision
from steps.ingest_rows import ingest_rows
from steps.register_model import register_model
from steps.split_rows import split_rows
from steps.train_model import train_model
from steps.validate_rows import validate_rows


@pipeline(
    cache_policy=CachePolicy(cache_func=cache_key),  # a step's own text is not all that decides its result
    execution_mode=ExecutionMode.FAIL_FAST,
    enable_artifact_metadata=False,  # 10 ms an artifact; the steps that read the table and fit the model turn it on
)
def training(config: Config, dry_run: bool = False) -> None:
    """Read and check the rows, fit a model, judge it against the champion, and keep the record, unless it runs dry."""
    champion, version, earlier = fetch_champion(config.name)
    rows, reading = ingest_rows(config.data, config.contract, champion)
    train_rows, holdout_rows, split_rule = split_rows(rows, reading, config.data, config.split)
    contract, contract_report = validate_rows(
        train_rows,
        holdout_rows,
        champion,
        version,
        config.name,
        config.data,
        config.contract,
        config.split,
        reading,
        None,
    )
    accepted = accept_rows(contract, contract_report)
    model = train_model(train_rows, accepted, split_rule, config.recipe, None)
    scorecard, stand_in = evaluate_model(model, holdout_rows, config.evaluation)
    judgement = compare_models(
        model, champion, version, holdout_rows, config.gate, config.evaluation, config.serving, earlier
    )
    if dry_run:
        foresee_decision(model, judgement, config.gate.promote)
        return
    register_model.with_options(**tracking.options(config.name))(
        model,
        train_rows,
        holdout_rows,
        holdout_rows,
        scorecard,
        stand_in,
        judgement,
        contract_report,
        config.gate.promote,
        tracking.has_tracker(),
        None,
    )
