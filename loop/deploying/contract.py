"""Say what is deployed and what a deployer does, wherever it deploys to."""

from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from loop.config import Section
from loop.serving.release import Runtime


class Bento(Section):
    """A release built into a bento."""

    name: str
    version: int
    release: str
    sha256: str
    """Of the release's `release.json`: what is served must have it."""
    tag: str
    """In BentoML's store."""
    path: str
    """Folder of the bento."""
    runtime: Runtime
    note: str
    """How the runtime was chosen."""


class Status(Section):
    """What is deployed under one name."""

    name: str
    state: Literal["running", "failing", "stopped", "written, not applied"]
    release: str
    since: datetime | None = None
    url: str | None = None
    process: str | None = None
    """A pid, a container, or whatever the place calls it."""

    @property
    def version(self) -> str:
        """Return the model's version, which a release's name begins with: v3-1f2e… is version 3."""
        return self.release.partition("-")[0].removeprefix("v")


@runtime_checkable
class Deployer(Protocol):
    """Start a release beside what runs, let it be checked, then give it the traffic. Any fault is a UserError."""

    @property
    def token(self) -> str | None:
        """The bearer token that clients must send."""

    def check_secret(self, bento: Bento) -> str:
        """Return what marks requests to a release as checks, which are not on record."""

    def check(self, name: str, port: int) -> str | None:
        """Refuse a server that could not be told of a new release; say where it stays, if that is not the port."""

    def start(self, bento: Bento, port: int, workers: int) -> list[str]:
        """Start a release that gets no traffic yet; return host:port of each worker."""

    def switch(self, bento: Bento) -> None:
        """Give a started release the traffic; stop the one that had it when it has finished what it began."""

    def discard(self, bento: Bento) -> None:
        """Stop a release that gets no traffic."""

    def status(self, name: str) -> Status | None:
        """Return what is deployed under a name, or None if nothing ever was."""

    def names(self) -> list[str]:
        """Return what was ever deployed here."""

    def stop(self, name: str) -> bool:
        """Stop what is deployed under a name; say whether something ran."""

    def written(self, name: str) -> dict[str, str]:
        """Return the files that were written in place of starting something, by name."""

    def log(self, name: str) -> str:
        """Return path or URL of the folder that holds what was asked, answered and refused, and the labels."""
