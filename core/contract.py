"""Learn the data contract from training rows, hold rows to it, and look for faults no contract is needed for.

The contract is JSON and travels with the model: training checks rows with it, the service types its API from
it, and monitoring measures drift from its reference statistics, so nobody needs the training rows again.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from config import Contract, Data, Kind, Rules, Section, Task, UserError
from core.table import as_kind, as_text, column, infer_kind, infer_kinds, infer_task, row_hashes

Reason = Literal["id", "time", "dropped", "text", "constant", "empty"]
_Broken = tuple[str, str | None, int, str]  # rule, column, rows concerned, sentence

_DECILES = np.arange(1, 10) / 10
_SIMILAR_NAME = 0.6  # difflib's own default for a close match
_SAME_SHARES = 0.1  # total variation distance; sampling alone gives about 1.2 / sqrt(rows) in ten bins
_SAME_SHARES_ROWS = 200
_LEAK_ROWS = 10_000  # more rows change the score by less than its distance from the limit
_LEAK_LEAVES = 64  # enough to follow a copy of a number: 64 steps leave 1 / 64² of its variance
_LEAK_LEAVES_PER_CLASS = 4  # enough for a few intervals, too few to learn noise by heart
_LEAK_MIN_ROWS, _LEAK_MIN_CLASS = 20, 5  # with fewer, some column separates the classes by chance
_MEASURE = {"binary": "ROC AUC", "multiclass": "balanced accuracy", "regression": "R² of ranks"}
_BOOLEAN = {"true": ("True", "1"), "1": ("True",), "false": ("False", "0"), "0": ("False",)}


class Column(Section):
    """Say what a column held in training, and how its values were spread."""

    name: str
    kind: Kind
    nullable: bool
    missing: float
    """Share of missing values."""
    integer: bool = False
    """A numeric column that held whole numbers only."""
    minimum: float | str | None = None
    """Smallest value; of a datetime column as ISO 8601."""
    maximum: float | str | None = None
    categories: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    """Inner edges of the reference bins, the distinct deciles below the maximum; a bin has its upper edge."""
    shares: tuple[float, ...] = ()
    """Share of the values present, per bin (one more than edges) or per category; none is 0."""
    mean: float | None = None
    std: float | None = None
    """Standard deviation of the rows themselves (divided by n)."""


class DataContract(Section):
    """Say what a model was trained on: its columns, its target and their reference statistics."""

    version: Literal[1] = 1
    """Version of this format."""
    target: str
    task: Task
    classes: tuple[str, ...] = ()
    """Labels as text in the order of their codes; binary: negative, positive. None for regression."""
    positive: str | None = None
    target_statistics: Column
    columns: tuple[Column, ...]
    """The features, in the order of training."""
    left_out: dict[str, Reason]
    """Columns that are no features, and why."""
    rows: int
    """Training rows."""
    id: tuple[str, ...] = ()
    time: str | None = None

    @property
    def features(self) -> dict[str, Kind]:
        """Return the kind of each feature, as `core.table.as_features` wants it."""
        return {column.name: column.kind for column in self.columns}


class Finding(Section):
    """Say which rule a table breaks, where, how often and how seriously."""

    rule: str
    """A field of `config.Rules`."""
    severity: Literal["error", "warn"]
    column: str | None
    count: int
    """Rows concerned."""
    share: float
    sentence: str


class ContractReport(Section):
    """Hold what was found in a table."""

    findings: tuple[Finding, ...]
    rows: int
    compared_with: int | str | None = None
    """Version of the model whose contract the rows were held to."""

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Return the findings that stop a run."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Return the findings that do not."""
        return tuple(finding for finding in self.findings if finding.severity == "warn")


