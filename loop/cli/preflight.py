"""Find before a run starts what its first steps would find, by calling what they call.

Starting ZenML takes seconds, reading a small table does not. What this cannot see, the steps still do: large
and remote tables, a column that leaks the target (scikit-learn alone takes a second to import) and the
contract of the champion.
"""

from loop.config import Recipe
from loop.data.sources import check_reachable, local_size

SMALL = 1_000_000
"""Bytes. So much CSV is read and checked in about 0.2 s; a larger table is not worth reading twice."""


def check_rows_here(recipe: Recipe) -> None:
    """Read and check a small local table, or connect to a database; any fault is a UserError."""
    if local_size(recipe.data) <= SMALL:
        _check_rows(recipe)
    else:
        check_reachable(recipe.data)


def _check_rows(recipe: Recipe) -> None:
    from loop.data.checks import check_table, raise_on_errors, reading_findings
    from loop.data.contract import learn_contract
    from loop.data.sources import read_table
    from loop.data.split import check_sides, resolve
    from loop.data.table import infer_task

    data, (rows, reading) = recipe.data, read_table(recipe.data)
    if any(note.column == data.time for note in reading.notes if data.time):
        return  # the champion's contract may know how its times are to be read
    held_out = resolve(rows, data, recipe.split).held_out(rows)
    check_sides(rows[data.target], held_out, infer_task(rows[data.target], data.task, data.kinds.get(data.target)))
    rules = recipe.contract.rules.model_copy(update={"leaking_target": "off"})
    settings = recipe.contract.model_copy(update={"rules": rules})
    contract = learn_contract(rows[~held_out], data, settings, reading=reading)
    found = reading_findings(reading, len(rows), rules) + check_table(rows, data, settings, contract)
    raise_on_errors(found)
