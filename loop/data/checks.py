"""Hold rows to a data contract, and look for faults no contract is needed for."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from loop.config import Contract, Data, Kind, Rules, Section, Split, UserError
from loop.config import known as names_of
from loop.data.contract import Column, DataContract, Reason, class_code, shares_of
from loop.data.leaks import find_leaks
from loop.data.notes import Reading
from loop.data.split import COPIES, FEW_CONTENTS, SplitRule, few_contents, repeats
from loop.data.table import (
    MISSING_WORDS,
    as_kind,
    exact_hashes,
    infer_kind,
    is_called_an_id,
    quoted,
    row_hashes,
    spelling_counts,
)
from loop.paged import Paged

_Broken = tuple[str, str | None, int, str]  # rule, column, rows concerned, sentence

_HINTS: tuple[tuple[Kind, str], ...] = (("numeric", "numbers"), ("datetime", "times"))
_LARGE = {
    1e150: "beyond 1e150, whose squares no model can work with; repair them",
    2.0**53: "from 2^53 on, whose last digits no model sees; if they are codes, name it in data.id or data.drop",
}
_FEW = 0.1  # so many that are none, and a column still is one of numbers for whoever looks at it
_MANY_ALIKE = 0.01  # of the rows: enough to move a metric
_SHARE_SLACK = 0.05  # of the rows held out, beside four standard errors
_ACCEPTABLE = ("missing_column", "extra_column", "wrong_type", "changed_kind")
_ANY: tuple[Kind, ...] = ("categorical", "text")  # any value can be one
_PAIRS = 2500
_SIMILAR_NAME = 0.6  # difflib's own default for a close match
_SAME_SHARES = 0.1  # total variation distance; sampling alone gives about 1.2 / sqrt(rows) in ten bins
_SAME_SHARES_ROWS = 200


class Finding(Section):
    """Say which rule a table breaks, where, how often and how seriously."""

    rule: str
    """A field of `config.Rules`, or `accepted_column`."""
    severity: Literal["error", "warn"]
    column: str | None
    count: int
    """Rows concerned."""
    share: float
    sentence: str


class ContractReport(Paged, Section):
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


def check_rows(rows: pd.DataFrame, reference: DataContract, settings: Contract) -> tuple[Finding, ...]:
    """Hold rows to an earlier contract, the target too where it is there; a missing label is no fault."""
    missing = [column for column in reference.columns if column.name not in rows.columns]
    extra = [name for name in rows.columns if name not in reference.names]
    renamed = _renamed(rows, missing, extra, settings) if settings.rules.renamed_column != "off" else {}
    broken: list[_Broken] = []
    for old in missing:
        if old.name in renamed:
            sentence = f"'{old.name}' is gone and '{renamed[old.name]}' has come in its place; rename it back"
            sentence += f", or have the next version take both: contract.accept: [{old.name}, {renamed[old.name]}]"
            broken.append(("renamed_column", old.name, len(rows), sentence))
        else:
            broken.append(("missing_column", old.name, len(rows), f"column '{old.name}' is missing"))
    for name in extra:
        if name not in renamed.values():
            sentence = (
                f"column '{name}' is new and not used; contract.accept: [{name}] has the next version learn from it"
            )
            broken.append(("extra_column", name, len(rows), sentence))
    for known_column in reference.columns:
        if known_column.name in rows.columns:
            broken += _check_column(rows[known_column.name], known_column, settings)
    if reference.target in rows.columns:
        broken += _check_target(rows[reference.target].dropna(), reference, settings)
    return _judge(broken, settings.rules, len(rows))


def column_changes(
    contract: DataContract, split: SplitRule, rows: pd.DataFrame, data: Data, accept: Sequence[str]
) -> dict[str, Any]:
    """Return what `loop.data.notes.Reading` says of rows beside those of a champion: of columns, and of who is who."""
    identity = split.identity
    taken = {data.target, data.time, *data.keys, *data.drop, *accept}
    new = tuple(name for name in rows.columns if name not in contract.names and name not in taken)
    had = {*contract.features, *(name for name, reason in contract.left_out.items() if reason == "gone")}
    gone = tuple(name for name in accept if name in had and name not in rows.columns)
    usual = {*rows.columns} - {data.target, *data.drop, *new}
    more = {*identity} < usual and not {*identity} & {*accept}
    alike = split.label is not None
    return {"new": new, "gone": gone, "identity": identity if more and not data.keys else (), "alike": alike}


def check_training_rows(
    rows: pd.DataFrame, reference: DataContract, contract: DataContract, settings: Contract
) -> tuple[Finding, ...]:
    """Hold training rows to the champion's contract; of columns in `contract.accept` it is said what becomes of them.

    `contract` is the one just learned from these rows. A name that is no column of either is a UserError.
    """
    accepted = [name for name in settings.accept if name in rows.columns]
    found = check_rows(rows.drop(columns=accepted), reference.without(settings.accept), settings)
    before, now = reference.features, contract.features
    said = []
    for name in settings.accept:
        if name in before and name not in rows.columns:
            words = "is gone and accepted: the new model does without, the champion is asked with missing values for it"
        elif name in now and name not in before:
            words = "is new and accepted: the new model learns from it"
        elif name in now and now[name] != before[name]:
            words = f"was {before[name]} and is {now[name]} now, which is accepted"
        elif name not in rows.columns and name not in reference.names:
            there = names_of("the table", map(str, rows.columns), name)
            raise UserError(f"contract.accept: neither the rows nor the champion have '{name}'; {there}")
        else:
            continue
        said.append(("accepted_column", name, len(rows), f"column '{name}' {words}"))
    notes = [
        Finding(rule=rule, severity="warn", column=name, count=count, share=1.0, sentence=sentence)
        for rule, name, count, sentence in said
    ]
    return (*found, *notes)


def check_table(rows: pd.DataFrame, data: Data, settings: Contract, contract: DataContract) -> tuple[Finding, ...]:
    """Look for faults that need no earlier contract; `contract` is the one just learned from these rows."""
    compared = [name for name in rows.columns if name not in data.drop]
    broken: list[_Broken] = []
    if copies := len(rows) - len(np.unique(exact_hashes(rows, compared))):
        broken.append(("duplicate_rows", None, copies, f"{copies} of {len(rows)} rows repeat another row"))
    broken += _repeated_contents(rows, [name for name in compared if name != data.target], data)
    kinds = {name: kind for name, kind in (contract.features | data.kinds).items() if kind not in _ANY}
    wrong = {
        name: list(_wrong_type(rows[name], as_kind(rows[name], kind), kind))
        for name, kind in kinds.items()
        if name in compared and name != data.target
    }
    for name, reason in contract.left_out.items():
        if name in rows.columns and reason in ("constant", "empty", "text") and not wrong.get(name):
            broken.append(_useless_column(rows[name], reason, data))
    broken += [found for several in wrong.values() for found in several]
    broken += _doubts(rows, data, contract)
    if settings.rules.leaking_target != "off":
        leaks = find_leaks(rows, contract, settings.leak_score, data.group)
        broken += [("leaking_target", name, len(rows), sentence) for name, sentence in leaks]
    return _judge(broken, settings.rules, len(rows))


def reading_findings(reading: Reading, rows: int, rules: Rules) -> tuple[Finding, ...]:
    """Return what reading a table showed as findings of the configured severity."""
    broken: list[_Broken] = [(note.rule, note.column, note.count, note.sentence) for note in reading.notes]
    for name, words in reading.missing_words.items():
        shown = ", ".join(f"'{word}' {count:,} ×" for word, count in list(words.items())[:5])
        sentence = f"'{name}' has words that were taken for missing values: {shown}"
        broken.append(("missing_words", name, sum(words.values()), sentence))
    return _judge(broken, rules, rows)


def holdout_findings(train: int, holdout: int, split: Split, rules: Rules) -> tuple[Finding, ...]:
    """Return a finding where far more or fewer rows are held out than asked for, beyond what chance does."""
    rows = train + holdout
    share, asked = holdout / max(rows, 1), split.holdout
    if split.cutoff is not None or abs(share - asked) <= _SHARE_SLACK + 4 * (asked * (1 - asked) / max(rows, 1)) ** 0.5:
        return ()
    why = "many share the time of the cut" if split.by == "time" else "few rows differ in what identifies them"
    sentence = f"{share:.0%} of the rows are held out, {asked:.0%} was asked for (split.holdout): {why}"
    return _judge([("holdout_share", None, holdout, sentence)], rules, rows)


def _doubts(rows: pd.DataFrame, data: Data, contract: DataContract) -> Iterator[_Broken]:
    """Look for what was read as it stands there and may be meant otherwise."""
    for known in contract.columns:
        if known.kind == "categorical" and known.name not in data.kinds:
            counts = spelling_counts(rows[known.name])
            yield from _mostly_numbers(known.name, counts, data)
            if count := int(counts.reindex(sorted(MISSING_WORDS)).sum()):
                words = ", ".join(f"'{word}' {counts[word]:,} ×" for word in counts.index if word in MISSING_WORDS)
                fix = "if they mean a missing value, set data.options.na_values to them"
                yield "missing_words", known.name, count, f"'{known.name}' has the values {words}; {fix}"
        if known.kind == "numeric":
            yield from _large(rows[known.name])
        if is_called_an_id(rows[known.name]):
            sentence = f"'{known.name}' is called like an id and holds each value once; name it in data.id or data.drop"
            yield "id_like", known.name, len(rows), sentence
    if contract.classes:
        yield from _similar_labels(rows[contract.target])


def _repeated_contents(rows: pd.DataFrame, identity: Sequence[str], data: Data) -> Iterator[_Broken]:
    """Look for few different rows that nothing tells apart, many of the same values, and copies under other ids."""
    if data.keys:
        yield from _copies(rows, [name for name in identity if name not in {*data.keys, data.time}], data)
        return
    count = repeats(rows, identity)
    if count < FEW_CONTENTS * len(rows):
        most = int(np.unique(row_hashes(rows, identity), return_counts=True)[1].max(initial=0))
        if most > COPIES and most >= _MANY_ALIKE * len(rows):
            told = f"{most:,} rows ({most / len(rows):.0%}) have the same values and are all on one side of the split"
            yield "repeated_contents", None, most, f"{told}; name a column in data.id that tells rows apart"
        return
    if count:
        counted = f"{count / len(rows):.0%} of the rows repeat another's values, {len(rows) - count:,} are different"
        told = "all of the same values are on one side of the split, so the holdout is no sample of the table"
        if few_contents(rows, identity):
            told = "they are taken for rows of their own, each with a side of its own, and not for copies of one"
        fix = "name a column in data.id that tells rows apart, if need be one that numbers them"
        yield "repeated_contents", None, count, f"{counted}: {told}; {fix}"


def _copies(rows: pd.DataFrame, features: Sequence[str], data: Data) -> Iterator[_Broken]:
    """Look for rows with the values of another under another id, where these are too fine to agree by chance."""
    fine = any(rows[name].dtype.kind == "f" and bool((rows[name].dropna() % 1 != 0).any()) for name in features)
    if not fine:
        return
    records, values = (len(np.unique(exact_hashes(rows, names))) for names in ([*data.keys, *features], features))
    if (count := records - values) >= max(_MANY_ALIKE * len(rows), 1):
        told = f"{count:,} rows ({count / len(rows):.0%}) have all values of another one under another id"
        fix = "models are judged on copies of what they learned: remove them, or name what they share in data.group"
        yield "repeated_contents", None, count, f"{told}; {fix}"


def _odd(counts: pd.Series, kind: Kind, data: Data) -> npt.NDArray[np.bool_]:
    """Return which strings of a column are not of a kind.

    Where the table has a decimal sign of its own and all are numbers, all are: reading says what such a column needs.
    """
    odd = as_kind(pd.Series(counts.index, dtype=object), kind).isna().to_numpy()
    styled = kind == "numeric" and data.options.keys() & {"decimal", "thousands"}
    return np.ones_like(odd) if styled and not odd.any() else odd


def _mostly_numbers(name: str, counts: pd.Series, data: Data) -> Iterator[_Broken]:
    for kind, called in _HINTS:
        odd = _odd(counts, kind, data)
        zero_led = kind == "numeric" and any(re.match(r"-?0\d", text) for text in counts.index)  # codes, no doubt
        few = counts[odd].sum() <= _FEW * counts.sum() or odd.sum() <= _FEW * len(odd)  # one word may stand there often
        if not odd.all() and not zero_led and few:
            sentence = f"'{name}' is read as categories; {_how_many(name, counts, odd, kind, called)}"
            yield "mostly_numbers", name, int(counts.sum()), sentence
            return


def _how_many(name: str, counts: pd.Series, odd: npt.NDArray[np.bool_], kind: Kind, called: str) -> str:
    """Say how many of the strings of a column are numbers or times, and what to do about the others."""
    share, others = 100 * (1 - counts[odd].sum() / counts.sum()), counts[odd]
    if others.empty:
        return f"all of it are {called}, not spelt as such: set data.kinds.{name}: {kind} if they are meant"
    shown = ", ".join(quoted(text) for text in others.index[:3])
    options, kinds = _as_yaml({"na_values": [*others.index[:3]]}), _as_yaml({name: kind})
    return (
        f"{share:.0f} % are {called}, {int(others.sum()):,} are not, e.g. {shown}: repair them, or if they mean a "
        f"missing value add to data: `options: {options}` and `kinds: {kinds}`"
    )


def _as_yaml(values: dict[str, Any]) -> str:
    return str(yaml.safe_dump(values, default_flow_style=True, allow_unicode=True, width=10**9)).strip()


def _large(values: pd.Series) -> Iterator[_Broken]:
    """Yield numbers that float64 does not hold exactly, or that overflow when they are squared."""
    if not pd.api.types.is_numeric_dtype(values) or values.isna().all():
        return
    sizes = np.abs(values.to_numpy(np.float64, na_value=np.nan))
    sizes = sizes[np.isfinite(sizes)]
    for limit, words in _LARGE.items():
        if count := int((sizes >= limit).sum()):
            yield "doubtful_reading", str(values.name), count, f"'{values.name}' has {count:,} numbers {words}"
            return


def _similar_labels(target: pd.Series) -> Iterator[_Broken]:
    """Yield labels that are one but for blanks, case, a last dot or the form of Unicode."""
    counts = spelling_counts(target)
    alike: dict[str, list[str]] = {}
    for label in counts.index:
        alike.setdefault(unicodedata.normalize("NFKC", label).casefold().strip().rstrip("."), []).append(label)
    for labels in alike.values():
        if len(labels) > 1:
            shown = ", ".join(f"{label!r} {counts[label]:,} ×" for label in labels)
            sentence = (
                f"target '{target.name}' has labels that hardly differ: {shown}; spell them alike if they are one"
            )
            yield "similar_labels", str(target.name), int(counts[labels[1:]].sum()), sentence


def raise_on_errors(findings: Sequence[Finding], *, compared: bool = False) -> None:
    """Raise one UserError that joins the findings of severity `error` and says how to accept them.

    `compared`: with a champion's contract, which another version may leave.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    shown = "; ".join(finding.sentence for finding in errors[:5])
    more = f"; and {len(errors) - 5} more" if len(errors) > 5 else ""
    rules = " and ".join(f"contract.rules.{rule}: warn" for rule in sorted({error.rule for error in errors}))
    drop = "list the column in data.drop, " if any(e.column and "missing" not in e.rule for e in errors) else ""
    changed = {error.column: None for error in errors if error.column and error.rule in _ACCEPTABLE}
    for finding in findings:
        if finding.column and finding.rule == "accepted_column":
            changed.pop(finding.column, None)
    accept = f"have the next version take them as they are by contract.accept: [{', '.join(changed)}], "
    ways = f"repair them, {drop}{accept if compared and changed else ''}or set {rules}"
    raise UserError(f"the rows break the data contract: {shown}{more} ({ways})")


