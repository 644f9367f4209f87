"""Stack `server`: people and robots share a ZenML server on MariaDB, an S3 and an MLflow, all real."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from clients import Client, ended
from conftest import Result
from parts import BUCKET, PASSWORD, USER, program, s3, wait_for
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


def test_plan_looks_whether_the_bucket_is_there_and_may_be_written_and_makes_nothing(
    company: Company, tmp_path: Path
) -> None:
    import boto3

    with s3(tmp_path / "s3") as endpoint:
        anybody = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
        iam = boto3.client("iam", endpoint_url=endpoint, **anybody)
        iam.create_user(UserName="reader")
        statement = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=policy)
        key = iam.create_access_key(UserName="reader")["AccessKey"]

        def plan(**variables: str) -> Result:
            return company.person("ann", S3_ENDPOINT=endpoint, STACK="looking", **variables).call(*ON_SERVER, "--plan")

        gone = plan(BUCKET="nowhere")
        assert gone.code == 2
        assert "artifact_store 'looking': s3://nowhere: there is no such bucket; create it" in gone.err
        assert len(gone.err.splitlines()) == 1
        assert httpx.head(f"{endpoint}/nowhere").status_code == 404
        assert plan().code == 0
        assert "<Upload>" not in httpx.get(f"{endpoint}/{BUCKET}?uploads").text
        assert "<Contents>" not in httpx.get(f"{endpoint}/{BUCKET}").text
        httpx.post(f"{endpoint}/moto-api/reset-auth", content="0").raise_for_status()  # from now on it asks who one is
        forbidden = plan(S3_KEY=key["AccessKeyId"], S3_SECRET=key["SecretAccessKey"])
        assert forbidden.code == 2
        assert f"s3://{BUCKET}: it cannot be written (" in forbidden.err
        assert "AccessDenied" in forbidden.err


def test_printed_commands_work_pasted_by_whoever_logs_in_either_way(company: Company, tmp_path: Path) -> None:
    def paste(command: str, client: Client) -> subprocess.Popen[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        world = client.environment | {"HOME": str(tmp_path), "PATH": path, "COLUMNS": "500"}
        return subprocess.Popen(command, shell=True, env=world, text=True, stdout=-1, stderr=subprocess.STDOUT)

    ann = company.person("ann", MLFLOW_USER="{{of_ann.username}}", MLFLOW_PASSWORD="{{of_ann.password}}")
    (command,) = re.findall(r"ZENML_CONFIG_PATH=[^;\n]+", ann.call(*ON_SERVER, "--plan").err)
    assert command.endswith("zenml secret create of_ann --username=… --password=…")
    done = paste(command, ann)
    assert "successfully created" in done.communicate(timeout=300)[0]
    assert ann.call(*ON_SERVER, "--plan").code == 0
    nobody = company.client("nobody")
    (command,) = re.findall(r"ZENML_CONFIG_PATH=[^;\n]+", nobody.call(*ON_SERVER, "--plan").err)
    done = paste(command, nobody)
    assert done.stdout
    found = next(match for line in done.stdout if (match := re.search(r"device_id=([\w-]+)&user_code=(\w+)", line)))
    company.server.ask("PUT", f"/devices/{found[1]}/verify", json={"user_code": found[2], "trusted_device": True})
    done.communicate(timeout=300)
    assert nobody.call(*ON_SERVER, "--plan").code == 0


def test_two_people_and_a_robot_train_at_once_and_each_is_on_record(company: Company) -> None:
    clients = {"ann": company.person("ann"), "ben": company.person("ben"), "robot": company.robot()}
    trainings = [client.train(f"of_{who}", *ON_SERVER) for who, client in clients.items()]
    for result in [ended(training) for training in trainings]:
        assert result.code == 0, result.err
        assert re.search("champion +version 1", result.out)
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
    assert re.search("champion +version 1", result.out)


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
