"""Say what was seen while a table was read: what was repaired, and what its files alone cannot tell."""

from config import Section


class Note(Section):
    """Say what one file, or one column of the source, showed."""

    rule: str
    """A field of `config.Rules`, which decides how seriously it is taken."""
    column: str | None = None
    count: int
    """Rows or lines concerned."""
    sentence: str
