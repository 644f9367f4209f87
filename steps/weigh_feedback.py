"""Say whether the labels that came are reason to train again."""

from datetime import UTC, datetime
from typing import Annotated

import pandas as pd
from zenml import get_step_context, step

import decisions
import registry
from config import Config, UserError, command
from core.policy import last_retraining
from core.records import TRUTH_TIME
from results import Weighed
from steps.materializers import Report


@step(enable_cache=False, output_materializers=Report)
def weigh_feedback(labelled_rows: pd.DataFrame, config: Config) -> Annotated[Weighed, "retraining_decision"]:
    """Hold the policy's conditions against the log of decisions and these labels, whatever the policy's mode."""
    champion = registry.champion(config.name)
    if champion is None:
        raise UserError(f"'{config.name}' has no champion to improve; train one: {command('--pipeline training')}")
    entries = decisions.history(config.name)
    since = last_retraining(entries, datetime.now(UTC))
    times = labelled_rows[TRUTH_TIME]
    fresh = len(times) if since is None else int((times > pd.Timestamp(since).tz_localize(None)).sum())
    run = get_step_context().pipeline_run.name
    decision = decisions.weigh(config.name, entries, "feedback", champion.version, None, fresh, config.policy, run)
    return Weighed(**dict(decision))
