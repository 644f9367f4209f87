"""Read the rows of the use case."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Contract, Data, UserError
from loop.data.checks import column_changes
from loop.data.notes import Reading
from loop.data.sources import read_table
from loop.registry.materializers import Table
from loop.training.bundle import Bundle
from loop.training.stand_in import StandIn


@step(enable_cache=False, enable_artifact_metadata=True, output_materializers={"rows": Table})
def ingest_rows(
    data: Data, settings: Contract, champion: Bundle | StandIn | None
) -> tuple[Annotated[pd.DataFrame, "rows"], Annotated[Reading, "reading"]]:
    """Read the source as the champion's contract has it; never from cache, since only reading tells of changes.

    Columns in `contract.accept` are read as if there were no champion.
    """
    card = None if champion is None else champion.card
    if card is not None and card.contract.target != data.target:
        name, before = card.recipe.name, card.contract.target
        raise UserError(
            f"the champion of '{name}' predicts '{before}', this config '{data.target}'; give it a name of its own, or "
            f"set data.target: {before}"
        )
    if card is None:
        rows, reading = read_table(data)
        return rows, reading  # two names, or ZenML takes them for one output
    rows, reading = read_table(data, contract=card.contract.without(settings.accept))
    reading = reading.model_copy(update=column_changes(card.contract, card.split, rows, data, settings.accept))
    return rows, reading
