from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from benchmarks.drift import FEW, HEAVY, MORE, NUMBERS, THREE, WORLDS, Labels, Moved, _labelled, learned, predictions
from loop.config import Contract, Data, Monitoring
from loop.data.contract import learn_contract
from loop.training.metrics import Predictions, measure, metric_names
from loop.watching.concept import (
    ALIKE_ROWS,
    SEGMENTS,
    calibrated,
    concept_drift,
    effective_rows,
    estimated_performance,
    label_drift,
    likeness,
    reliability,
    worse_segments,
)

SETTINGS = Monitoring()
TARGETS = [FEW, MORE, THREE, NUMBERS, HEAVY]
CLASSES = [MORE, THREE]


def random(seed):
    return np.random.default_rng(seed)


def window(target, n=2000, seed=0, **changes):
    return predictions(target, n, random([seed, 1]), **changes)


def holdout(target, n=2000, seed=0):
    return predictions(target, n, random([seed, 2]))


def found(labelled, before, prior=(0.8, 0.2)):
    label = label_drift(labelled, before, prior, "y", SETTINGS)
    return label, concept_drift(labelled, before, SETTINGS)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_labels_as_they_were_alarm_no_more_often_than_stated(target):
    runs = 15
    alarms = [Labels(target, 1000, 500)(seed) for seed in range(runs)]
    for family in ("label", "concept"):
        assert sum(alarm[family] for alarm in alarms) <= binom.ppf(0.999, runs, SETTINGS.false_alarm_rate)


@pytest.mark.parametrize("target", [MORE, THREE, NUMBERS], ids=str)
def test_labels_that_come_together_by_customer_count_as_what_they_are_worth(target):
    drawn = Labels(target, 2500, 1000, customer=50).drawn
    apart = together = 0
    for seed in range(8):
        before, labelled = drawn(2500, random([seed, 3])), drawn(1000, random([seed, 4]))
        together += any(each.drifted for each in found(labelled, before, target.shares or (0.0,)))
        rows = replace(labelled, groups=None), replace(before, groups=None)
        apart += any(each.drifted for each in found(*rows, target.shares or (0.0,)))
    assert together == 0 < apart


def test_a_concept_that_no_longer_holds_is_found_where_labels_come_by_customer():
    drawn = Labels(MORE, 2500, 2000, customer=10).drawn
    before = drawn(2500, random(6))
    assert found(drawn(2000, random(5), strength=0.0), before)[1].drifted
    assert found(drawn(2000, random(5), odds=3), before)[0].drifted


def test_labels_of_one_customer_alone_tell_nothing():
    label, _ = found(replace(window(MORE, 500, odds=3), groups=np.zeros(500, int)), holdout(MORE))
    assert label.p == 1


@pytest.mark.parametrize("target", CLASSES, ids=str)
def test_finds_a_class_three_times_as_frequent_at_the_same_inputs_and_no_concept_drift(target):
    for seed in range(4):
        label, concept = found(window(target, seed=seed, odds=3), holdout(target, seed=seed), target.shares)
        assert label.drifted
        assert label.label == str(len(target.shares) - 1)
        assert label.change > SETTINGS.min_odds
        assert label.changed == f"{label.change:.2f} times the odds that the inputs promise"
        assert label.value > label.promised
        assert not concept.drifted


@pytest.mark.parametrize("strength", [0, -1])
@pytest.mark.parametrize("target", CLASSES, ids=str)
def test_finds_a_concept_that_no_longer_holds_and_no_label_drift(target, strength):
    for seed in range(4):
        label, concept = found(window(target, seed=seed, strength=strength), holdout(target, seed=seed), target.shares)
        assert concept.drifted
        assert concept.promised - concept.value > SETTINGS.min_drop
        assert not label.drifted


def test_finds_errors_of_numbers_that_have_moved_or_grown():
    before = holdout(NUMBERS)
    error = np.std(before.truth - before.scores)
    same = window(NUMBERS)
    moved = replace(same, truth=same.truth + 2 * SETTINGS.min_shift * error)
    label, concept = found(moved, before, prior=(0.0,))
    assert (label.drifted, label.label, concept.drifted) == (True, "y", False)
    assert label.change == pytest.approx(2 * SETTINGS.min_shift, abs=0.15)
    assert label.changed == f"the mean has moved by {label.change:+.2f} root mean squared errors"
    grown = replace(same, truth=same.scores + 1.5 * (same.truth - same.scores))
    label, concept = found(grown, before, prior=(0.0,))
    assert (label.drifted, concept.drifted, concept.metric) == (False, True, "rmse")


