"""Rows are read as the champion's contract has them, if it is a champion of the same question."""

import pytest
from servers import breast_cancer
from zenml.utils.source_utils import set_custom_source_root

from loop.config import ROOT, UserError

set_custom_source_root(str(ROOT))  # as loop/places/apply.py does before a step is imported

from steps.ingest_rows import ingest_rows  # noqa: E402


def test_a_champion_of_another_target_is_one_sentence_before_anything_is_trained() -> None:
    bundle = breast_cancer().bundle
    data = bundle.card.recipe.data
    rows, _ = ingest_rows.entrypoint(data, bundle.card.recipe.contract, bundle)
    assert data.target in rows
    with pytest.raises(UserError, match=r"the champion of 'breast_cancer' predicts 'diagnosis', this config 'grade'; "):
        ingest_rows.entrypoint(data.model_copy(update={"target": "grade"}), bundle.card.recipe.contract, bundle)
