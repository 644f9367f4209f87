"""Say what a batch scored."""

from typing import Annotated

from zenml import step

from config import UserError
from core.batch import ShardReport


@step(enable_cache=False)
def gather_shards(shard_reports: list[ShardReport]) -> Annotated[ShardReport, "batch_report"]:
    """Add up the shards; a batch without a row is an error."""
    rows = sum(report.rows for report in shard_reports)
    if not rows:
        raise UserError("inference.source has no row to score")
    return ShardReport(
        files=tuple(file for report in shard_reports for file in report.files),
        rows=rows,
        positive=sum(report.positive for report in shard_reports),
    )
