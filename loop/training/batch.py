"""Score rows in one go, with the very bundle that serves."""

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from loop.config import Config
from loop.data.checks import Finding, check_rows, reading_findings
from loop.data.sources import batch_parts, fill, read_table
from loop.training.bundle import Bundle
from loop.training.metrics import Predictions


class FileReport(BaseModel):
    """What was found in one file."""

    model_config = ConfigDict(frozen=True)

    name: str
    rows: int
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> str | None:
        """Say why the file was not scored, if it was not."""
        errors = [finding.sentence for finding in self.findings if finding.severity == "error"]
        return f"{self.name}: {'; '.join(errors[:3])}" if errors else None


class ShardReport(BaseModel):
    """What one step of a batch scored."""

    model_config = ConfigDict(frozen=True)

    files: tuple[str, ...]
    """Where the scores lie, one a file that was read."""
    rows: int
    positive: int
    """Rows that were decided for the positive class; 0 where there are no two classes."""
    read: tuple[FileReport, ...] = ()


def score_rows(bundle: Bundle, rows: pd.DataFrame, version: int) -> pd.DataFrame:
    """Return a row's identity, its score or scores, the decision, and the version that made it.

    A column of ours whose name one of the identity's has gets `model_` in front.
    """
    card, scores = bundle.card, bundle.scores(rows)
    said = Predictions(card.contract.task, np.empty(len(rows)), scores, card.threshold)  # whose truth is not known
    names = _identity(bundle)
    if said.task == "regression":
        ours = {"prediction": scores}
    elif said.task == "binary":
        ours = {"score": scores}
    else:
        ours = {f"score_{label}": scores[:, place] for place, label in enumerate(card.contract.classes)}
    if said.task != "regression":
        ours["decision"] = np.asarray(card.contract.classes)[said.decisions]
    ours["model_version"] = np.full(len(rows), version)
    answers = pd.DataFrame({_free(name, names): values for name, values in ours.items()}, index=rows.index)
    return pd.concat([rows[names], answers], axis=1)


def _beyond(rows: int, err: ValueError) -> Finding:
    words = f"a value is so far out of range that the model finds no number for it ({str(err).splitlines()[0]})"
    return Finding(rule="out_of_range", severity="error", column=None, count=rows, share=1.0, sentence=words)


def _identity(bundle: Bundle) -> list[str]:
    data = bundle.card.recipe.data
    return [*dict.fromkeys(name for name in (*data.id, data.time) if name)]


def _free(name: str, taken: list[str]) -> str:
    return _free(f"model_{name}", taken) if name in taken else name


def score_shard(bundle: Bundle, version: int, config: Config, shard: int, folder: str) -> ShardReport:
    """Score every file that falls to a shard, counting from 0, and write the scores below a folder or URL.

    A file is read and checked by the model's contract, scored and written before the next, so memory holds one. One
    that breaks a rule of severity `error` is not scored. Writing again overwrites.
    """
    import fsspec

    written, read, count, positive = [], [], 0, 0
    contract = bundle.card.contract
    for name, part in batch_parts(config)[shard :: config.inference.shards]:
        # What a column is, the model decides: another kind today needs another model. That strings are numbers, as in
        # training, only the config says.
        kinds = {name: kind for name, kind in part.kinds.items() if kind == "numeric" == contract.features.get(name)}
        rows, reading = read_table(part.model_copy(update={"kinds": kinds}), labelled=False, contract=contract)
        unlabelled = rows.drop(columns=contract.target, errors="ignore")
        findings = reading_findings(reading, len(rows), config.contract.rules)
        findings += check_rows(unlabelled, contract, config.contract)
        read.append(FileReport(name=part.shown_source.rpartition("/")[2], rows=len(rows), findings=findings))
        if read[-1].refused:
            continue
        try:
            with np.errstate(over="ignore"):  # it is told below
                scored = score_rows(bundle, rows, version)
        except ValueError as err:  # scikit-learn's own word for a number that overflowed
            read[-1] = read[-1].model_copy(update={"findings": (*findings, _beyond(len(rows), err))})
            continue
        path = f"{folder.rstrip('/')}/{name}.parquet"
        with fsspec.open(fill(path, "inference.output"), "wb", auto_mkdir=True) as file:
            scored.to_parquet(file, index=False)
        written.append(path)
        count += len(scored)
        if contract.task == "binary":
            positive += int((scored[_free("decision", _identity(bundle))] == contract.classes[1]).sum())
    return ShardReport(files=tuple(written), rows=count, positive=positive, read=tuple(read))
