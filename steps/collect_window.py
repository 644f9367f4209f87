"""Read the traffic that monitoring looks at."""

from datetime import UTC, datetime
from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Config
from loop.deploying import deployer
from loop.registry import decisions
from loop.registry.champions import Promotion
from loop.registry.materializers import Table
from loop.watching.monitor import collect_window as collect


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
