"""From labelled traffic to a champion that has learned from it."""

from zenml import pipeline
from zenml.config import CachePolicy
from zenml.enums import ExecutionMode

from loop.config import Config
from loop.deploying import deployer
from loop.registry import tracking
from loop.training.bundle import cache_key
from steps.accept_rows import accept_rows
from steps.begin_retraining import begin_retraining
from steps.compare_on_feedback import compare_on_feedback
from steps.evaluate_model import evaluate_model
from steps.fetch_champion import fetch_champion
from steps.ingest_rows import ingest_rows
from steps.join_labels import join_labels
from steps.recall_champion import recall_champion
from steps.register_model import register_model
from steps.split_feedback import split_feedback
from steps.train_model import train_model
from steps.validate_rows import validate_rows
from steps.weigh_feedback import weigh_feedback


@pipeline(
    cache_policy=CachePolicy(cache_func=cache_key),
    execution_mode=ExecutionMode.FAIL_FAST,
    enable_artifact_metadata=False,
)
def retraining(config: Config) -> None:
    """Add labelled traffic to the training rows, fit, judge old and new rows, and keep the record.

    Nothing is fitted where an earlier champion does.
    """
    deployer.active()  # whoever serves also knows where the log is
    labelled_rows, _, answers = join_labels(config)
    decision = weigh_feedback(labelled_rows, config)
    champion, version, earlier = fetch_champion(config.name)
    rows, reading = ingest_rows(config.data, config.contract, champion)
    train_rows, holdout_rows, old_holdout_rows, watched_rows, split_rule, reference_rows, history = split_feedback(
        rows, labelled_rows, answers, champion, decision, reading, config
    )
    begun = begin_retraining(decision, config.name, after=history)
    recalled, recall = recall_champion(
        champion, version, earlier, decision, train_rows, holdout_rows, old_holdout_rows, history, split_rule, config
    )
    contract, contract_report = validate_rows(
        train_rows,
        holdout_rows,
        champion,
        version,
        config.name,
        config.data,
        config.contract,
        None,
        reading,
        reference_rows,
    )
    accepted = accept_rows(contract, contract_report)
    model = train_model(train_rows, accepted, split_rule, config.recipe, recalled, after=begun)
    scorecard, stand_in = evaluate_model(model, holdout_rows, config.evaluation)
    judgement = compare_on_feedback(
        model,
        champion,
        version,
        holdout_rows,
        old_holdout_rows,
        history,
        config.gate,
        config.evaluation,
        config.serving,
        earlier,
        recall,
    )
    register_model.with_options(**tracking.options(config.name))(
        model,
        train_rows,
        holdout_rows,
        watched_rows,
        scorecard,
        stand_in,
        judgement,
        contract_report,
        config.gate.promote,
        tracking.has_tracker(),
        "deployment",
    )
