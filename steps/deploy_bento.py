"""Bring a bento into service: beside the old server, checked, then in its place."""

from typing import Annotated

import pandas as pd
from zenml import step

from loop.config import Serving
from loop.deploying import deployer
from loop.deploying.assemble import open_release
from loop.deploying.check import Check, check_server
from loop.deploying.contract import Bento, Deployer
from loop.pages.report import deployment_page
from loop.registry.materializers import Report
from loop.registry.results import Deployment
from loop.serving.release import Served
from loop.serving.schema import Schema


@step(enable_cache=False, output_materializers=Report)
def deploy_bento(bento: Bento, check_rows: pd.DataFrame, serving: Serving) -> Annotated[Deployment, "deployment"]:
    """Start the new server, compare its answers with offline predictions, then switch the traffic to it.

    Whatever fails before the switch leaves the old server as it was.
    """
    place, served = deployer.active(), open_release(bento)
    before = place.status(bento.name)
    replaced = before.release if before is not None and before.state == "running" else None
    checks = () if replaced == bento.release else _replace(place, served, bento, check_rows)
    now = place.status(bento.name)
    deployment = Deployment(
        changed=replaced != bento.release,
        url=now.url or "" if now else "",
        process=now.process or "" if now else "",
        bento=bento,
        replaced=replaced,
        checks=checks,
        example=Schema(served.card, serving).example(),
        files=place.written(bento.name),
    )
    return deployment.with_page(deployment_page(deployment))


def _replace(place: Deployer, served: Served, bento: Bento, rows: pd.DataFrame) -> tuple[Check, ...]:
    serving = served.release.serving
    try:
        addresses = place.start(bento, serving.port, serving.workers)
        secret = place.check_secret(bento)
        checks = tuple(check_server(address, served, rows, place.token, secret) for address in addresses)
        place.switch(bento)
    except BaseException:  # also when somebody presses Ctrl-C
        place.discard(bento)
        raise
    return checks
