"""Say what a column is known to be before a table is read, and what reading it showed."""

from collections.abc import Mapping
from typing import NamedTuple

from loop.config import Kind, Section


class Note(Section):
    """Say what one file or column showed: what was repaired, or what the files alone cannot tell."""

    rule: str
    """A field of `config.Rules`, which decides how seriously it is taken."""
    column: str | None = None
    count: int
    """Rows or lines concerned."""
    sentence: str


class Known(NamedTuple):
    """Say what a column is, where that is settled already."""

    kind: Kind
    format: str | None = None
    """How its times are spelt, if not as ISO 8601."""
    categories: frozenset[str] = frozenset()
    settled: bool = True
    """By a contract; else the config says so now."""


class Reading(Section):
    """Say how the values of a table were spelt, and what reading it showed."""

    formats: Mapping[str, str] = {}
    """Of times that are not spelt as ISO 8601, by column."""
    missing_words: Mapping[str, Mapping[str, int]] = {}
    """Words taken for missing values, with their counts, by column."""
    notes: tuple[Note, ...] = ()
    new: tuple[str, ...] = ()
    """Columns that the champion's contract does not know and that nobody has accepted: they are not used."""
    gone: tuple[str, ...] = ()
    """Columns that the champion's contract knows and that it is accepted to do without."""
    identity: tuple[str, ...] = ()
    """By what the champion tells rows apart, where the config names no id and columns have come since: so rows stay on
    their side."""
    alike: bool = False
    """The champion takes rows of the same contents for rows of their own: so these stay on their side."""
