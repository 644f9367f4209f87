"""Score rows in one go, with the very bundle that serves."""

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from config import Config
from core.bundle import Bundle
from core.metrics import Predictions
from core.sources import batch_parts, read_rows


class ShardReport(BaseModel):
    """What one step of a batch scored."""

    model_config = ConfigDict(frozen=True)

    files: tuple[str, ...]
    """Where the scores lie, one a file that was read."""
    rows: int
    positive: int
    """Rows that were decided for the positive class; 0 where there are no two classes."""


def score_rows(bundle: Bundle, rows: pd.DataFrame, version: int) -> pd.DataFrame:
    """Return a row's identity, its score or scores, the decision, and the version that made it."""
    card, scores = bundle.card, bundle.scores(rows)
    said = Predictions(card.contract.task, np.empty(len(rows)), scores, card.threshold)  # whose truth is not known
    found = rows[[name for name in (*card.recipe.data.id, card.recipe.data.time) if name]].copy()
    if said.task == "regression":
        return found.assign(prediction=scores, model_version=version)
    if said.task == "binary":
        found["score"] = scores
    else:
        for place, label in enumerate(card.contract.classes):
            found[f"score_{label}"] = scores[:, place]
    found["decision"] = np.asarray(card.contract.classes)[said.decisions]
    return found.assign(model_version=version)


def score_shard(bundle: Bundle, version: int, config: Config, shard: int, folder: str) -> ShardReport:
    """Score every file that falls to a shard, counting from 0, and write the scores below a folder or URL.

    A file is read, scored and written before the next, so memory holds one. Writing again overwrites.
    """
    import fsspec

    written, count, positive = [], 0, 0
    for name, part in batch_parts(config)[shard :: config.inference.shards]:
        scored = score_rows(bundle, read_rows(part, labelled=False), version)
        path = f"{folder.rstrip('/')}/{name}.parquet"
        with fsspec.open(path, "wb", auto_mkdir=True) as file:
            scored.to_parquet(file, index=False)
        written.append(path)
        count += len(scored)
        if bundle.card.contract.task == "binary":
            positive += int((scored["decision"] == bundle.card.contract.classes[1]).sum())
    return ShardReport(files=tuple(written), rows=count, positive=positive)
