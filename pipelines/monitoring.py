"""From served traffic to a decision."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from loop.config import Config
from loop.deploying import deployer
from steps.collect_window import collect_window
from steps.decide_retraining import decide_retraining
from steps.draw_drift import draw_drift
from steps.examine_window import examine_window
from steps.fetch_promoted import fetch_promoted
from steps.publish_window import publish_window
from steps.send_alert import send_alert


@pipeline(enable_cache=False, execution_mode=ExecutionMode.FAIL_FAST, enable_artifact_metadata=False)
def monitoring(config: Config) -> None:
    """Look at the last window of traffic, say what has drifted, and decide whether to train again."""
    deployer.active()  # whoever serves also knows where the log is; a stack without one is refused before anything runs
    model, promotion, scorecard, rows = fetch_promoted(config.name)
    window_rows, judged_rows, refusals, other_versions, from_future = collect_window(promotion, config)
    report = examine_window(
        model, promotion, scorecard, rows, window_rows, judged_rows, refusals, other_versions, from_future, config
    )
    decision = decide_retraining(report, config)
    publish_window(report, decision)
    send_alert(decision, config.name)
    draw_drift(model, rows, window_rows, report, config.monitoring)  # last: people wait for it, nothing else does
