"""Score a share of the files."""

from typing import Annotated

from zenml import get_step_context, step

from loop.config import Config
from loop.registry.champions import Promotion
from loop.training.batch import ShardReport
from loop.training.batch import score_shard as score
from loop.training.bundle import Bundle


@step(enable_cache=False)
def score_shard(
    promoted_model: Bundle, promotion: Promotion, config: Config, shard: int
) -> Annotated[ShardReport, "shard_report"]:
    """Score the files of one shard with the champion and write what it says."""
    folder = f"{config.inference.output.rstrip('/')}/{config.name}/{get_step_context().pipeline_run.name}"
    return score(promoted_model, promotion.version, config, shard, folder)
