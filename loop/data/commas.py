"""Read how the numbers of a table are spelt: decimal commas, and signs between thousands."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from loop.data.notes import Note

_SHARE = 0.9
"""Share of a column's values that must be numbers: nine in ten leave room for `?` and `n/a`."""
_ENOUGH = 10  # fractions that all have three digits, of which one in ten would end in a 0 and be shorter


class Style(NamedTuple):
    """The sign before a fraction, and the one between thousands."""

    decimal: str = "."
    thousands: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """Return what differs from the usual as `data.options`."""
        decimal = {"decimal": self.decimal} if self.decimal != "." else {}
        return decimal | ({"thousands": self.thousands} if self.thousands else {})

    @property
    def pattern(self) -> re.Pattern[str]:
        """Match one number; a code such as 007 is none."""
        whole = "(0|[1-9][0-9]*)"
        if self.thousands:
            whole = f"(0|[1-9][0-9]*|[1-9][0-9]{{0,2}}({re.escape(self.thousands)}[0-9]{{3}})+)"
        fraction = f"{re.escape(self.decimal)}[0-9]+"
        return re.compile(f"[+-]?({whole}({fraction})?|{fraction})(e[+-]?[0-9]+)?", re.I)


# The first that explains most columns is taken: what needs less stands before what needs more.
_STYLES = [
    Style(), Style(","), Style(".", ","), Style(",", "."), Style(",", " "), Style(",", "\xa0"), Style(",", "\u202f"),
    Style(".", "'"), Style(".", "’"), Style(".", " "), Style(".", "\xa0"), Style(".", "\u202f"),
]  # fmt: skip
_SIGNS = re.compile(r"[.,'’ \xa0\u202f]")
_AMBIGUOUS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})?")
_SIGN = r"[%‰$€£¥₹]"
_SIGNED = re.compile(rf"(-?)({_SIGN})\s?(\S+)|(\S+)\s?({_SIGN})")
_THREE = re.compile(r"[+-]?[1-9][0-9]{0,2}\.[0-9]{3}")


def as_advice(options: Mapping[str, Any]) -> str:
    """Return what to set in words: `set data.options.sep: ';' and data.options.decimal: ','`."""
    return "set " + " and ".join(f"data.options.{key}: {_shown(value)}" for key, value in options.items())


def _shown(value: Any) -> str:
    text = repr(value)  # YAML knows `\t` in double quotes only
    return json.dumps(value) if "\\" in text else text


def number_style(columns: Collection[Sequence[str]], styles: Sequence[Style] = _STYLES) -> Style:
    """Return how the numbers of a table are spelt, by texts of its columns: the first style of those that fit most."""
    signs = {sign for texts in columns for text in texts for sign in _SIGNS.findall(text)}
    usual, *others = styles
    others = [style for style in others if (style.thousands or style.decimal) in signs]
    style = max([usual, *others], key=lambda style: sum(_share(texts, style) >= _SHARE for texts in columns))
    if style == Style(",") and all(_is_in_doubt(texts) for texts in columns if _share(texts, usual) < _SHARE):
        return usual  # 1,234 may be either
    return style


def number_notes(columns: Mapping[str, Sequence[str]], options: Mapping[str, Any]) -> list[Note]:
    """Say what columns of texts need to be read as numbers, or what their numbers leave open.

    `columns` holds some of the values present, as the file spells them; `options` are those they were read with.
    """
    used = Style(options.get("decimal") or ".", options.get("thousands"))
    styles = [used, *(style for style in _STYLES if "decimal" not in options or style.decimal == used.decimal)]
    best = number_style(columns.values(), styles)
    found = [note for name, texts in columns.items() for note in _notes(name, texts, styles, best, options)]
    return found + [note for name, texts in columns.items() for note in _signed(name, texts)]


