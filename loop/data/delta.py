"""Read a Delta table: its log says which of the files in its folder count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loop.config import UserError

if TYPE_CHECKING:  # the check before a run does without it
    import pyarrow as pa

    from loop.data.files import File


def read_delta(
    path: File,
    *,
    version: int | None = None,
    columns: Sequence[str] | None = None,
    nrows: int | None = None,
) -> pa.Table:
    """Return the rows of a Delta table, of its newest version or an earlier one.

    The package has its own access to object stores; it takes credentials from the environment.
    """
    try:
        from deltalake import DeltaTable
    except ImportError as err:
        raise UserError(f"{path.name} is a Delta table; install the package deltalake to read it") from err
    url = path.path if path.is_local else path.system.unstrip_protocol(path.path)
    data = DeltaTable(url, version=version).to_pyarrow_dataset()
    return data.to_table(columns=columns) if nrows is None else data.head(nrows, columns=columns)
