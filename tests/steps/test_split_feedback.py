"""Where labels may be selective, every served row is a new one, and those of the table are kept."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from zenml.utils.source_utils import set_custom_source_root

from benchmarks.feedback import LOGISTIC, SELECTIONS, fit, table
from config import ROOT, Config, Data
from core.notes import Reading
from core.policy import Decision
from core.records import TRUTH, TRUTH_TIME
from core.split import resolve

set_custom_source_root(str(ROOT))  # as stacks/apply.py does before a step is imported

import registry  # noqa: E402
from steps.split_feedback import split_feedback  # noqa: E402

CONFIG = Config(name="made", data=Data(source="made", target="y", id=("id",)), model=LOGISTIC)
NOON = datetime(2026, 11, 24, 12)


@pytest.mark.parametrize(("selection", "share", "doubtful"), [("complaints", 0.1, True), ("by chance", 1.0, False)])
def test_only_rows_of_the_table_are_old_where_labels_may_be_selective(
    monkeypatch: pytest.MonkeyPatch, selection: str, share: float, doubtful: bool
) -> None:
    random = np.random.default_rng(0)
    source, asked = (table(n, random).assign(id=np.arange(n) + first) for n, first in ((4000, 0), (2000, 10**6)))
    rule = resolve(source, CONFIG.data, CONFIG.split)
    held_out = rule.held_out(source)
    champion = fit(source[~held_out], rule, CONFIG)
    monkeypatch.setattr(registry, "trusted_rows", lambda *args: source[held_out])
    said = champion.predictions(asked)
    labelled = SELECTIONS[selection](said, random.random(2000) < share)
    log = pd.DataFrame(
        {
            "prediction_id": [f"{place:012x}-000000-0" for place in range(2000)],
            "prediction_time": [NOON + timedelta(minutes=place) for place in range(2000)],
            "prediction_version": 1,
            "prediction_score": said.scores,
            TRUTH: asked["y"].astype(str).where(labelled).astype(object),
        }
    )
    rows = pd.concat([log, asked.drop(columns="y")], axis=1)[labelled].assign(**{TRUTH_TIME: NOON})
    decision = Decision(
        number=1, time=datetime.now(UTC), by="feedback", version=1, start=None, end=None, rows=0, alarms=(), labels=0,
        windows=(), since=NOON + timedelta(minutes=1000), requirements=(), action="retrain", run="r",
    )  # fmt: skip
    found = split_feedback.entrypoint(source, rows.reset_index(drop=True), log, champion, decision, Reading(), CONFIG)
    _, _, old_holdout, watched, _, _, history = found
    assert bool(history.doubt) == doubtful
    assert (old_holdout["id"].max() < 10**6) == doubtful
    if doubtful:
        assert history.keep
        assert history.new_rows + history.old_rows > len(source[~held_out])
        pd.testing.assert_frame_equal(watched, old_holdout)
