"""Put the model on record and, if the verdict says so, in charge."""

from typing import Annotated, Any, Literal

from zenml import get_step_context, save_artifact, step
from zenml.artifacts.unmaterialized_artifact import UnmaterializedArtifact

from loop.data.checks import ContractReport
from loop.pages.report import verdict_page
from loop.registry import champions, tracking
from loop.registry.materializers import Report
from loop.registry.results import Registration
from loop.training.bundle import Bundle
from loop.training.gate import Verdict
from loop.training.metrics import Scorecard


@step(enable_cache=False)
def register_model(
    model: Bundle,
    train_rows: UnmaterializedArtifact,
    holdout_rows: UnmaterializedArtifact,
    watched_rows: UnmaterializedArtifact,
    scorecard: Scorecard,
    stand_in: UnmaterializedArtifact,
    judgement: Verdict,
    contract_report: ContractReport,
    promote: Literal["auto", "off"],
    tracked: bool,
    then: str | None,
) -> Annotated[Registration, "registration"]:
    """Register the model once, whatever the judgement; promote it if it may be and its rival is still champion.

    Its rows are put on record with it, unread: what it learned from, what it was judged on, and the holdout rows that
    stand for what it will meet; also what it said of the holdout, for the day when it cannot be loaded any more.
    What was decided in the end is the artifact `verdict`, with its page; a promotion asks for the pipeline `then`.
    """
    context = get_step_context()
    name, run = model.card.recipe.name, context.pipeline_run.name
    version = champions.find(name, model.fingerprint)
    gone = version is not None and champions.is_gone(name, version)
    new = version is None or gone
    if version is None or gone:
        metadata: dict[str, Any] = {
            "metrics": {metric: estimate.value for metric, estimate in scorecard.estimates.items()},
            "verdict": judgement.decision,
            champions.JUDGED: judgement.decision,
            "data": model.card.data,
            "code": model.card.code,
            "run": run,
        }
        if judgement.look is not None:
            metadata[champions.LOOK] = judgement.look
        inputs = {key: listed[0].id for key, listed in context.step_run.inputs.items()}
        metadata["watched_rows"] = str(inputs["watched_rows"])
        version = champions.register(name, model.fingerprint, [*inputs.values()], metadata, version)
    if tracked and not tracking.is_registered(name, version):
        pages = {"contract": contract_report.page, "evaluation": scorecard.page}
        tracking.record(name, version, model, scorecard, pages)
    if gone:
        note = f"the files of version {version} were gone; those of this run, the same, take their place"
        judgement = judgement.model_copy(update={"reasons": (*judgement.reasons, note)})
    verdict = champions.decide(name, version, model.fingerprint, judgement, promote, run)
    verdict = verdict.with_page(verdict_page(name, verdict))
    stored = save_artifact(verdict, "verdict", materializer=Report)
    if new or verdict.decision == "promote":  # a later run that holds the same model does not undo what was decided
        champions.keep_verdict(name, version, stored.id, verdict.decision)
        if tracked:
            tracking.show({"verdict": verdict.page})
    champions.draw(name)
    current = champions.champion(name)
    return Registration(
        version=version,
        decision=verdict.decision,
        reasons=verdict.reasons,
        champion=current.version if current else None,
        then=then,
    )
