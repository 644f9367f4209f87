"""Hold every knob of configs/*.yaml: typed, bounded, frozen, and nothing else accepted."""

import difflib
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from loop.variables import early, late, secret_in, secrets, shown

ROOT = Path(__file__).resolve().parents[1]

Task = Literal["binary", "multiclass", "regression"]
Kind = Literal["numeric", "boolean", "categorical", "datetime", "text"]
METRICS = (
    "roc_auc", "average_precision", "log_loss", "brier", "accuracy", "balanced_accuracy", "precision", "recall",
    "f1", "cost", "macro_f1", "roc_auc_ovr", "r2", "rmse", "mae",
)  # fmt: skip
Metric = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", json_schema_extra={"examples": list(METRICS)})]
"""One of these, or one of `model/metrics.py`."""
Severity = Literal["error", "warn", "off"]
Answer = Literal["refuse", "accept"]
Scalar = str | bool | int | float
Share = Annotated[float, Field(gt=0, lt=1)]


class UserError(Exception):
    """Say in one sentence what was needed, what came, and the fix; run.py prints it and exits 2."""

    def __str__(self) -> str:
        """Return the sentence, of whose names and values a terminal obeys none."""
        return printable(super().__str__())


OPTIONS = "RUN_OPTIONS"
"""The variable that holds the options of `run.py` which name this use case and place, also in steps elsewhere."""


def command(action: str) -> str:
    """Return the command that takes an action on the use case and place of this process, to be pasted."""
    return f"python run.py {action} {os.environ.get(OPTIONS, '')}".rstrip()


def command_of(name: str, action: str) -> str:
    """Return the command that takes an action on the use case of a name, by the config that has it, if one does."""
    found = [p for p in sorted((ROOT / "configs").glob("*.yaml")) if f"name: {name}" in p.read_text().splitlines()]
    options = f"--config configs/{found[0].name}" if found else f"--set name={name}"
    return f"python run.py {action} {options}"


def printable(text: str) -> str:
    """Spell out what a terminal would obey or a log would break at: line breaks and other control characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


STORED = {"stored": True}
"""The context in which a recipe is read that an earlier version of this project let in."""


def _without_secret(url: str, info: ValidationInfo) -> str:
    """Refuse an address with a secret that does not come from a variable."""
    found = None if info.context == STORED else secret_in(late(url))
    if found:
        raise ValueError(f"holds {found}; put the URL, or this part, into an environment variable and write ${{NAME}}")
    return late(url)


Address = Annotated[str, Field(min_length=1), AfterValidator(_without_secret)]
"""A path, or a URL whose secrets are variables, read where it is used."""


class Section(BaseModel):
    """Refuse unknown keys, NaN and later changes; take each field's description from its docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


SPELLING = frozenset(
    ("na_values", "keep_default_na", "decimal", "thousands", "true_values", "false_values", "dayfirst")
)
"""Options of pandas' CSV reader that say how values are spelt; every file and query takes them here."""


