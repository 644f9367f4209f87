"""Give a column one of six plain types: they survive Parquet, and every reader comes to the same one."""

import re

import numpy as np
import pandas as pd

_ISO = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
# Dots put the day first everywhere; of / and - both orders are tried, and one of them must fail.
_DAYS = ["%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y"]
_FORMATS = [day + clock for day in _DAYS for clock in ("", " %H:%M", " %H:%M:%S")]


def plain(values: pd.Series, dates: bool = True) -> pd.Series:
    """Return the column as int, float, bool (nullable `boolean` where values miss), str or datetime64[us].

    Strings become times if all of them are dates that can be read in one way only, and `dates` allows it.
    """
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "biuf":
        return values
    if isinstance(values.dtype, np.dtype) and values.dtype.kind == "M":
        return pd.Series(values.dt.as_unit("us"))
    if not isinstance(values.dtype, pd.StringDtype):
        values = values.astype(object).where(values.notna(), None)
        holds = pd.api.types.infer_dtype(values, skipna=True)
        if holds in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
            numbers = pd.to_numeric(values)
            if numbers.dtype != object:  # else whole numbers beyond 64 bits
                return numbers
        if holds == "boolean":
            return values.astype("boolean" if values.isna().any() else "bool")
        if holds in ("datetime", "datetime64", "date"):
            return pd.to_datetime(values, utc=True).dt.tz_localize(None).dt.as_unit("us")
        if holds in ("timedelta", "timedelta64"):
            return pd.to_timedelta(values).dt.total_seconds()
        values = values.map(str, na_action="ignore")
    values = values.astype("str")
    times = _times(values) if dates else None
    return values if times is None else times


def plain_objects(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns of Python objects have a plain type each; no string becomes a time."""
    found = {name: plain(table[name], dates=False) for name in table if table[name].dtype == "object"}
    return table.assign(**found)  # type: ignore[arg-type]


def _times(values: pd.Series) -> pd.Series | None:
    """Return strings as datetime64[us] if every one is a date and exactly one format fits, else None."""
    start = values.dropna().head(1).str.strip()
    if not start.str.match(r"\d+[./-]").any():
        return None
    texts = values.str.strip()
    formats = _FORMATS
    if re.fullmatch(_ISO, start.iloc[0]):
        formats = ["ISO8601"] if texts.dropna().str.fullmatch(_ISO).all() else []
    fits = [layout for layout in formats if _parsed(start, layout) is not None]
    times = [parsed for layout in fits if (parsed := _parsed(texts, layout)) is not None]
    return times[0] if len(times) == 1 else None


def _parsed(texts: pd.Series, layout: str) -> pd.Series | None:
    try:
        return pd.to_datetime(texts, format=layout, utc=True).dt.tz_localize(None).dt.as_unit("us")
    except ValueError:
        return None
