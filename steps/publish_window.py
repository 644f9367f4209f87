"""Let the service show Prometheus what monitoring found."""

from datetime import UTC, datetime

from zenml import step

from loop.deploying import deployer
from loop.log.gauges import Gauge, publish
from loop.watching.monitor import WindowReport
from loop.watching.policy import Decision


@step(enable_cache=False)
def publish_window(window_report: WindowReport, decision: Decision) -> None:
    """Write the gauges beside the prediction log, where the service reads them."""
    due = decision.action in ("retrain", "advise")
    gauge = Gauge(
        name="monitoring_retraining_due", help="1: all conditions to retrain hold.", samples=(({}, float(due)),)
    )
    log = deployer.active().log(window_report.name)
    if "://" in log:  # a service reads only what it shares a disk with
        return
    publish(log, window_report.version, datetime.now(UTC), [*window_report.gauges(), gauge])
