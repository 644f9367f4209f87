"""The ZenML dashboard of the clone, opened in a real browser."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Trained

from config import ROOT

pytestmark = pytest.mark.browser


@pytest.fixture
def dashboard() -> Iterator[str]:
    """Run `zenml login --local` in the tests' ZenML home, and stop it as `make clean` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    zenml = str(Path(sys.executable).with_name("zenml"))
    environment = {key: value for key, value in os.environ.items() if key != "ZENML_STORE_URL"}
    environment["ZENML_AUTO_OPEN_DASHBOARD"] = "false"
    login = [zenml, "login", "--local", "--ip-address", "127.0.0.1", "--port", port]
    try:
        subprocess.run(login, env=environment, check=True, capture_output=True, timeout=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        subprocess.run(["make", "stop", f"PY={sys.executable}"], cwd=ROOT, env=environment, check=True, timeout=120)


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
        page.goto(f"{dashboard}/projects/default/runs/{run.id}")
        page.get_by_text("register_model").first.wait_for(timeout=60_000)
        for step in run.steps:
            assert page.get_by_text(step).count() > 0, step
        page.screenshot(path=tmp_path / "run.png")
        browser.close()
    artifact = run.steps["evaluate_model"].outputs["scorecard"][0]
    url = f"{dashboard}/api/v1/artifact_versions/{artifact.id}/visualize?index=0"
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert f"<h1>{champion.name}" in json.load(answer)["value"]
