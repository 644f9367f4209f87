"""Turn contract columns into numbers inside the fitted pipeline, so that every place prepares a row alike."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from loop.config import Kind, UserError, known
from loop.data.table import as_features, quoted
from loop.data.times import CALENDAR, calendar

_ALONE = 5  # rows that are derived one by one, to see whether they come out as among others


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


class Derived(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Adds the columns that the owner derives from each row, each as its kind: (n, k) → (n, k + m)."""

    def __init__(self, derive: Callable[[pd.DataFrame], pd.DataFrame], kinds: Mapping[str, Kind]) -> None:
        self.derive = derive
        self.kinds = kinds

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Remember the columns; there is nothing to learn."""
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the columns with those that are derived."""
        return X.join(as_features(self.derive(X.copy()), self.kinds))


def derived_kinds(derive: Callable[[pd.DataFrame], pd.DataFrame], features: pd.DataFrame) -> dict[str, Kind]:
    """Return the kinds of the columns that are derived from features; what depends on other rows is a UserError."""
    try:
        made = derive(features.copy())
    except KeyError as err:
        columns = known("this use case", map(str, features), str(err.args[0]))
        fix = "a derive for some use cases alone asks whether the column is there"
        raise UserError(f"model/features.py: derive needs column {err}; {columns}; {fix}") from err
    if not (isinstance(made, pd.DataFrame) and made.index.equals(features.index)):
        raise UserError(
            "model/features.py: derive needs to return a DataFrame with the rows it was given, in their order"
        )
    if twice := [name for name in made if name in features]:
        raise UserError(f"model/features.py: {quoted(twice[0])} is a column already; give what is derived another name")
    for place in np.linspace(0, len(features) - 1, min(_ALONE, len(features))).astype(int):
        alone = derive(features.iloc[[place]].copy())
        for name in made:
            if not made[name].iloc[[place]].astype(object).equals(alone[name].astype(object)):
                raise UserError(
                    f"model/features.py: {quoted(name)} of a row differs when the row comes alone, as it does to a "
                    "server; derive it from the values of its own row"
                )
    return {str(name): _kind(made[name]) for name in made}


def _kind(values: pd.Series) -> Kind:
    if pd.api.types.is_bool_dtype(values):
        return "boolean"
    if pd.api.types.is_numeric_dtype(values):
        return "numeric"
    return "datetime" if values.dtype.kind == "M" else "categorical"


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
