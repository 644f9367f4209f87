"""Say whether the labels that came are reason to train again."""

from datetime import UTC, datetime
from typing import Annotated

import pandas as pd
from zenml import get_step_context, step

from loop.config import Config, UserError, command
from loop.log.records import TRUTH_TIME
from loop.registry import champions, decisions
from loop.registry.materializers import Report
from loop.registry.results import Weighed
from loop.watching.policy import last_retraining


@step(enable_cache=False, output_materializers=Report)
def weigh_feedback(labelled_rows: pd.DataFrame, config: Config) -> Annotated[Weighed, "retraining_decision"]:
    """Hold the policy's conditions against the log of decisions and these labels, whatever the policy's mode."""
    champion = champions.champion(config.name)
    if champion is None:
        raise UserError(f"'{config.name}' has no champion to improve; train one: {command('--pipeline training')}")
    entries = decisions.history(config.name)
    since = last_retraining(entries, datetime.now(UTC))
    times = labelled_rows[TRUTH_TIME]
    fresh = len(times) if since is None else int((times > pd.Timestamp(since).tz_localize(None)).sum())
    run = get_step_context().pipeline_run.name
    decision = decisions.weigh(config.name, entries, "feedback", champion.version, None, fresh, config.policy, run)
    return Weighed(**dict(decision))