def learn_contract(train_rows: pd.DataFrame, data: Data, contract: Contract) -> DataContract:
    """Learn the contract; constant, empty and text columns are no features, and no feature is a UserError."""
    target = column(train_rows, data.target, "data.target")
    task = infer_task(target, data.task)
    left_out: dict[str, Reason] = dict.fromkeys(data.drop, "dropped")
    left_out.update(dict.fromkeys(data.id, "id"))
    if data.time is not None:
        left_out[data.time] = "time"
    columns = []
    kind: Kind
    for name, kind in infer_kinds(train_rows, data, contract.max_categories).items():
        values = as_kind(train_rows[name], kind)
        if reason := _useless(values, kind):
            left_out[name] = reason
        else:
            columns.append(_learn_column(values, kind))
    if not columns:
        why = ", ".join(f"{name} ({reason})" for name, reason in left_out.items())
        raise UserError(f"a model needs a column to learn from, none is left; left out: {why or 'nothing'}")
    classes, positive = _classes(target, task, data.positive)
    kind = "numeric" if task == "regression" else "categorical"
    return DataContract(
        target=data.target,
        task=task,
        classes=classes,
        positive=positive,
        target_statistics=_learn_column(as_kind(target, kind), kind, classes),
        columns=tuple(columns),
        left_out=left_out,
        rows=len(train_rows),
        id=data.id,
        time=data.time,
    )


def encode_target(
    series: pd.Series, contract: DataContract
) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Return class codes (binary: 1 is the positive class) or numbers, shape (rows,).

    Labels compare as text, where 1, 1.0, "1" and True are the same unless the classes tell them apart. A
    missing or unknown label is a UserError.
    """
    if contract.task == "regression":
        encoded = as_kind(series, "numeric")
    else:
        texts = as_kind(series, "categorical")
        encoded = texts.map({text: _code(text, contract.classes) for text in texts.dropna().unique()})
    if (bad := encoded.isna()).any():
        wanted = f"one of {', '.join(contract.classes)}" if contract.classes else "a number"
        raise UserError(
            f"target '{contract.target}' needs {wanted} in every row, {int(bad.sum())} of {len(series)} hold "
            f"something else, e.g. {_shown(series[bad].iloc[0])}; repair or remove those rows"
        )
    return encoded.to_numpy(np.float64 if contract.task == "regression" else np.int64)


def shares_of(values: pd.Series, reference: Column) -> npt.NDArray[np.float64]:
    """Return the share of the values present that falls into each reference bin or category.

    Shape as `reference.shares`; unseen categories are in none, so the sum may fall short of 1. No value at
    all gives zeros, a datetime column an empty array.
    """
    present = as_kind(values, reference.kind).dropna()
    if reference.kind == "categorical":
        counts = present.value_counts().reindex(list(reference.categories), fill_value=0).to_numpy()
    elif reference.kind in ("numeric", "boolean"):
        bins = np.searchsorted(reference.edges, present.to_numpy(), side="left")
        counts = np.bincount(bins, minlength=len(reference.edges) + 1)
    else:
        return np.zeros(0)
    return np.asarray(counts / max(len(present), 1), np.float64)


def check_rows(rows: pd.DataFrame, reference: DataContract, settings: Contract) -> tuple[Finding, ...]:
    """Hold rows to an earlier contract, the target too where it is there; a missing label is no fault."""
    missing = [column for column in reference.columns if column.name not in rows.columns]
    known = {reference.target, *reference.features, *reference.left_out}
    extra = [name for name in rows.columns if name not in known]
    renamed = _renamed(rows, missing, extra, settings) if settings.rules.renamed_column != "off" else {}
    broken: list[_Broken] = []
    for old in missing:
        if old.name in renamed:
            sentence = f"'{old.name}' is gone and '{renamed[old.name]}' has come in its place; rename it back"
            broken.append(("renamed_column", old.name, len(rows), sentence))
        else:
            broken.append(("missing_column", old.name, len(rows), f"column '{old.name}' is missing"))
    for name in extra:
        if name not in renamed.values():
            broken.append(("extra_column", name, len(rows), f"column '{name}' is new and not used"))
    for known_column in reference.columns:
        if known_column.name in rows.columns:
            broken += _check_column(rows[known_column.name], known_column, settings)
    if reference.target in rows.columns:
        broken += _check_target(rows[reference.target].dropna(), reference, settings)
    return _judge(broken, settings.rules, len(rows))


def check_table(
    rows: pd.DataFrame, data: Data, settings: Contract, contract: DataContract
) -> tuple[Finding, ...]:
    """Look for faults that need no earlier contract; `contract` is the one just learned from these rows."""
    compared = [name for name in rows.columns if name not in data.drop]
    broken: list[_Broken] = []
    if repeats := len(rows) - len(np.unique(row_hashes(rows, compared))):
        broken.append(("duplicate_rows", None, repeats, f"{repeats} of {len(rows)} rows repeat another row"))
    for name, reason in contract.left_out.items():
        if name in rows.columns and reason in ("constant", "empty", "text"):
            broken.append(_useless_column(rows[name], reason))
    for name, kind in contract.features.items():
        if name in data.kinds:
            broken += _wrong_type(rows[name], kind)
    if settings.rules.leaking_target != "off":
        broken += _leaks(rows, contract, settings.leak_score)
    return _judge(broken, settings.rules, len(rows))


def raise_on_errors(findings: Iterable[Finding]) -> None:
    """Raise one UserError that joins the findings of severity `error` and says how to accept them."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    shown = "; ".join(finding.sentence for finding in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    rules = " and ".join(f"contract.rules.{rule}: warn" for rule in sorted({error.rule for error in errors}))
    drop = (
        "list the column in data.drop, " if any(e.column and "missing" not in e.rule for e in errors) else ""
    )
    raise UserError(f"the rows break the data contract: {shown}{more} (repair them, {drop}or set {rules})")


