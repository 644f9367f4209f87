"""Turn contract columns into numbers inside the fitted pipeline, so that every place prepares a row alike."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from loop.config import Kind
from loop.data.times import CALENDAR, calendar


class CalendarParts(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn each datetime into days since 1970, month, weekday and hour: (n, k) → (n, 4k), NaN if missing."""

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Remember the columns; there is nothing to learn."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        """Return the parts as float64."""
        # In microseconds as the columns: in pandas' own nanoseconds 9999-12-31, an open end, is out of bounds.
        return calendar(X.to_numpy("datetime64[us]"))

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


def sources(prepare: ColumnTransformer) -> list[str]:
    """Return, for each column of the matrix that a fitted `preprocessing` makes, the feature it comes from."""
    found: list[str] = []
    for name, step, columns in prepare.transformers_:
        if name == "categories" and len(columns):
            rare = [0 if texts is None else len(texts) for texts in step[-1].infrequent_categories_]
            for column, texts, count in zip(columns, step[-1].categories_, rare, strict=True):
                found += [column] * (len(texts) - max(count - 1, 0))
        elif name in ("numbers", "times") and len(columns):
            impute = step[-2]
            parts = np.repeat(columns, len(impute.statistics_) // len(columns)).tolist()
            found += [*parts, *(parts[place] for place in impute.indicator_.features_)]
    return found


def preprocessing(features: Mapping[str, Kind]) -> ColumnTransformer:
    """Return the transformer for these columns: impute and scale numbers, encode categories, unfold times.

    A missing number becomes the training median plus a column that says it was missing. Categories seen in
    fewer than 1 % of the training rows share one column, unseen ones too; without such a column, unseen ones
    are zero in all.
    """
    numbers = [n for n, kind in features.items() if kind in ("numeric", "boolean")]
    categories = [n for n, kind in features.items() if kind == "categorical"]
    times = [n for n, kind in features.items() if kind == "datetime"]
    # A fold may hold no value of a column; it stays in place, as zeros.
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    scale = (impute, StandardScaler())
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=0.01, sparse_output=False)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(*scale), numbers),
            ("categories", make_pipeline(Categories(), encode), categories),
            ("times", make_pipeline(CalendarParts(), *scale), times),
        ]
    )
