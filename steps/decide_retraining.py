"""Say whether to train again, and keep on record why."""

from datetime import UTC, datetime
from typing import Annotated

from zenml import get_step_context, step

from loop.config import Config
from loop.deploying import deployer
from loop.log.records import read_labels
from loop.registry import decisions
from loop.registry.materializers import Report
from loop.registry.results import Watched
from loop.watching.monitor import WindowReport
from loop.watching.policy import last_retraining


@step(enable_cache=False, output_materializers=Report)
def decide_retraining(window_report: WindowReport, config: Config) -> Annotated[Watched, "decision"]:
    """Hold the policy's conditions against this window and those before it; append the decision to the log."""
    name, run = config.name, get_step_context().pipeline_run.name
    entries = decisions.history(name)
    since = last_retraining(entries, datetime.now(UTC))
    labels = read_labels(f"{deployer.active().log(name)}/labels", since)
    decision = decisions.weigh(
        name, entries, "monitoring", window_report.version, window_report, len(labels), config.policy, run
    )
    if window_report.enough or decision.alarms:
        decisions.append(name, decision, Report)
    return Watched(**dict(decision))
