"""Keep append-only logs in ZenML: entries 1, 2, 3 … are the versions of one artifact.

ZenML accepts each number once, so of two runs that append at the same time one is told that the other was first.
"""

from typing import Any

from loop.config import UserError


class Taken(Exception):
    """Another run has appended since this one looked."""


def entries(log: str, newest: int = 10_000, tag: str | None = None) -> list[Any]:
    """Return the newest entries, or those with a tag, oldest first."""
    from zenml.client import Client

    page = Client().list_artifact_versions(artifact=log, sort_by="desc:version_number", size=newest, tags=tag and [tag])
    return [_read(log, version) for version in reversed(page.items)]


def last(log: str) -> Any | None:
    """Return the newest entry, or None before the first."""
    from zenml.client import Client

    page = Client().list_artifact_versions(artifact=log, sort_by="desc:version_number", size=1)
    return _read(log, page.items[0]) if page.items else None


def append(log: str, entry: Any, number: int, **options: Any) -> None:
    """Append the entry under the next number; raise Taken if another one has it."""
    from zenml.artifacts.utils import save_artifact
    from zenml.exceptions import EntityExistsError

    try:
        save_artifact(entry, log, version=number, **options)
    except EntityExistsError as err:
        raise Taken from err


def _read(log: str, version: Any) -> Any:
    """Return an entry, if it is the one that was appended; our own materializers compare the hash themselves."""
    from zenml.materializers import PydanticMaterializer

    try:
        entry = version.load()
    except FileNotFoundError as err:
        fix = "put it back, or go on under another name: --set name=NAME"
        raise UserError(f"entry {version.version} of the log '{log}' is gone from {version.uri}; {fix}") from err
    except ValueError as err:  # no JSON, or not of an entry
        raise _changed(log, version) from err
    if version.materializer.attribute != PydanticMaterializer.__name__:
        return entry
    if PydanticMaterializer(version.uri).compute_content_hash(entry) != version.content_hash:
        raise _changed(log, version)
    return entry


def _changed(log: str, version: Any) -> UserError:
    return UserError(f"entry {version.version} of the log '{log}' was changed after it was appended")
