"""Score a share of the files."""

from typing import Annotated

from zenml import get_step_context, step

from config import Config
from core.batch import ShardReport
from core.batch import score_shard as score
from core.bundle import Bundle
from registry import Promotion


@step(enable_cache=False)
def score_shard(
    promoted_model: Bundle, promotion: Promotion, config: Config, shard: int
) -> Annotated[ShardReport, "shard_report"]:
    """Score the files of one shard with the champion and write what it says."""
    folder = f"{config.inference.output.rstrip('/')}/{config.name}/{get_step_context().pipeline_run.name}"
    return score(promoted_model, promotion.version, config, shard, folder)