class Data(Section):
    """Say where the rows come from and what their columns mean."""

    source: Address
    """`sklearn:NAME`, a path, glob or URL of CSV, Parquet, JSON Lines or Excel, the folder of a Delta table, a database
    URL, or `module:function`.
    `${…}` names an environment variable; it is read with the rows, so no secret stands in a file, a log or a run."""
    target: str = Field(min_length=1)
    """The column to predict."""
    query: str | None = None
    """The SQL to run when the source is a database."""
    rows: int | None = Field(None, ge=1)
    """Read (or generate) at most this many rows."""
    options: dict[str, Any] = {}
    """Keyword arguments for the reader: pandas' for files, `sheet_name` and `skiprows` for Excel, `version` for Delta,
    the function's own for `module:function`. `$(NAME)` in a string is read from the environment with the rows; a secret
    must come so."""
    task: Task | None = None
    """What to learn; inferred from the target when left out."""
    positive: Scalar | None = None
    """The class a binary model scores; the last in sorted order when left out."""
    id: tuple[str, ...] = ()
    """Columns that identify a row: they decide its side of the split and are never features."""
    group: tuple[str, ...] = ()
    """Columns that say which rows belong together, such as those of one customer: they stay on one side of the split
    and in one fold, and intervals and tests draw them together. Never features."""
    time: str | None = None
    """When a row happened: for a split by time, and to draw rows of one stretch of time together where no group is
    named. Never a feature, since tomorrow is always new."""
    drop: tuple[str, ...] = ()
    """Columns to ignore."""
    kinds: dict[str, Kind] = {}
    """What a column is, where the inferred kind is wrong; a target is `numeric` or `categorical`."""

    @field_validator("query")
    @classmethod
    def _late_variables(cls, query: str | None) -> str | None:
        return query and late(query)

    @field_validator("options")
    @classmethod
    def _no_secret(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        found = [] if info.context == STORED else [*early(options, "options"), *secrets(options, "options")]
        if found:
            fix = "put it into an environment variable and write $(NAME)"
            raise ValueError(f"{found[0]} holds a secret, or ${{…}}, which ZenML would store filled in; {fix}")
        return options

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the columns that tell rows or groups of rows apart."""
        return tuple(dict.fromkeys((*self.id, *self.group)))

    @property
    def shown_source(self) -> str:
        """Return the source as it was written, without a URL's query string."""
        return shown(self.source)

    def without(self, columns: Iterable[str]) -> Self:
        """Return the same, but for columns that are ignored too."""
        return self.model_copy(update={"drop": (*self.drop, *columns)})

    @model_validator(mode="after")
    def _target_is_not_an_input(self) -> Self:
        named = {"id": self.id, "group": self.group, "time": (self.time,), "drop": self.drop}
        for key, columns in named.items():
            if self.target in columns:
                raise ValueError(f"target '{self.target}' also stands in {key}")
        return self


class Split(Section):
    """Say which rows are held out of training, for good."""

    by: Literal["hash", "time"] = "hash"
    """`hash`: by a stable hash of the row's identity. `time`: the latest rows by `data.time`."""
    holdout: Share = 0.25
    """Share of rows held out."""
    seed: int = Field(0, ge=0)
    """Another seed is another split; rows then change sides once."""
    cutoff: datetime | None = None
    """Hold out rows from this moment on, instead of a share (with `by: time`)."""


class Rules(Section):
    """Say what each broken rule of the data contract does: stop the run, warn, or nothing."""

    missing_column: Severity = "error"
    """A column of the contract is not there."""
    renamed_column: Severity = "error"
    """A column is gone and another of the same kind and a similar name has come."""
    extra_column: Severity = "warn"
    """A column the contract does not know; it is not used until `contract.accept` names it."""
    wrong_type: Severity = "error"
    """Values that are not of the column's kind."""
    changed_kind: Severity = "error"
    """A column whose values are of another kind than at training, such as numbers where codes were."""
    missing_words: Severity = "warn"
    """Words, such as NA, that were taken for missing values, or that were not and may have been meant so."""
    doubtful_reading: Severity = "warn"
    """What was repaired while the table was read, and what its files alone cannot tell."""
    new_nulls: Severity = "warn"
    """Missing values in a column that had none."""
    unseen_category: Severity = "warn"
    """A value the column never had."""
    out_of_range: Severity = "warn"
    """A number or time beyond the widened range (`contract.range_slack`)."""
    duplicate_rows: Severity = "warn"
    """Rows that stand there more than once; they stay on one side of the split, if not half of all do so ten times."""
    repeated_contents: Severity = "warn"
    """Half of the rows or more repeat another's values, the target aside, and no `data.id` tells them apart. If half
    have more than ten of their like, each is a row of its own; labelled traffic of the same values is not learned from.
    Else the split goes by contents: neither side is a sample of the table; monitoring compares with the own side."""
    constant_column: Severity = "warn"
    """A column with one value; it teaches nothing."""
    empty_column: Severity = "error"
    """A column with no value at all."""
    text_column: Severity = "warn"
    """Free text; it is left out of the features."""
    mostly_numbers: Severity = "warn"
    """A column of strings of which nine in ten or more are numbers or times."""
    similar_labels: Severity = "warn"
    """Labels that differ only in blanks, case, a last dot or the form of Unicode."""
    id_like: Severity = "warn"
    """A feature that is called like an id, and is one: whole numbers or strings, each once."""
    holdout_share: Severity = "warn"
    """Far more or fewer rows are held out than `split.holdout` asks for: many share the time of the cut."""
    leaking_target: Severity = "error"
    """A column that alone predicts the target almost perfectly (`contract.leak_score`)."""


class Contract(Section):
    """Say how strictly rows are held to the data contract."""

    rules: Rules = Rules()
    accept: tuple[str, ...] = ()
    """Columns that the next version takes as they are now, whatever the champion's contract says: new ones, ones that
    are gone, and ones of another kind. Once it is champion they are its contract; then they may be taken out here."""
    range_slack: float = Field(0.5, ge=0)
    """Widen a learned range by this share of its width on each side before a value counts as outside."""
    leak_score: Share = 0.99
    """Cross-validated score of one column alone (ROC AUC, balanced accuracy, R²) from which it leaks."""
    max_categories: int = Field(50, ge=2)
    """A string column with more distinct values is free text."""


class Threshold(Section):
    """Say how a binary model turns a score into a decision; chosen on cross-validated training scores."""

    by: Literal["f1", "balanced_accuracy", "accuracy", "cost", "fixed"] = "balanced_accuracy"
    """Maximise a metric, minimise `cost`, or take `value` as it is."""
    false_positive: float = Field(1.0, ge=0)
    """Cost of one false alarm."""
    false_negative: float = Field(1.0, ge=0)
    """Cost of one miss."""
    value: Share = 0.5
    """The threshold when `by: fixed`."""

    @property
    def costs(self) -> tuple[float, float]:
        """Return what one false positive and one false negative cost."""
        return self.false_positive, self.false_negative


SKLEARN = ("linear_model", "ensemble", "tree", "svm", "neighbors", "naive_bayes", "neural_network",
           "discriminant_analysis", "gaussian_process", "kernel_ridge", "dummy", "cross_decomposition")  # fmt: skip
"""Packages with estimators."""


def _is_in(package: str, name: str) -> bool:
    """Say whether a package of scikit-learn names an estimator, without importing it, which takes seconds."""
    root = Path(str(getattr(importlib.util.find_spec("sklearn"), "origin", ""))).parent
    files = (root / f"{package}.py", root / package / "__init__.py")
    return any(re.search(rf"\b{name}\b", file.read_text(encoding="utf-8")) for file in files if file.is_file())


class Model(Section):
    """Say what is fitted."""

    estimator: str | None = None
    """Dotted path of a scikit-learn estimator; histogram gradient boosting when left out."""
    params: dict[str, Any] = {}
    """Its arguments."""
    threshold: Threshold = Threshold()
    folds: int = Field(5, ge=2, le=20)
    """Cross-validation folds on the training rows."""
    seed: int = Field(0, ge=0)
    """The estimator's `random_state`, where it has one."""

    @field_validator("estimator")
    @classmethod
    def _is_a_dotted_path(cls, path: str | None) -> str | None:
        if path is None or re.fullmatch(r"[A-Za-z_][\w.]*\.[A-Za-z_]\w*", path):
            return path
        found = [f"sklearn.{package}.{path}" for package in SKLEARN if path.isidentifier() and _is_in(package, path)]
        meant = found[0] if found else "sklearn.ensemble.RandomForestClassifier"
        raise ValueError(f"needs a dotted path such as {meant}, it is '{path}'")


class Evaluation(Section):
    """Say how uncertainty is measured."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence of the two-sided intervals in reports; the gate's one-sided tests err at most 1 - confidence, those of
    all models that are judged on the same rows together: the k-th gets 1 / (k (k + 1)) of it, new rows bring new."""
    resamples: int = Field(1000, ge=200, le=100_000)
    """Bootstrap resamples; with 1,000 a 5 % bound really is one at 5 ± 0.7 %. The gate takes up to 10,000 where a bound
    lies further out."""
    seed: int = Field(0, ge=0)


class Gate(Section):
    """Say what a model must show on the holdout to become champion."""

    metric: Metric | None = None
    """What champion and challenger are compared by: roc_auc, accuracy or r2 by task when left out. `cost` counts what
    `model.threshold` says that a false positive and a false negative cost; the champion is counted by it too."""
    margin: float = Field(0.01, ge=0)
    """The challenger may be at most this much worse (non-inferiority margin, in units of the metric: for rmse
    and mae those of the target)."""
    minimum: dict[Metric, float] = {}
    """Bounds that hold for any champion, by metric: a floor where greater is better, else a ceiling."""
    min_rows: int = Field(30, ge=1)
    """Judge on no fewer holdout rows."""
    min_events: int = Field(10, ge=1)
    """Judge on no fewer holdout rows, or groups, of each class by a metric that looks at one class or at ranks: with
    5 positives the level of ROC AUC is 10 %, not 5."""
    promote: Literal["auto", "off"] = "auto"
    """`off`: for experiments; a model is registered and tracked, and never becomes champion."""

    @field_validator("minimum")
    @classmethod
    def _can_be_met(cls, minimum: dict[Metric, float]) -> dict[Metric, float]:
        for metric, bound in minimum.items():
            if metric in METRICS and metric not in ("cost", "log_loss", "rmse", "mae") and bound > 1:
                raise ValueError(f"{metric} is 1 at most, {bound:g} can never be met")
        return minimum


class Serving(Section):
    """Say what the service of a model accepts, answers and keeps."""

    port: int = Field(3000, ge=1, le=65535)
    """Where the service answers; two models on one machine need two."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that answer, one core each."""
    out_of_range: Answer = "refuse"
    """A number or time beyond the widened training range (`contract.range_slack`)."""
    unseen_category: Answer = "refuse"
    """A category that training never saw."""
    extra_columns: Answer = "refuse"
    """A column that the contract does not know. `accept` leaves it unread and names it in the header of the answer: so
    clients may send a new column before there is a model that wants it."""
    bad_rows: Literal["refuse", "answer_others"] = "refuse"
    """A request with a row that breaks the contract: refuse it whole, or answer the other rows and put an error in the
    place of the bad one."""
    max_rows: int = Field(10_000, ge=1)
    """Rows in one request."""
    max_bytes: int = Field(16 * 2**20, ge=1024)
    """Size of a request's body; 10,000 rows of 30 named numbers are about 8 MB."""
    max_concurrency: int = Field(64, ge=1)
    """Requests a worker has begun; one more is told to come back (503) instead of waiting in a queue."""
    timeout_seconds: float = Field(10.0, gt=0)
    """For a body to arrive, and for a large request to get its turn."""
    latency_budget_ms: float = Field(100.0, gt=0)
    """Highest 99th percentile, one row a request, that a new server may show before it gets traffic."""
    personal: dict[str, Literal["hash", "omit"]] = {}
    """Columns whose values the prediction log holds only as a keyed hash, or not at all."""
    origins: tuple[str, ...] = ()
    """Sites whose pages may ask from a browser (CORS), such as https://app.example.com. Behind a proxy the public
    address of the service is one of them."""
    prefix: str = ""
    """Path below which a proxy shows the service, such as /fraud, whether the proxy passes it on or takes it off."""

    @field_validator("origins")
    @classmethod
    def _are_spelt_as_browsers_do(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d{1,5})?", origin):
                raise ValueError(f"needs a scheme and a host such as https://app.example.com, no path, not '{origin}'")
        return origins

    @field_validator("prefix")
    @classmethod
    def _is_a_path(cls, prefix: str) -> str:
        if not re.fullmatch(r"(/\w[\w.~-]*)*", prefix, re.ASCII):
            raise ValueError(f"needs a path such as /fraud, without a slash at its end, not '{prefix}'")
        return prefix


class Monitoring(Section):
    """Say what traffic is looked at, and how large a change must be before anybody is told."""

    window_rows: int | None = Field(5000, ge=1)
    """Look at the newest rows, so many at most, since the last window."""
    window_hours: float | None = Field(None, gt=0)
    """Look no further back than this."""
    min_rows: int = Field(500, ge=30)
    """Judge drift on no fewer rows."""
    min_labels: int = Field(200, ge=30)
    """Judge performance on no fewer labelled rows."""
    label_delay_hours: float = Field(0.0, ge=0)
    """Judge performance on the traffic of so long ago, when its labels have come: labels that come early are often
    those of one class."""
    false_alarm_rate: float = Field(0.01, gt=0, le=0.2)
    """Share of windows without any drift that may alarm, over all columns and checks together: where rows are
    independent of each other, and where they are not behind 20 windows of the same version that vary as much, spread
    over the last four weeks: a weekly rhythm has to have come round twice. Labels of a `data.group` count together."""
    min_psi: float = Field(0.1, ge=0)
    """Population stability index from which a column has drifted (about the square of a shift in standard deviations),
    corrected for sampling noise: large windows find differences that matter to nobody."""
    min_missing: float = Field(0.05, gt=0, lt=1)
    """Change of a column's share of missing values that counts."""
    min_refused: float = Field(0.05, gt=0, lt=1)
    """Share of requests with other columns than the contract's, or of rows with values outside it, that counts."""
    min_auc: float = Field(0.6, ge=0.5, lt=1)
    """How well a classifier must tell the window from the reference before the columns together have drifted."""
    min_odds: float = Field(1.5, ge=1)
    """Factor on the odds of a class, at the same inputs, that counts as label drift."""
    min_shift: float = Field(0.25, ge=0)
    """Shift of a number's mean, at the same inputs, that does; in root mean squared errors of the holdout."""
    min_drop: float = Field(0.05, ge=0)
    """Loss of ROC AUC against what the scores promise that counts as concept drift (regression: relative growth of the
    root mean squared error)."""
    report: Literal["always", "alarm", "never"] = "always"
    """When Evidently draws its report: it takes seconds and 4 MB."""
    report_rows: int = Field(5000, ge=100)
    """Rows of each side that the report is drawn from."""


class Policy(Section):
    """Say when a model is trained again from feedback; every condition must hold."""

    mode: Literal["act", "advise", "off"] = "advise"
    """`act`: monitoring retrains. `advise`: it says that it would. `off`: it only looks."""
    alarms: int = Field(2, ge=0)
    """So many of the last `windows` alarm, the newest among them; 0 asks for none."""
    windows: int = Field(3, ge=1)
    labels: int = Field(500, ge=1)
    """Labelled rows since the last retraining."""
    cooldown_hours: float = Field(24.0, ge=0)
    """Since the last retraining."""
    budget: int = Field(4, ge=0)
    """Retrainings within `budget_days`."""
    budget_days: float = Field(30.0, gt=0)


class Feedback(Section):
    """Say how labelled traffic becomes training rows."""

    history: Literal["auto", "keep", "drop"] = "auto"
    """What becomes of the rows of before: `auto` keeps them where they help to predict new ones, cross-validated."""
    max_rows: int = Field(100_000, ge=1)
    """Labelled rows of the log that are used, the newest."""
    audit: float = Field(0.0, ge=0, le=1)
    """Share of predictions, drawn by their ids, to be labelled whatever was answered: answers mark them (`audit`) from
    the next deployment on; `--audit FILE` and the service's `/audit` list those without a label. Where 95 % of those
    due have one, `monitoring.min_labels` at least, metrics and drift are judged by them alone, and so does retraining
    learn where other labels may have come selectively: 0.05 of 5,000 rows are 250."""


class Retraining(Section):
    """Say what is trained again when the model in production is to learn from new rows."""

    recipe: Literal["champion", "config"] = "champion"
    """`champion`: as the champion was trained, whatever stands under model, split and the columns of data today.
    `config`: as they stand there; what is promoted may then be another estimator."""
    recall: Literal["auto", "off"] = "auto"
    """`auto`: where drift has begun, the newest three earlier champions are tried on its labels first. One that beats
    the champion there, does as well as it once did and passes the gate is brought back, and nothing is trained."""


class Inference(Section):
    """Which rows are scored in one go, how many steps share the work, and where the scores go."""

    source: Address | None = None
    """Rows to score: whatever `data.source` may be; they need no target. Each file is scored by one step, whole."""
    output: Address = ".local/predictions"
    """Folder or URL; the scores of a file lie in NAME/RUN/FILE.parquet below it."""
    shards: int = Field(4, ge=1, le=64)
    """Steps that share the files. They run side by side where the orchestrator has the machines."""


class Recipe(Section):
    """What decides the model: with the same rows and code, the same recipe gives the same model."""

    name: str
    """Name of the model in every registry: small letters, digits and underscores, beginning with a letter."""
    data: Data
    split: Split = Split()
    contract: Contract = Contract()
    model: Model = Model()

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if re.fullmatch("[a-z][a-z0-9_]{0,62}", name):
            return name
        meant = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:63] or "churn"
        raise ValueError(f"needs small letters, digits and underscores, 63 at most, such as {meant}; it is {name!r}")

    @model_validator(mode="after")
    def _time_split_has_a_time(self) -> Self:
        if self.split.by == "time" and self.data.time is None:
            raise ValueError("split.by is 'time' but data.time names no column")
        return self

    @model_validator(mode="after")
    def _target_is_not_accepted(self) -> Self:
        if self.data.target in self.contract.accept:
            raise ValueError(f"contract.accept names '{self.data.target}', which is the target; another one is a model")
        return self


