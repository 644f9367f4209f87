"""Prepare plain values in numpy as a fitted scikit-learn preparation does, to the bit.

What it does with numbers is read off the fitted steps; what it makes of each category is looked at once and kept.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd

from loop.data.categories import category_of
from loop.data.contract import DataContract
from loop.data.table import as_text
from loop.data.times import CALENDAR, calendar
from loop.training.compiled.proof import unseen
from loop.training.compiled.spec import Arithmetic, Encoding, Filling, Floats, NotCompilable, Numbers, Part, Rows

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
_NO_TIME = np.iinfo(np.int64).min  # as numpy has it


def read_parts(pipeline: Any, contract: DataContract) -> tuple[Part, ...]:
    """Read off a fitted pipeline what each part of its matrix comes from; what is not understood is NotCompilable."""
    from sklearn.compose import ColumnTransformer

    if [type(step) for _, step in pipeline.steps[:-1]] != [ColumnTransformer]:
        names = ", ".join(type(step).__name__ for _, step in pipeline.steps[:-1])
        raise NotCompilable(f"rows are prepared by {names or 'nothing'}, not by one ColumnTransformer")
    try:
        return tuple(
            part
            for _, step, columns in pipeline[0].transformers_
            if len(columns) and not isinstance(step, str)
            for part in _parts(step, list(columns), contract)
        )
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        said = " ".join(str(err).split())[:200]
        raise NotCompilable(f"what prepares the rows cannot be read: {type(err).__name__}: {said}") from err


def preparation(parts: Sequence[Part], width: int) -> Callable[[Rows], Floats]:
    """Return what makes the matrix (n, m) of rows that hold this many features."""
    blocks = [_numbers(part, width) if isinstance(part, Numbers) else _encoded(part) for part in parts]
    return lambda rows: np.concatenate([block(rows) for block in blocks], axis=1)


def sources(parts: Sequence[Part]) -> tuple[int, ...]:
    """Return the feature that each matrix column comes from."""
    owners: list[int] = []
    for part in parts:
        if isinstance(part, Encoding):
            owners += [part.feature] * len(part.rows[0])
            continue
        columns = np.repeat(part.features, len(CALENDAR) if part.times else 1).tolist()
        for step in part.steps:
            columns += [columns[gap] for gap in step.gaps] if isinstance(step, Filling) else []
        owners += columns
    return tuple(owners)


def _parts(step: Any, names: list[str], contract: DataContract) -> list[Part]:
    """Read one branch of a column transformer."""
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    from loop.training.features import CalendarParts

    chain = [each for _, each in step.steps] if type(step) is Pipeline else [step]
    kinds = {contract.features[name] for name in names}
    if kinds == {"categorical"}:
        return _encodings(step, chain, names, contract)
    times = kinds == {"datetime"} and type(chain[0]) is CalendarParts
    if not (times or kinds <= {"numeric", "boolean"}):
        raise NotCompilable(f"{type(chain[0]).__name__} is given {', '.join(sorted(kinds))} columns")
    return [
        Numbers(
            features=_places(names, contract),
            times=times,
            steps=tuple(operation for each in chain[times:] for operation in _operations(each)),
            centred=type(chain[-1]) is StandardScaler,
        )
    ]


def _operations(step: Any) -> list[Filling | Arithmetic]:
    """Return what a fitted step does with numbers, in its own order of operations."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    arithmetic = {
        StandardScaler: {"subtract": "mean_", "divide": "scale_"},
        RobustScaler: {"subtract": "center_", "divide": "scale_"},
        MinMaxScaler: {"multiply": "scale_", "add": "min_"},
        MaxAbsScaler: {"divide": "scale_"},
    }
    if type(step) is SimpleImputer and _fills_gaps_only(step):
        gaps = step.indicator_.features_.tolist() if step.add_indicator else []
        return [Filling(values=step.statistics_.tolist(), gaps=gaps)]
    if type(step) is FunctionTransformer and step.func is None:  # a column that is passed through
        return []
    if type(step) not in arithmetic or getattr(step, "clip", False):
        raise _without_equal(step)
    does = {operation: getattr(step, name) for operation, name in arithmetic[type(step)].items()}
    return [Arithmetic(operation=operation, by=by.tolist()) for operation, by in does.items() if by is not None]


