"""Where labels may be selective, every served row is a new one, and those of the table are kept."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from zenml.utils.source_utils import set_custom_source_root

from benchmarks.feedback import LOGISTIC, SELECTIONS, Mask, fit, table
from loop.config import ROOT, Config, Data, Feedback
from loop.data.notes import Reading
from loop.data.split import resolve
from loop.log.records import TRUTH, TRUTH_TIME, in_audit
from loop.training.metrics import Predictions
from loop.watching.policy import Decision

set_custom_source_root(str(ROOT))  # as loop/places/apply.py does before a step is imported

from loop.registry import champions  # noqa: E402
from steps.split_feedback import split_feedback  # noqa: E402

CONFIG = Config(name="made", data=Data(source="made", target="y", id=("id",)), model=LOGISTIC)
NOON = datetime(2026, 11, 24, 12)
Select = Callable[[Predictions, pd.Series, np.random.Generator], Mask]


def split(monkeypatch: pytest.MonkeyPatch, select: Select, config: Config, since: datetime | None) -> tuple[Any, ...]:
    """Split a table of 4,000 rows and 2,000 answers, a minute each, with the labels that are selected."""
    random = np.random.default_rng(0)
    source, asked = (table(n, random).assign(id=np.arange(n) + first) for n, first in ((4000, 0), (2000, 10**6)))
    rule = resolve(source, config.data, config.split)
    held_out = rule.held_out(source)
    champion = fit(source[~held_out], rule, config)
    monkeypatch.setattr(champions, "trusted_rows", lambda *args: source[held_out])
    said, ids = champion.predictions(asked), pd.Series([f"{place:012x}-000000-0" for place in range(2000)])
    labelled = select(said, ids, random)
    log = pd.DataFrame(
        {
            "prediction_id": ids,
            "prediction_time": [NOON + timedelta(minutes=place) for place in range(2000)],
            "prediction_version": 1,
            "prediction_score": said.scores,
            TRUTH: asked["y"].astype(str).where(labelled).astype(object),
        }
    )
    rows = pd.concat([log, asked.drop(columns="y")], axis=1)[labelled].assign(**{TRUTH_TIME: NOON})
    decision = Decision(
        number=1, time=datetime.now(UTC), by="feedback", version=1, start=None, end=None, rows=0, alarms=(), labels=0,
        windows=(), since=since, requirements=(), action="retrain", run="r",
    )  # fmt: skip
    found = split_feedback.entrypoint(source, rows.reset_index(drop=True), log, champion, decision, Reading(), config)
    return (held_out, *found)


@pytest.mark.parametrize(("selection", "share", "doubtful"), [("complaints", 0.1, True), ("by chance", 1.0, False)])
def test_only_rows_of_the_table_are_old_where_labels_may_be_selective(
    monkeypatch: pytest.MonkeyPatch, selection: str, share: float, doubtful: bool
) -> None:
    def select(said: Predictions, ids: pd.Series, random: np.random.Generator) -> Mask:
        return SELECTIONS[selection](said, random.random(len(ids)) < share)

    held_out, *found = split(monkeypatch, select, CONFIG, NOON + timedelta(minutes=1000))
    _, _, old_holdout, watched, _, _, history = found
    assert bool(history.doubt) == doubtful
    assert (old_holdout["id"].max() < 10**6) == doubtful
    if doubtful:
        assert history.keep
        assert history.new_rows + history.old_rows > len(held_out) - held_out.sum()
        pd.testing.assert_frame_equal(watched, old_holdout)


@pytest.mark.parametrize("missing", [0.0, 0.2], ids=["nearly all labelled", "a fifth without a label"])
def test_where_labels_may_be_selective_a_labelled_audit_sample_is_learned_from_and_judged_by_alone(
    monkeypatch: pytest.MonkeyPatch, missing: float
) -> None:
    def select(said: Predictions, ids: pd.Series, random: np.random.Generator) -> Mask:
        drawn = in_audit(ids, 0.3)
        told = drawn & (random.random(len(ids)) >= missing)
        return np.where(drawn, told, SELECTIONS["complaints"](said, random.random(len(ids)) < 0.1))

    audit = CONFIG.model_copy(update={"feedback": Feedback(audit=0.3)})
    _, train, holdout, _, _, _, _, history = split(monkeypatch, select, audit, NOON)
    served = {f"{int(own) - 10**6:012x}-000000-0" for own in (*train["id"], *holdout["id"]) if own >= 10**6}
    assert (history.doubt == "") == (in_audit(served, 0.3).all()) == (missing == 0)
    assert ("labels came for " in history.unusable) == (missing == 0)
    if not missing:
        known = len(served)
        assert history.unusable.endswith(f"by the audit sample alone, {known:,} of its {known:,} rows")
