"""Measure how often monitoring is wrong, what it finds and how soon: `python -m benchmarks.drift`.

Windows are drawn from worlds whose drift is known. Inputs are 30 columns, 24 numeric of six shapes and 6 categorical;
each is a function of a normal variable, so a shift of one standard deviation is as large in every column. Labels are
logistic in five inputs (numbers: linear); the model that is watched is one fitted to 5,000 of their rows. References,
holdouts and windows are drawn anew each time. Delays are of the fraud stream. Beside the decision stands that of
Evidently's drift preset as it comes.

Shares are per cent of windows ± one standard error; `test` columns count what the tests say without the floors. The
classifier is slow: of windows without drift it sees a quarter, and `decision` is of these. Evidently sees fewer still.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one process a core

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import lfilter
from scipy.stats import norm

from loop import config
from loop.config import ROOT, Contract, Data, Monitoring, Policy
from loop.data.contract import Column, learn_contract
from loop.data.sources import read_rows
from loop.data.split import resolve
from loop.log.records import TRUTH
from loop.training.bundle import Bundle
from loop.training.fit import train
from loop.training.metrics import Predictions
from loop.watching.concept import ALIKE_ROWS, concept_drift, effective_rows, label_drift, likeness
from loop.watching.drift import FAMILIES, column_drifts, discoveries, separation
from loop.watching.monitor import Window, examine
from loop.watching.policy import Decision, judged_windows, requirements
from loop.watching.rhythm import NEEDED, Earlier, held_columns
from model.fraud import card_transactions

SETTINGS = Monitoring(min_rows=100)
LEVEL = SETTINGS.false_alarm_rate / FAMILIES
"""Stated rate of false alarms of each family of tests."""

Floats = npt.NDArray[np.float64]
Found = dict[str, bool | float]
"""What became of one window, by column of the table."""

SHAPES: dict[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    "normal": lambda z: z,
    "heavy": lambda z: z * np.exp(0.15 * z**2),  # Tukey's h: no variance beyond 3.3 moments
    "lognormal": np.exp,
    "half_zero": lambda z: np.maximum(z, 0),
    "count": lambda z: np.floor(np.exp(1 + 0.7 * z)),
    "correlated": lambda z: z,
}
DEPENDENT = (
    ("independent", 500), ("cycle", 500), ("cycle", 2000), ("weekend", 500), ("weekend", 2000),
    ("autoregressive 0.9", 500), ("autoregressive 0.99", 2000),
    ("autoregressive 0.999", 500), ("autoregressive 0.9995", 500), ("customers 10", 500), ("customers 50", 500),
    ("copies", 500), ("hours of a week", 500),
)  # fmt: skip
"""Worlds without drift, and rows of a window."""
WEEKS = {"hours of a week": 2}
"""Weeks of windows that the log holds before any is looked at."""
WEEK = 168  # hours, each a window
LEVELS = (2, 3, 5, 8, 12, 30)  # of categories; the rarest of 30 has 0.07 % of the rows
MISSING = {6: 0.05, 7: 0.2, 8: 0.001}  # by numeric column
SEEN = 5  # inputs that the labels depend on
WEIGHTS = np.array([1.2, -0.8, 0.6, 0.4, -0.4])


def inputs(n: int, random: np.random.Generator, moved: int = 0, shift: float = 0.0) -> pd.DataFrame:
    """Draw n rows; the first `moved` columns shift by so many standard deviations of what makes them."""
    latent = random.standard_normal((n, 24 + len(LEVELS)))
    together = np.arange(24) % len(SHAPES) == list(SHAPES).index("correlated")
    latent[:, :24][:, together] = 0.6 * latent[:, :24][:, together] + 0.8 * random.standard_normal((n, 1))
    latent[:, :moved] += shift
    columns: dict[str, Any] = {}
    for place in range(24):
        name = list(SHAPES)[place % len(SHAPES)]
        columns[f"{name}_{place}"] = SHAPES[name](latent[:, place])
        if place in MISSING:
            columns[f"{name}_{place}"][random.random(n) < MISSING[place]] = np.nan
    for place, levels in enumerate(LEVELS, 24):
        shares = 1 / np.arange(1, levels + 1) ** 2
        codes = np.searchsorted(np.cumsum(shares)[:-1] / shares.sum(), norm.cdf(latent[:, place]))
        columns[f"levels_{levels}"] = pd.array([f"level {code}" for code in range(levels)], dtype="str").take(codes)
    return pd.DataFrame(columns)


def learned(rows: pd.DataFrame) -> tuple[Column, ...]:
    """Return the reference statistics of rows, as a contract has them."""
    data = Data(source="made", target="y")
    return learn_contract(rows.assign(y=np.arange(len(rows)) % 2), data, Contract()).columns


@dataclass(frozen=True)
class Target:
    """Say what is predicted: classes of these shares, or numbers whose errors have so many degrees of freedom."""

    shares: tuple[float, ...] = ()
    freedom: float = np.inf

    def __str__(self) -> str:
        tails = "normal errors" if np.isinf(self.freedom) else f"t{self.freedom:g} errors"
        return "/".join(f"{100 * share:g}" for share in self.shares) or tails


FEW, MORE, THREE = Target((0.98, 0.02)), Target((0.8, 0.2)), Target((0.6, 0.3, 0.1))
NUMBERS, HEAVY = Target(), Target(freedom=5)


def predictions(
    target: Target, n: int, random: np.random.Generator, odds: float = 1.0, strength: float = 1.0
) -> Predictions:
    """Draw n labelled rows: `odds` multiply those of the last class, `strength` the weights of the inputs."""
    x, truth = _labelled(target, n, random, odds, strength)
    model = _model(target)
    if not target.shares:
        return Predictions("regression", truth, model.predict(x))
    scores = model.predict_proba(x)
    if len(target.shares) > 2:
        return Predictions("multiclass", truth, scores)
    return Predictions("binary", truth, scores[:, 1])


def _labelled(
    target: Target, n: int, random: np.random.Generator, odds: float = 1.0, strength: float = 1.0
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    x = random.standard_normal((n, SEEN))
    if not target.shares:
        errors = random.standard_normal(n) if np.isinf(target.freedom) else random.standard_t(target.freedom, n)
        return x, strength * (x @ WEIGHTS) + errors
    logits = _logits(x, len(target.shares), strength) + _intercepts(target, strength)
    logits[:, -1] += np.log(odds)
    return x, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


def _logits(x: npt.NDArray[Any], classes: int, strength: float) -> npt.NDArray[Any]:
    return np.asarray(np.column_stack([strength * (np.roll(x, k, axis=1) @ WEIGHTS) for k in range(classes)]))


@cache
def _intercepts(target: Target, strength: float) -> npt.NDArray[Any]:
    """Return the intercepts that give the classes their shares, by a fixed sample."""
    raw = _logits(np.random.default_rng(0).standard_normal((50_000, SEEN)), len(target.shares), strength)
    found = np.zeros(len(target.shares))
    for _ in range(100):
        chances = np.exp(raw + found)
        found += np.log(target.shares) - np.log((chances / chances.sum(axis=1, keepdims=True)).mean(axis=0))
    return found


@cache
def _model(target: Target) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if target.shares else HistGradientBoostingRegressor
    return kind(max_iter=50, random_state=0).fit(*_labelled(target, 5000, np.random.default_rng(0)))


@dataclass(frozen=True)
class Clean:
    """Look at a window that has not drifted, all families together."""

    reference: int
    rows: int
    whole: int
    """Windows that the classifier looks at as well."""
    compared: int
    """Windows that Evidently looks at as well."""

    def __call__(self, seed: int) -> Found:
        """Return which families alarm, and which would without their floors."""
        random = np.random.default_rng(seed)
        reference, rows = inputs(self.reference, random), inputs(self.rows, random)
        columns = learned(reference)
        drifts = column_drifts(rows, columns, self.reference, SETTINGS)
        found: Found = {
            "columns": any(drift.drifted for drift in drifts),
            "missing": any(drift.missing_drifted for drift in drifts),
            "label": False,
            "concept": False,
        }
        tests: Found = {
            "columns test": any(discoveries([drift.p for drift in drifts], LEVEL)),
            "missing test": any(discoveries([drift.missing_p for drift in drifts], LEVEL)),
        }
        if self.rows >= SETTINGS.min_labels:
            of_labels = Labels(MORE, 5000, self.rows)(seed)
            found |= {name: of_labels[name] for name in ("label", "concept")}
            tests |= {name: of_labels[name] for name in ("label test", "concept test")}
        if seed < self.whole:
            apart = separation(rows, inputs(5000, random), columns, SETTINGS)
            found["classifier"] = apart is not None and apart.drifted
            tests["classifier test"] = apart is not None and apart.low > 0.5
            found = {"decision": any(found.values()), **found}
        known = evidently(rows, reference) if seed < self.compared else {}
        return {**found, **tests, **known}


@dataclass(frozen=True)
class Labels:
    """Look at a window's labels: drifted where `odds` or `strength` are not 1."""

    target: Target
    holdout: int
    labels: int
    odds: float = 1.0
    strength: float = 1.0
    customer: int = 1
    """Rows of a customer, whose inputs and labels are alike."""

    def __call__(self, seed: int) -> Found:
        """Return which of both families alarm, and which would without their floors."""
        random = np.random.default_rng([seed, 1])
        holdout = self.drawn(self.holdout, random)
        window = self.drawn(self.labels, random, self.odds, self.strength)
        prior = self.target.shares or (0.0,)
        label = label_drift(window, holdout, prior, "y", SETTINGS)
        concept = concept_drift(window, holdout, SETTINGS)
        return {
            "label": label.drifted,
            "concept": concept is not None and concept.drifted,
            "label test": label.p <= LEVEL,
            "concept test": concept is not None and concept.p <= LEVEL,
        }

    def drawn(self, n: int, random: np.random.Generator, odds: float = 1.0, strength: float = 1.0) -> Predictions:
        """Return n rows, those of a customer as a group."""
        found = predictions(self.target, n // self.customer, random, odds, strength)
        if self.customer == 1:
            return found
        groups = np.arange(n) // self.customer
        return replace(found.take(groups), groups=groups)


@dataclass(frozen=True)
class Shifted:
    """Look at a window of which some columns have moved, beside a reference of 5,000 rows."""

    rows: int
    moved: int
    shift: float
    compared: int

    def __call__(self, seed: int) -> Found:
        """Return whether it is found; the classifier is asked only where no column speaks."""
        random = np.random.default_rng(seed)
        reference, holdout = inputs(5000, random), inputs(5000, random)
        rows, columns = inputs(self.rows, random, self.moved, self.shift), learned(reference)
        alone = any(drift.drifted for drift in column_drifts(rows, columns, 5000, SETTINGS))
        apart = None if alone else separation(rows, holdout, columns, SETTINGS)
        known = evidently(rows, reference) if seed < self.compared else {}
        return {"columns": alone, "decision": alone or (apart is not None and apart.drifted), **known}


def dependent(world: str, rows: int, random: np.random.Generator) -> pd.DataFrame:
    """Draw a stream of four columns whose rows depend on those before, a row a minute.

    Of `cycle` two have a rhythm of 5,000 rows, of `hours of a week` one of 168 windows of 500; of `autoregressive 0.9`
    a memory; of `weekend` one tells the last two of seven days of 1,000 rows; of `customers 50` all rows of a customer
    are alike; of `copies` each comes twice.
    """
    kind, _, size = world.partition(" ")
    since, values = np.arange(rows), random.standard_normal((rows, 4))
    if kind in ("cycle", "hours"):
        period = 5000 if kind == "cycle" else 500 * WEEK
        values[:, :2] += 1.5 * np.sin(2 * np.pi * (since[:, None] / period + random.random(2)))
    elif kind == "weekend":
        values[:, 0] = (since + random.integers(7000)) // 1000 % 7 >= 5
    elif kind == "autoregressive":
        memory = float(size)
        values[:, :2] = lfilter([(1 - memory**2) ** 0.5], [1, -memory], values[:, :2], axis=0)
    elif kind == "customers":
        values = values[since // int(size)] + 0.3 * random.standard_normal((rows, 4))
    elif kind == "copies":
        values = values[since // 2]
    return pd.DataFrame(values, columns=list("abcd")).assign(
        prediction_time=pd.Timestamp("2026-01-01") + pd.to_timedelta(since, "min")
    )


@cache
def dependent_reference(world: str) -> tuple[Column, ...]:
    """Return what 7,500 rows from all over a long stream of a world teach."""
    rows = dependent(world, 10 * 500 * WEEK, np.random.default_rng(0)).drop(columns="prediction_time")
    return learned(rows.sample(7500, random_state=0, ignore_index=True))


def one_after_the_other(
    stream: pd.DataFrame, columns: Sequence[Column], n: int, settings: Monitoring = SETTINGS, skipped: int = 0
) -> list[tuple[bool, bool]]:
    """Look at columns window by window as monitoring does; return whether rows as such alarm, and whether it does.

    The first windows are skipped as if they had alarmed.
    """
    found, quiet = [], stream["prediction_time"].iloc[0] - pd.Timedelta(1, "us")
    for end in range((skipped + 1) * n, len(stream) + 1, n):
        rows, before = stream[end - n : end], stream[: end - n]
        drifts = column_drifts(rows, columns, 7500, settings)
        alone = alarm = any(drift.drifted for drift in drifts)
        past = Earlier(lambda before=before: before, quiet).cut(n) if alone else None  # type: ignore[misc]
        if past is not None:
            held = held_columns(drifts, rows, columns, 7500, past, settings)
            alarm = any(drift.drifted for drift in held)
        found.append((alone, alarm))
        quiet = quiet if alarm else rows["prediction_time"].iloc[-1]
    return found


@dataclass(frozen=True)
class Dependent:
    """Look at the windows of a stream whose rows depend on each other, without drift or with one behind the warm-up."""

    world: str
    rows: int
    shift: float = 0.0
    """Of column d from the last window on, in standard deviations."""

    def __call__(self, seed: int) -> Found:
        """Return whether the window behind the warm-up alarms, by rows as such and beside earlier windows."""
        skipped = WEEKS.get(self.world, 0) * WEEK
        stream = dependent(self.world, (skipped + NEEDED + 1 + seed % 5) * self.rows, np.random.default_rng(seed))
        stream.loc[len(stream) - self.rows :, "d"] += self.shift
        reference = dependent_reference(self.world)
        alone, alarm = one_after_the_other(stream, reference, self.rows, skipped=skipped)[-1]
        return {"independent rows": alone, "columns": alarm}


@dataclass(frozen=True)
class Levels:
    """Look at 2,000 rows of one column of many categories beside a reference of 5,000."""

    count: int
    power: float
    """Of the Zipf distribution of its categories."""
    new: float = 0.0
    """Share of rows that are of one category that training never saw."""
    doubled: bool = False
    """Whether the most frequent category has twice its share."""

    def __call__(self, seed: int) -> Found:
        """Return whether it alarms."""
        random, shares = np.random.default_rng(seed), np.arange(1, self.count + 1) ** -self.power
        shares /= shares.sum()
        before, now = (random.choice(self.count, n, p=shares) for n in (5000, 2000))
        now[random.random(2000) < self.new] = self.count
        if self.doubled:
            now[random.random(2000) < shares[0] / (1 - shares[0])] = 0
        sides = [pd.DataFrame({"x": [f"level {code}" for code in codes]}) for codes in (before, now)]
        data = Data(source="made", target="y", kinds={"x": "categorical"})
        columns = learn_contract(sides[0].assign(y=np.arange(5000) % 2), data, Contract()).columns
        return {"columns": any(drift.drifted for drift in column_drifts(sides[1], columns, 5000, SETTINGS))}


@dataclass(frozen=True)
class Course:
    """Follow the fraud stream, every label known, from before a change until the policy would train again."""

    kind: Literal["covariate", "label", "concept"]
    course: Literal["sudden", "gradual", "recurring"]
    window: int
    limit: int = 40_000
    """Rows after the change."""

    def __call__(self, seed: int) -> Found:
        """Return rows from the change until the first alarm and until a retraining, and whether one came too early."""
        random = np.random.default_rng(seed)
        change = self.window + int(random.integers(self.window))
        stream = [
            card_transactions(change + self.limit, seed + 100, kind, start=20_000) for kind in ("none", self.kind)
        ]
        since = np.arange(change + self.limit) - change
        on = {
            "sudden": since >= 0,
            "gradual": random.random(len(since)) < since / 20_000,
            "recurring": (since >= 0) & (since // 10_000 % 2 == 0),
        }[self.course]
        rows = pd.concat(stream).iloc[np.arange(len(on)) + len(on) * on]
        entries: list[Decision] = []
        found: Found = {"early": False, "first alarm": np.inf, "retraining": np.inf}
        for end in range(self.window, len(rows), self.window):
            decision, retrain = _judged(rows[end - self.window : end], entries)
            entries.append(decision)
            if decision.alarms and end <= change:
                found["early"] = True
            elif decision.alarms:
                found["first alarm"] = min(found["first alarm"], end - change)
            if retrain:
                found["retraining"] = end - change
                break
        return found


@cache
def _fraud() -> tuple[Bundle, pd.DataFrame, config.Config]:
    """Train the fraud use case; return it with its holdout and settings."""
    settings = config.load(ROOT / "configs/fraud.yaml")
    rows = read_rows(settings.data)
    rule = resolve(rows, settings.data, settings.split)
    held_out = rule.held_out(rows)
    train_rows, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    contract = learn_contract(train_rows, settings.data, settings.contract)
    return train(train_rows, contract, rule, settings.recipe), holdout, settings


def _judged(rows: pd.DataFrame, entries: Sequence[Decision]) -> tuple[Decision, bool]:
    """Examine a window as the log would hold it; return its entry and whether the policy would train again."""
    bundle, holdout, settings = _fraud()
    report = examine(logged(rows, bundle), bundle, 1, holdout, {}, settings)
    now, seen = datetime.now(UTC), sum(entry.rows for entry in entries) + len(rows)
    entry = Decision(
        number=len(entries) + 1, time=now, by="monitoring", version=1, start=report.start, end=report.end,
        rows=len(rows), alarms=report.alarms, labels=seen, windows=(), since=None, requirements=(),
        action="nothing", run="benchmark",
    )  # fmt: skip
    needed = requirements(judged_windows([*entries, entry], 1), entries, seen, Policy(), now)
    return entry, all(requirement.met for requirement in needed)


def logged(rows: pd.DataFrame, bundle: Bundle) -> Window:
    """Return rows and their labels as the log of a service would hold them."""
    rows, target = rows.reset_index(drop=True), bundle.card.contract.target
    answers = {
        "prediction_id": [f"9f86d081884c-{place:08x}-0" for place in range(len(rows))],
        "prediction_time": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(rows)), "s"),
        "prediction_version": 1,
        "prediction_score": bundle.scores(rows),
    }
    known = pd.concat([pd.DataFrame(answers), rows.drop(columns=target)], axis=1)
    refusals = pd.DataFrame({name: [] for name in ("time", "path", "field", "rule", "rows", "answered", "version")})
    return Window(known, known.assign(**{TRUTH: rows[target].astype(object)}), refusals, 0)


def evidently(rows: pd.DataFrame, reference: pd.DataFrame) -> Found:
    """Return whether the drift preset alarms as it comes, and the share of columns that it flags."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    categorical = [name for name in rows if str(name).startswith("levels")]
    numeric = [name for name in rows if name not in categorical]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=categorical)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        sides = [Dataset.from_pandas(side, definition) for side in (rows, reference)]
        counted = Report([DataDriftPreset()]).run(*sides).dict()["metrics"][0]["value"]
    return {"Evidently": counted["share"] >= 0.5, "its columns": float(counted["share"])}


def _sea(n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw inputs and chances of SEA (Street & Kim 2001): a step across two inputs of three, 10 % of labels wrong."""
    x = random.uniform(0, 10, (n, 3))
    return x, np.where(x[:, 0] + x[:, 1] <= 8, 0.9, 0.1)


def _agrawal(n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw inputs and chances of the second function of Agrawal et al. (1993): a band of salaries that age decides."""
    x = random.uniform([20, 0, 20, 0, 1], [80, 500, 150, 1000, 30], (n, 5))  # age, loan, salary, house, years
    low = np.select([x[:, 0] < 40, x[:, 0] < 60], [50, 75], 25)
    return x, np.where((x[:, 2] >= low) & (x[:, 2] <= low + 50), 0.95, 0.05)


def _waves(n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw inputs and chances of a curve and a product, which a line misses."""
    x = random.standard_normal((n, SEEN))
    logits = 1.5 * (x[:, 0] + 0.8 * x[:, 1] * x[:, 3] - 0.7 * (x[:, 2] ** 2 - 1) - 0.5)
    return x, 1 / (1 + np.exp(-logits))


def _corner(n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw inputs and chances of 13 % positives, most of them in a corner."""
    x = random.standard_normal((n, SEEN))
    logits = 2.4 * np.maximum(x[:, 0], 0) + 1.8 * (x[:, 2] > 1) + 0.8 * x[:, 3] - 4
    return x, 1 / (1 + np.exp(-logits))


def _rings(n: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw inputs and chances of which a line learns nothing: young and old against those between."""
    x, _ = _agrawal(n, random)
    return x, np.where((x[:, 0] < 40) | (x[:, 0] >= 60), 0.95, 0.05)


WORLDS = {"SEA": _sea, "Agrawal 2": _agrawal, "Agrawal 1": _rings, "waves": _waves, "corner": _corner}
MOVED = [0, 2]  # columns; the first by `tilt` standard deviations of a normal, the other by 0.7 of it


@dataclass(frozen=True)
class Moved:
    """Look at labels of rows whose inputs alone have moved, beside a logistic model that misses what is there.

    Rows are kept by odds that grow by `tilt` with each standard deviation; without a tilt the model's positives are.
    With `wrong`, so many labels are another row's, which is concept drift.
    """

    world: str
    labels: int
    tilt: float | None
    wrong: float = 0.0
    holdout: int = 2500

    def __call__(self, seed: int) -> Found:
        """Return which families alarm, with the weights and without them, and where too few rows are alike to tell."""
        random = np.random.default_rng([seed, 2])
        (before, known), (x, labelled) = self.drawn(self.holdout, 0, random), self.drawn(self.labels, self.tilt, random)
        swapped = np.where(random.random(self.labels) < self.wrong, random.permutation(labelled.truth), labelled.truth)
        labelled, prior = replace(labelled, truth=swapped), (1 - known.truth.mean(), known.truth.mean())
        weights = likeness(x, labelled.scores, before, known, learned(before))
        told = effective_rows(weights) >= ALIKE_ROWS
        found: Found = {"not judged": not told}
        for name, given in (("", weights), (" unweighted", None)):
            label = label_drift(labelled, known, prior, "y", SETTINGS, given)
            concept = concept_drift(labelled, known, SETTINGS, given)
            judged = told or given is None
            found[f"label{name}"] = judged and label.drifted
            found[f"concept{name}"] = judged and concept is not None and concept.drifted
        return found

    def drawn(self, n: int, tilt: float | None, random: np.random.Generator) -> tuple[pd.DataFrame, Predictions]:
        """Return n rows of the world and what the model says of them."""
        model, centre, scale = _line(self.world)
        kept: list[tuple[Floats, Floats]] = []
        while sum(len(chances) for _, chances in kept) < n:
            x, chances = WORLDS[self.world](4 * n, random)
            if tilt is None:
                keep = model.predict_proba(x)[:, 1] > model.cut
            else:
                moved = ((x - centre) / scale)[:, MOVED] @ [1, 0.7]
                keep = random.random(len(x)) < np.exp(np.minimum(tilt * moved - abs(tilt) * 2.8, 0))
            kept.append((x[keep], chances[keep]))
        x, chances = (np.concatenate(parts)[:n] for parts in zip(*kept, strict=True))
        truth = (random.random(n) < chances).astype(int)
        rows = pd.DataFrame(x, columns=[f"x{place}" for place in range(x.shape[1])])
        return rows, Predictions("binary", truth, model.predict_proba(x)[:, 1])


@cache
def _line(world: str) -> tuple[Any, Floats, Floats]:
    """Return a logistic regression of a world, whose positives are three tenths; means and deviations of the inputs."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    x, chances = WORLDS[world](7500, random)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, random.random(len(x)) < chances)
    model.cut = np.quantile(model.predict_proba(x)[:, 1], 0.7)
    return model, x.mean(axis=0), x.std(axis=0)


Rows = Iterator[tuple[str, Callable[[int], Found], int]]
"""Name, experiment and number of windows of each line of a table."""


def _calibration(runs: int) -> Rows:
    for reference in (5000, 15_000):
        for rows in (100, 500, 5000, 50_000):
            count = runs if rows < 50_000 else runs // 4
            experiment = Clean(reference, rows, whole=count // 4, compared=max(4, runs // 80))
            yield f"{rows:,} rows, reference {reference:,}", experiment, count


def _label_calibration(runs: int) -> Rows:
    for target in (FEW, MORE, THREE, NUMBERS, HEAVY):
        for holdout in (200, 1000, 5000):
            for labels in (200, 2000):
                yield f"{target}: {labels:,} labels, holdout {holdout:,}", Labels(target, holdout, labels), 2 * runs


def _power(runs: int) -> Rows:
    for rows in (500, 5000):
        for moved in (1, 3, 10):
            for shift in (0.1, 0.25, 0.5):
                yield f"{rows:,} rows, {moved} by {shift:g} sd", Shifted(rows, moved, shift, runs // 20), runs // 4


def _label_power(runs: int) -> Rows:
    changes = [(f"odds x {odds:g}", odds, 1.0) for odds in (1.5, 2, 3)]
    changes += [(f"weights x {strength:g}", 1.0, strength) for strength in (0.5, 0, -1)]
    for target in (FEW, MORE):
        for labels in (200, 500, 2000):
            for name, odds, strength in changes:
                experiment = Labels(target, 5000, labels, odds, strength)
                yield f"{target}: {labels:,} labels, {name}", experiment, runs // 2


def _label_groups(runs: int) -> Rows:
    for target in (MORE, THREE, NUMBERS):
        for customer in (10, 50):
            for labels in (500, 2000):
                for odds, strength in ((1.0, 1.0), (3.0, 1.0), (1.0, 0.0)):
                    shown = f"odds x {odds:g}, weights x {strength:g}" if odds + strength != 2 else "no drift"
                    experiment = Labels(target, 5000, labels, odds, strength, customer)
                    count = runs if shown == "no drift" else runs // 4
                    yield f"{target}: {labels:,} labels, {customer} a customer, {shown}", experiment, count


def _moved(runs: int) -> Rows:
    for world in WORLDS:
        for tilt in (1, -1, 1.5, 2, None):
            for labels in (500, 2000, 10_000):
                shown = "positives alone" if tilt is None else f"inputs by {tilt:g} sd"
                yield f"{world}: {labels:,} labels, {shown}", Moved(world, labels, tilt), runs // 4
    for world in WORLDS:
        for labels in (500, 2000):
            experiment = Moved(world, labels, 1, wrong=0.5)
            yield f"{world}: {labels:,} labels, inputs by 1 sd, half of them wrong", experiment, runs // 4


def _delay(runs: int) -> Rows:
    for kind in ("covariate", "label", "concept"):
        for course in ("sudden", "gradual", "recurring"):
            for window in (1000, 5000):
                yield f"{kind}, {course}, windows of {window:,}", Course(kind, course, window), max(3, runs // 40)


def _levels(runs: int) -> Rows:
    for count, power in ((500, 1.0), (1000, 0.5), (3000, 0.0), (30, 2.0)):
        for shown, experiment in (
            ("no drift", Levels(count, power)),
            ("20 % new", Levels(count, power, new=0.2)),
            ("first doubled", Levels(count, power, doubled=True)),
        ):
            yield f"{count:,} levels, Zipf {power:g}, {shown}", experiment, runs // (1 if shown == "no drift" else 4)


def _dependent(runs: int) -> Rows:
    for shift in (0.0, 0.5, 1.0):
        for world, rows in DEPENDENT:
            yield f"{world}, {rows:,} rows, {shift:g} sd", Dependent(world, rows, shift), runs // (2 if shift else 1)


TABLES: dict[str, tuple[str, Callable[[int], Rows]]] = {
    "calibration": (f"False alarms; stated: 1 % in all, {LEVEL:.1%} a family", _calibration),
    "labels": ("False alarms of label and concept drift", _label_calibration),
    "power": ("Shifted inputs that are found", _power),
    "label_groups": ("Labels of customers whose rows are alike", _label_groups),
    "label_power": ("Changed labels that are found", _label_power),
    "moved": ("Labels of rows whose inputs have moved, and a model that misses what is there", _moved),
    "dependent": (f"Rows that depend on each other, behind {NEEDED} windows", _dependent),
    "levels": ("One column of many categories", _levels),
    "delay": ("Rows from the change on (median, greatest)", _delay),
}


def _shown(values: pd.Series) -> str:
    """Show a share with its standard error, or the median and the greatest of numbers."""
    n = values.count()
    if not n:
        return "-"
    if values.name in ("first alarm", "retraining"):
        return f"{values.median():,.0f} {values.max():,.0f}"
    share = float(values.astype(float).mean())
    if values.name == "its columns":
        return f"{100 * share:.0f}"
    kept = (share * n + 0.5) / (n + 1)  # none in n is not surely none
    return f"{100 * share:.1f}±{100 * (kept * (1 - kept) / n) ** 0.5:.1f}"


def main() -> None:
    """Print one table after the other, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=400, help="windows a line, where they are cheap")
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    given = parser.parse_args()
    for name, (title, lines) in TABLES.items():
        if given.only in (None, name):
            print(f"\n{title}")
            with ProcessPoolExecutor(os.cpu_count()) as pool:
                for shown, experiment, runs in lines(given.runs):
                    found = pd.DataFrame(pool.map(experiment, range(runs)))
                    cells = "  ".join(f"{column} {_shown(found[column])}" for column in found)
                    print(f"{shown:44} n={runs:<4} {cells}", flush=True)


if __name__ == "__main__":
    main()
