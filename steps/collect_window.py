"""Read the traffic that monitoring looks at."""

from datetime import UTC, datetime
from typing import Annotated

import pandas as pd
from zenml import step

import decisions
import deployer
from config import Config
from core.monitor import collect_window as collect
from registry import Promotion
from steps.materializers import Table


@step(
    enable_cache=False,
    output_materializers={"window_rows": Table, "judged_rows": Table, "refusals": Table},
)
def collect_window(
    promotion: Promotion, config: Config
) -> tuple[
    Annotated[pd.DataFrame, "window_rows"],
    Annotated[pd.DataFrame, "judged_rows"],
    Annotated[pd.DataFrame, "refusals"],
    Annotated[int, "other_versions"],
    Annotated[int, "from_future"],
]:
    """Return what the champion answered since the last window, what is labelled of it, and what was refused."""
    after = decisions.last_judged(decisions.history(config.name))
    now = datetime.now(UTC).replace(tzinfo=None)
    window = collect(deployer.active().log(config.name), promotion.version, config.monitoring, after, now)
    return window.rows, window.judged, window.refusals, window.other_versions, window.from_future