def _useless(values: pd.Series, kind: Kind) -> Reason | None:
    """Say why a column can teach nothing; one value with gaps still can, by the gaps."""
    if values.isna().all():
        return "empty"
    if values.nunique(dropna=False) == 1:
        return "constant"
    return "text" if kind == "text" else None


def _learn_column(values: pd.Series, kind: Kind, classes: Sequence[str] = ()) -> Column:
    """Learn from values already coerced; `classes` gives a target's labels their order."""
    present = values.dropna()
    learned: dict[str, Any] = {
        "name": values.name,
        "kind": kind,
        "nullable": len(present) < len(values),
        "missing": 1 - len(present) / len(values),
    }
    if kind == "categorical":
        learned["categories"] = tuple(classes or sorted(present.unique()))
    elif kind == "datetime":
        learned |= {"minimum": present.min().isoformat(), "maximum": present.max().isoformat()}
    else:
        low, high = float(present.min()), float(present.max())
        deciles = np.unique(np.quantile(present, _DECILES, method="inverted_cdf"))
        learned |= {
            "integer": kind == "numeric" and bool((present % 1 == 0).all()),
            "minimum": low,
            "maximum": high,
            "edges": tuple(map(float, deciles[deciles < high])),
            "mean": float(present.mean()),
            "std": float(present.std(ddof=0)),
        }
    return Column(**learned, shares=tuple(map(float, shares_of(values, Column(**learned)))))


def _classes(target: pd.Series, task: Task, positive: Any) -> tuple[tuple[str, ...], str | None]:
    if task != "binary" and positive is not None:
        raise UserError(f"data.positive needs a binary target, '{target.name}' is {task}; leave it out")
    if task == "regression":
        return (), None
    labels = [str(label) for label in as_kind(target, "categorical").unique()]
    try:
        labels.sort(key=float)
    except ValueError:
        labels.sort()
    if task == "multiclass":
        return tuple(labels), None
    code = 1 if positive is None else _code(as_text(positive), labels)
    if code is None:
        raise UserError(
            f"data.positive needs one of the classes {', '.join(labels)}, it is {_shown(positive)}"
        )
    return (labels[1 - code], labels[code]), labels[code]


def _code(text: str, classes: Sequence[str]) -> int | None:
    """Return the place of a label among the classes, spelt as it is, as a number or as a truth value."""
    try:
        plain = as_text(float(text))
    except ValueError:
        plain = text
    spellings = (text, plain, *_BOOLEAN.get(plain.lower(), ()))
    return next((classes.index(spelling) for spelling in spellings if spelling in classes), None)


