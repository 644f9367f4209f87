"""Generate an endless stream of card transactions whose drift can be chosen, for models and for monitors."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import UserError, known

Floats = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

SCENARIOS = ("none", "covariate", "label", "concept", "missing", "schema")
MERCHANTS = ("grocery", "restaurant", "fuel", "pharmacy", "fashion", "electronics", "travel", "gift_cards")
COUNTRIES = ("home", "neighbour", "overseas")
CHANNELS = ("chip", "contactless", "online")

_BLOCK = 4096  # rows drawn together; part of what a seed means
_PER_DAY = 500
_EPOCH = np.datetime64("2025-01-01", "us")
_DAY = 86_400_000_000  # microseconds
_BY_HOUR = np.array([2, 1, 1, 1, 1, 2, 4, 7, 9, 9, 9, 10, 12, 11, 9, 9, 10, 12, 13, 12, 9, 7, 5, 3], float)
_MIX = np.array([30, 18, 12, 8, 11, 9, 7, 5], float)
_SHIFTED_MIX = np.array([18, 12, 8, 8, 16, 17, 12, 9], float)
_LOG_PRICE = np.array([3.3, 3.4, 3.9, 2.9, 4.0, 5.0, 5.3, 4.0])
_RISK = np.array([-0.8, -0.5, -0.3, -0.4, 0.2, 0.9, 0.6, 1.6])
_RATE = 0.02  # of frauds without drift, as the intercept makes it
_TRIPLED = 3.0
_INTERCEPT, _CONCEPT_INTERCEPT = -6.6, -5.15  # both make about _RATE


def card_transactions(rows: int = 20_000, seed: int = 7, scenario: str = "none", start: int = 0) -> pd.DataFrame:
    """Return rows `start` to `start + rows` of this seed's stream; row i is the same whatever else is asked.

    Columns: transaction_id, time, amount (lognormal), merchant, country, channel, card_since, hour,
    previous_24h, distance_km (missing online), device_score (5 % missing), fraud (0 or 1, 1-3 % ones).
    A scenario changes one thing: `covariate` P(x), `label` P(y) with P(x|y) kept, `concept` P(y|x) with the
    very same x, `missing` the share of known device scores, `schema` a name and a type. An unknown one
    is a UserError.
    """
    if scenario not in SCENARIOS:
        raise UserError(f"no scenario '{scenario}'; {known('card_transactions', SCENARIOS, scenario)}")
    if min(rows - 1, seed, start) < 0:
        raise UserError(f"rows must be 1 or more, seed and start 0 or more; they are {rows}, {seed}, {start}")
    first, last = start // _BLOCK, (start + rows - 1) // _BLOCK
    blocks = [_block(seed, number, scenario) for number in range(first, last + 1)]
    inside = slice(start - first * _BLOCK, start - first * _BLOCK + rows)
    names = list(blocks[0])
    columns = {name: np.concatenate([block.pop(name) for block in blocks])[inside] for name in names}
    table = pd.DataFrame({"transaction_id": np.arange(start, start + rows), **columns}, copy=False)
    for name, values in (("merchant", MERCHANTS), ("country", COUNTRIES), ("channel", CHANNELS)):
        table[name] = pd.array(values, dtype="str").take(columns[name])
    if scenario == "schema":
        table["amount"] = table["amount"].map("{:.2f}".format).astype("str")
        table = table.rename(columns={"merchant": "merchant_category"})
    return table


def fraud_probability(rows: pd.DataFrame, scenario: str = "none") -> Floats:
    """Return P(fraud | x) of `none`, `covariate` or `concept`, shape (rows,); no model ranks better."""
    coded = {
        name: pd.Index(values).get_indexer(pd.Index(rows[name]))
        for name, values in (("merchant", MERCHANTS), ("country", COUNTRIES), ("channel", CHANNELS))
    }
    columns = {name: rows[name].to_numpy() for name in rows.columns if name not in coded}
    return _probability({**columns, **coded}, concept=scenario == "concept")


def _block(seed: int, number: int, scenario: str) -> Columns:
    """Draw one block of rows; draws come in one order, so scenarios differ only where they mean to."""
    random = np.random.default_rng(np.random.SeedSequence([seed, number]))
    if scenario != "label":
        block = _draw(random, number, _BLOCK, scenario)
        if scenario == "missing":
            block["device_score"][random.random(_BLOCK) < 0.6] = np.nan
        return block
    # Thin out the genuine rows of a larger draw: the share of frauds triples, P(x|y) stays as it is.
    drawn = _draw(random, number, 4 * _BLOCK, scenario)
    kept_share = (1 - _TRIPLED * _RATE) / (_TRIPLED * (1 - _RATE))
    kept = np.flatnonzero((drawn["fraud"] == 1) | (random.random(4 * _BLOCK) < kept_share))
    kept = np.sort(random.choice(kept, _BLOCK, replace=False))
    return {name: values[kept] for name, values in drawn.items()}


def _draw(random: np.random.Generator, number: int, size: int, scenario: str) -> Columns:
    """Draw `size` transactions over the time of one block; categories are codes."""
    shifted = scenario == "covariate"
    time = _times((number + (np.arange(size) + random.random(size)) / size) * _BLOCK / _PER_DAY)
    mix = np.cumsum(_SHIFTED_MIX if shifted else _MIX)
    merchant = np.searchsorted(mix / mix[-1], random.random(size), side="right")
    country = np.searchsorted([0.9, 0.97], random.random(size), side="right")
    channel = np.searchsorted([0.35, 0.7], random.random(size), side="right")
    amount = np.exp(_LOG_PRICE[merchant] + 0.4 * shifted + 0.8 * random.standard_normal(size))
    distance = np.exp(1.5 + 2.0 * country + 0.5 * shifted + random.standard_normal(size))
    score = random.beta(6, 2, size)
    age = (random.exponential(900, size) + 1).astype("m8[D]")
    columns = {
        "time": time,
        "amount": np.maximum(np.round(amount, 2), 0.01),
        "merchant": merchant,
        "country": country,
        "channel": channel,
        "card_since": time.astype("M8[D]").astype("M8[us]") - age,
        "hour": (time.astype(np.int64) % _DAY) // (_DAY // 24),
        "previous_24h": random.poisson(random.gamma(1.5, 1.2, size)),
        "distance_km": np.where(channel == CHANNELS.index("online"), np.nan, np.round(distance, 1)),
        "device_score": np.where(random.random(size) < 0.05, np.nan, np.round(score, 3)),
    }
    fraud = random.random(size) < _probability(columns, concept=scenario == "concept")
    return {**columns, "fraud": fraud.astype(np.int64)}


def _times(days: Floats) -> npt.NDArray[np.datetime64]:
    """Turn days of equal traffic into the clock: nights are quiet."""
    share = np.concatenate([[0.0], np.cumsum(_BY_HOUR) / _BY_HOUR.sum()])
    clock = np.interp(days % 1, share, np.linspace(0, 1, 25))
    return _EPOCH + ((np.floor(days) + clock) * _DAY).astype("m8[us]")


def _probability(x: Columns, concept: bool) -> Floats:
    """Return the logistic P(fraud | x); with `concept` fraudsters test cards: small, quiet, in daytime."""
    age = (x["time"] - x["card_since"]) / np.timedelta64(1, "D")
    amount = np.log(x["amount"]) - 3.6
    distance = np.nan_to_num(np.log1p(x["distance_km"]) - 1.8)
    doubt = np.nan_to_num(0.75 - x["device_score"])
    night, online = x["hour"] < 6, x["channel"] == CHANNELS.index("online")
    logit = _RISK[x["merchant"]] + 0.8 * (x["country"] > 0) + 0.9 * (age < 90) + 0.3 * x["previous_24h"]
    logit += 0.6 * distance
    if concept:
        logit += _CONCEPT_INTERCEPT - 0.8 * amount - 3 * doubt - 0.9 * online - night
    else:
        logit += _INTERCEPT + 0.8 * amount + 5 * doubt + 0.9 * online + night
    return np.asarray(1 / (1 + np.exp(-logit)))
