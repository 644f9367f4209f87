"""Let a model that can no longer be loaded be compared all the same, by what it said of its holdout rows."""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import STORED
from loop.data.split import SplitRule
from loop.data.table import as_features, exact_hashes, mix, row_hashes
from loop.training.bundle import CARD, Bundle, Card
from loop.training.metrics import Predictions

ROW, IDENTITY = "row", "identity"
FAULT, SCORES = "fault.txt", "scores.parquet"


@dataclass(frozen=True)
class StandIn:
    """A model's card and its scores of the holdout, recorded when it was registered, in place of the model."""

    card: Card | None
    """None where it is gone too: of a version from before there were records."""
    scores: pd.DataFrame
    """Hashes of each row, by what it is and what the model was told of it, and by what it is alone (uint64), and its
    score, or one for each class, named by their place."""
    fault: str = ""
    """Why the model itself cannot be loaded: `needs scikit-learn 1.9.1, here is 1.9.2`."""

    @classmethod
    def of(cls, model: Bundle, rows: pd.DataFrame, scores: npt.NDArray[np.float64]) -> "StandIn":
        """Record what a model said of rows; those that are alike in every value count once."""
        columns = np.asarray(scores, np.float64).reshape(len(rows), -1).T
        said = {f"score_{place}": column for place, column in enumerate(columns)}
        identity = model.card.split.who(rows)
        table = pd.DataFrame({ROW: _hashes(model.card, rows), IDENTITY: identity, **said})
        return cls(model.card, table.drop_duplicates(ROW, ignore_index=True))

    @classmethod
    def without_record(cls, card: Card | None) -> "StandIn":
        """Stand for a model of which no prediction is known."""
        return cls(card, pd.DataFrame({ROW: np.zeros(0, np.uint64)}))

    def files(self) -> dict[str, bytes]:
        """Return the content of its files by name; the same record has the same."""
        scores = io.BytesIO()
        self.scores.to_parquet(scores, compression="zstd")
        card = "null" if self.card is None else self.card.model_dump_json(indent=1)
        return {CARD: card.encode(), FAULT: self.fault.encode(), SCORES: scores.getvalue()}

    @classmethod
    def read(cls, files: Mapping[str, bytes]) -> "StandIn":
        """Read what `files` returned."""
        card = None if files[CARD] == b"null" else Card.model_validate_json(files[CARD], context=STORED)
        return cls(card, pd.read_parquet(io.BytesIO(files[SCORES])), files[FAULT].decode())

    def unseen(self, rows: pd.DataFrame, by: SplitRule | None = None) -> npt.NDArray[np.bool_]:
        """Return which rows there is a record of, shape (rows,): all were held out from it."""
        if self.card is None or self.scores.empty or not {*self.card.contract.features} <= {*rows.columns}:
            return np.zeros(len(rows), bool)
        return np.isin(_hashes(self.card, rows), self.scores[ROW])

    def holds(self, rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which rows the model was judged on, shape (rows,), whatever it was told of them."""
        if self.card is None or IDENTITY not in self.scores or not {*self.card.split.columns} <= {*rows.columns}:
            return self.unseen(rows)
        return np.isin(self.card.split.who(rows), self.scores[IDENTITY])

    def predictions(self, rows: pd.DataFrame) -> Predictions:
        """Return the recorded scores of labelled rows, each of which is on record, beside their truth."""
        if self.card is None:
            raise ValueError("a model without a card has no predictions")
        known = self.scores.drop(columns=IDENTITY, errors="ignore").set_index(ROW)
        said = known.loc[_hashes(self.card, rows)].to_numpy(np.float64)
        scores = said if self.card.contract.task == "multiclass" else said[:, 0]
        return self.card.beside(rows, rows[self.card.contract.target], scores)


def _hashes(card: Card, rows: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Hash what a score belongs to: which row it is, and what the model was told of it to the last bit."""
    features = as_features(rows, card.contract.features)
    told = exact_hashes(features, list(card.contract.features))
    return mix(row_hashes(rows, card.split.identity), 0) + mix(told, 1)