def test_other_inputs_are_neither_label_nor_concept_drift():
    rows = window(MORE, n=20_000)
    keep = random(5).random(len(rows.scores)) < rows.scores  # many more rows that look positive
    label, concept = found(rows.take(keep), holdout(MORE, 5000))
    assert label.value > 2 * MORE.shares[1]
    assert not label.drifted
    assert not concept.drifted


@pytest.mark.parametrize("tilt", [-1, 1.5, None])
@pytest.mark.parametrize("world", WORLDS)
def test_other_inputs_are_neither_where_the_model_misses_what_is_there(world, tilt):
    for seed in range(2):
        moved = Moved(world, 1000, tilt)(seed)
        assert not any(moved[name] for name in ("not judged", "label", "concept"))


def test_without_weights_other_inputs_look_like_drift_of_labels_and_of_the_concept():
    """So the test above would fail without them."""
    assert Moved("Agrawal 1", 1000, 1.5)(0)["label unweighted"]
    assert Moved("Agrawal 2", 1000, -1)(0)["concept unweighted"]


def test_a_concept_that_no_longer_holds_is_found_at_other_inputs():
    for world in ("waves", "corner"):
        assert Moved(world, 2000, 1, wrong=0.6)(0)["concept"]


def test_rows_as_they_were_weigh_evenly_and_of_rows_unlike_those_of_before_few_count():
    drawn = Moved("waves", 1000, 0)
    (before, known), (same, said) = (drawn.drawn(n, 0, random(n)) for n in (2500, 1000))
    weights = likeness(same, said.scores, before, known, learned(before))
    assert weights.mean() == pytest.approx(1)
    assert effective_rows(weights) > 0.97 * len(before)
    far, said = drawn.drawn(1000, 3.5, random(1))
    weights = likeness(far, said.scores, before, known, learned(before))
    assert effective_rows(weights) < ALIKE_ROWS
    assert np.average(before["x0"], weights=weights) > before["x0"].mean() + 1.5 * before["x0"].std()


