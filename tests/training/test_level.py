"""The gate's level is spent over the models that are judged on the same rows, against the best champion so far."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from tables import mixed, recipe, trained

from benchmarks.gate import TRIES, Case, draw_models, tries, walk
from loop.config import Evaluation, Gate
from loop.training.gate import judge, judge_models
from loop.training.level import MOST, look_at, spend
from loop.training.stand_in import IDENTITY, StandIn

QUICK = Evaluation(resamples=200)


def record(model, rows):
    return StandIn.of(model, rows, model.scores(rows))


def test_all_looks_together_get_no_more_than_the_level_and_deeper_bounds_more_resamples():
    tails = [1 - spend(QUICK, look).confidence for look in range(1, 10_000)]
    assert tails[0] == pytest.approx((1 - QUICK.confidence) / 2)
    assert sum(tails) == pytest.approx(1 - QUICK.confidence, rel=1e-3)
    drawn = [spend(QUICK, look).resamples for look in (1, 2, 5, 50)]
    assert drawn == [400, 1200, 6000, MOST]
    assert spend(Evaluation(resamples=50_000), 3).resamples == 50_000


def test_a_look_counts_by_the_share_of_the_rows_that_it_saw_whatever_became_of_their_columns():
    model, holdout = trained(mixed(), recipe())
    seen = record(model, holdout)
    assert look_at(holdout, []) == 1
    assert look_at(holdout, [seen, seen]) == 3
    fresh = holdout.assign(nummer=holdout["nummer"] + 10_000)
    assert look_at(fresh, [seen]) == 1
    assert look_at(pd.concat([holdout.iloc[:20], fresh.iloc[:60]]), [seen]) == 1.25
    assert look_at(holdout.drop(columns="städte").assign(alter=1.0), [StandIn.read(seen.files())]) == 2
    before = replace(seen, scores=seen.scores.drop(columns=IDENTITY))  # of a version from before looks were counted
    assert look_at(holdout, [before]) == 2


def test_of_twenty_tries_that_are_worse_by_the_margin_one_is_rarely_promoted():
    case, runs, rng = Case("roc_auc", 0.85, 100), 20, np.random.default_rng(5)
    whole, spent = np.sum([tries(case, rng, Gate(), QUICK) for _ in range(runs)], axis=0)
    assert whole > binom.ppf(0.999, runs, 0.05)  # each by itself errs in 5 %
    assert spent <= binom.ppf(0.999, runs, 0.05)


def test_challengers_each_a_little_worse_than_the_last_do_not_walk_the_champion_down():
    case, gate = Case("mae", 0.5, 3000, correlation=0.99), Gate()
    alone, spent = (walk(case, 1, gate, QUICK, spending=spending) for spending in (False, True))
    assert alone < -3 * gate.margin
    assert spent >= -gate.margin


def test_a_first_look_promotes_a_better_challenger_and_a_twentieth_one_that_is_better_still():
    case, rng = Case("roc_auc", 0.85, 400), np.random.default_rng(0)
    for look, lead in ((1, 0.08), (TRIES, 0.12)):
        challenger, champion = draw_models(case, (0.0, -lead), rng)
        assert judge(challenger, champion, (0.5, 0.5), Gate(), spend(QUICK, look)).decision == "promote"


@pytest.fixture(scope="module")
def models():
    """Train a good model and two worse ones on the same rows; return them with the holdout."""
    strong, holdout = trained(mixed(), recipe())
    weak = [trained(mixed(), recipe(params={"max_depth": depth}))[0] for depth in (2, 1)]
    return strong, *weak, holdout


def test_the_best_champion_so_far_is_the_one_to_beat_and_the_verdict_says_so(models):
    strong, weak, weaker, holdout = models
    for best in (strong, record(strong, holdout)):
        found = judge_models(weaker, weak, 3, holdout, Gate(), QUICK, best=(1, best))
        assert (found.champion_version, found.against, found.look) == (3, 1, 1)
        assert any("against champion v1" in reason for reason in found.reasons)
        assert any(reason.startswith("v1, a champion before v3, is ahead of it") for reason in found.reasons)
    behind = judge_models(weaker, strong, 3, holdout, Gate(), QUICK, best=(1, weak))
    assert (behind.against, behind.conditions) == (
        3,
        judge_models(weaker, strong, 3, holdout, Gate(), QUICK).conditions,
    )
    unknown = record(strong, holdout.iloc[: len(holdout) // 3])  # too few of these rows to measure by
    assert judge_models(weaker, weak, 3, holdout, Gate(), QUICK, best=(1, unknown)).against == 3


def test_a_later_look_is_judged_at_a_higher_level_and_the_verdict_says_how_much_is_left(models):
    strong, weak, weaker, holdout = models
    found = judge_models(strong, weak, 3, holdout, Gate(), QUICK, earlier=[record(weaker, holdout)])
    assert found.look == 2
    assert all(condition.confidence == pytest.approx(1 - 0.05 / 6) for condition in found.conditions)
    said = f"look 2 at these {len(holdout)} holdout rows, after models that did not pass: judged at one-sided 99.1667 %"
    assert any(reason == f"{said}; new rows bring new level" for reason in found.reasons)
    assert not any("look" in reason for reason in judge_models(strong, weak, 3, holdout, Gate(), QUICK).reasons)
