"""Keep append-only logs in ZenML: entries 1, 2, 3 … are the versions of one artifact.

ZenML accepts each number once, so of two runs that append at the same time one is told that the other was first.
"""

from typing import Any


class Taken(Exception):
    """Another run has appended since this one looked."""


def entries(log: str, newest: int = 10_000, tag: str | None = None) -> list[Any]:
    """Return the newest entries, or those with a tag, oldest first."""
    from zenml.client import Client

    page = Client().list_artifact_versions(artifact=log, sort_by="desc:version_number", size=newest, tags=tag and [tag])
    return [version.load() for version in reversed(page.items)]


def last(log: str) -> Any | None:
    """Return the newest entry, or None before the first."""
    from zenml.client import Client

    page = Client().list_artifact_versions(artifact=log, sort_by="desc:version_number", size=1)
    return page.items[0].load() if page.items else None


def append(log: str, entry: Any, number: int, **options: Any) -> None:
    """Append the entry under the next number; raise Taken if another one has it."""
    from zenml.artifacts.utils import save_artifact
    from zenml.exceptions import EntityExistsError

    try:
        save_artifact(entry, log, version=number, **options)
    except EntityExistsError as err:
        raise Taken from err
