"""Measure what becomes of labels that come selectively: `python -m benchmarks.feedback`.

The worlds are those of `benchmarks.drift`: labels logistic in five inputs, 50, 20 or 2 % positive. A champion is
trained on 7,500 rows and held to 2,500; then it answers requests, and labels come for some: by chance, for every wrong
decision and a share of the rest (complaints), for every positive and a share of the rest (early positives), for every
missed positive and a share of the rest, or for what was predicted positive. `windows` says how often each kind alarms,
and `drift` how much of it is still found where labels come by chance. `metrics` says how far ROC AUC on such labels is
from that of all rows, as they came and evened out over decisions and scores. `retraining` lets a challenger learn from
the labels of 5,000 requests, as the pipeline does, and measures on 50,000 other rows what was promoted.

Per cent of windows or retrainings, and means, ± one standard error.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one process a core

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.drift import FEW, MORE, Found, Target, _labelled, _shown, predictions
from loop.config import Config, Contract, Data, Feedback, Model, Monitoring
from loop.data.contract import learn_contract
from loop.data.split import SplitRule, resolve
from loop.log.records import TRUTH, in_audit
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.training.gate import judge_models
from loop.training.metrics import Predictions, measure
from loop.watching.concept import concept_drift, label_drift
from loop.watching.coverage import coverage_of, drift_is_likelier, evened_out
from loop.watching.feedback import audited_rows, hold_to_old_rows, selection_doubt, split_feedback

SETTINGS = Monitoring()
HALF = Target((0.5, 0.5))
"""A fifth of the answers are wrong, so most of the labels that complaints bring say the opposite."""
SOURCE, REQUESTS, FRESH = 10_000, 5000, 50_000
LOGISTIC = Model(estimator="sklearn.linear_model.LogisticRegression")
BOOSTED = Model(estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 50})

Mask = npt.NDArray[np.bool_]
SELECTIONS: dict[str, Callable[[Predictions, Mask], Mask]] = {
    "by chance": lambda asked, lucky: lucky,
    "complaints": lambda asked, lucky: (asked.decisions != asked.truth) | lucky,
    "early positives": lambda asked, lucky: (asked.truth == 1) | lucky,
    "missed positives": lambda asked, lucky: ((asked.decisions == 0) & (asked.truth == 1)) | lucky,
    "predicted positives": lambda asked, lucky: (asked.decisions == 1) & lucky,
    "predicted positives first": lambda asked, lucky: (asked.decisions == 1) | lucky,
}


@dataclass(frozen=True)
class Labels:
    """Look at one window whose labels come in some way; drifted where `odds` or `strength` are not 1."""

    target: Target
    rows: int
    selection: str
    share: float
    odds: float = 1.0
    strength: float = 1.0

    def __call__(self, seed: int) -> Found:
        """Return which alarms are raised, and which were before coverage was looked at."""
        random = np.random.default_rng([seed, 5])
        holdout = predictions(self.target, 2500, random)
        asked = predictions(self.target, self.rows, random, self.odds, self.strength)
        cut = float(np.quantile(holdout.scores, self.target.shares[0]))
        holdout, asked = replace(holdout, threshold=cut), replace(asked, threshold=cut)
        labelled = SELECTIONS[self.selection](asked, random.random(self.rows) < self.share)
        came, before = asked.take(labelled), {"label": False, "concept": False}
        if labelled.sum() >= SETTINGS.min_labels:
            concept = concept_drift(came, holdout, SETTINGS)
            label = label_drift(came, holdout, self.target.shares, "y", SETTINGS)
            before = {"label": label.drifted, "concept": concept is not None and concept.drifted}
        selective = coverage_of(asked, labelled, SETTINGS).selective
        stands = not selective and drift_is_likelier(asked, labelled, holdout, SETTINGS)
        return {
            "coverage": selective or (any(before.values()) and not stands),
            "label": before["label"] and stands,
            "concept": before["concept"] and stands,
            "label before": before["label"],
            "concept before": before["concept"],
        }


@dataclass(frozen=True)
class Metrics:
    """Measure on labels that come in some way from a window where nothing has drifted."""

    target: Target
    selection: str
    share: float
    rows: int = 5000

    def __call__(self, seed: int) -> Found:
        """Return whether monitoring would show metrics, and how far they are from those of all rows."""
        random = np.random.default_rng([seed, 7])
        holdout, asked = (predictions(self.target, n, random) for n in (2500, self.rows))
        cut = float(np.quantile(holdout.scores, self.target.shares[0]))
        holdout, asked = replace(holdout, threshold=cut), replace(asked, threshold=cut)
        labelled = SELECTIONS[self.selection](asked, random.random(self.rows) < self.share)
        even = evened_out(asked, labelled)
        if even.sum() < SETTINGS.min_labels:
            return {"shown": False, "as they came": np.nan, "evened out": np.nan}
        came, drawn, whole = asked.take(labelled), asked.take(even), measure("roc_auc", asked)
        concept = concept_drift(drawn, holdout, SETTINGS)
        label = label_drift(drawn, holdout, self.target.shares, "y", SETTINGS)
        return {
            "shown": not label.drifted and (concept is None or not concept.drifted),
            "as they came": measure("roc_auc", came) - whole,
            "evened out": measure("roc_auc", drawn) - whole,
        }


@dataclass(frozen=True)
class Retraining:
    """Retrain from labels that come in some way, in a world that has changed where `strength` is not 1."""

    model: Model
    target: Target
    selection: str
    share: float
    strength: float = 1.0
    audit: float = 0.0
    """Share of the requests that are labelled whatever was answered."""
    before: bool = False
    """Without asking whether the labels came selectively."""

    def __call__(self, seed: int) -> Found:
        """Return what was decided, and whether what was promoted is worse by more than the margin."""
        random = np.random.default_rng([seed, 6])
        config = Config(
            name="made", data=Data(source="made", target="y", id=("id",)), model=self.model, feedback=Feedback()
        )
        source, asked, fresh = (table(n, random, self.strength, self.target) for n in (SOURCE, REQUESTS, FRESH))
        if self.strength != 1:
            source = table(SOURCE, random, target=self.target)
        for number, rows in enumerate((source, asked, fresh)):
            rows["id"] = np.arange(len(rows)) + number * 10**6
        rule = resolve(source, config.data, config.split)
        held_out = rule.held_out(source)
        champion = fit(source[~held_out], rule, config)
        said = champion.predictions(asked)
        labelled = SELECTIONS[self.selection](said, random.random(len(asked)) < self.share)
        ids = pd.Series([f"{place:012x}-{seed:06x}-0" for place in range(len(asked))])
        labelled |= in_audit(ids, self.audit)
        times = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(asked)), "s")
        answers = pd.DataFrame({"prediction_id": ids, "prediction_time": times, "prediction_version": 1})
        answers["prediction_score"] = said.scores
        answers[TRUTH] = asked["y"].astype(str).where(labelled).astype(object)
        trusted = source[held_out]
        doubt = "" if self.before else selection_doubt(answers, champion, 1, trusted, SETTINGS)
        served = asked.assign(prediction_id=ids)[labelled]
        if doubt:
            audited, alone = audited_rows(served, answers, self.audit, SETTINGS)
            served, doubt = (audited, "") if alone else (served, doubt)
        served = served.drop(columns="prediction_id").reset_index(drop=True)
        sides = split_feedback(source, served, np.ones(len(served), bool), rule, config, doubt=doubt)
        challenger = fit(sides.train, sides.rule, config)
        verdict = judge_models(challenger, champion, 1, sides.holdout, config.gate, config.evaluation)
        if doubt:
            verdict = hold_to_old_rows(verdict, challenger, champion, trusted, config.gate, config.evaluation)
        new, old = (measure("roc_auc", model.predictions(fresh)) for model in (challenger, champion))
        promoted = verdict.decision == "promote"
        return {
            "doubt": bool(doubt),
            "dropped": not sides.history.keep,
            "promoted": promoted,
            "worse": promoted and new < old - config.gate.margin,
            "lead": new - old,
        }


def table(n: int, random: np.random.Generator, strength: float = 1.0, target: Target = MORE) -> pd.DataFrame:
    """Draw n labelled rows."""
    x, truth = _labelled(target, n, random, strength=strength)
    return pd.DataFrame(x, columns=[f"x{place}" for place in range(x.shape[1])]).assign(y=truth)


def fit(rows: pd.DataFrame, rule: SplitRule, config: Config) -> Bundle:
    """Train the config's model on rows."""
    rows = rows.reset_index(drop=True)
    return train(rows, learn_contract(rows, config.data, Contract()), rule, config.recipe)