def _renamed(
    rows: pd.DataFrame, missing: Sequence[Column], extra: Sequence[str], settings: Contract
) -> dict[str, str]:
    """Pair missing with extra columns of one kind whose names, or else values, are nearly the same."""
    candidates = []
    for old in missing:
        for new in extra:
            if infer_kind(rows[new], settings.max_categories) == old.kind:
                gone, come = (re.sub(r"[\W_]", "", name.lower()) for name in (old.name, new))
                likeness = difflib.SequenceMatcher(None, gone, come).ratio()
                if likeness >= _SIMILAR_NAME or _same_values(rows[new], old):
                    candidates.append((likeness, old.name, new))
    pairs: dict[str, str] = {}
    for _, gone, come in sorted(candidates, reverse=True):
        if gone not in pairs and come not in pairs.values():
            pairs[gone] = come
    return pairs


def _same_values(values: pd.Series, reference: Column) -> bool:
    if len(values) < _SAME_SHARES_ROWS or len(reference.shares) < 2:
        return False
    shares = shares_of(values, reference)
    unseen = 1 - shares.sum()
    return bool((np.abs(shares - reference.shares).sum() + unseen) / 2 <= _SAME_SHARES)


def _check_column(values: pd.Series, reference: Column, settings: Contract) -> Iterator[_Broken]:
    name, coerced = reference.name, as_kind(values, reference.kind)
    yield from _wrong_type(values, reference.kind)
    nulls = int(values.isna().sum())
    if nulls and not reference.nullable:
        yield "new_nulls", name, nulls, f"'{name}' misses {nulls} values, it missed none in training"
    if reference.kind == "categorical":
        unseen = coerced[coerced.notna() & ~coerced.isin(reference.categories)].value_counts()
        if count := int(unseen.sum()):
            shown = ", ".join(f"'{label}'" for label in unseen.index[:3])
            more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
            yield "unseen_category", name, count, f"'{name}' never had {shown}{more} ({count} rows)"
    elif reference.minimum is not None and reference.kind != "boolean":
        low, high = _widened(reference, settings.range_slack)
        outside = coerced[(coerced < low) | (coerced > high)]
        if count := len(outside):
            sentence = (
                f"'{name}' has {count} values outside {_brief(low)} to {_brief(high)}, "
                f"e.g. {_brief(outside.iloc[0])}"
            )
            yield "out_of_range", name, count, sentence


def _check_target(labels: pd.Series, reference: DataContract, settings: Contract) -> Iterator[_Broken]:
    """Check labels as a column, except that an unknown label is of the wrong type: it has no code."""
    if reference.task == "regression":
        yield from _check_column(labels, reference.target_statistics, settings)
        return
    texts = as_kind(labels, "categorical")
    unknown = [text for text in texts.unique() if _code(text, reference.classes) is None]
    if unknown:
        count = int(texts.isin(unknown).sum())
        sentence = f"target '{reference.target}' has {count} labels besides {', '.join(reference.classes)}"
        yield "wrong_type", reference.target, count, f"{sentence}, e.g. {_shown(unknown[0])}"


def _wrong_type(values: pd.Series, kind: Kind) -> Iterator[_Broken]:
    wrong = values[as_kind(values, kind).isna() & values.notna()]
    if count := len(wrong):
        sentence = f"'{values.name}' has {count} values that are not {kind}, e.g. {_shown(wrong.iloc[0])}"
        yield "wrong_type", str(values.name), count, sentence


def _widened(reference: Column, slack: float) -> tuple[Any, Any]:
    """Widen the learned range by `slack` times its width on each side; what was never negative stays so."""
    if reference.kind == "datetime":
        first, last = pd.Timestamp(str(reference.minimum)), pd.Timestamp(str(reference.maximum))
        return first - slack * (last - first), last + slack * (last - first)
    low, high = float(reference.minimum or 0), float(reference.maximum or 0)
    widened = low - slack * (high - low)
    return (max(widened, 0.0) if low >= 0 else widened), high + slack * (high - low)


def _useless_column(values: pd.Series, reason: Reason) -> _Broken:
    name, count = str(values.name), len(values)
    if reason != "text":
        holds = "no value" if reason == "empty" else "one value"
        return f"{reason}_column", name, count, f"'{name}' holds {holds} in training; it is left out"
    sentence = f"'{name}' is free text; it is left out"
    present = values.dropna()
    for kind, called in (("numeric", "numbers"), ("datetime", "times")):
        odd = present[as_kind(present, "numeric" if kind == "numeric" else "datetime").isna()]
        if len(odd) <= 0.1 * len(present):
            but = f", {len(odd)} are not, e.g. {_shown(odd.iloc[0])}" if len(odd) else ""
            share = 100 * (1 - len(odd) / len(present))
            sentence += f"; {share:.0f} % are {called}{but}: repair them or set data.kinds.{name}: {kind}"
            break
    return "text_column", name, count, sentence


