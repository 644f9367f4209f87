"""Releases take over from each other under traffic, and nobody who asks is left without an answer."""

import os
from pathlib import Path

from load import traffic
from servers import breast_cancer, free_port, model, release, request_rows, start

from loop.deploying.process import LocalServer
from loop.log.records import read_predictions

SWITCHES = 20 if os.environ.get("CI") else 4  # half of them back to the former version


def test_switching_forth_and_back_under_load_fails_no_request_and_logs_what_was_answered(tmp_path: Path) -> None:
    models = (breast_cancer(), model("breast_cancer", "model.params.C=1"))
    made = [release(tmp_path / f"v{n}", trained, version=n) for n, trained in enumerate(models, 1)]
    server, port, log = LocalServer(tmp_path / "server"), free_port(), tmp_path / "log"
    try:
        start(server, made[0], tmp_path / "v1", port, log)
        server.switch(made[0].id)
        with traffic(f"http://127.0.0.1:{port}", request_rows(models[0], 60), pause=0.02) as seen:
            for number in range(1, SWITCHES + 1):
                new = number % 2
                start(server, made[new], tmp_path / f"v{new + 1}", port, log)
                server.switch(made[new].id)
                assert list(server.wanted()) == [made[new].id]
                assert [counts.name for counts in (server.folder / "state").iterdir()] == [made[new].id]
    finally:
        server.stop()
    assert not seen.faults
    assert set(seen.versions) == {1, 2}
    logged = read_predictions(log / "predictions")
    assert len(seen.ids) == len(set(seen.ids))
    assert sorted(logged["prediction_id"]) == sorted(seen.ids)
    assert logged["prediction_version"].value_counts().to_dict() == dict(seen.versions)
