"""Find the category that a value means: batch, service, log and drift ask here, so a row means the same to all.

It needs nothing but the value's one spelling (`data.table.as_text`), in which 3 and 3.0 are "3" and a truth value is
"True" or "False".
"""

import re
from collections.abc import Collection

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_AS_TEXT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")


def category_of(text: str, known: Collection[str]) -> str:
    """Return the known category that a spelling means, or the spelling itself where it means none.

    A spelling that is known is that category. Else `3` may have been written 3.0, and truth values in another case:
    formats differ in that, and a number has no other way to say so. `007` is never 7, nor the other way round. `3.0` is
    3 where all that is known is spelt as numbers are: a CSV of floats has it so, and other formats show no difference.
    """
    if text in known:
        return text
    return next((other for other in _others(text, known) if other in known), text)


def is_ambiguous(number: float, known: Collection[str]) -> bool:
    """Say whether a number may mean several known categories: 1.1 was `1.1` or `1.10`, and 7 was `7` or `007`."""
    return sum(_spells(text, number) for text in known) > 1


def _spells(text: str, number: float) -> bool:
    return _NUMBER.fullmatch(text) is not None and float(text) == number


def _others(text: str, known: Collection[str]) -> tuple[str, ...]:
    if text.lower() in ("true", "false"):
        return text.capitalize(), text.lower(), text.upper()
    if WHOLE.fullmatch(text):
        return (f"{text}.0",)
    return (text[:-2],) if text.endswith(".0") and all(map(_AS_TEXT.fullmatch, known)) else ()
