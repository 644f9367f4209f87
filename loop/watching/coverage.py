"""Tell whether the rows whose labels came stand for all rows that were answered.

Labels come selectively where people check some answers more than others: only what was predicted positive (selective
labels, Lakkaraju et al. 2017), mostly what was wrong, or positives before negatives (verification bias, Begg & Greenes
1983). Two things are looked at. Is the labelled share the same in every decision and score band: a chi-square test, as
a family of `watching.drift`, and a floor, the population stability index of labelled rows beside all rows. And could
selection be what looks like drift: within each decision either labels come by chance and their odds have changed, or
odds are as promised and one outcome is labelled more often than the other. Drift has to be the likelier one by far.

What no test can see: selection that comes together with drift. Where fewer labels than rows came, and by chance, small
drift is not told from selection. Labels of a random sample (`feedback.audit`) tell for sure.
"""

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from loop.config import Monitoring, Section
from loop.log.records import TRUTH, in_audit
from loop.training.bundle import Card
from loop.training.metrics import Predictions
from loop.watching.concept import calibrated
from loop.watching.drift import FAMILIES, homogeneity, p_value, stability_index

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BANDS, BAND_ROWS = 5, 20
"""Bands of the scores within a decision (ten of numbers), and rows of a band at least."""
NEARLY_ALL = 0.95
"""Labelled share from which rows stand for all: what the others would change is small beside the floors."""
EVEN_LABELS = 20
"""Labels that each band needs before others are left out until all bands have the same share of them."""
_TINY = 1e-6  # chances are kept so far from 0 and 1
_STEPS = 500  # of expectation and maximisation, at most


class Band(Section):
    """Say how many rows of one decision and range of scores are labelled."""

    decision: str
    """Empty for numbers."""
    low: float
    high: float
    """Of the scores: P(positive), the probability of the decision, or the number."""
    rows: int
    labelled: int


class Coverage(Section):
    """Say which rows are labelled, by decision and score band."""

    rows: int
    labelled: int
    bands: tuple[Band, ...]
    p: float
    """Of the test whether the labelled share is the same in all bands."""
    psi: float
    """Population stability index of the labelled rows beside all, without what sampling gives it."""
    selective: bool
    """Chance does not explain which rows are labelled, and these are another mix than all rows."""

    @property
    def sentence(self) -> str:
        """Say where the labelled share is least and greatest."""
        shares = sorted(self.bands, key=lambda band: band.labelled / band.rows)
        low, high = (f"{band.labelled / band.rows:.0%} {_where(band)}" for band in (shares[0], shares[-1]))
        return f"labels came for {low} and for {high} ({p_value(self.p)})"


def logged_scores(rows: pd.DataFrame, card: Card) -> Floats:
    """Return the scores as they were answered, (n,) or (n, k)."""
    contract = card.contract
    if contract.task != "multiclass":
        return rows["prediction_score"].to_numpy(np.float64)
    return rows[[f"prediction_score_{label}" for label in contract.classes]].to_numpy(np.float64)


def asked_of(rows: pd.DataFrame, card: Card) -> tuple[Predictions, Mask]:
    """Return what was answered, and which rows have a label as TRUTH; where one has none, another's stands for it."""
    is_labelled = rows[TRUTH].notna()
    known = rows[TRUTH].where(is_labelled, rows[TRUTH][is_labelled].iloc[0])
    asked = card.beside(rows, known.rename(card.contract.target), logged_scores(rows, card))
    return asked, is_labelled.to_numpy()


def coverage_of(asked: Predictions, labelled: Mask, settings: Monitoring) -> Coverage:
    """Compare labelled rows with all rows that were due; the truth of `asked` is not looked at."""
    places, bands = _bands(asked, labelled)
    here = np.bincount(places[labelled], minlength=len(bands))
    all_rows = np.bincount(places, minlength=len(bands))
    found = homogeneity(here, all_rows - here)
    p = 1.0 if found is None else found[1]
    psi = _instability(here, all_rows)
    selective = p <= settings.false_alarm_rate / FAMILIES and psi >= settings.min_psi
    return Coverage(rows=len(labelled), labelled=int(labelled.sum()), bands=bands, p=p, psi=psi, selective=selective)


def audit_of(due: pd.DataFrame, share: float, settings: Monitoring) -> tuple[pd.DataFrame, bool]:
    """Return the audit sample of rows that are due, and whether so much of it is labelled that it judges alone.

    Columns `prediction_id` and TRUTH are looked at.
    """
    audit = due[in_audit(due["prediction_id"], share)]
    known = int(audit[TRUTH].notna().sum())
    return audit, known >= max(settings.min_labels, NEARLY_ALL * len(audit))


def evened_out(asked: Predictions, labelled: Mask) -> Mask:
    """Return labelled rows of which each band has as large a share as the band with the fewest; none where it has few.

    That is, each is kept by its inverse labelling rate: what is left stands for all rows, as far as labels were chosen
    by decision and score. It does not where they were chosen by what came true.
    """
    places, bands = _bands(asked, labelled)
    rates = np.array([band.labelled / band.rows for band in bands])
    if min(band.labelled for band in bands) < EVEN_LABELS:
        return np.zeros_like(labelled)
    kept: Mask = np.random.default_rng(0).random(len(labelled)) * rates[places] < rates.min()
    return labelled & kept


