"""What results say of a run, where no test runs the whole pipeline."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loop.data.checks import Finding
from loop.deploying.contract import Bento
from loop.registry.results import Batch, Deployment, Finished, Registration
from loop.training.batch import FileReport

IMAGE = "spec: {template: {spec: {containers: [{image: registry/ill:v2}]}}}"


def finished(folder: Path, **outputs: Any) -> Finished:
    """Return a run that has these outputs."""
    artifacts = {name: SimpleNamespace(load=lambda value=value: value) for name, value in outputs.items()}
    return Finished("ill", folder, "make dashboard", artifacts)


def test_a_batch_says_how_many_rows_where_and_the_first_warnings(tmp_path: Path) -> None:
    findings = [
        Finding(rule="new_category", severity="warn", column=None, count=1, share=0.1, sentence=f"finding {number}")
        for number in range(12)
    ]
    read = (FileReport(name="a.csv", rows=1200, findings=tuple(findings)),)
    lines = Batch(files=("/out/a.parquet",), rows=1200, positive=7, read=read).summary(finished(tmp_path))
    assert lines[:3] == [
        ("scored", "1,200 rows of 1 files, 7 decided positive"),
        ("warnings", "a.csv: finding 0"),
        ("", "a.csv: finding 1"),
    ]
    assert lines[-2:] == [("", "and 2 more, in the artifact batch_report"), ("scores", "/out/*.parquet")]


@pytest.mark.parametrize("place", ["here", "in a container that is gone"])
def test_what_was_written_for_a_cluster_is_built_pushed_and_applied(tmp_path: Path, place: str) -> None:
    written = tmp_path / "written"
    if place == "here":
        written.mkdir()
    bento = Bento(
        name="ill",
        version=2,
        release="v2-1f",
        sha256="",
        tag="ill:v2-1f",
        path="/gone",
        runtime="onnx",
        note="compiled",
    )
    deployment = Deployment(
        changed=True,
        url="",
        process=f"kubectl apply -f {written}",
        bento=bento,
        replaced="v1-2e",
        checks=(),
        example={"a": 1, "b": "x,y"},
        files={"ill-deployment.yaml": IMAGE},
        page="<h1>page</h1>",
    )
    folder = tmp_path / "reports/ill"
    lines = dict(deployment.summary(finished(folder, bento=bento.model_copy(update={"path": "/bento"}))))
    manifests = written if place == "here" else tmp_path / "manifests/ill"
    assert lines["written"] == "version 2 of ill, release v2-1f, in place of v1-2e"
    assert lines["url"] == "none: nothing was started"
    assert lines["image"] == "docker build -f /bento/src/loop/serving/Dockerfile -t registry/ill:v2 /bento"
    assert lines[""] == "docker push registry/ill:v2"
    assert lines["next"] == f"kubectl apply -f {manifests}"
    assert place == "here" or (manifests / "ill-deployment.yaml").read_text() == IMAGE
    assert (folder / "deployment.html").read_text() == "<h1>page</h1>"
    assert (folder / "request.csv").read_text().split() == ["a,b", '1,"x,y"']


@pytest.mark.parametrize(
    ("decision", "then", "follows"),
    [("promote", "deployment", "deployment"), ("promote", None, None), ("hold", "deployment", None)],
)
def test_only_a_promotion_that_asks_for_it_is_deployed_at_once(decision: Any, then: str | None, follows: Any) -> None:
    made = Registration(version=2, decision=decision, reasons=(), champion=2, then=then)
    assert made.follows == follows
