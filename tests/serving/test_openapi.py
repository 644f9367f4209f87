"""The OpenAPI page tells the truth: what it lets a client send is answered, and answered as it says."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance
from servers import TOKEN, Model, breast_cancer, fraud, running

OPERATIONS = [
    ("breast_cancer", "POST /predict"),
    ("breast_cancer", "POST /predict_csv"),
    ("breast_cancer", "POST /explain"),
    ("breast_cancer", "POST /invocations"),
    ("breast_cancer", "POST /feedback"),
    ("breast_cancer", "POST /feedback_csv"),
    ("breast_cancer", "GET /model"),
    ("breast_cancer", "GET /audit"),
    ("breast_cancer", "GET /audit_csv"),
    ("fraud", "POST /predict"),
    ("fraud", "POST /predict_csv"),
    ("fraud", "POST /invocations"),
    ("fraud", "POST /feedback"),
    ("fraud", "POST /feedback_csv"),
    ("fraud", "GET /model"),
    ("fraud", "GET /audit"),
    ("fraud", "GET /audit_csv"),
]
# JSON Schema has no bounds for times; these are within the contract.
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1)).map(lambda moment: f"{moment.isoformat()}Z")
REJECTIONS = {"negative_data_rejection": {"expected-statuses": [400, 413, 422]}}
CASES = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class Page(NamedTuple):
    document: schemathesis.BaseSchema
    client: httpx.Client


@pytest.fixture(scope="module")
def breast_cancer_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(tmp_path_factory.mktemp("server"), breast_cancer(), None, 0.0) as page:
        yield page


@pytest.fixture(scope="module")
def fraud_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(tmp_path_factory.mktemp("server"), fraud(), TOKEN, 0.2) as page:
        yield page


@pytest.fixture
def page(request: pytest.FixtureRequest, use_case: str) -> Any:
    return request.getfixturevalue(f"{use_case}_page")


@contextmanager
def served(folder: Path, trained: Model, token: str | None, audit: float) -> Iterator[Page]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    schemathesis.openapi.format("date-time", MOMENTS)
    with running(folder, trained, token=token, audit=audit, max_rows=100) as server:
        config = schemathesis.Config.from_dict({"headers": headers, "checks": REJECTIONS})
        document = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers, config=config)
        with httpx.Client(base_url=server.url, headers=headers) as client:
            yield Page(document, client)


def operations(document: schemathesis.BaseSchema) -> dict[str, Any]:
    return {found.ok().label: found.ok() for found in document.get_all_operations()}


@pytest.mark.parametrize(("use_case", "operation"), OPERATIONS)
def test_what_the_page_allows_is_answered_as_it_says(page: Page, operation: str) -> None:
    # That a text is a CSV of these columns, JSON Schema cannot say.
    beyond = [positive_data_acceptance] if operation.endswith("csv") else []

    @CASES
    @given(case=operations(page.document)[operation].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=beyond)

    ask()


@pytest.mark.parametrize(("use_case", "operation"), [found for found in OPERATIONS if "POST" in found[1]])
def test_what_the_page_forbids_is_refused_as_it_says(page: Page, operation: str) -> None:
    @CASES
    @given(case=operations(page.document)[operation].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate()

    ask()


@pytest.mark.parametrize("use_case", ["breast_cancer", "fraud"])
def test_the_examples_on_the_page_work_as_they_are(page: Page, use_case: str) -> None:
    assert set(operations(page.document)) == {label for name, label in OPERATIONS if name == use_case}
    document = page.client.get("/openapi.json").json()
    for path, item in document["paths"].items():
        if "post" in item:
            ((media, content),) = item["post"]["requestBody"]["content"].items()
            example = content["example"]
            body = example if isinstance(example, str) else json.dumps(example)
            for header in (media, "application/x-www-form-urlencoded"):  # the latter is what `curl -d` says
                answer = page.client.post(path, content=body, headers={"content-type": header})
                assert answer.status_code == 200, answer.text