def test_customers_who_were_not_held_out_weigh_as_those_who_were():
    r = random(0)

    def side(customers):
        who = np.repeat(customers, 25)
        x = r.standard_normal((len(customers), 6))[np.arange(len(who)) // 25] + 0.05 * r.standard_normal((len(who), 6))
        rows = pd.DataFrame(x, columns=list("abcdef")).assign(who=who)
        return rows, Predictions("binary", (x[:, 0] > 0).astype(int), 1 / (1 + np.exp(-x[:, 0])))

    (before, known), (rows, labelled) = side(np.arange(80)), side(np.arange(80, 120))
    columns = learned(before.drop(columns="who"))
    even, uneven = (
        effective_rows(likeness(rows, labelled.scores, before, known, columns, identity)) for identity in (["who"], ())
    )
    assert uneven < 0.5 * len(before) < 0.8 * len(before) < even


def test_errors_of_numbers_are_held_against_those_of_rows_like_these():
    """The model misses an input, and errors are larger where that is."""

    def drawn(n, shift, seed):
        x, missed, noise = random(seed).standard_normal((3, n))
        missed += shift
        y = x + 0.5 * missed + noise * np.exp(0.2 * missed)
        return pd.DataFrame({"x": x, "missed": missed}), Predictions("regression", y, x)

    (before, known), (rows, labelled) = drawn(2500, 0, 0), drawn(1000, 1, 10)
    weights = likeness(rows, labelled.scores, before, known, learned(before))
    for given, is_drift in ((None, True), (weights, False)):
        assert label_drift(labelled, known, (0.0,), "y", SETTINGS, given).drifted is is_drift
        assert concept_drift(labelled, known, SETTINGS, given).drifted is is_drift


def test_a_window_of_one_class_has_no_ranking_to_judge():
    label, concept = found(window(MORE).take(window(MORE).truth == 0), holdout(MORE))
    assert label.drifted
    assert concept is None


def test_nothing_is_ranked_where_the_scores_promise_one_class_only():
    before = holdout(MORE)
    sure = replace(before, truth=np.arange(len(before.truth)) < 1, scores=np.full(len(before.truth), 1e-9))
    assert concept_drift(window(MORE), sure.take(np.arange(1, 50)), SETTINGS) is None


def test_a_holdout_of_one_class_corrects_no_score():
    before = holdout(MORE)
    of_one = before.take(before.truth == 0)
    assert calibrated(before.scores, of_one)[:, 1] == pytest.approx(before.scores)
    label_drift(before, of_one, MORE.shares, "y", SETTINGS)


def test_calibration_mends_scores_that_are_too_sure():
    truth = predictions(MORE, 20_000, random(0))
    logits = np.log(truth.scores / (1 - truth.scores))
    unsure = replace(truth, scores=1 / (1 + np.exp(-3 * logits - 1)))
    assert calibrated(unsure.scores, unsure)[:, 1] == pytest.approx(calibrated(truth.scores, truth)[:, 1], abs=0.02)


@pytest.mark.parametrize("target", CLASSES, ids=str)
def test_estimated_performance_is_near_the_true_one_also_with_other_inputs(target):
    before, now = holdout(target, 5000), window(target, 20_000)
    last = now.scores if now.scores.ndim == 1 else now.scores[:, -1]
    shifted = now.take(random(5).random(len(last)) < last / last.max())
    for rows in (now, shifted):
        estimated = estimated_performance(rows.scores, before)
        assert set(estimated) == set(metric_names(rows.task))
        for name, value in estimated.items():
            assert value == pytest.approx(measure(name, rows), abs=0.05), name
    ranking = "roc_auc" if target is MORE else "macro_f1"
    assert abs(measure(ranking, shifted) - measure(ranking, now)) > 0.02  # so there was something to foresee


def test_a_forest_whose_scores_are_mostly_zero_is_estimated_about_right():
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(50, random_state=0).fit(*_labelled(FEW, 5000, random(0)))
    x, truth = _labelled(FEW, 20_000, random(1))
    now = Predictions("binary", truth, forest.predict_proba(x)[:, 1])
    assert (now.scores == 0).mean() > 0.5
    estimated = estimated_performance(now.scores[5000:], now.take(np.arange(5000)))
    true = measure("average_precision", now)
    assert estimated["average_precision"] == pytest.approx(true, rel=0.25)


def test_what_the_holdout_does_not_give_back_is_not_estimated():
    """Scores that are all next to nothing rank the rows, and calibration does not tell them apart."""
    before = holdout(MORE)
    tiny = replace(before, scores=before.scores * 1e-7)
    estimated = estimated_performance(tiny.scores, tiny)
    assert not {"roc_auc", "average_precision"} & set(estimated)
    assert estimated["accuracy"] == pytest.approx(measure("accuracy", tiny), abs=0.02)


def test_nothing_is_estimated_of_numbers():
    assert estimated_performance(window(NUMBERS).scores, holdout(NUMBERS)) == {}


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_reliability_bins_hold_every_row_once_and_mostly_what_was_promised(target):
    rows = window(target)
    bins = reliability(rows)
    assert sum(one.rows for one in bins) == len(rows.truth)
    assert [one.score for one in bins] == sorted(one.score for one in bins)
    assert all(one.low <= one.observed <= one.high for one in bins)
    total = sum(one.rows * one.observed for one in bins) / len(rows.truth)
    came = rows.decisions == rows.truth if rows.task == "multiclass" else rows.truth
    assert total == pytest.approx(came.mean())


def test_reliability_of_one_score_is_one_bin():
    rows = Predictions("binary", np.array([0, 1, 1, 0]), np.full(4, 0.5))
    (only,) = reliability(rows)
    assert (only.rows, only.score, only.observed) == (4, 0.5, 0.5)


def segmented(n, seed, broken=()):
    """Make labelled rows whose labels are the opposite in the broken shops."""
    predicted = predictions(MORE, n, random(seed))
    rows = pd.DataFrame({"shop": random(seed).choice(["a", "b", "c", "d"], n), "size": random(seed + 1).normal(size=n)})
    wrong = rows["shop"].isin(broken).to_numpy()
    return rows, replace(predicted, truth=np.where(wrong, 1 - predicted.truth, predicted.truth))


def test_the_segment_that_was_broken_is_the_worst_and_a_sound_window_has_none():
    rows, before = segmented(2000, 0)
    contract = learn_contract(rows.assign(y=before.truth), Data(source="made", target="y"), Contract())
    for broken, shown in ((("c",), "c"), ((), None)):
        now_rows, now = segmented(2000, 10, broken)
        worse = worse_segments(now_rows, now, rows, before, contract.columns, SETTINGS)
        assert len(worse) <= SEGMENTS
        if shown is None:
            assert worse == ()
        else:
            assert (worse[0].column, worse[0].values) == ("shop", shown)
            assert worse[0].loss > worse[0].loss_before
            assert worse[0].rows == (now_rows["shop"] == shown).sum()
