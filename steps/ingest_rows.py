"""Read the rows of the use case."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Data
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
    rows, reading = read_table(data, contract=None if card is None else card.contract)
    return rows, reading
