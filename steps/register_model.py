"""Put the model on record and, if the verdict says so, in charge."""

import logging
from typing import Annotated

from pydantic import BaseModel, ConfigDict
from zenml import get_step_context, step
from zenml.artifacts.unmaterialized_artifact import UnmaterializedArtifact

import registry
import tracking
from config import command
from core.bundle import Bundle
from core.checks import ContractReport
from core.gate import Decision, Verdict
from core.metrics import Scorecard

log = logging.getLogger(__name__)


class Registration(BaseModel):
    """What became of the model."""

    model_config = ConfigDict(frozen=True)

    version: int
    decision: Decision
    reasons: tuple[str, ...]
    champion: int | None
    """The version in charge after this run."""


@step(enable_cache=False)
def register_model(
    model: Bundle,
    train_rows: UnmaterializedArtifact,
    holdout_rows: UnmaterializedArtifact,
    watched_rows: UnmaterializedArtifact,
    scorecard: Scorecard,
    stand_in: UnmaterializedArtifact,
    verdict: Verdict,
    contract_report: ContractReport,
    tracked: bool,
) -> Annotated[Registration, "registration"]:
    """Register the model once, whatever the verdict; promote it if its rival is still champion.

    Its rows are put on record with it, unread: what it learned from, what it was judged on, and the holdout rows that
    stand for what it will meet; also what it said of the holdout, for the day when it cannot be loaded any more.
    """
    context = get_step_context()
    name = model.card.recipe.name
    version = registry.find(name, model.fingerprint)
    gone = version is not None and registry.is_gone(name, version)
    if version is None or gone:
        metadata = {
            "metrics": {metric: estimate.value for metric, estimate in scorecard.estimates.items()},
            "verdict": verdict.decision,
            "data": model.card.data,
            "code": model.card.code,
            "run": context.pipeline_run.name,
        }
        inputs = {key: listed[0].id for key, listed in context.step_run.inputs.items()}
        metadata["watched_rows"] = str(inputs["watched_rows"])
        version = registry.register(name, model.fingerprint, [*inputs.values()], metadata, version)
    if tracked and not tracking.is_registered(name, version):
        pages = {"contract": contract_report.page, "evaluation": scorecard.page, "verdict": verdict.page}
        tracking.record(name, version, model, scorecard, pages)
    if gone:
        note = f"the files of version {version} were gone; those of this run, the same, take their place"
        verdict = verdict.model_copy(update={"reasons": (*verdict.reasons, note)})
    if verdict.decision == "promote" and version == verdict.champion_version:  # it was lost, record and card and all
        verdict = verdict.held(f"it is the same model as champion v{version}")
    if verdict.decision == "promote" and (withdrawn := registry.rolled_back(name, version)) is not None:
        verdict = verdict.held(
            f"version {version} was rolled back on {withdrawn.time:%Y-%m-%d} ({withdrawn.reasons[0]}); "
            f"only a person brings it back: {command(f'--rollback {version}')}"
        )
    if verdict.decision == "promote":
        try:
            registry.promote(
                name,
                version,
                model.fingerprint,
                replaces=verdict.champion_version,
                reasons=verdict.reasons,
                run=context.pipeline_run.name,
            )
        except registry.ChampionChanged:
            verdict = verdict.held(
                "another run promoted its model while this one was judged; run again to be compared with it"
            )
    registry.draw(name)
    current = registry.champion(name)
    return Registration(
        version=version,
        decision=verdict.decision,
        reasons=verdict.reasons,
        champion=current.version if current else None,
    )
