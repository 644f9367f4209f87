"""Files are scored in one go, as a user asks for it: each by one step, and each row as the champion scores it."""

from pathlib import Path

import numpy as np
import pandas as pd
from conftest import Cli, Trained

from loop import config
from loop.data.sources import read_rows
from loop.registry import champions


def test_every_file_is_scored_by_the_champion(champion: Trained, cli: Cli, tmp_path: Path) -> None:
    model = champions.load(champion.name, 1)
    rows = read_rows(config.load(config.ROOT / "configs/breast_cancer.yaml").data).drop(columns="diagnosis")
    parts = {"may": rows.head(50), "june": rows.iloc[50:120], "july": rows.tail(3)}
    for name, part in parts.items():
        part.to_parquet(tmp_path / f"{name}.parquet")
    sets = (f"name={champion.name}", f"inference.source={tmp_path}/*.parquet", f"inference.output={tmp_path}/out")
    done = cli("--pipeline", "inference", *(w for one in (*sets, "inference.shards=2") for w in ("--set", one)))
    assert done.code == 0, done.err
    decided = 0
    for name, part in parts.items():
        (written,) = tmp_path.glob(f"out/{champion.name}/*/*-{name}.parquet")
        scored = pd.read_parquet(written)
        np.testing.assert_array_equal(scored["score"], model.scores(part))
        assert set(scored["model_version"]) == {1}
        decided += (scored["decision"] == "malignant").sum()
    assert f"123 rows of 3 files, {decided} decided positive" in done.out
