"""The step that holds the rows to the champion's contract."""

import numpy as np
from servers import breast_cancer
from zenml.utils.source_utils import set_custom_source_root

from loop.config import ROOT
from loop.data.notes import Reading

set_custom_source_root(str(ROOT))  # as loop/places/apply.py does before a step is imported

from steps.validate_rows import validate_rows  # noqa: E402


def test_what_the_table_and_the_champion_s_contract_both_show_is_said_once() -> None:
    bundle, rows = breast_cancer()
    recipe = bundle.card.recipe
    rows = rows.assign(**{"mean radius": rows["mean radius"].where(rows.index > 2, np.inf)})
    settings = (recipe.name, recipe.data, recipe.contract, None, Reading(), None)
    _, report = validate_rows.entrypoint(rows, rows.head(0), bundle, 1, *settings)
    said = [finding.sentence for finding in report.findings if finding.rule == "wrong_type"]
    assert said == ["'mean radius' has 3 values that are not numeric, e.g. inf"]
