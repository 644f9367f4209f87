"""Read the rows of the use case."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Data
from core.sources import read_rows
from steps.materializers import Table


@step(enable_cache=False, enable_artifact_metadata=True, output_materializers=Table)
def ingest_rows(data: Data) -> Annotated[pd.DataFrame, "rows"]:
    """Read the source; never from cache, since only reading tells whether it has changed."""
    return read_rows(data)
