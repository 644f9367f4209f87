"""Turn what was answered and labelled into rows to learn from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from loop.config import Config, Data, Evaluation, Feedback, Gate, Monitoring, Recipe, Section, UserError
from loop.data.contract import DataContract, class_code, encode_target, learn_contract
from loop.data.dtypes import plain, plain_objects
from loop.data.notes import Known
from loop.data.split import SplitRule, check_sides, folds
from loop.data.table import as_features, as_kind, as_text, exact_hashes, quoted
from loop.log.records import TRUTH, TRUTH_TIME, in_audit
from loop.training.bundle import Bundle
from loop.training.features import preprocessing
from loop.training.fit import make_estimator
from loop.training.gate import Group, Verdict, compare_group, judge_old_rows
from loop.training.level import look_at, spend
from loop.training.metrics import Predictions, default_metric, estimate_difference, measure
from loop.training.stand_in import StandIn
from loop.watching.coverage import NEARLY_ALL, asked_of, audit_of, coverage_of, drift_is_likelier

DOUBT = 0.2
"""Chance that is taken of dropping old rows that do no harm."""

WATCHED_ROWS = 300
"""From so many new holdout rows on, new rows alone stand for what the model will meet."""


class FeedbackReport(Section):
    """Say which labels came and what they belong to."""

    predictions: int
    labels: int
    """Records of labels, repeated and corrected ones too."""
    labelled: int
    """Predictions with a label."""
    repeated: int
    corrected: int
    """Predictions whose label was changed later; the last one counts."""
    unknown: int
    """Predictions that were labelled and that the log does not hold."""
    left_out: int = 0
    """Labelled predictions that are not learned from: older than the newest `feedback.max_rows`."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say it in words."""
        if not self.labels:
            return ("no label has come yet; send them to /feedback by their prediction id",)
        share = self.labelled / max(self.predictions, 1)
        said = [f"{self.labelled:,} of {self.predictions:,} predictions are labelled ({share:.0%})"]
        for count, words in (
            (self.corrected, "labels were corrected later, the last one counts"),
            (self.repeated, "labels came more than once, unchanged"),
            (self.unknown, "labels belong to no prediction of this log and are not used"),
            (self.left_out, "labelled rows are older than the newest feedback.max_rows and are not used"),
        ):
            if count:
                said.append(f"{count:,} {words}")
        return tuple(said)


class History(Section):
    """Say whether the rows of before are kept, and why."""

    keep: bool
    old_rows: int
    new_rows: int
    """Training rows that were labelled since the drift began, or since ever where there is none."""
    reason: str
    unusable: str = ""
    """Which labelled rows could not be used, or were not since others are a fair sample, if any."""
    doubt: str = ""
    """Why the new rows may have been labelled selectively, if they may."""

    @property
    def sentence(self) -> str:
        """Say it in words."""
        kept = f"kept, {self.old_rows:,} rows beside {self.new_rows:,} new ones"
        return f"{kept if self.keep else f'dropped, {self.new_rows:,} new rows alone'}: {self.reason}"


def join_labels(
    predictions: pd.DataFrame, history: pd.DataFrame, settings: Feedback
) -> tuple[pd.DataFrame, FeedbackReport]:
    """Return the labelled predictions with the last label of each and its time, and what was found.

    These are called TRUTH and TRUTH_TIME there, since a logged column may be called `label`. `history` holds every
    label there ever was, by time, as `loop.log.records.read_labels` returns it.
    """
    predictions = predictions.astype({"prediction_id": "str"})  # of no predictions it would be anything
    known = history[history["prediction_id"].isin(predictions["prediction_id"])]
    last = known.drop_duplicates("prediction_id", keep="last")
    texts = known.assign(label=as_kind(known["label"], "categorical"))
    given = texts.groupby("prediction_id")["label"].agg(["size", "nunique"])
    last = last.rename(columns={"label": TRUTH, "label_time": TRUTH_TIME})
    joined = plain_objects(predictions.merge(last, on="prediction_id"))
    report = FeedbackReport(
        predictions=len(predictions),
        labels=len(history),
        labelled=len(joined),
        repeated=int(((given["size"] > 1) & (given["nunique"] == 1)).sum()),
        corrected=int((given["nunique"] > 1).sum()),
        unknown=history["prediction_id"].nunique() - len(given),
        left_out=max(len(joined) - settings.max_rows, 0),
    )
    return joined.tail(settings.max_rows).reset_index(drop=True), report


