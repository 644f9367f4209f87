"""What is served here is a plain bento: BentoML's own command serves it as well."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from servers import breast_cancer, free_port, release, request_rows

from loop.log.records import read_predictions


def test_bentoml_serve_answers_as_our_own_server_does(tmp_path: Path) -> None:
    made, port, rows = release(tmp_path / "v1", breast_cancer()), free_port(), request_rows(breast_cancer(), 3)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "SERVING_LOG": str(tmp_path / "log"),
        "SERVING_STATE": str(tmp_path / "state"),
        "SERVING_RELEASE_SHA256": made.hash,
    }
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "loop.serving.service:Predictor"]
    options = ["--host", "127.0.0.1", "--port", str(port)]
    with (
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(
            [*command, *options], cwd=tmp_path / "v1", env=environment, stdout=said, stderr=said
        ) as server,
    ):
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 90
            while True:
                try:
                    if httpx.get(f"{url}/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    assert time.monotonic() < deadline, (tmp_path / "said").read_text()
                time.sleep(0.1)
            answer = httpx.post(f"{url}/predict", json=rows).json()
            assert answer["scores"] == breast_cancer().bundle.scores(breast_cancer().holdout.head(3)).tolist()
            assert "serving_requests_total" in httpx.get(f"{url}/metrics").text
        finally:
            server.terminate()
    assert read_predictions(tmp_path / "log/predictions")["prediction_id"].tolist() == answer["ids"]
