"""Names and values that are scripts, on every page, in a real browser: they are shown, and nothing of them runs."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from servers import Model, running

from loop.config import Config, Contract, Evaluation
from loop.data.checks import ContractReport, check_rows
from loop.data.contract import learn_contract
from loop.data.split import resolve
from loop.pages.report import compare_page, contract_page, decision_page, evaluation_page, verdict_page, window_page
from loop.training.compare import Difference, compare_versions
from loop.training.fit import train
from loop.training.gate import judge
from loop.training.metrics import estimate, metric_names
from loop.watching.monitor import collect_window, examine
from loop.watching.policy import Decision
from steps.draw_drift import draw_drift

pytestmark = pytest.mark.browser

RUN = "document.title='owned';alert(1)"
SCRIPT = f"</script><script>{RUN}</script>"
IMAGE = f'<img src=x onerror="{RUN}">'
LINK = f'<a href="javascript:{RUN}">'
MARKDOWN = f"[a](javascript:{RUN}) <svg onload={RUN}>"
QUOTES = f"\"'`;{RUN}//${{{RUN}}}\\"
CLIENT = f"{SCRIPT}<!--{IMAGE}"
TARGET = f"y{IMAGE}"
WITH_CLIENT = ("verdict", "compare", "window", "contract")
"""Pages that show what the client sent."""


def hostile() -> tuple[Config, Model]:
    """Train on a table whose names, values and classes are scripts."""
    random, count = np.random.default_rng(0), 600
    rows = pd.DataFrame(
        {
            SCRIPT: random.normal(size=count),
            IMAGE: random.choice([IMAGE, LINK, MARKDOWN, QUOTES], count),
            MARKDOWN: random.choice(["a", SCRIPT], count),
            QUOTES: random.random(count) < 0.5,
            LINK: random.normal(size=count),
        }
    )
    rows[TARGET] = np.where(rows[SCRIPT] + random.normal(size=count) > 0, SCRIPT, QUOTES)
    tree = {"estimator": "sklearn.tree.DecisionTreeClassifier", "params": {"min_samples_leaf": 20}, "folds": 3}
    watching = {"min_rows": 30, "min_labels": 30, "min_psi": 0, "false_alarm_rate": 0.2}
    settings = Config.model_validate(
        {"name": "hostile", "data": {"source": "made", "target": TARGET}, "model": tree, "monitoring": watching}
    )
    rule = resolve(rows, settings.data, settings.split)
    held_out = rule.held_out(rows)
    train_rows, holdout = (rows[side].reset_index(drop=True) for side in (~held_out, held_out))
    contract = learn_contract(train_rows, settings.data, settings.contract)
    return settings, Model(train(train_rows, contract, rule, settings.recipe), holdout)


def pages(settings: Config, model: Model, url: str, log: Path) -> Iterator[tuple[str, str]]:
    """Yield each page and what it is, after a client has sent a script of its own."""
    bundle, holdout = model
    predictions = bundle.predictions(holdout)
    evaluation = Evaluation(resamples=200)
    estimates = estimate(predictions, metric_names(predictions.task), evaluation)
    yield "evaluation", evaluation_page(bundle, holdout, predictions, estimates)
    judged = judge(predictions, predictions, bundle.card.prior, settings.gate, evaluation, champion_version=1)
    yield "verdict", verdict_page("hostile", judged.model_copy(update={"reasons": (CLIENT,)}))
    scripts = (Difference(IMAGE, SCRIPT, CLIENT),)
    compared = compare_versions("hostile", (1, 2), (bundle, bundle), holdout, evaluation, (1.0, 1.0))
    yield "compare", compare_page(compared._replace(config=scripts, data=scripts, note=CLIENT))
    sent = holdout.drop(columns=TARGET).to_dict("records")[:100]
    for row in sent[:30]:
        row[IMAGE] = CLIENT
    answer = httpx.post(f"{url}/predict", json=sent)
    assert answer.status_code == 200, answer.text
    labels = [{"id": row, "label": QUOTES} for row in answer.json()["ids"]]
    assert httpx.post(f"{url}/feedback", json=labels).status_code == 200
    window = collect_window(str(log), 1, settings.monitoring, None, datetime(2099, 1, 1))
    assert (window.rows[IMAGE] == CLIENT).sum() == 30
    report = examine(window, bundle, 1, holdout, estimates, settings)
    assert {"covariate", "label"} <= set(report.kinds)
    yield "window", window_page(report, settings.monitoring)
    findings = check_rows(window.rows[list(bundle.card.contract.features)], bundle.card.contract, Contract())
    yield "contract", contract_page("hostile", ContractReport(findings=findings, rows=100), bundle.card.contract)
    decision = Decision(
        number=1, time=datetime(2026, 1, 1), by="monitoring", version=1, start=report.start, end=report.end, rows=100,
        alarms=report.alarms, labels=0, windows=(), since=None, requirements=(), action="wait", run="run",
    )  # fmt: skip
    yield "decision", decision_page("hostile", decision, [decision])
    yield "drift", draw_drift.entrypoint(bundle, holdout, window.rows, report, settings.monitoring)


def test_names_and_values_are_shown_on_every_page_and_nothing_of_them_runs(chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    settings, model = hostile()
    dialogs: list[str] = []
    with running(tmp_path, model, unseen_category="accept") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))

        def shown(title: str) -> str:
            assert page.title().startswith(title)
            assert "owned" not in page.title()
            assert page.locator("img[src=x], svg[onload], a[href^=javascript]").count() == 0
            return page.locator("body").inner_text()

        def open_all(inside: str) -> None:
            page.locator(inside).first.wait_for()
            page.evaluate("inside => document.querySelectorAll(inside).forEach(found => found.click())", inside)

        for name, content in pages(settings, model, server.url, server.log):
            path = tmp_path / f"{name}.html"
            path.write_text(content, encoding="utf-8")
            page.goto(path.as_uri())
            if name == "drift":
                open_all("td button")
                page.get_by_text("DATA DISTRIBUTION").first.wait_for()
                assert CLIENT.replace("<", "‹") in shown("")
            else:
                assert (CLIENT if name in WITH_CLIENT else IMAGE) in shown("hostile")
        page.goto(server.url)
        open_all("[aria-expanded=false]")
        open_all(".json-schema-2020-12-expand-deep-button")
        page.get_by_text("Needs true or false").first.wait_for()
        text = shown("Model service")
        assert f"P({SCRIPT})" in text
        assert all(name in text for name in model.bundle.card.contract.features)
        browser.close()
    assert dialogs == []
