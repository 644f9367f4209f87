"""Put on record that a retraining begins, since its cool-down and its budget count from here."""

from typing import Annotated

from zenml import step

import decisions
from core.policy import Decision
from steps.materializers import Report


@step(enable_cache=False)
def begin_retraining(retraining_decision: Decision, name: str) -> Annotated[int, "decision_number"]:
    """Append the decision to the log, whoever made it, and return its number."""
    decisions.append(name, retraining_decision, Report)
    return retraining_decision.number
