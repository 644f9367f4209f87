"""Champion and challenger are judged on rows that neither has seen, also after the split has changed."""

import pytest
from zenml.utils.source_utils import set_custom_source_root

from loop.config import ROOT, Config, load
from loop.data.contract import learn_contract
from loop.data.sources import read_rows
from loop.data.split import resolve
from loop.training.bundle import Bundle
from loop.training.fit import train

set_custom_source_root(str(ROOT))  # as loop/places/apply.py does before a step is imported

from loop.registry.champions import Earlier  # noqa: E402
from steps.compare_models import compare_models  # noqa: E402


def trained(config: Config) -> Bundle:
    rows = read_rows(config.data)
    rule = resolve(rows, config.data, config.split)
    train_rows = rows[~rule.held_out(rows)].reset_index(drop=True)
    return train(train_rows, learn_contract(train_rows, config.data, config.contract), rule, config.recipe)


@pytest.mark.parametrize("changed", ["split.seed=1", "split.holdout=0.5"])
def test_judges_on_rows_held_out_from_both(changed: str) -> None:
    path = ROOT / "configs/breast_cancer.yaml"
    before, after = load(path, ["evaluation.resamples=200"]), load(path, ["evaluation.resamples=200", changed])
    champion, challenger = trained(before), trained(after)
    rows = read_rows(after.data)
    holdout = rows[challenger.card.split.held_out(rows)]
    settings = (after.gate, after.evaluation, after.serving, Earlier())
    verdict = compare_models.entrypoint(challenger, champion, 1, holdout, *settings)
    unseen = challenger.card.split.held_out(rows) & champion.card.split.held_out(rows)
    assert verdict.rows == unseen.sum()
    assert verdict.rows < len(holdout)


def test_holds_a_model_that_could_not_be_deployed() -> None:
    config = load(ROOT / "configs/breast_cancer.yaml", ["evaluation.resamples=200", "gate.minimum={}"])
    model, rows = trained(config), read_rows(config.data)
    holdout = rows[model.card.split.held_out(rows)]
    settings = (config.gate, config.evaluation)
    assert (
        compare_models.entrypoint(model, None, None, holdout, *settings, config.serving, Earlier()).decision
        == "promote"
    )
    serving = config.serving.model_copy(update={"personal": {"mean radios": "omit"}})
    verdict = compare_models.entrypoint(model, None, None, holdout, *settings, serving, Earlier())
    assert verdict.decision == "hold"
    assert verdict.reasons[0].startswith("it could not be deployed: serving.personal: no column 'mean radios'")