def _renamed(rows: pd.DataFrame, missing: Sequence[Column], extra: Sequence[str], settings: Contract) -> dict[str, str]:
    """Pair missing with extra columns of one kind whose names, or else values, are nearly the same."""
    candidates = []
    if len(missing) * len(extra) > _PAIRS:  # of two tables with nothing in common, each pair would be looked at
        return {}
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
    name, nulls = reference.name, int(values.isna().sum())
    if reference.kind != "categorical":  # any value can be a category
        coerced = as_kind(values, reference.kind)
        yield from _wrong_type(values, coerced, reference.kind)
    if nulls and not reference.nullable:
        yield "new_nulls", name, nulls, f"'{name}' misses {nulls} values, it missed none in training"
    if reference.kind == "categorical":
        unseen = spelling_counts(values, reference.categories).drop(list(reference.categories), errors="ignore")
        if count := int(unseen.sum()):
            shown = ", ".join(f"'{label}'" for label in unseen.index[:3])
            more = f" and {len(unseen) - 3} more" if len(unseen) > 3 else ""
            yield "unseen_category", name, count, f"'{name}' never had {shown}{more} ({count} rows)"
    elif reference.minimum is not None and reference.kind != "boolean":
        low, high = reference.limits(settings.range_slack)
        outside = coerced[(coerced < low) | (coerced > high)]
        if count := len(outside):
            if reference.kind == "datetime":
                beyond, example = f"before {low.isoformat()}", outside.iloc[0].isoformat()
            else:
                beyond, example = f"outside {low:.6g} to {high:.6g}", f"{outside.iloc[0]:.6g}"
            yield "out_of_range", name, count, f"'{name}' has {count} values {beyond}, e.g. {example}"


