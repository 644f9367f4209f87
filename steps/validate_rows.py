"""Learn the data contract and check the rows against the champion's."""

from typing import Annotated

import pandas as pd
from zenml import step

from config import Contract, Data
from core.bundle import Bundle
from core.checks import ContractReport, check_rows, check_table
from core.contract import DataContract, learn_contract
from core.report import contract_page
from core.stand_in import StandIn
from steps.materializers import Report


@step(output_materializers={"contract_report": Report})
def validate_rows(
    train_rows: pd.DataFrame,
    holdout_rows: pd.DataFrame,
    champion: Bundle | StandIn | None,
    champion_version: int | None,
    name: str,
    data: Data,
    settings: Contract,
    reference_rows: int | None,
) -> tuple[Annotated[DataContract, "contract"], Annotated[ContractReport, "contract_report"]]:
    """Return the contract of the training rows, and what is wrong with the rows.

    The last `reference_rows` of them, or all, stand for what the model will meet.
    """
    contract = learn_contract(train_rows, data, settings, reference_rows)
    rows = pd.concat([train_rows, holdout_rows], ignore_index=True)
    findings = check_table(rows, data, settings, contract)
    card = None if champion is None else champion.card
    if card is not None:
        findings += check_rows(rows, card.contract, settings)
    compared_with = None if card is None else champion_version
    report = ContractReport(findings=findings, rows=len(rows), compared_with=compared_with)
    return contract, report.with_page(contract_page(name, report, contract))
