"""Stack `server`: people and robots share a ZenML server on MariaDB, an S3 and an MLflow, all real."""

import time
from pathlib import Path

import pytest
from clients import Client, ended
from parts import PASSWORD, USER, program, wait_for
from shared import SECRETS, Company

pytestmark = pytest.mark.stacks

ON_SERVER = ("--stack", "server")


def test_plan_names_what_is_missing_on_a_server_and_apply_changes_nothing_twice(company: Company) -> None:
    ann = company.person("ann", STACK="staging")  # a second stack from the same file
    nobody = company.client("nobody", S3_KEY="{{nowhere.key}}").call(*ON_SERVER, "--plan")
    assert nobody.code == 2
    assert f"log in to {company.server.url}: set ZENML_STORE_API_KEY" in nobody.err
    missing = company.person("ann", BUCKET="", S3_KEY="{{nowhere.key}}", S3_SECRET="{{s3.nothing}}")
    result = missing.call(*ON_SERVER, "--plan")
    assert result.code == 2
    assert "set the variable BUCKET" in result.err
    assert "zenml secret create nowhere --key=…" in result.err
    assert "zenml secret update s3 --nothing=…" in result.err
    planned = ann.call(*ON_SERVER, "--plan")
    assert planned.code == 0, planned.err
    assert {line.split()[0] for line in planned.out.splitlines()} == {"create"}
    assert ann.call(*ON_SERVER, "--status").code == 0
    assert {line.split()[0] for line in ann.call(*ON_SERVER, "--plan").out.splitlines()} == {"leave"}
    moved = Client(ann.folder, ann.environment | {"S3_ENDPOINT": company.variables["S3_ENDPOINT"] + "/"})
    changed = [line for line in moved.call(*ON_SERVER, "--plan").out.splitlines() if not line.startswith("leave")]
    assert changed == ["change artifact_store staging: client_kwargs"]
    assert SECRETS["s3"]["secret"] not in result.err + planned.out


def test_two_people_and_a_robot_train_at_once_and_each_is_on_record(company: Company) -> None:
    clients = {"ann": company.person("ann"), "ben": company.person("ben"), "robot": company.robot()}
    trainings = [client.train(f"of_{who}", *ON_SERVER) for who, client in clients.items()]
    for result in [ended(training) for training in trainings]:
        assert result.code == 0, result.err
        assert "champion  version 1" in result.out
        assert company.key not in result.out + result.err
    for who, client in clients.items():
        history = clients["ann"].call(*ON_SERVER, "--history", "--set", f"name=of_{who}")  # each sees all
        assert f"promotion by {who} in run training-of_{who}-" in history.out
        left = [path.name for path in client.folder.rglob("*") if path.suffix in (".pkl", ".parquet", ".db")]
        assert not left  # rows, models and records are on the servers


def test_a_run_outlives_the_server_that_is_killed_and_comes_back(company: Company) -> None:
    ann = company.person("ann")
    company.server.prepare_successor()
    process = ann.train("outlives", *ON_SERVER)
    wait_for(lambda: (run := company.newest_run("outlives")) and run["name"], "the run to begin")
    company.server.kill_between_requests()
    time.sleep(3)
    company.server.start()
    result = ended(process)
    assert result.code == 0, result.err
    assert company.newest_run("outlives")["body"]["status"] == "completed"
    assert "champion  version 1" in result.out


@pytest.mark.browser
def test_dashboard_of_the_server_shows_the_run_and_its_report(company: Company, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    chromium = program("chromium", "Debian's chromium")
    result = ended(company.person("ben").train("of_ben", *ON_SERVER))  # from cache, if it ran before
    assert result.code == 0, result.err
    run = company.newest_run("of_ben")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000}, reduced_motion="reduce")
        # What the form does; the page behind it is drawn without a rest, which a machine without a GPU never ends.
        page.context.request.post(f"{company.server.url}/api/v1/login", form={"username": USER, "password": PASSWORD})
        page.add_init_script("localStorage.setItem('isAuthenticated', 'true')")
        page.goto(f"{company.server.url}/projects/default/runs/{run['id']}")
        page.get_by_text("register_model").first.wait_for(timeout=60_000)
        page.screenshot(path=tmp_path / "run.png")
        page.get_by_text("scorecard", exact=True).first.dispatch_event("click")
        page.get_by_role("tab", name="Visualization").last.dispatch_event("click")
        page.get_by_role("button", name="Load Preview").dispatch_event("click")
        report = page.frame_locator("iframe").locator("h1")
        report.wait_for(timeout=60_000)
        assert "of_ben" in report.inner_text()
        page.screenshot(path=tmp_path / "report.png")
        browser.close()