def with_labels(predictions: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return what was answered to every request, its id, time and scores, with its last label as TRUTH, if it came."""
    columns = [name for name in predictions if str(name).startswith("prediction_")]
    last = history.drop_duplicates("prediction_id", keep="last").set_index("prediction_id")["label"]
    return predictions[columns].join(plain(last.rename(TRUTH)), on="prediction_id")


def selection_doubt(
    answers: pd.DataFrame, champion: Bundle | StandIn, version: int, holdout_rows: pd.DataFrame, settings: Monitoring
) -> str:
    """Say why labels may have come for some answers rather than others; nothing where that is excluded.

    `answers` are as `with_labels` returns them; those after the last one with a label are not due. It is excluded where
    nearly all are labelled, or where the labels differ from what the champion's scores promise in a way that drift
    explains far better than selection.
    """
    came = answers[TRUTH].notna()
    answers = answers[answers["prediction_time"] <= answers["prediction_time"][came].max()]
    came = answers[TRUTH].notna()
    if came.mean() >= NEARLY_ALL or answers.empty:
        return ""
    share = f"labels came for {came.mean():.0%} of {len(answers):,} predictions"
    ours = answers[answers["prediction_version"] == version]
    if not isinstance(champion, Bundle):
        return f"{share}, and the champion, which could tell why, is gone"
    contract = champion.card.contract
    ours = ours.assign(**{TRUTH: _truth(ours[TRUTH], contract)})
    if not ours[TRUTH].notna().any():
        return f"{share}, and for none that the champion answered"
    asked, is_labelled = asked_of(ours, champion.card)
    found = coverage_of(asked, is_labelled, settings)
    if found.selective:
        return found.sentence
    if drift_is_likelier(asked, is_labelled, champion.predictions(holdout_rows), settings):
        return ""
    return f"{share}, and that they came selectively would explain them as well as drift"


def audited_rows(
    labelled: pd.DataFrame, answers: pd.DataFrame, share: float, settings: Monitoring
) -> tuple[pd.DataFrame, str]:
    """Return the labelled rows of the audit sample and what is to be said of them; nothing where it does not do alone.

    `answers` are as `with_labels` returns them; those after the last one of the sample with a label are not due.
    """
    known = answers[answers[TRUTH].notna() & in_audit(answers["prediction_id"], share)]
    due = answers[answers["prediction_time"] <= known["prediction_time"].max()]
    audit, enough = audit_of(due, share, settings)
    if not enough:
        return labelled.head(0), ""
    rows = labelled[labelled["prediction_id"].isin(known["prediction_id"])].reset_index(drop=True)
    return rows, f"learned from and judged by the audit sample alone, {len(known):,} of its {len(audit):,} rows"


def as_source_rows(
    labelled: pd.DataFrame, source: pd.DataFrame, contract: DataContract, config: Config
) -> tuple[pd.DataFrame, pd.Series, str]:
    """Return labelled predictions as rows of the source, when each was answered, and what could not be used, if any.

    Rows have the source's columns and types. Those that the source has already are left out, and of rows with the same
    ids all but the last; so are, counted in a sentence, those without an id or with a value that its column cannot
    hold: an earlier service took any. A feature that the log does not keep, and ids that requests left out, are a
    UserError.
    """
    data, hidden = config.data, set(config.serving.personal).intersection(contract.features)
    if hidden:
        raise UserError(
            f"retraining needs '{min(hidden)}', which the log does not keep (serving.personal); take it out there, or "
            "train on a table that has it"
        )
    if labelled.empty:
        raise UserError("retraining needs labelled predictions, there are none; send labels to /feedback")
    for name in data.keys:
        if name not in labelled or labelled[name].isna().all():
            raise UserError(
                f"retraining needs the id '{name}' of each row, so that none is learned from and judged by at once; "
                "send it with each request, the service logs it"
            )
    usable, faults = _usable(labelled, source, contract, config)
    said = f"{(~usable).sum():,} labelled rows cannot be used: {', '.join(faults)}" if faults else ""
    if not usable.any():
        raise UserError(f"retraining needs labelled predictions that can be learned from; {said}")
    labelled = labelled[usable].reset_index(drop=True)
    found = pd.DataFrame({name: _column(name, labelled, source, contract, config) for name in source.columns})
    if data.time is not None:
        found[data.time] = found[data.time].fillna(labelled["prediction_time"])
    if data.id:  # a row that was asked for twice is one row
        found = found.drop_duplicates(list(data.id), keep="last")
    found = found[~np.isin(_identities(found, data), _identities(source, data))]
    return found.reset_index(drop=True), labelled.loc[found.index, "prediction_time"].reset_index(drop=True), said


def choose_history(
    old: pd.DataFrame,
    new: pd.DataFrame,
    rule: SplitRule,
    recipe: Recipe,
    settings: Feedback,
    metric: str | None,
    settled: Mapping[str, Known] | None = None,
    doubt: str = "",
) -> History:
    """Say whether old training rows mislead about new ones: cross-validated on new training rows alone.

    Fits the recipe twice a fold: on old rows and the other new ones, and on those alone. The old ones are dropped if
    that is better beyond doubt (a paired bootstrap, one-sided at DOUBT), since more rows are worth more in a tie. Where
    there is `doubt` whether new rows stand for all, they say nothing about old ones.
    """
    counts: dict[str, Any] = {"old_rows": len(old), "new_rows": len(new), "doubt": doubt}
    if settings.history != "auto":
        return History(keep=settings.history == "keep", **counts, reason=f"feedback.history is {settings.history}")
    if doubt:
        return History(keep=True, **counts, reason=doubt)
    both = pd.concat([old, new], ignore_index=True)
    contract = learn_contract(both, recipe.data, recipe.contract, settled=settled)
    place = folds(new, rule, recipe.model.folds)
    truth = encode_target(new[contract.target], contract)
    if contract.classes and any(len(np.unique(truth[place != f])) < len(contract.classes) for f in np.unique(place)):
        return History(keep=True, **counts, reason="the new rows are too few to be learned from alone")
    name = metric or default_metric(contract.task)
    scores = [_out_of_fold(before, new, place, contract, recipe) for before in (old, old.head(0))]
    kept, alone = (Predictions(contract.task, truth, s, labels=contract.classes) for s in scores)
    lead = estimate_difference(name, alone, kept, Evaluation(confidence=1 - 2 * DOUBT))
    shown = f"{measure(name, kept):.4g} with them and {measure(name, alone):.4g} without (cross-validated)"
    return History(keep=not lead.low > 0, **counts, reason=f"on new rows {name} is {shown}")


@dataclass(frozen=True)
class Sides:
    """Hold the rows of a retraining, each on its side."""

    train: pd.DataFrame
    holdout: pd.DataFrame
    """What champion and challenger are judged on."""
    old_holdout: pd.DataFrame
    watched: pd.DataFrame
    """Holdout rows that stand for what the model will meet."""
    rule: SplitRule
    reference_rows: int | None
    """The last so many training rows stand for what the model will meet; None for all."""
    history: History


def compare_sides(
    challenger: Bundle,
    champion: Bundle | StandIn,
    holdout: pd.DataFrame,
    old_holdout: pd.DataFrame,
    history: History,
    gate: Gate,
    evaluation: Evaluation,
) -> tuple[Group, ...]:
    """Measure both models on old and on new holdout rows, those that the champion has not seen either."""
    sides = (("old rows", old_holdout), ("new rows", new_rows(holdout, old_holdout, history)))
    return tuple(
        compare_group(name, challenger.predictions(part), champion.predictions(part), gate, evaluation)
        for name, rows in sides
        if len(part := rows[champion.unseen(rows, challenger.card.split)])
    )


def hold_to_old_rows(
    verdict: Verdict,
    challenger: Bundle,
    champion: Bundle | StandIn,
    rows: pd.DataFrame,
    gate: Gate,
    evaluation: Evaluation,
    earlier: Sequence[StandIn] = (),
) -> Verdict:
    """Let a challenger also be no worse on holdout rows that stood for what the champion meets when it was promoted.

    `earlier` are the records of models that were judged and did not pass: they have looked at these rows too.
    """
    rules = [(model.card or challenger.card).split for model in (challenger, champion)]
    unseen = champion.unseen(rows, rules[0]) & challenger.unseen(rows, rules[1])
    if not unseen.any():
        if rows.empty or verdict.decision != "promote":
            return verdict
        reasons = ("of the old holdout rows none is known to be new to both models", *verdict.reasons)
        return verdict.model_copy(update={"decision": "hold", "reasons": reasons})
    rows = rows[unseen]
    spent = spend(evaluation, look_at(rows, earlier))
    return judge_old_rows(verdict, challenger.predictions(rows), champion.predictions(rows), gate, spent)


def new_rows(holdout: pd.DataFrame, old_holdout: pd.DataFrame, history: History) -> pd.DataFrame:
    """Return the new rows of a holdout as `split_feedback` lays it out: behind the old ones, where those are kept."""
    return holdout.iloc[len(old_holdout) :] if history.keep else holdout


def split_feedback(
    source: pd.DataFrame,
    served: pd.DataFrame,
    drifted: npt.NDArray[np.bool_],
    rule: SplitRule,
    config: Config,
    settled: Mapping[str, Known] | None = None,
    doubt: str = "",
) -> Sides:
    """Split the source as ever and served rows by their hash; say what the model learns from and is judged on.

    `drifted` says which served rows came since the drift began; the others are old rows, as those of the source.
    Where old rows no longer help, the model is judged on new ones alone: the old ones describe a world that is gone.
    Where there is `doubt` whether the new ones stand for what is asked, the old ones still do.
    `settled` says what the champion's contract knows of the columns.
    """
    if not drifted.any():
        raise UserError("retraining needs new labelled rows that the source does not hold, there are none")
    rule = rule.for_feedback(source)
    rows, new = pd.concat([source, served], ignore_index=True), np.append(np.zeros(len(source), bool), drifted)
    held_out = rule.held_out(rows)
    old_train, old_holdout, new_train, new_holdout = (
        rows[since & side].reset_index(drop=True) for since in (~new, new) for side in (~held_out, held_out)
    )
    metric = config.gate.metric
    history = choose_history(old_train, new_train, rule, config.recipe, config.feedback, metric, settled, doubt)
    train, holdout = new_train, new_holdout
    if history.keep:
        train = pd.concat([old_train, new_train], ignore_index=True)
        holdout = pd.concat([old_holdout, new_holdout], ignore_index=True)
    target = pd.concat([train[config.data.target], holdout[config.data.target]], ignore_index=True)
    held_out = np.arange(len(target)) >= len(train)
    check_sides(target, held_out, learn_contract(train, config.data, config.contract, settled=settled).task)
    enough = len(new_holdout) >= WATCHED_ROWS and not doubt
    return Sides(
        train=train,
        holdout=holdout,
        old_holdout=old_holdout,
        watched=new_holdout if enough else old_holdout if doubt and history.keep else holdout,
        rule=rule,
        reference_rows=len(new_train) if history.keep and enough else None,
        history=history,
    )


def _out_of_fold(
    old: pd.DataFrame, new: pd.DataFrame, place: npt.NDArray[np.int64], contract: DataContract, recipe: Recipe
) -> npt.NDArray[np.float64]:
    """Return each new row's score by a model that saw the old rows and the other folds' new rows."""
    found: list[Any] = [None] * len(new)
    for fold in np.unique(place):
        inside = np.flatnonzero(place == fold)
        seen = pd.concat([old, new[place != fold]], ignore_index=True)
        estimator = make_estimator(recipe.model, contract.task)
        pipeline = Pipeline([("prepare", preprocessing(contract.features)), ("estimate", estimator)])
        pipeline.fit(as_features(seen, contract.features), encode_target(seen[contract.target], contract))
        asked = as_features(new.iloc[inside], contract.features)
        said = pipeline.predict(asked) if contract.task == "regression" else pipeline.predict_proba(asked)
        for row, score in zip(inside, said[:, 1] if contract.task == "binary" else said, strict=True):
            found[row] = score
    return np.asarray(found, np.float64)


def _usable(
    labelled: pd.DataFrame, source: pd.DataFrame, contract: DataContract, config: Config
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Say which rows have all ids and only values that their columns can hold, and why the others have not."""
    ids = list(config.data.keys)
    usable = labelled[ids].notna().all(axis=1).to_numpy()
    faults = [] if usable.all() else [f"{(~usable).sum():,} without {' or '.join(map(quoted, ids))}"]
    # A version without a feature answered these: its gaps would tell their labels from those of the table's rows.
    for name in (column.name for column in contract.columns if not column.nullable and column.name in source):
        gaps = _given(name, labelled).isna()
        lacks = usable & gaps.groupby(labelled["prediction_version"]).transform("all").to_numpy(bool)
        if lacks.any():
            faults.append(f"{lacks.sum():,} without {quoted(name)}, which no row of training lacked")
            usable = usable & ~lacks
    for name in source.columns:
        if contract.left_out.get(name) in ("dropped", "empty"):
            continue  # nothing is known of what it holds, and nothing is learned from it
        given = _given(TRUTH if name == contract.target else name, labelled)
        bad = given.notna().to_numpy() & _column(name, labelled, source, contract, config).isna().to_numpy() & usable
        if bad.any():
            faults.append(f"{bad.sum():,} for {quoted(name)}, e.g. {quoted(given[bad].iloc[0])}")
            usable = usable & ~bad
    return usable, faults


def _given(name: str, labelled: pd.DataFrame) -> pd.Series:
    return labelled[name] if name in labelled else pd.Series([None] * len(labelled), dtype=object)


def _column(
    name: str, labelled: pd.DataFrame, source: pd.DataFrame, contract: DataContract, config: Config
) -> pd.Series:
    """Return a column of the source for labelled rows; what it cannot hold is missing."""
    like, is_id, known = source[name], name in config.data.keys, contract.known.get(name)
    given = _truth(labelled[TRUTH], contract) if name == contract.target else _given(name, labelled)
    if config.serving.personal.get(name) == "hash" and not isinstance(like.dtype, pd.StringDtype):
        # Of a number only its hash is known: that still tells one id from another, but nothing of anything else.
        given = given.map((lambda text: int(text[:15], 16)) if is_id else (lambda text: None), na_action="ignore")
    if like.dtype.kind == "M":
        return _as_times(given, known and known.format).astype(like.dtype)
    if pd.api.types.is_bool_dtype(like):
        truth = as_kind(given, "boolean")
        return truth.astype("boolean" if truth.isna().any() else "bool")
    if pd.api.types.is_numeric_dtype(like):
        numbers = as_kind(given, "numeric")
        whole = pd.api.types.is_integer_dtype(like)  # a feature that was may be a fraction one day, an id never
        return _as_whole(given) if whole and (is_id or (numbers % 1 == 0).all()) else numbers
    return as_kind(given, "text", contract.categories.get(name, ())).astype("str")


def _truth(labels: pd.Series, contract: DataContract) -> pd.Series:
    """Return labels as the contract spells them; one of another model is missing."""
    if contract.task == "regression":
        return labels
    texts = as_kind(labels, "categorical")
    codes = {text: class_code(text, contract.classes) for text in texts.dropna().unique()}
    return texts.map({text: contract.classes[code] for text, code in codes.items() if code is not None})


def _as_times(values: pd.Series, layout: str | None) -> pd.Series:
    """Read times as the log has them, in ISO 8601, or as an earlier service let them in, in the source's format."""
    texts = values.astype("str")
    times = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    if layout is not None:
        times = times.fillna(pd.to_datetime(texts, format=layout, utc=True, errors="coerce"))
    return times.dt.tz_localize(None).dt.as_unit("us")


def _as_whole(values: pd.Series) -> pd.Series:
    """Return whole numbers, also those that are spelt out, with all their digits: int64, or Int64 with gaps."""
    means = {value: _whole(as_text(value)) for value in values.dropna().unique()}
    found = pd.Series(pd.array([means.get(value) for value in values], "Int64"), values.index)
    return found if found.isna().any() else found.astype("int64")


def _whole(text: str) -> int | None:
    number = int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text) else 2**63
    return number if -(2**63) <= number < 2**63 else None


def _identities(rows: pd.DataFrame, data: Data) -> npt.NDArray[np.uint64]:
    others = {data.target, *data.drop}
    return exact_hashes(rows, data.id or [name for name in rows.columns if name not in others])
