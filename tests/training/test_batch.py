"""Batch scoring: every file once, whatever the number of shards, and scores as the service gives them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from servers import breast_cancer

from loop import config
from loop.config import ROOT, UserError
from loop.data.sources import partitions
from loop.training.batch import score_rows, score_shard
from steps.gather_shards import gather_shards


def settings(*changes: str) -> config.Config:
    return config.load(ROOT / "configs/breast_cancer.yaml", changes)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Write the holdout rows, without their labels, into five files."""
    rows, found = breast_cancer().holdout.drop(columns=settings().data.target), []
    for place, part in enumerate(np.array_split(np.arange(len(rows)), 5)):
        found.append(tmp_path / f"rows{place}.csv")
        rows.iloc[part].to_csv(found[-1], index=False)
    return found


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_score_every_row_once_and_as_the_bundle_does(files: list[Path], shards: int, tmp_path: Path) -> None:
    model = breast_cancer().bundle
    use_case = settings(f"inference.source={tmp_path}/rows*", f"inference.shards={shards}")
    output = f"file://{tmp_path}/scores"
    reports = [score_shard(model, 3, use_case, shard, output) for shard in range(shards)]
    assert sum(report.rows for report in reports) == len(breast_cancer().holdout)
    written = sorted(path for report in reports for path in report.files)
    assert len(written) == len({*written}) == len(files)
    scored = pd.concat([pd.read_parquet(path) for path in written], ignore_index=True)
    want = score_rows(model, breast_cancer().holdout, 3)
    np.testing.assert_allclose(scored["score"], want["score"], atol=1e-12)
    assert scored["decision"].tolist() == want["decision"].tolist()
    assert sum(report.positive for report in reports) == (want["decision"] == model.card.contract.classes[1]).sum()
    assert {*scored["model_version"]} == {3}


def test_a_decision_is_the_service_s() -> None:
    model, rows = breast_cancer().bundle, breast_cancer().holdout
    decisions = model.predictions(rows).decisions
    assert (
        score_rows(model, rows, 1)["decision"].tolist() == np.asarray(model.card.contract.classes)[decisions].tolist()
    )


def test_a_threshold_of_zero_is_one() -> None:
    model, rows = breast_cancer().bundle, breast_cancer().holdout
    always = replace(model, card=model.card.model_copy(update={"threshold": 0.0}))
    assert {*score_rows(always, rows, 1)["decision"]} == {model.card.contract.classes[1]}


def test_a_source_that_is_no_file_is_one_part() -> None:
    assert [name for name, _ in partitions(settings().data)] == ["rows"]


def test_missing_source_and_missing_column_are_one_sentence_each(tmp_path: Path) -> None:
    model = breast_cancer().bundle
    with pytest.raises(UserError, match=r"inference\.source is missing: say which rows to score"):
        score_shard(model, 1, settings(), 0, str(tmp_path))
    pd.DataFrame({"a": [1.0]}).to_csv(tmp_path / "a.csv", index=False)
    report = score_shard(model, 1, settings(f"inference.source={tmp_path}/a.csv"), 0, str(tmp_path))
    with pytest.raises(
        UserError, match=r"1 of 1 files break the data contract .*a\.csv: column 'mean radius' is missing"
    ):
        gather_shards.entrypoint([report])