def _check_target(labels: pd.Series, reference: DataContract, settings: Contract) -> Iterator[_Broken]:
    """Check labels as a column, except that an unknown label is of the wrong type: it has no code."""
    if reference.task == "regression":
        yield from _check_column(labels, reference.target_statistics, settings)
        return
    texts = as_kind(labels, "categorical")
    unknown = [text for text in texts.unique() if class_code(text, reference.classes) is None]
    if unknown:
        count = int(texts.isin(unknown).sum())
        sentence = f"target '{reference.target}' has {count} labels besides {', '.join(reference.classes)}"
        yield "wrong_type", reference.target, count, f"{sentence}, e.g. {quoted(unknown[0])}"


def _wrong_type(values: pd.Series, coerced: pd.Series, kind: Kind) -> Iterator[_Broken]:
    wrong = values[coerced.isna() & values.notna()]
    if count := len(wrong):
        sentence = f"'{values.name}' has {count} values that are not {kind}, e.g. {quoted(wrong.iloc[0])}"
        yield "wrong_type", str(values.name), count, sentence


def _useless_column(values: pd.Series, reason: Reason, data: Data) -> _Broken:
    name, count = str(values.name), len(values)
    if reason != "text":
        holds = "no value" if reason == "empty" else "one value"
        return f"{reason}_column", name, count, f"'{name}' holds {holds} in training; it is left out"
    sentence = f"'{name}' is free text; it is left out"
    counts = spelling_counts(values)
    for kind, called in _HINTS:
        odd = _odd(counts, kind, data)
        if counts[odd].sum() <= _FEW * counts.sum():
            sentence += f"; {_how_many(name, counts, odd, kind, called)}"
            break
    return "text_column", name, count, sentence


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
