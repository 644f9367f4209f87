"""From labels to the question whether to train again."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from loop.config import Config
from loop.deploying import deployer
from steps.join_labels import join_labels
from steps.weigh_feedback import weigh_feedback


@pipeline(enable_cache=False, execution_mode=ExecutionMode.FAIL_FAST, enable_artifact_metadata=False)
def feedback(config: Config) -> None:
    """Take labels in; `run.py` trains again if the policy's conditions hold."""
    deployer.active()  # whoever serves also knows where the log is
    labelled_rows, _, _ = join_labels(config)
    weigh_feedback(labelled_rows, config)
