"""Put labelled traffic beside the rows of the source, each row on the side it stays on."""

from datetime import datetime
from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Config
from loop.data.contract import learn_contract
from loop.data.notes import Reading
from loop.data.split import SplitRule, resolve
from loop.log.records import TRUTH
from loop.registry import champions
from loop.registry.materializers import Table
from loop.training.bundle import Bundle
from loop.training.stand_in import StandIn
from loop.watching.feedback import History, as_source_rows, audited_rows, selection_doubt
from loop.watching.feedback import split_feedback as split
from loop.watching.policy import Decision


@step(
    output_materializers={
        "train_rows": Table,
        "holdout_rows": Table,
        "old_holdout_rows": Table,
        "watched_rows": Table,
    },
)
def split_feedback(
    rows: pd.DataFrame,
    labelled_rows: pd.DataFrame,
    answers: pd.DataFrame,
    champion: Bundle | StandIn,
    retraining_decision: Decision,
    reading: Reading,
    config: Config,
) -> tuple[
    Annotated[pd.DataFrame, "train_rows"],
    Annotated[pd.DataFrame, "holdout_rows"],
    Annotated[pd.DataFrame, "old_holdout_rows"],
    Annotated[pd.DataFrame, "watched_rows"],
    Annotated[SplitRule, "split_rule"],
    Annotated[int | None, "reference_rows"],
    Annotated[History, "history"],
]:
    """Return what to learn from and to be judged on, and whether the rows of before still help."""
    card = champion.card
    contract = learn_contract(rows, config.data, config.contract) if card is None else card.contract
    rule = resolve(rows, config.data, config.split, reading)
    config = config.model_copy(update={"data": config.data.without(reading.new)})
    since = pd.Timestamp(retraining_decision.since or datetime.min)
    asked = answers[answers["prediction_time"] >= since]
    version, doubt, left_out = retraining_decision.version, "", ""
    if asked[TRUTH].isna().any():
        trusted = champions.trusted_rows(config.name, version, champion, rows.head(0))
        doubt = selection_doubt(asked, champion, version, trusted, config.monitoring)
    if doubt:
        audited, said = audited_rows(labelled_rows, asked, config.feedback.audit, config.monitoring)
        if said:
            labelled_rows, left_out, doubt = audited, f"{doubt}: {said}", ""
    served, times, unusable = as_source_rows(labelled_rows, rows, contract, config)
    drifted = (times >= since).to_numpy() | bool(doubt)  # then only rows of the table are surely as they came
    sides = split(rows, served, drifted, rule, config, contract.without(config.contract.accept).known, doubt)
    return (
        sides.train,
        sides.holdout,
        sides.old_holdout,
        sides.watched,
        sides.rule,
        sides.reference_rows,
        sides.history.model_copy(update={"unusable": "; ".join(filter(None, (left_out, unusable)))}),
    )
