"""Learn the data contract and check the rows against the champion's."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Contract, Data, Split
from loop.data.checks import ContractReport, check_table, check_training_rows, holdout_findings, reading_findings
from loop.data.contract import DataContract, learn_contract
from loop.data.notes import Reading
from loop.pages.report import contract_page
from loop.registry.materializers import Report
from loop.training.bundle import Bundle
from loop.training.stand_in import StandIn


@step(output_materializers={"contract_report": Report})
def validate_rows(
    train_rows: pd.DataFrame,
    holdout_rows: pd.DataFrame,
    champion: Bundle | StandIn | None,
    champion_version: int | None,
    name: str,
    data: Data,
    settings: Contract,
    split: Split | None,
    reading: Reading,
    reference_rows: int | None,
) -> tuple[Annotated[DataContract, "contract"], Annotated[ContractReport, "contract_report"]]:
    """Return the contract of the training rows, and what is wrong with the rows.

    `split` is what the sides were asked to be. The last `reference_rows` training rows, or all, stand for what the
    model will meet.
    """
    card = None if champion is None else champion.card
    settled = None if card is None else card.contract.without(settings.accept).known
    contract = learn_contract(train_rows, data, settings, reference_rows, reading=reading, settled=settled)
    rows = pd.concat([train_rows, holdout_rows], ignore_index=True)
    findings = reading_findings(reading, len(rows), settings.rules) + check_table(rows, data, settings, contract)
    if split is not None:
        findings += holdout_findings(len(train_rows), len(holdout_rows), split, settings.rules)
    if card is not None:
        findings += check_training_rows(rows, card.contract, contract, settings)
    compared_with = None if card is None else champion_version
    # A value that is none of its kind is found in the table and by the champion's contract.
    report = ContractReport(findings=tuple(dict.fromkeys(findings)), rows=len(rows), compared_with=compared_with)
    return contract, report.with_page(contract_page(name, report, contract))