def _leaks(rows: pd.DataFrame, contract: DataContract, limit: float) -> Iterator[_Broken]:
    """Yield the columns that alone predict the target almost perfectly on rows they were not fitted to."""
    sample = rows.sample(_LEAK_ROWS, random_state=0) if len(rows) > _LEAK_ROWS else rows
    target = encode_target(sample[contract.target], contract)
    smallest = len(target) if contract.task == "regression" else int(np.bincount(target.astype(int)).min())
    if len(target) < _LEAK_MIN_ROWS or smallest < _LEAK_MIN_CLASS:
        return
    if contract.task == "regression":  # ranks, so that a few huge values do not hide a copy
        target = np.unique(target, return_inverse=True)[1].astype(np.float64)
    fold = row_hashes(sample, list(contract.features)) % np.uint64(2) == 0  # duplicates share a fold
    for name, kind in contract.features.items():
        score = _score_alone(as_kind(sample[name], kind), kind, target, fold, contract.task)
        if score >= limit:
            sentence = (
                f"'{name}' alone predicts '{contract.target}' with {_MEASURE[contract.task]} {score:.3f}"
            )
            yield "leaking_target", name, len(rows), f"{sentence}, so it probably holds the answer"


def _score_alone(
    values: pd.Series, kind: Kind, target: npt.NDArray[Any], fold: npt.NDArray[np.bool_], task: Task
) -> float:
    """Score two-fold predictions of the target from one column: level means for categories, else a tree."""
    from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    measure = {"binary": roc_auc_score, "multiclass": balanced_accuracy_score, "regression": r2_score}[task]
    leaves = _LEAK_LEAVES if task == "regression" else _LEAK_LEAVES_PER_CLASS * len(np.unique(target))
    predicted = np.zeros(len(target))
    codes, levels = pd.factorize(values, sort=True)  # ranks: the tree works in float32
    ranks = np.where(codes < 0, np.nan, codes)[:, None]
    for test in (fold, ~fold):
        if test.all() or not test.any():
            return 0.0
        if kind == "categorical":
            predicted[test] = _by_level(codes[~test], target[~test], len(levels), task)[codes[test]]
        else:
            Tree = DecisionTreeClassifier if task == "multiclass" else DecisionTreeRegressor
            tree = Tree(max_leaf_nodes=leaves, random_state=0).fit(ranks[~test], target[~test])
            predicted[test] = tree.predict(ranks[test])
    return float(measure(target, predicted))


def _by_level(
    codes: npt.NDArray[np.intp], target: npt.NDArray[Any], levels: int, task: Task
) -> npt.NDArray[np.float64]:
    """Return the mean target (multiclass: most frequent class) per level, missing last; overall if unseen."""
    outcome = pd.DataFrame(np.eye(int(target.max()) + 1)[target] if task == "multiclass" else target)
    means = outcome.groupby(codes).mean().reindex([*range(levels), -1]).fillna(outcome.mean()).to_numpy()
    return np.asarray(means.argmax(axis=1) if task == "multiclass" else means[:, 0], np.float64)


def _judge(broken: Iterable[_Broken], rules: Rules, rows: int) -> tuple[Finding, ...]:
    """Turn broken rules into findings of the configured severity; `off` drops them."""
    return tuple(
        Finding(
            rule=rule,
            severity=severity,
            column=name,
            count=count,
            share=count / max(rows, 1),
            sentence=sentence,
        )
        for rule, name, count, sentence in broken
        if (severity := getattr(rules, rule)) != "off"
    )


def _shown(value: Any) -> str:
    """Quote one value from the data, short enough for a sentence."""
    text = as_text(value)
    return repr(text if len(text) <= 40 else text[:39] + "…") if isinstance(value, str) else text[:40]


def _brief(value: Any) -> str:
    return value.isoformat() if isinstance(value, pd.Timestamp) else f"{value:.6g}"
