"""The ZenML dashboard of the clone, opened in a real browser."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import Trained

from loop.cli.console import PORT, run_url
from loop.config import ROOT

pytestmark = pytest.mark.browser


@pytest.fixture
def dashboard() -> Iterator[str]:
    """Do what `make dashboard` does where ZenML's own port is another's; stop it as `make clean` does."""
    environment = os.environ | {"ZENML_AUTO_OPEN_DASHBOARD": "false", "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "loop.cli.dashboard"]
    try:
        with socket.socket() as other:
            with suppress(OSError):  # it is taken, which is as good
                other.bind(("127.0.0.1", PORT))
                other.listen()
            done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
        (port,) = re.findall(r"http://127.0.0.1:(\d+)", done.stdout + done.stderr)
        assert int(port) != PORT
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["make", "stop", f"PY={sys.executable}"], cwd=ROOT, env=environment, check=True, timeout=120)


def test_mlflow_opens_a_use_case_on_its_metrics(champion: Trained, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    def call(*arguments: str) -> str:
        command = [sys.executable, "-m", "loop.cli.dashboard", *arguments]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240).stdout

    try:
        said = call("--mlflow")
        assert call("--mlflow") == said  # one is enough
        (url,) = re.findall(rf"^{champion.name} +(http://127\.0\.0\.1:\d+/\S+)$", said, re.M)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            )
            page = browser.new_page(viewport={"width": 1500, "height": 1000})
            page.goto(url)
            page.get_by_text("Model metrics").first.wait_for(timeout=120_000)
            assert page.get_by_text(champion.run.name[:20]).count() > 0
            browser.close()
    finally:
        call("--stop")
    with socket.socket() as tried:
        assert tried.connect_ex(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) != 0


def test_dashboard_shows_the_run_its_steps_and_the_report(
    champion: Trained, chromium: str, dashboard: str, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    run = champion.run
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        assert run_url(run) == f"{dashboard}/projects/default/runs/{run.id}"
        page.goto(run_url(run))
        page.get_by_text("register_model").first.wait_for(timeout=60_000)
        for step in run.steps:
            assert page.get_by_text(step).count() > 0, step
        page.screenshot(path=tmp_path / "run.png")
        browser.close()
    artifact = run.steps["evaluate_model"].outputs["scorecard"][0]
    url = f"{dashboard}/api/v1/artifact_versions/{artifact.id}/visualize?index=0"
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert f"<h1>{champion.name}" in json.load(answer)["value"]
