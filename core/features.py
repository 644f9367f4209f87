"""Turn contract columns into numbers, inside the fitted pipeline, so that every place prepares a row alike."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from config import Kind

CALENDAR = ("days", "month", "weekday", "hour")


class CalendarParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn each datetime column into days since 1970, month, weekday and hour: (n, k) → (n, 4k), NaN if missing."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Remember the columns; there is nothing to learn."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return the parts as float64."""
        parts = []
        for name in X.columns:
            moment = X[name].dt
            days = (X[name] - pd.Timestamp(0)) / pd.Timedelta(days=1)
            parts += [days, moment.month, moment.weekday, moment.hour]
        return np.column_stack([np.asarray(part, dtype=np.float64) for part in parts])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return `column_part` for each column and part."""
        return np.asarray([f"{c}_{p}" for c in self.feature_names_in_ for p in CALENDAR], dtype=object)


class Categories(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Give missing values a name of their own, so that a missing category is a category: (n, k) → (n, k)."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Remember the columns; there is nothing to learn."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the columns as strings without gaps."""
        return X.astype(object).where(X.notna(), "(missing)")


def preprocessing(features: Mapping[str, Kind]) -> ColumnTransformer:
    """Return the transformer for these columns: impute and scale numbers, encode categories, unfold times.

    A missing number becomes the training median plus a column that says it was missing. Categories seen in
    fewer than 1 % of the training rows, and unseen ones, share one column.
    """
    numbers = [n for n, kind in features.items() if kind in ("numeric", "boolean")]
    categories = [n for n, kind in features.items() if kind == "categorical"]
    times = [n for n, kind in features.items() if kind == "datetime"]
    scale = (SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.01, sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(*scale), numbers),
            ("categories", make_pipeline(Categories(), encode), categories),
            ("times", make_pipeline(CalendarParts(), *scale), times),
        ]
    )
