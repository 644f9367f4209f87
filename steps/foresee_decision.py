"""Say what would be decided about a model, and leave everything as it is."""

from typing import Annotated, Literal

from zenml import step

from loop.pages.report import verdict_page
from loop.registry import champions
from loop.registry.results import Foreseen
from loop.training.bundle import Bundle
from loop.training.gate import Verdict


@step(enable_cache=False)
def foresee_decision(
    model: Bundle, judgement: Verdict, promote: Literal["auto", "off"]
) -> Annotated[Foreseen, "verdict"]:
    """Return the verdict that a run which is not dry would come to, with its page."""
    name = model.card.recipe.name
    verdict = champions.foresee(name, champions.find(name, model.fingerprint), judgement, promote)
    verdict = verdict.because("dry run: nothing was registered, so this look at the holdout is not counted")
    return Foreseen(**dict(verdict.with_page(verdict_page(name, verdict))))
