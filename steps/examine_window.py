"""Compare a window of traffic with what the model learned from."""

from datetime import UTC
from functools import partial
from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Config
from loop.deploying import deployer
from loop.pages.report import window_page
from loop.registry import decisions
from loop.registry.champions import Promotion
from loop.registry.materializers import Report
from loop.training.bundle import Bundle
from loop.training.metrics import Scorecard
from loop.watching.monitor import Window, WindowReport, collect_earlier, examine
from loop.watching.policy import eased, ended, keep_alarms, quiet_until
from loop.watching.rhythm import Earlier


@step(enable_cache=False, output_materializers=Report)
def examine_window(
    promoted_model: Bundle,
    promotion: Promotion,
    promoted_scorecard: Scorecard,
    check_rows: pd.DataFrame,
    window_rows: pd.DataFrame,
    judged_rows: pd.DataFrame,
    refusals: pd.DataFrame,
    other_versions: int,
    from_future: int,
    config: Config,
) -> Annotated[WindowReport, "window_report"]:
    """Say what has drifted, how well the model does where labels came, and what usually helps.

    An alarm of the window before goes on until it is well below its floor, which a second look tells.
    """
    version, first = promotion.version, promotion.time.astimezone(UTC).replace(tzinfo=None)
    read = partial(collect_earlier, deployer.active().log(config.name), version, window_rows, first)
    entries = decisions.history(config.name)
    window = Window(
        rows=window_rows,
        judged=judged_rows,
        refusals=refusals,
        other_versions=other_versions,
        from_future=from_future,
        earlier=Earlier(read, quiet_until(entries, version)),
    )
    known = (promoted_model, version, check_rows, promoted_scorecard.estimates)
    report = examine(window, *known, config)
    if kinds := ended(entries, report):
        lower = config.model_copy(update={"monitoring": eased(config.monitoring, kinds)})
        report = keep_alarms(report, examine(window, *known, lower), kinds)
    return report.with_page(window_page(report, config.monitoring))
