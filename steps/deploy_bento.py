"""Bring a bento into service: beside the old server, checked, then in its place."""

from typing import Annotated, Any

import pandas as pd
from zenml import step
from zenml.types import HTMLString

import deployer
from config import Section, Serving
from core.report import deployment_page
from serving.check import Check, check_server
from serving.deployment import Bento
from serving.release import open_release
from serving.schema import Schema


class Deployment(Section):
    """What came of a deployment."""

    changed: bool
    """False: this very release was serving already."""
    url: str
    """Empty where nothing was started."""
    process: str
    """What serves it; where nothing was started, what to run."""
    bento: Bento
    replaced: str | None
    """The release that had the traffic before."""
    checks: tuple[Check, ...]
    example: dict[str, Any]
    """A row that the service takes."""


@step(enable_cache=False)
def deploy_bento(
    bento: Bento, check_rows: pd.DataFrame, serving: Serving
) -> tuple[Annotated[Deployment, "deployment"], Annotated[HTMLString, "deployment_page"]]:
    """Start the new server, compare its answers with offline predictions, then switch the traffic to it.

    Whatever fails before the switch leaves the old server as it was.
    """
    place = deployer.active()
    before = place.status(bento.name)
    running = before is not None and before.state == "running"
    served = open_release(bento)
    example = Schema(served.card, serving).example()
    if before is not None and running and before.release == bento.release:
        deployment = Deployment(
            changed=False,
            url=before.url or "",
            process=before.process or "",
            bento=bento,
            replaced=None,
            checks=(),
            example=example,
        )
        return deployment, HTMLString(deployment_page(deployment))
    addresses = place.start(bento, serving.port, serving.workers)
    try:
        checks = tuple(check_server(address, served, check_rows, place.token) for address in addresses)
        place.switch(bento)
    except BaseException:
        place.discard(bento)
        raise
    after = place.status(bento.name)
    deployment = Deployment(
        changed=True,
        url=after.url or "" if after else "",
        process=after.process or "" if after else "",
        bento=bento,
        replaced=before.release if before is not None and running else None,
        checks=checks,
        example=example,
    )
    return deployment, HTMLString(deployment_page(deployment))