def _signed(name: str, texts: Sequence[str]) -> list[Note]:
    """Warn of numbers that stand beside a sign, such as 12% and $5: they are read as words."""
    parts = [found for text in texts if (found := _SIGNED.fullmatch(text.strip()))]
    numbers = [found[3] or found[4] for found in parts]
    if len(numbers) < _SHARE * len(texts) or not numbers or max(_share(numbers, style) for style in _STYLES) < _SHARE:
        return []
    signs = " and ".join(sorted({found[2] or found[5] for found in parts}))
    sentence = f"'{name}' has values such as {parts[0][0]!r}, which are words; write the numbers without {signs} there"
    return [Note(rule="mostly_numbers", column=name, count=len(numbers), sentence=sentence)]


def _notes(
    name: str, texts: Sequence[str], styles: Sequence[Style], best: Style, options: Mapping[str, Any]
) -> list[Note]:
    used, new = styles[0], {key: value for key, value in best.options.items() if options.get(key) != value}
    if any(sign in text for sign in new.values() for text in texts) and _share(texts, best) >= _SHARE:
        return [_note(name, texts, best, options, as_advice(new))]
    if not any(map(_SIGNS.search, texts)) or _share(texts, used) >= _SHARE:
        return _doubts(name, texts) if used == Style() else []
    style = max(styles, key=lambda style: _share(texts, style))
    if _share(texts, style) < _SHARE:
        style = Style()  # a decimal point, where the options say a comma
    if _share(texts, style) < _SHARE:
        return []
    if "decimal" in options or not _is_in_doubt(texts):
        return [_note(name, texts, style, options, "other columns are spelt otherwise; repair the source")]
    example = next(text for text in texts if "," in text)
    fix = (
        f"set data.options.thousands: ',' if {example} means {example.replace(',', '')}, "
        f"or data.options.decimal: ',' if it means {example.replace(',', '.')}"
    )
    return [_note(name, texts, None, options, fix)]


def _note(name: str, texts: Sequence[str], style: Style | None, options: Mapping[str, Any], fix: str) -> Note:
    share = _share(texts, style or Style(","))
    what = _words(style, options) if style else "commas"
    sentence = f"'{name}': {share:.0%} are numbers with {what}; {fix}"
    return Note(rule="mostly_numbers", column=name, count=round(share * len(texts)), sentence=sentence)


def _doubts(name: str, texts: Sequence[str]) -> list[Note]:
    """Warn of fractions that may be thousands: each has three digits, and whole numbers stand beside them."""
    fractions = [text for text in texts if "." in text]
    small = any(len(text.lstrip("+-")) <= 3 for text in texts if text.lstrip("+-").isdigit())
    if len(fractions) < _ENOUGH or not small or not all(map(_THREE.fullmatch, fractions)):
        return []
    example = fractions[0]
    sentence = (
        f"'{name}': all {len(fractions):,} fractions have three digits, as {example}, and whole numbers stand beside "
        f"them; if it means {example.replace('.', '')}, set data.options.decimal: ',' and data.options.thousands: '.'"
    )
    return [Note(rule="doubtful_reading", column=name, count=len(fractions), sentence=sentence)]


def _share(texts: Sequence[str], style: Style) -> float:
    match = style.pattern.fullmatch
    return sum(match(text.strip()) is not None for text in texts) / len(texts) if texts else 0.0


def _is_in_doubt(texts: Sequence[str]) -> bool:
    return any("," in text for text in texts) and all(_AMBIGUOUS.fullmatch(text.strip()) for text in texts)


def _words(style: Style, options: Mapping[str, Any]) -> str:
    between = "a blank" if style.thousands and style.thousands.isspace() else repr(style.thousands)
    thousands = f"{between} between thousands" if style.thousands else ""
    decimal = "a decimal comma" if style.decimal == "," and "decimal" not in options else ""
    decimal = "a decimal point" if style == Style() else decimal
    return " and ".join(filter(None, [decimal, thousands]))
