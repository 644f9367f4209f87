"""Stop a run whose rows break the data contract."""

from typing import Annotated

from zenml import step

from loop.data.checks import ContractReport, raise_on_errors
from loop.data.contract import DataContract


@step
def accept_rows(
    contract: DataContract, contract_report: ContractReport
) -> Annotated[DataContract, "accepted_contract"]:
    """Pass the contract on if no rule of severity `error` is broken; the report is kept either way."""
    raise_on_errors(contract_report.findings, compared=contract_report.compared_with is not None)
    return contract
