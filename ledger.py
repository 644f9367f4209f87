"""Keep append-only logs in ZenML: entries 1, 2, 3 … are the versions of one artifact.

ZenML accepts each number once, so of two runs that append at the same time one is told that the other was first.
"""

from typing import Any


class Taken(Exception):
    """Another run has appended since this one looked."""


def entries(log: str) -> list[Any]:
    """Return all entries, oldest first."""
    from zenml.client import Client

    page = Client().list_artifact_versions(artifact=log, sort_by="asc:version_number", size=10_000)
    return [version.load() for version in page.items]


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
