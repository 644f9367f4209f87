"""The environment variables that a config names, and the secrets that it must not hold itself.

`$(NAME)` is read where it is used, so no secret stands in a file, a log or a run; of `${NAME}` ZenML would store what
it stands for.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

_EARLY = re.compile(r"\$\{(\w+)\}")
_LATE = re.compile(r"(?:(?:bearer|basic|token|apikey) )?(?:\$\(\w+\))*", re.I)
_SECRET = re.compile(
    r"(pass_?(word|wd|phrase)|secret|token|apikey|(access|account|private|secret)_?key|signature|credentials?|"
    r"authorization|connection_?string)$|(?<![a-z])(key|pass|pwd|pw|sig|sas|jwt|auth|cookies?|headers)$"
)
_HARMLESS = re.compile(r"(ssl|primary|foreign|public|partition|group|sort)_key|accept(-\w+)?|user-agent")
_PAIR = re.compile(r"(?:^|(?<=[\s;,?&]))([\w-]+)\s*=\s*('[^']*'|\"[^\"]*\"|\{[^}]*\}|[^\s;,&]*)")
"""Of a connection string, as libpq, ODBC and Azure have them: `host=h password='…'`, `UID=ann;PWD={…}`."""
_SCHEME = re.compile(r"([a-zA-Z]\w*)://|([a-zA-Z]\w+):/(?!/)|^(//)")  # the last two are mistyped
_PUBLIC = ("anon", "cloud", "google_default", "browser", "cache")  # what gcsfs takes for a token
_TOKEN_ALONE = re.compile(r"https?|git|s3a?|gs|gcs")
"""Schemes where a user without a password is a token; elsewhere it is a name, or a container of Azure."""
_PORT = re.compile(r"\d{1,5}/")
_HAS_PORTS = re.compile(r"https?|ftp|sftp|ssh|smb|(web)?hdfs")
"""Schemes whose paths may have an `@`: what stands before it is a password only if it cannot be a port."""


def late(text: str) -> str:
    """Write `$(NAME)` for `${NAME}`."""
    return _EARLY.sub(r"$(\1)", text)


def early(value: Any, name: str) -> Iterator[str]:
    """Name the strings that hold `${NAME}`, by their keys."""
    return (key for key, _, text in _strings(value, name) if isinstance(text, str) and _EARLY.search(text))


def secrets(value: Any, name: str) -> Iterator[str]:
    """Name the values, by their keys, that look like secrets and do not come from a variable."""
    for key, is_secret, found in _strings(value, name):
        if is_secret and found is not None and not isinstance(found, bool):
            if not (isinstance(found, str) and (_is_late(found) or (key.endswith("token") and found in _PUBLIC))):
                yield key
        elif isinstance(found, str) and (secret_in(found) or _has_secret_pair(found)):
            yield key


def secret_in(url: str) -> str | None:
    """Say in words what a URL holds that does not come from a variable: a password, token or signature."""
    for text in (url, unquote_plus(url)):
        for scheme in _SCHEME.finditer(text):
            rest = re.split(r"::(?=\w[\w+]*://)", text[scheme.end() :])[0]  # as in zip://*.csv::https://…
            if (found := _secret_user(scheme[scheme.lastindex or 0].lower(), rest)) or (found := _secret_key(rest)):
                return found
    return None


def shown(url: str) -> str:
    """Return a URL as it was written, without its query string, and without a password that was filled in."""
    if "://" in url:
        url = re.sub(r"(://[^:/@]*:)(?!\d{1,5}/|\$\()[^@/]*@", r"\1***@", re.split(r"[?#]", url)[0])
    return re.sub(r"\$\((\w+)\)", r"${\1}", url)


def _secret_user(scheme: str, rest: str) -> str | None:
    """Look at what stands before `@`: as the standard has it, and as SQLAlchemy, which lets a password hold `/?#`."""
    standard = re.split(r"[/?#]", rest)[0].rpartition("@")[0]
    loose = re.match(r"[^:/]*:[^@]*(?=@)", rest)
    for info in (standard, loose[0] if loose else ""):
        user, _, password = info.partition(":")
        if not (_is_late(password) or (_HAS_PORTS.fullmatch(scheme) and _PORT.match(password))):
            return "a password"
        if not (password or _is_late(user)) and _TOKEN_ALONE.fullmatch(scheme):
            return "a token"
    return None


def _secret_key(rest: str) -> str | None:
    """Look at the parameters, those of ODBC among them."""
    for parameter in re.split(r"[?&;#]", rest)[1:]:
        key, _, value = parameter.partition("=")
        if _is_called_secret(key) and not _is_late(value):
            return f"a secret ({key})"
    return None


def _has_secret_pair(text: str) -> bool:
    """Look at a text that is no URL; a `key=` alone says nothing."""
    pairs = [(key, value.strip("'\"{}")) for key, value in _PAIR.findall(text) if key.lower() != "key"]
    return any(_is_called_secret(key) and not _is_late(value) for key, value in pairs)


def _strings(value: Any, name: str, is_secret: bool = False) -> Iterator[tuple[str, bool, Any]]:
    """Yield the values below a key, each with its keys, and whether one of these says that it is a secret."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            harmless = _HARMLESS.fullmatch(str(key).lower())
            yield from _strings(item, f"{name}.{key}", not harmless and (is_secret or _is_called_secret(str(key))))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item, name, is_secret)
    else:
        yield name, is_secret, value


def _is_called_secret(key: str) -> bool:
    key = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key.strip()).lower()
    return bool(_SECRET.search(key)) and not _HARMLESS.fullmatch(key)


def _is_late(text: str) -> bool:
    """Say whether all of a text that may be secret comes from variables."""
    return bool(_LATE.fullmatch(text))
