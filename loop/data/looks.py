"""Tell what a file is from its first bytes, and which encoding its text has."""

from __future__ import annotations

import re

_MARKS = {
    b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip",
    b"PAR1": "parquet", b"\xd0\xcf\x11\xe0": "ole", b"SQLite format 3\0": "sqlite", b"ARROW1": "arrow",
}  # fmt: skip
_CODECS = {"gzip": ".gz", "bz2": ".bz2", "xz": ".xz", "zstd": ".zst", "zip": ".zip"}
_PROMISED = {"parquet": "parquet", "xlsx": "xlsx"}
_FORMATS = {**{codec: codec for codec in _CODECS}, "parquet": "Parquet", "xlsx": "Excel"}
_JSON = ("json", "jsonl", "ndjson")
_WORDS = {
    "parquet": "a Parquet file", "xlsx": "an Excel workbook", "zip": "a zip archive", "json": "JSON",
    "ole": "an old Excel workbook or one with a password", "sqlite": "an SQLite database", "arrow": "an Arrow file",
    "ods": "an OpenDocument file", "html": "a web page, perhaps one that asks for a login",
}  # fmt: skip
_ADVICE = {
    "ole": "save it as .xlsx without a password",
    "sqlite": "set data.source: sqlite:///{path} and data.query",
    "html": "download the table itself",
    "ods": "save it as .xlsx",
    "arrow": "save it as Parquet",
}
_ENDINGS = re.compile(r"(\.(csv|tsv|jsonl|ndjson|json|parquet|pq|xlsx|gz|bz2|xz|zst|zip))+$", re.I)
_BOMS = {
    b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}  # fmt: skip


def mark(head: bytes) -> str | None:
    """Return what the first bytes of a file say it is; None for text, of which HTML and JSON alone are told."""
    for magic, what in _MARKS.items():
        if head.startswith(magic) and not (magic.isascii() and _is_text(head)):  # a column may be called PAR1
            first = head[30:50] if what == "zip" else b""  # the name of an archive's first entry, whoever wrote it
            if first.startswith((b"[Content_Types]", b"_rels/", b"xl/", b"docProps/")):
                return "xlsx"
            return "ods" if first.startswith(b"mimetype") else what
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    return "json" if re.match(rb'\{\s*["}]|\[\s*[\[{]', head.removeprefix(b"\xef\xbb\xbf").lstrip()) else None


def wrong_mark(name: str, path: str, head: bytes, ending: str, codec: str | None) -> str | None:
    """Say in one sentence what a file is that is not what its name says, and what to call it; None where it is.

    `head` are its first bytes as they are stored.
    """
    promised = codec or _PROMISED.get(ending, "text")
    what = "parquet" if promised == "parquet" and head.startswith(b"PAR1") else mark(head)
    if promised == "text" and what is None and ending in _JSON and re.match(rb"\s*[^\s{\[\xef\xfe\xff\0]", head):
        return f"{name} is text, but not JSON; name it {_ENDINGS.sub('', name)}.csv"
    if what == promised or (what is None and promised == "text") or (what == "json" and ending in _JSON):
        return None
    stem, unpacked = _ENDINGS.sub("", name), name.rpartition(".")[0]
    if what in _CODECS:
        packed = f"{unpacked if codec else name}{_CODECS[what]}"
        advice = "unpack it" if promised in ("parquet", "xlsx") else f"name it {packed}"
    elif what is not None:
        advice = _ADVICE.get(what, f"name it {stem}.{what}").format(path=path)
    elif not _is_text(head):
        return f"{name} is not a whole {_FORMATS[promised]} file; was it cut off, or is it something else?"
    else:
        what, advice = "text", f"name it {unpacked if codec else stem + '.csv'}"
    return f"{name} is {_WORDS.get(what, what)}; {advice}"


def wrong_content(name: str, head: bytes, ending: str) -> str | None:
    """Say the same of what a compressed file or an archive holds."""
    what = mark(head)
    if what is None or (what == "json" and ending in _JSON):
        return None
    return f"{name} holds {_WORDS.get(what, what)}; unpack it, and look what it is"


def better_name(name: str, path: str, head: bytes) -> str | None:
    """Say what a file is whose ending says nothing, and what to call it; None where its bytes do not tell."""
    stem, what = name.rpartition(".")[0] or name, mark(head)
    if what in _ADVICE:
        return f"it is {_WORDS[what]}; {_ADVICE[what].format(path=path)}"
    if what is None and not _is_text(head):
        return None
    ending = f".csv{_CODECS[what]}" if what in _CODECS else f".{what}" if what else ".csv"
    return f"it is {_WORDS.get(what, what) if what else 'text'}; name it {stem}{ending}"


def encoding_by_mark(head: bytes) -> str | None:
    """Return the encoding that a byte order mark names."""
    return next((encoding for mark, encoding in _BOMS.items() if head.startswith(mark)), None)


def fitting_encoding(sample: bytes) -> str:
    """Return the likeliest encoding of text that is not UTF-8.

    Letters of other alphabets stand side by side, those with accents among plain ones. Of these, cp1252 lacks five
    bytes: where they occur, the text is older: from DOS (cp850) or a Mac, whichever has more small letters. latin-1
    would take any byte, and make `€` a control character.
    """
    if encoding := encoding_by_mark(sample):
        return encoding
    if encoding := wide_encoding(sample):
        return encoding
    if _is_text(sample):
        return "utf-8"
    runs = re.findall(rb"[\x80-\xff]+", sample)
    if sum(len(run) for run in runs if len(run) > 2) > 0.5 * sum(map(len, runs)):
        from charset_normalizer import from_bytes

        if guess := from_bytes(b" ".join(re.findall(rb"[^\s,;]*[\x80-\xff][^\s,;]*", sample))).best():
            return guess.encoding.replace("_", "-")
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        high = bytes(byte for byte in sample if byte > 127)
        return max(("cp850", "mac-roman"), key=lambda name: sum(map(str.islower, high.decode(name))))
    return "cp1252"


def wide_encoding(sample: bytes) -> str | None:
    """Say whether text is UTF-16 without a mark: nearly every second byte is then NUL."""
    if len(sample) < 8:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if max(even, odd) < 0.7 * half or min(even, odd) > 0.3 * half:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def is_mostly_utf8(sample: bytes) -> bool:
    """Say whether most of what is not ASCII is UTF-8, so that another encoding would harm more than it mends."""
    text = sample.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    return sum(not character.isascii() for character in text) - wrong > wrong


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return wide_encoding(head) is not None
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as err:
        return err.reason == "unexpected end of data"  # the sample ends within a character
    return True
