"""Read the rows of the use case."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Data, UserError
from core.bundle import Bundle
from core.notes import Reading
from core.sources import read_table
from core.stand_in import StandIn
from steps.materializers import Table


@step(enable_cache=False, enable_artifact_metadata=True, output_materializers={"rows": Table})
def ingest_rows(
    data: Data, champion: Bundle | StandIn | None
) -> tuple[Annotated[pd.DataFrame, "rows"], Annotated[Reading, "reading"]]:
    """Read the source as the champion's contract has it; never from cache, since only reading tells of changes."""
    card = None if champion is None else champion.card
    if card is not None and card.contract.target != data.target:
        name, before = card.recipe.name, card.contract.target
        raise UserError(
            f"the champion of '{name}' predicts '{before}', this config '{data.target}'; give it a name of its own, or "
            f"set data.target: {before}"
        )
    rows, reading = read_table(data, contract=None if card is None else card.contract)
    return rows, reading