def drift_is_likelier(asked: Predictions, labelled: Mask, holdout: Predictions, settings: Monitoring) -> bool:
    """Say whether labels that are not as promised are drift rather than selection, 1 / false_alarm_rate to 1 at least.

    The truth of rows without a label is not looked at. Where every row is labelled nothing was selected. Of numbers it
    is asked whether they are above what was said, and whether they are far from it, beside the holdout's median.
    """
    if labelled.all():
        return True
    if asked.task == "regression":
        errors, before = (side.truth - side.scores for side in (asked, holdout))
        signs = errors > np.median(before)
        sizes = np.abs(errors) > np.median(np.abs(before))
        lead = max(_lead(np.full(len(errors), 0.5), labelled, outcome, labelled) for outcome in (signs, sizes))
    else:
        decisions, chances = asked.decisions, np.clip(calibrated(asked.scores, holdout), _TINY, 1 - _TINY)
        right = asked.truth == decisions
        groups = [(decisions == code, chances[:, code]) for code in np.unique(decisions)]
        lead = sum(_lead(chance[of], labelled[of], right[of], labelled) for of, chance in groups)
    return lead >= -math.log(settings.false_alarm_rate)


def _lead(chance: Floats, labelled: Mask, outcome: Mask, all_labelled: Mask) -> float:
    """Return how much likelier drift is, as a log likelihood ratio; in it labels come for a share of all rows."""
    share, n = float(all_labelled.mean()), int(labelled.sum())
    by_chance = n * math.log(share) + (len(labelled) - n) * math.log(1 - share)
    drift = _of_drift(chance[labelled], outcome[labelled])
    return by_chance + drift - _of_selection(chance, labelled, outcome[labelled])


def _of_drift(chance: Floats, outcome: Mask) -> float:
    """Return the log likelihood of labelled outcomes where one factor has changed the odds of all."""
    from scipy.optimize import brentq

    if not len(outcome):
        return 0.0
    logits = np.log(chance / (1 - chance))
    wanted = (float(outcome.sum()) + 0.5) / (len(outcome) + 1)
    shift = brentq(lambda by: float((1 / (1 + np.exp(-logits - by))).mean()) - wanted, -40, 40)
    return float(-np.log1p(np.exp(np.where(outcome, -1, 1) * (logits + shift))).sum())


def _of_selection(chance: Floats, labelled: Mask, outcome: Mask) -> float:
    """Return the log likelihood where outcomes are as promised and each has its own share of labels.

    The shares are found by expectation and maximisation (Dempster, Laird & Rubin 1977): what a row without a label
    would have been is weighed by its chance.
    """
    known, unknown = chance[labelled], chance[~labelled]
    ups, downs = float(outcome.sum()), float((~outcome).sum())
    up = down = float(labelled.mean())
    for _ in range(_STEPS):
        hidden = unknown * (1 - up)
        weight = hidden / np.maximum(hidden + (1 - unknown) * (1 - down), 1e-300)
        missed = float(weight.sum())
        before = up, down
        up = ups / max(ups + missed, _TINY)
        down = downs / max(downs + len(unknown) - missed, _TINY)
        if abs(up - before[0]) + abs(down - before[1]) < 1e-9:
            break
    of_unknown = np.log(np.maximum(unknown * (1 - up) + (1 - unknown) * (1 - down), 1e-300)).sum()
    of_known = np.log(np.maximum(np.where(outcome, known * up, (1 - known) * down), 1e-300)).sum()
    return float(of_unknown + of_known)


def _bands(asked: Predictions, labelled: Mask) -> tuple[npt.NDArray[np.int_], tuple[Band, ...]]:
    """Return the place of each row's band, and the bands: within each decision as many rows in each."""
    numbers = asked.task == "regression"
    decisions = np.zeros(len(labelled), int) if numbers else asked.decisions
    said = asked.scores if asked.scores.ndim == 1 else asked.scores.max(axis=1)
    places, found = np.zeros(len(labelled), int), list[Band]()
    for code in np.unique(decisions):
        rows = np.flatnonzero(decisions == code)
        count = max(min((1 + numbers) * BANDS, len(rows) // BAND_ROWS), 1)
        edges = np.unique(np.quantile(said[rows], np.arange(1, count) / count))
        inside = np.searchsorted(edges, said[rows], side="left")
        for number in np.unique(inside):
            of_band = rows[inside == number]
            places[of_band] = len(found)
            name = "" if numbers else asked.labels[code] if asked.labels else str(code)
            low, high = float(said[of_band].min()), float(said[of_band].max())
            count_labelled = int(labelled[of_band].sum())
            found.append(Band(decision=name, low=low, high=high, rows=len(of_band), labelled=count_labelled))
    return places, tuple(found)


def _instability(here: npt.NDArray[np.int_], all_rows: npt.NDArray[np.int_]) -> float:
    n, m, bands = int(here.sum()), int(all_rows.sum()), len(here)
    if not n:
        return 0.0
    return stability_index(here, all_rows) - (bands - 1) * (1 / n - 1 / m)


def _where(band: Band) -> str:
    of = f"of those decided {band.decision}" if band.decision else "of those"
    return f"{of} with scores of {band.low:.3g} to {band.high:.3g}"