class Config(Recipe):
    """One use case: the recipe, what its model must show, how it serves and is watched, when it is trained again."""

    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    serving: Serving = Serving()
    monitoring: Monitoring = Monitoring()
    policy: Policy = Policy()
    feedback: Feedback = Feedback()
    retraining: Retraining = Retraining()
    inference: Inference = Inference()

    @model_validator(mode="after")
    def _no_early_variable(self) -> Self:
        if found := next(early(self.model_dump(), ""), None):
            where = "data.source, data.query, data.options and inference can name variables"
            raise ValueError(f"{found[1:]} holds ${{…}}, which ZenML would store filled in; only {where}")
        return self

    @property
    def recipe(self) -> Recipe:
        """Return the part that decides the model."""
        return Recipe.model_validate({name: getattr(self, name) for name in Recipe.model_fields})


def load(path: Path, changes: Sequence[str] = ()) -> Config:
    """Read a use case and apply `a.b=value` changes; every fault is a UserError in one line."""
    if not path.is_file():
        raise UserError(f"no config file '{path}'; {known('configs/', names('configs'), path.stem)}")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UserError(f"{path} {yaml_fault(err)}") from err
    if not isinstance(raw, dict):
        raise UserError(f"{path} needs keys and values such as 'name: …', it holds {type(raw).__name__}")
    for change in changes:
        apply_change(raw, change)
    try:
        return Config.model_validate(raw)
    except ValidationError as err:
        raise UserError("; ".join(f"{_origin(e, path, changes)}: {_sentence(e, raw)}" for e in err.errors())) from err


