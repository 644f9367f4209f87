"""Clients of a real server: a browser with pages of listed origins and others, nginx, and MLflow's own functions."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx
import pandas as pd
import pytest
from parts import Part, program
from servers import Running, breast_cancer, free_port, request_rows, running

from loop.log.records import read_labels, read_predictions
from loop.serving.openapi import EXAMPLE_ID

PREFIX = "/models/cancer"
PUBLIC = "ml.test"  # means 127.0.0.1 to the browser, as `rebound.test` does
LISTED, UNLISTED = "127.0.0.1", "localhost"  # under which the browser gets the same page


class World(NamedTuple):
    server: Running
    page: int
    """Port of another site."""
    keeping: int
    """Port of a proxy that passes the prefix on, and the public name."""
    stripping: int
    """Port of one that takes the prefix off, and says its own name for the server's."""


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        page, keeping, stripping = site.server_port, free_port(), free_port()
        origins = [f"http://{LISTED}:{page}", f"http://{PUBLIC}:{keeping}", f"http://{PUBLIC}:{stripping}"]
        try:
            folder = tmp_path_factory.mktemp("clients")
            with running(folder, breast_cancer(), origins=origins, prefix=PREFIX) as server:
                yield World(server, page, keeping, stripping)
        finally:
            site.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def nginx(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    binary, folder = program("nginx", "Debian's nginx-light"), tmp_path_factory.mktemp("nginx")
    paths = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}
        http {{ access_log off; {paths}
          server {{ listen 127.0.0.1:{world.keeping};
            location {PREFIX}/ {{ proxy_pass {world.server.url}; proxy_set_header Host $http_host; }} }}
          server {{ listen 127.0.0.1:{world.stripping}; location {PREFIX}/ {{ proxy_pass {world.server.url}/; }} }}
        }}"""
    )
    url = f"http://127.0.0.1:{world.stripping}{PREFIX}/readyz"
    command = [binary, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
    part = Part("nginx", command, folder, lambda: httpx.get(url).status_code == 200)
    try:
        part.start(30)
        yield
    finally:
        part.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    names = f"--host-resolver-rules=MAP {PUBLIC} 127.0.0.1, MAP rebound.test 127.0.0.1"
    with sync_playwright() as playwright:
        chromium = program("chromium", "Debian's chromium")
        opened = playwright.chromium.launch(executable_path=chromium, args=[*arguments, names])
        yield opened
        opened.close()


ASK = """async ([url, options]) => {
    try { const answer = await fetch(url, options); return [answer.type, answer.status, await answer.text()] }
    catch (error) { return [String(error)] }
}"""


def ask(page: Any, url: str, body: Any, media: str = "application/json", **options: str) -> list[Any]:
    """Let a page ask as its script would."""
    options |= {"method": "POST", "body": json.dumps(body), "headers": {"content-type": media}}
    return page.evaluate(ASK, [url, options])


@pytest.mark.browser
def test_a_page_of_a_listed_origin_gets_predictions_and_reads_refusals(world: World, browser: Any) -> None:
    page, row = browser.new_page(), request_rows(breast_cancer(), 1)[0]
    page.goto(f"http://{LISTED}:{world.page}/")
    kind, status, text = ask(page, f"{world.server.url}/predict", row)
    assert (kind, status) == ("cors", 200)
    assert json.loads(text)["scores"] == httpx.post(f"{world.server.url}/predict", json=row).json()["scores"]
    kind, status, text = ask(page, f"{world.server.url}/predict", {})
    assert (kind, status) == ("cors", 422)
    assert "is missing" in text
    page.close()


@pytest.mark.browser
def test_a_page_of_another_origin_gets_nothing_and_writes_nothing(world: World, browser: Any) -> None:
    page, row = browser.new_page(), request_rows(breast_cancer(), 1)[0]
    page.goto(f"http://{UNLISTED}:{world.page}/")
    known = len(read_predictions(world.server.log / "predictions"))
    form = {"media": "application/x-www-form-urlencoded", "mode": "no-cors"}  # needs no permission
    for url in (world.server.url, world.server.url.replace("127.0.0.1", "localhost")):  # another site, the same site
        assert ask(page, f"{url}/predict", row) == ["TypeError: Failed to fetch"]
        assert ask(page, f"{url}/predict", row, **form)[0] == "opaque"
        assert ask(page, f"{url}/feedback", {"id": EXAMPLE_ID, "label": "benign"}, **form)[0] == "opaque"
    assert len(read_predictions(world.server.log / "predictions")) == known
    assert read_labels(world.server.log / "labels").empty
    page.close()


@pytest.mark.browser
def test_a_name_that_comes_to_mean_this_machine_gets_nothing(world: World, browser: Any) -> None:
    page = browser.new_page()
    answer = page.goto(world.server.url.replace("127.0.0.1", "rebound.test") + "/model")
    assert answer.status == 403
    assert "this server is not 'rebound.test" in answer.text()
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("place", ["alone", "behind a proxy that keeps the prefix", "behind one that strips it"])
def test_the_page_opens_and_its_execute_button_predicts(world: World, nginx: None, browser: Any, place: str) -> None:
    ports = {"behind a proxy that keeps the prefix": world.keeping, "behind one that strips it": world.stripping}
    base = f"http://{PUBLIC}:{ports[place]}{PREFIX}" if place in ports else world.server.url
    page, known = browser.new_page(), len(read_predictions(world.server.log / "predictions"))
    page.goto(f"{base}/")
    operation = page.locator("#operations-default-post_predict")
    operation.locator("button.opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    status = operation.locator(".live-responses-table td.response-col_status:not(.col_header)")
    status.wait_for()
    assert status.inner_text().split()[0] == "200"
    assert operation.locator(".request-url pre").inner_text().startswith(base)
    assert len(read_predictions(world.server.log / "predictions")) == known + 1
    page.close()


@pytest.mark.parametrize("path", ["/predict", f"{PREFIX}/predict"])
def test_programs_ask_with_or_without_the_prefix(world: World, path: str) -> None:
    row = request_rows(breast_cancer(), 1)[0]
    assert httpx.post(f"{world.server.url}{path}", json=row).status_code == 200
    assert httpx.get(f"{world.server.url}{PREFIX}x{path}").status_code == 404
    assert httpx.get(f"{world.server.url}{PREFIX}").text == httpx.get(world.server.url).text


def test_mlflows_own_client_works_unchanged(world: World) -> None:
    import mlflow
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    rows = request_rows(breast_cancer(), 5)
    host, port = world.server.url.removeprefix("http://").split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=30)
    assert client.get_version().split(".")[0] == mlflow.__version__.split(".")[0]
    plain = httpx.post(f"{world.server.url}/predict", json=rows).json()
    for data in (pd.DataFrame(rows), pd.DataFrame(rows).to_numpy(), rows):
        answer = client.invoke(data)
        assert answer["scores"] == plain["scores"]
        classes = breast_cancer().bundle.card.contract.classes
        assert [classes[place] for place in answer.get_predictions("ndarray")] == plain["labels"]
        assert len(answer.get_predictions()) == len(rows)
    with pytest.raises(Exception, match=r"error code 422.*'mean radius' is missing"):
        client.invoke(pd.DataFrame([{"mean area": 1.0}]))