Lines = Iterator[tuple[str, Callable[[int], Found], int]]


def _windows(runs: int) -> Lines:
    for target in (MORE, FEW):
        for selection in SELECTIONS:
            shares = (1.0,) if selection == "predicted positives" else (0.1, 0.5)
            for share in shares:
                for rows in (500, 2000, 5000):
                    shown = f"{target}: {selection}, {share:.0%}, {rows:,} rows"
                    yield shown, Labels(target, rows, selection, share), runs


def _drift(runs: int) -> Lines:
    for target in (MORE, FEW):
        for share in (0.1, 0.3, 0.5, 0.8):
            for rows in (2000, 5000):
                for name, odds, strength in (("odds x 3", 3.0, 1.0), ("weights x 0", 1.0, 0.0)):
                    shown = f"{target}: {share:.0%} of {rows:,}, {name}"
                    yield shown, Labels(target, rows, "by chance", share, odds, strength), runs


def _metrics(runs: int) -> Lines:
    for target in (HALF, MORE):
        for selection in ("predicted positives first", "complaints", "early positives"):
            for share in (0.1, 0.3):
                yield f"{target}: {selection}, {share:.0%} of the rest", Metrics(target, selection, share), runs


def _retraining(runs: int) -> Lines:
    for name, model, target in (("logistic", LOGISTIC, HALF), ("logistic", LOGISTIC, MORE), ("boosted", BOOSTED, HALF)):
        for share in (0.1, 0.2, 0.3):
            for before in (True, False):
                shown = f"{name}, {target}: complaints, {share:.0%} of the rest{', before' if before else ''}"
                yield shown, Retraining(model, target, "complaints", share, before=before), runs
    for share in (0.1, 0.3, 0.8):
        shown = f"logistic, {MORE}: weights x -1, labels of {share:.0%}"
        yield shown, Retraining(LOGISTIC, MORE, "by chance", share, -1.0), runs
    for selection, audit, strength in (
        ("complaints", 0.1, 1.0), ("early positives", 0.1, 1.0), ("early positives", 0.0, -1.0),
        ("early positives", 0.1, -1.0),
    ):  # fmt: skip
        shown = f"logistic, {HALF}: weights x {strength:g}, {selection}, 10%, audit {audit:.0%}"
        yield shown, Retraining(LOGISTIC, HALF, selection, 0.1, strength, audit), runs


TABLES: dict[str, tuple[str, Callable[[int], Lines]]] = {
    "windows": ("Alarms where nothing has drifted", _windows),
    "drift": ("Alarms where labels come by chance and have drifted", _drift),
    "metrics": ("ROC AUC on labels that came less that of all rows", _metrics),
    "retraining": ("Retrainings; worse is by more than the margin of 0.01 ROC AUC; lead is the mean", _retraining),
}


def main() -> None:
    """Print one table after the other, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=40, help="windows or retrainings a line")
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    for name, (title, lines) in TABLES.items():
        if given.only in (None, name):
            print(f"\n{title}")
            with ProcessPoolExecutor(given.processes) as pool:
                for shown, experiment, runs in lines(given.runs):
                    found = pd.DataFrame(pool.map(experiment, range(runs)))
                    shares, means = found.select_dtypes("bool"), found.select_dtypes("float")
                    cells = [f"{column} {_shown(shares[column])}" for column in shares]
                    of_means = zip(means, means.mean(), means.sem(), strict=True)
                    cells += [f"{column} {mean:+.3f} ± {error:.3f}" for column, mean, error in of_means]
                    print(f"{shown:52} n={runs:<4} {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
