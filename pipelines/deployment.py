"""From the champion to a server that answers."""

from zenml import pipeline
from zenml.config import CachePolicy
from zenml.enums import ExecutionMode

from loop.config import Config
from loop.deploying import deployer
from loop.deploying.assemble import serving_code
from steps.build_bento import build_bento
from steps.deploy_bento import deploy_bento
from steps.fetch_promoted import fetch_promoted


@pipeline(
    cache_policy=CachePolicy(cache_func=serving_code),
    execution_mode=ExecutionMode.FAIL_FAST,
    enable_artifact_metadata=False,
)
def deployment(config: Config) -> None:
    """Build the champion into a bento, and put it in the old server's place once it has shown that it answers right."""
    deployer.active()  # a stack without one is refused before anything runs
    model, promotion, scorecard, rows = fetch_promoted(config.name)
    bento = build_bento(model, promotion, scorecard, rows, config.serving, config.feedback.audit)
    deploy_bento(bento, rows, config.serving)
