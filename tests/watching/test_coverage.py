"""Labels that come for some answers rather than others are told from drift."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.drift import FEW, MORE, NUMBERS, THREE, Target, predictions
from loop.config import Monitoring
from loop.training.metrics import measure
from loop.watching.concept import concept_drift, label_drift
from loop.watching.coverage import BAND_ROWS, coverage_of, drift_is_likelier, evened_out

SETTINGS = Monitoring()


def drawn(target: Target, seed: int, n: int = 2000, **changes: float):
    """Return a window and a holdout, with the threshold that decides as many positives as there are."""
    random = np.random.default_rng([seed, 3])
    sides = [predictions(target, n, random, **changes), predictions(target, 2500, random)]
    if len(target.shares) == 2:
        cut = float(np.quantile(sides[1].scores, target.shares[0]))
        sides = [replace(side, threshold=cut) for side in sides]
    return *sides, random


WORLDS = {
    "complaints": lambda asked, lucky: (asked.decisions != asked.truth) | lucky,
    "missed positives": lambda asked, lucky: ((asked.decisions == 0) & (asked.truth == 1)) | lucky,
    "early positives": lambda asked, lucky: (asked.truth == 1) | lucky,
    "predicted positives": lambda asked, lucky: asked.decisions == 1,
}


def judged(asked, holdout, labelled):
    """Return what a window says of its labels, as monitoring does."""
    if coverage_of(asked, labelled, SETTINGS).selective:
        return "coverage"
    came = asked.take(labelled)
    label = label_drift(came, holdout, (1 - came.truth.mean(), came.truth.mean()), "y", SETTINGS)
    concept = concept_drift(came, holdout, SETTINGS)
    if not label.drifted and not (concept and concept.drifted):
        return "none"
    return "drift" if drift_is_likelier(asked, labelled, holdout, SETTINGS) else "coverage"


@pytest.mark.parametrize("target", [MORE, FEW], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("world", WORLDS)
def test_selected_labels_without_drift_are_never_taken_for_drift(world, share, target):
    for seed in range(2):
        asked, holdout, random = drawn(target, seed)
        labelled = WORLDS[world](asked, random.random(2000) < share)
        assert judged(asked, holdout, labelled) != "drift"


@pytest.mark.parametrize("world", ["complaints", "early positives", "predicted positives"])
def test_labels_that_come_selectively_are_found(world):
    for seed in range(2):
        asked, _, random = drawn(MORE, seed)
        found = coverage_of(asked, WORLDS[world](asked, random.random(2000) < 0.1), SETTINGS)
        assert found.selective
        assert found.sentence.startswith("labels came for ")


def test_labels_that_came_by_decision_and_score_are_evened_out_and_few_are_not():
    asked, _, random = drawn(MORE, 0, 5000)
    by_decision = (asked.decisions == 1) | (random.random(5000) < 0.1)
    even = evened_out(asked, by_decision)
    assert not (even & ~by_decision).any()
    assert coverage_of(asked, by_decision, SETTINGS).selective
    assert not coverage_of(asked, even, SETTINGS).selective
    whole, came, drawn_rows = (measure("recall", side) for side in (asked, asked.take(by_decision), asked.take(even)))
    assert abs(drawn_rows - whole) < abs(came - whole) / 5
    assert not evened_out(asked, asked.decisions == 1).any()


@pytest.mark.parametrize("target", [MORE, FEW, THREE, NUMBERS], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_labels_that_come_by_chance_are_not_selective(target, share):
    for seed in range(3):
        asked, _, random = drawn(target, seed)
        labelled = random.random(2000) < share
        found = coverage_of(asked, labelled, SETTINGS)
        assert not found.selective
        assert (found.rows, found.labelled) == (2000, labelled.sum())
        assert sum(band.rows for band in found.bands) == 2000
        assert all(band.rows >= BAND_ROWS or band.rows == (asked.decisions == 1).sum() for band in found.bands)


@pytest.mark.parametrize("target", [MORE, THREE], ids=str)
@pytest.mark.parametrize(("share", "changes"), [(0.8, {"odds": 3}), (0.8, {"strength": 0}), (0.3, {"strength": 0})])
def test_drift_with_labels_that_come_by_chance_is_drift(target, share, changes):
    for seed in range(2):
        asked, holdout, random = drawn(target, seed, **changes)
        assert drift_is_likelier(asked, random.random(2000) < share, holdout, SETTINGS)


def test_where_every_row_is_labelled_nothing_was_selected():
    asked, holdout, _ = drawn(MORE, 0)
    assert drift_is_likelier(asked, np.ones(2000, bool), holdout, SETTINGS)
    assert not coverage_of(asked, np.ones(2000, bool), SETTINGS).selective


def test_numbers_that_are_labelled_where_they_are_great_are_selective():
    asked, _, random = drawn(NUMBERS, 0)
    found = coverage_of(asked, (asked.scores > 0) & (random.random(2000) < 0.5), SETTINGS)
    assert found.selective
    assert {band.decision for band in found.bands} == {""}


def test_numbers_labelled_where_they_were_far_off_are_no_drift_and_doubled_errors_are():
    asked, holdout, random = drawn(NUMBERS, 0)
    errors, lucky = asked.truth - asked.scores, random.random(2000)
    for complaint in (np.abs(errors) > 1, errors > 1):
        assert not drift_is_likelier(asked, complaint | (lucky < 0.1), holdout, SETTINGS)
    moved = replace(asked, truth=asked.scores + 2 * errors)
    assert drift_is_likelier(moved, lucky < 0.8, holdout, SETTINGS)
    shifted = replace(asked, truth=asked.truth + 1)
    assert drift_is_likelier(shifted, lucky < 0.8, holdout, SETTINGS)
