"""Put on record that a retraining begins, since its cool-down and its budget count from here."""

from typing import Annotated

from zenml import step

from loop.registry import decisions
from loop.registry.materializers import Report
from loop.watching.policy import Decision


@step(enable_cache=False)
def begin_retraining(retraining_decision: Decision, name: str) -> Annotated[int, "decision_number"]:
    """Append the decision to the log, whoever made it, and return its number."""
    decisions.append(name, retraining_decision, Report)
    return retraining_decision.number