def _encodings(step: Any, chain: list[Any], names: list[str], contract: DataContract) -> list[Part]:
    """Push each category, an unseen one and a gap through fitted steps, column by column; keep what comes out."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

    from loop.training.features import Categories

    *before, encoder = chain
    # To these all unseen categories are alike; another step may look into them.
    fits = [type(each) is Categories or (type(each) is SimpleImputer and _fills_gaps_only(each)) for each in before]
    fits.append(type(encoder) in (OneHotEncoder, OrdinalEncoder, TargetEncoder))
    if not all(fits):
        raise _without_equal(chain[fits.index(False)])
    encodings: list[Part] = []
    for name, feature, categories in zip(names, _places(names, contract), encoder.categories_, strict=True):
        texts = [text for text in categories if isinstance(text, str)]
        table = pd.DataFrame(np.nan, index=range(len(texts) + 2), columns=names, dtype=object)
        table[name] = pd.Series([*texts, unseen(texts), np.nan], dtype=object)
        encoded = np.asarray(step.transform(table), np.float64)
        own = (encoded != encoded[-1]).any(axis=0)  # in all other columns every row is the same gap
        encodings.append(
            Encoding(
                feature=feature,
                rows=encoded[:, own].tolist(),
                codes={text: code for code, text in enumerate(texts)},
                unseen=len(texts),
                missing=len(texts) + 1,
            )
        )
    return encodings


def _places(names: list[str], contract: DataContract) -> tuple[int, ...]:
    features = list(contract.features)
    return tuple(features.index(name) for name in names)


def _fills_gaps_only(imputer: Any) -> bool:
    return bool(imputer.missing_values != imputer.missing_values)  # NaN, as every gap is


def _without_equal(step: Any) -> NotCompilable:
    return NotCompilable(f"{type(step).__name__}, as it is set, has no equal in numpy")


def _numbers(part: Numbers, width: int) -> Callable[[Rows], Floats]:
    """Return scikit-learn's own operations on numbers, in its order."""
    read = _times(part.features) if part.times else _floats(part.features, width)
    steps = [_filled(step) if isinstance(step, Filling) else _calculated(step) for step in part.steps]

    def block(rows: Rows) -> Floats:
        values = read(rows)
        for step in steps:
            values = step(values)
        return values

    return block


def _floats(places: tuple[int, ...], width: int) -> Callable[[Rows], Floats]:
    pick, picky = itemgetter(*places), places != tuple(range(width))

    def floats(rows: Rows) -> Floats:
        values = np.array([pick(row) for row in rows] if picky else rows, np.float64)  # None becomes NaN
        return np.where(np.isfinite(values), values, np.nan).reshape(len(rows), -1)

    return floats


def _times(places: tuple[int, ...]) -> Callable[[Rows], Floats]:
    def times(rows: Rows) -> Floats:
        # Six times as fast as letting numpy convert them.
        since = [_NO_TIME if row[p] is None else (row[p] - _EPOCH) // _MICROSECOND for row in rows for p in places]
        return calendar(np.array(since).view("datetime64[us]").reshape(len(rows), -1))

    return times


def _filled(filling: Filling) -> Callable[[Floats], Floats]:
    fills, places = np.array(filling.values), list(filling.gaps)

    def filled(values: Floats) -> Floats:
        gaps = np.isnan(values)
        if gaps.any():
            values = np.where(gaps, fills, values)
        return np.concatenate([values, gaps[:, places]], axis=1) if places else values

    return filled


def _calculated(step: Arithmetic) -> Callable[[Floats], Floats]:
    calculate, by = getattr(np, step.operation), np.array(step.by)
    return lambda values: calculate(values, by, out=values)  # of this block alone


def _encoded(part: Encoding) -> Callable[[Rows], Floats]:
    table, codes, feature = np.array(part.rows), _Codes(part), part.feature
    return lambda rows: table[[codes[row[feature]] for row in rows]]


class _Codes(dict[Any, int]):
    """The code of each category: of strings at once, of other spellings and unseen ones on a second look."""

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding.codes)
        self[None] = self[""] = encoding.missing
        self.unseen = encoding.unseen

    def __missing__(self, value: Any) -> int:
        return self.get(category_of(as_text(value), self), self.unseen)
