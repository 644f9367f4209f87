"""From rows to scores, in one go."""

from zenml import pipeline
from zenml.enums import ExecutionMode

from loop.config import Config
from steps.fetch_promoted import fetch_promoted
from steps.gather_shards import gather_shards
from steps.score_shard import score_shard


@pipeline(enable_cache=False, execution_mode=ExecutionMode.FAIL_FAST, enable_artifact_metadata=False)
def inference(config: Config) -> None:
    """Score the files of `inference.source` with the champion, in steps that can run side by side."""
    model, promotion, _, _ = fetch_promoted(config.name)
    gather_shards([score_shard(model, promotion, config, shard) for shard in range(config.inference.shards)])