def yaml_fault(err: yaml.YAMLError | UnicodeDecodeError) -> str:
    """Say where a file is no YAML; a parser's words say what it did, and not what is wrong."""
    if not isinstance(err, yaml.MarkedYAMLError) or err.problem_mark is None:
        return "is no plain text in UTF-8, as YAML has to be; save it as that"
    at = f"line {err.problem_mark.line + 1}, column {err.problem_mark.column + 1}"
    if isinstance(err, yaml.constructor.ConstructorError):
        return f"has a fault at {at}: {err.problem}"
    return f"cannot be read at {at}: look there and in the line above for a tab, indentation, colons, quotes, brackets"


def _origin(error: Any, path: Path, changes: Sequence[str]) -> str:
    """Return where a faulty value came from."""
    where = ".".join(str(part) for part in error["loc"])
    keys = [change.partition("=")[0] for change in changes]
    return next(
        (
            f"--set {key}"
            for key in keys
            if where and (f"{where}.".startswith(f"{key}.") or key.startswith(f"{where}."))
        ),
        str(path),
    )


def json_schema() -> str:
    """Return the JSON schema that the YAML files name, so that editors complete and check them."""
    return json.dumps(Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def names(folder: str) -> list[str]:
    """Return the stems of the YAML files in a folder of the project."""
    return sorted(p.stem for p in (ROOT / folder).glob("*.yaml"))


def known(what: str, options: Iterable[str], given: str, most: int = 12) -> str:
    """Say which options exist and which one was probably meant: `stacks/ has a, b; did you mean 'a'?`.

    Of many options the nearest are named; more cannot be read.
    """
    options = sorted(set(options))
    given = given[:100]  # a client may send megabytes
    alike = [option for option in options if option.lower() == given.lower()]
    near = [*dict.fromkeys([*alike, *difflib.get_close_matches(given, options, n=12, cutoff=0.5)])]
    hint = f"; did you mean '{near[0]}'?" if near else ""
    if len(options) > most:
        what = f"among {len(options)} names {what}"
        options = sorted([*near, *(option for option in options if option not in near)][:most])
    return f"{what} has {', '.join(options) or 'nothing'}{hint}"


class _Loader(yaml.SafeLoader):
    """Refuse a key that stands twice, of which YAML would silently keep the last; leave `off` and `no` words."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as the base class has it)
        first: [(tag, pattern) for tag, pattern in found if first in "tTfF" or not tag.endswith(":bool")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def apply_change(raw: dict[str, Any], change: str) -> None:
    """Set one `a.b=value` in the raw mapping; the value is read as YAML, so numbers are numbers."""
    path, equals, text = change.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise UserError(f"--set needs section.key=value, it got '{change}'")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as err:
        raise UserError(f"--set {path}: '{text}' is not a YAML value") from err
    for key in keys[:-1]:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise UserError(f"--set {path}: '{key}' holds a value, it has no keys")
    raw[keys[-1]] = value


_PLAIN = {"tuple_type": "needs a list such as [a, b]", "model_type": "needs keys of its own, each with a value"}
"""What pydantic says in Python's words."""


def _sentence(error: Any, raw: Any) -> str:
    """Turn one pydantic error into words: where, what came, what would do."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for part in error["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"no key '{where}'; {known('the section', section.model_fields, str(error['loc'][-1]))}"
    if error["type"] == "missing":
        return f"'{where}' is missing"
    if error["type"] == "literal_error":
        options = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        named = known("it", options, str(error["input"]), len(options))
        return f"'{where.removesuffix('.[key]')}': no '{error['input']}'; {named}"
    message = _PLAIN.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
    if not where:
        return message
    shown = error["type"] != "value_error" and not isinstance(error["input"], dict | BaseModel)
    came = f", it is {error['input']!r}" if shown else ""  # our own messages say it, or must not: passwords
    return f"'{where}': {message[0].lower()}{message[1:]}{came}"
