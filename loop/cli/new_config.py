"""Draft the config of a use case from its table, so that a first run needs no reading."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import pandas as pd
import yaml
from pandas.api import types
from pydantic import ValidationError

from loop.config import Contract, Data, UserError, apply_change
from loop.data.sources import find_options, read_rows
from loop.data.table import infer_kinds, infer_task, is_called_an_id

_TIME = re.compile(r"time|date|datetime|ts|(event|created|updated)?_?(at|time|date|timestamp)")
_FLOORS = {"binary": "roc_auc: 0.8", "multiclass": "accuracy: 0.8", "regression": "r2: 0.5"}
_ESTIMATORS = {
    "binary": "sklearn.linear_model.LogisticRegression",
    "multiclass": "sklearn.ensemble.RandomForestClassifier",
    "regression": "sklearn.ensemble.RandomForestRegressor",
}


def draft_config(path: str, target: str, changes: Sequence[str] = ()) -> str:
    """Read a table and return a use case as YAML that `config.load` takes, with what it inferred as comments.

    `path` is any `data.source` that needs no query, `changes` are `data.KEY=VALUE`. What a file needs to be read
    (separator, decimal comma, encoding, sheet) is found and written down. Knobs most wanted next stand there commented
    out: they hold as they are when `# ` is removed. A UserError says what cannot be read or learned.
    """
    raw: dict[str, Any] = {"data": {"source": path, "target": target}}
    for change in changes:
        if not change.startswith("data."):
            raise UserError(f"--new-config takes --set data.KEY=VALUE; write '{change}' into the file it makes")
        apply_change(raw, change)
    given: dict[str, Any] = raw["data"]
    try:
        data = Data.model_validate(given)
    except ValidationError as err:
        raise UserError(f"cannot draft a config: {err.errors()[0]['msg'].removeprefix('Value error, ')}") from err
    if options := find_options(data):
        given["options"] = {**data.options, **options}
        data = Data.model_validate(given)
    rows = read_rows(data)
    task = infer_task(rows[target], data.task)
    free = [name for name in rows.columns if name not in (target, data.time, *data.keys, *data.drop)]
    empty = [name for name in free if rows[name].isna().all()]
    different = rows.drop_duplicates()  # a row that stands there twice has the same id twice
    ids = data.id or tuple(name for name in free if is_called_an_id(different[name]))
    ids = ids or tuple(name for name in free if _are_codes(different[name]))[:1]
    times = [name for name in free if name not in ids and _is_time(rows[name])]
    time = data.time or (times[0] if len(times) == 1 else None)
    data = data.model_copy(update={"id": ids, "time": time, "drop": (*data.drop, *empty)})
    kinds = infer_kinds(rows, data, Contract.model_validate({}).max_categories)

    given |= ({"id": list(ids)} if ids else {}) | ({"time": time} if time else {})
    given |= {"drop": list(data.drop)} if empty else {}
    lines = ["# yaml-language-server: $schema=schema.json", f"name: {_name(path)}", "", "data:"]
    lines += [f"  {key}: {_scalar(value)}" for key, value in given.items()]
    if task == "binary":
        rarer = rows[target].value_counts().index[-1]
        lines.append(f"  # positive: {_scalar(_native(rarer))}   # the class to find; else the last sorted")
    if time:
        lines += ["", "# split: {by: time}   # if the model is to serve what comes later"]
    lines += ["", f"# model: {{estimator: {_ESTIMATORS[task]}}}   # else boosted trees"]
    lines += [f"# gate: {{minimum: {{{_FLOORS[task]}}}}}   # what any champion must reach on the holdout"]
    return "\n".join([*lines, "", *_findings(rows, data, task, kinds), ""])


def _findings(rows: pd.DataFrame, data: Data, task: str, kinds: dict[str, Any]) -> list[str]:
    """Return what was seen in the table as comment lines."""
    target = rows[data.target]
    lines = [f"# What the table showed: {len(rows):,} rows, {len(rows.columns)} columns."]
    if task == "regression":
        lines.append(f"# task: regression, {target.min():g} to {target.max():g}, median {target.median():g}")
    else:
        shares = target.value_counts(normalize=True).head(20)
        classes = (f"{_scalar(_native(value))} {share:.1%}" for value, share in shares.items())
        lines.append(f"# task: {task}, {', '.join(classes)}")
    for kind in sorted(set(kinds.values()) - {"text"}):
        lines.append(f"# {kind}: {', '.join(_scalar(name) for name in kinds if kinds[name] == kind)}")
    for name in (name for name, kind in kinds.items() if kind == "datetime"):
        since = f"from it to {_scalar(data.time)}" if data.time else "from it to when a row happens (data.time)"
        lines += [
            f"# {_scalar(name)} is a date, and dates move on: later rows are unlike those that a model learned from.",
            f"#   Better an age, such as the days {since}, as a column of the source, and data.drop for the date",
        ]
    left_out: dict[str, str] = dict.fromkeys(data.id, "identifies a row (id)")
    left_out |= {data.time: "tomorrow is always new (time)"} if data.time else {}
    left_out |= {name: "holds no value (drop)" for name in data.drop if rows[name].isna().all()}
    left_out |= {name: "free text" for name, kind in kinds.items() if kind == "text"}
    lines += [f"# left out: {_scalar(name)}, {reason}" for name, reason in left_out.items()]
    constant = [name for name in kinds if rows[name].nunique() < 2]
    lines += [f"# teaches nothing: {_scalar(name)}, at most one value" for name in constant]
    missing = rows.isna().mean()
    holes = (f"{_scalar(name)} {missing[name]:.1%}" for name in rows.columns if missing[name] > 0)
    return [*lines, f"# missing: {', '.join(holes) or 'nothing'}"]


def _name(source: str) -> str:
    """Make an identifier of the last part that has letters: `data/Kfz Schäden.csv` is kfz_schaden."""
    plain = unicodedata.normalize("NFKD", source.split("?")[0] if "://" in source else source)
    for part in reversed(re.split(r"[/\\:]", plain.encode("ascii", "ignore").decode().lower())):
        stem = re.sub(r"[^a-z0-9]+", "_", part.split(".")[0]).strip("_").lstrip("0123456789_")
        if stem:
            return stem[:63]
    return "use_case"


def _scalar(value: Any) -> str:
    """Return a YAML value that holds in a flow list, in a comment and on one line."""
    text: str = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9)
    if len(text.splitlines()) > 1:
        text = yaml.safe_dump([value], default_flow_style=True, default_style='"', width=10**9)
    return text.strip()[1:-1]


def _native(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _are_codes(values: pd.Series) -> bool:
    """Say whether each value is another string without a blank: such a column teaches nothing, and tells rows apart."""
    if types.infer_dtype(values) != "string" or not values.is_unique or values.isna().any():
        return False
    return not values.str.contains(r"\s").any()


def _is_time(values: pd.Series) -> bool:
    named = _TIME.fullmatch(str(values.name).lower())
    return bool(named) and values.dtype.kind == "M" and bool(values.notna().all())
