"""Read the rows of the use case."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Data
from core.bundle import Bundle
from core.notes import Reading
from core.sources import read_table
from steps.materializers import Table


@step(enable_cache=False, enable_artifact_metadata=True, output_materializers={"rows": Table})
def ingest_rows(
    data: Data, champion: Bundle | None
) -> tuple[Annotated[pd.DataFrame, "rows"], Annotated[Reading, "reading"]]:
    """Read the source as the champion's contract has it; never from cache, since only reading tells of changes."""
    rows, reading = read_table(data, contract=champion.card.contract if champion is not None else None)
    return rows, reading
