"""Say what a batch scored."""

from typing import Annotated

from zenml import step

from loop.config import UserError
from loop.registry.results import Batch
from loop.training.batch import ShardReport


@step(enable_cache=False)
def gather_shards(shard_reports: list[ShardReport]) -> Annotated[Batch, "batch_report"]:
    """Add up the shards; files that break the contract, and a batch without a row, are an error."""
    rows, read = (
        sum(report.rows for report in shard_reports),
        [file for report in shard_reports for file in report.read],
    )
    if refused := [file.refused for file in read if file.refused]:
        rules = {f.rule for file in read for f in file.findings if f.severity == "error"}
        accept = " and ".join(f"contract.rules.{rule}: warn" for rule in sorted(rules))
        more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise UserError(
            f"{len(refused)} of {len(read)} files break the data contract and were not scored, the others were: "
            f"{'; '.join(refused[:5])}{more} (repair them, or set {accept})"
        )
    if not rows:
        raise UserError("inference.source has no row to score")
    return Batch(
        files=tuple(file for report in shard_reports for file in report.files),
        rows=rows,
        positive=sum(report.positive for report in shard_reports),
        read=tuple(read),
    )
