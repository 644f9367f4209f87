"""What is killed, stopped or filled up loses no answered prediction, and comes back."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from load import traffic
from servers import breast_cancer, free_port, release, request_rows, running, start

from loop.config import ROOT, UserError
from loop.deploying.process import LocalServer
from loop.log.records import read_predictions

SECONDS = 60


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def logged(log: Path) -> list[str]:
    return sorted(read_predictions(log / "predictions")["prediction_id"])


def test_a_worker_killed_under_load_is_replaced_and_loses_no_answered_prediction(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 60)
    with running(tmp_path, breast_cancer(), workers=2) as served, traffic(served.url, rows) as seen:
        wait(lambda: len(seen.ids) > 100)
        (victim, _) = served.server.workers(served.release.id)
        os.kill(victim["pid"], signal.SIGKILL)
        wait(lambda: victim["pid"] not in {w["pid"] for w in served.server.workers(served.release.id)})
        wait(lambda: len(served.server.workers(served.release.id)) == 2)
        count = len(seen.ids)
        wait(lambda: len(seen.ids) > count + 100)
    # Whoever waited for the killed worker sees the connection break: at most one request a client.
    assert len(seen.faults) <= 6
    assert set(seen.ids) <= set(logged(served.log))
    assert len(logged(served.log)) <= len(seen.ids) + len(seen.faults)


def test_a_server_killed_whole_is_found_stopped_and_starts_again(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 60)
    with running(tmp_path, breast_cancer()) as served:
        supervisor = served.server.server()
        (worker,) = served.server.workers(served.release.id)
        assert supervisor is not None
        with traffic(served.url, rows, pause=0.01) as seen:
            wait(lambda: len(seen.ids) > 50)
            for process in (supervisor, worker):
                os.kill(process["pid"], signal.SIGKILL)
        wait(lambda: served.server.server() is None)  # SIGKILL returns before the kernel has freed the lock
        assert set(seen.ids) <= set(logged(served.log))
        start(served.server, served.release, tmp_path / "v1", supervisor["port"], served.log)
        served.server.switch(served.release.id)
        assert httpx.post(f"{served.url}/predict", json=rows[0]).status_code == 200


def test_a_server_outlives_the_process_and_the_terminal_that_started_it(tmp_path: Path) -> None:
    made, port = release(tmp_path / "v1", breast_cancer()), free_port()
    server = LocalServer(tmp_path / "server")
    wanted = {"id": made.id, "folder": str(tmp_path / "v1"), "sha256": made.hash, "workers": 1, "log": "log"}
    code = (
        "import sys; from pathlib import Path; from loop.deploying.process import LocalServer\n"
        f"server = LocalServer(Path({str(server.folder)!r}))\n"
        f"server.start({wanted!r}, '127.0.0.1', {port}, None, {{}}); server.switch({made.id!r})\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, start_new_session=True) as terminal:
        try:
            assert terminal.stdout is not None
            assert terminal.stdout.readline() == b"up\n"
            os.killpg(terminal.pid, signal.SIGHUP)  # what a terminal does to what it started when it closes
            terminal.wait(SECONDS)
            assert httpx.get(f"http://127.0.0.1:{port}/readyz").json() == {"ready": True, "release": made.id}
        finally:
            server.stop()


def test_workers_finish_and_stop_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, breast_cancer()) as served:
        supervisor = served.server.server()
        (worker,) = served.server.workers(served.release.id)
        assert supervisor is not None
        os.kill(supervisor["pid"], signal.SIGKILL)
        wait(lambda: not Path(f"/proc/{worker['pid']}").exists())
        wait(lambda: served.server.server() is None)  # SIGKILL returns before the kernel has freed the lock


def delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # its server writes as it goes


FATES: dict[str, Callable[[Path], Any]] = {
    "deleted": delete,
    "moved": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "replaced by a file": lambda folder: folder.rename(folder.with_name("elsewhere")).with_name(folder.name).touch(),
}


@pytest.mark.parametrize("fate", FATES)
def test_a_server_whose_folder_is_gone_stops_and_frees_its_port(tmp_path: Path, fate: str) -> None:
    with running(tmp_path, breast_cancer()) as served:
        supervisor = served.server.server()
        (worker,) = served.server.workers(served.release.id)
        assert supervisor is not None
        (output,) = served.server.folder.glob("v*.log")
        with output.open() as said:
            FATES[fate](served.server.folder)
            wait(lambda: not is_listened_on(supervisor["port"]))
            wait(lambda: not Path(f"/proc/{worker['pid']}").exists())
            assert "Traceback" not in said.read()
        assert served.server.server() is None


def is_listened_on(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_sigterm_under_load_answers_what_was_accepted_and_logs_what_was_answered(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 60)
    with running(tmp_path, breast_cancer(), workers=2) as served, traffic(served.url, rows, pause=0.01) as seen:
        wait(lambda: len(seen.ids) > 100)
        served.server.stop()
    assert logged(served.log) == sorted(seen.ids)


def test_a_release_tampered_with_does_not_start_and_leaves_the_old_one_serving(tmp_path: Path) -> None:
    rows = request_rows(breast_cancer(), 1)
    with running(tmp_path, breast_cancer()) as served:
        supervisor = served.server.server()
        assert supervisor is not None
        made = release(tmp_path / "v2", breast_cancer(), version=2)
        model = tmp_path / "v2/release/model.pkl"
        model.write_bytes(model.read_bytes() + b" ")
        with pytest.raises(UserError, match=r"model\.pkl was changed after the model was deployed"):
            start(served.server, made, tmp_path / "v2", supervisor["port"], served.log)
        served.server.discard(made.id)
        assert httpx.post(f"{served.url}/predict", json=rows[0]).json()["version"] == 1
        card = tmp_path / "v1/release/release.json"
        card.write_text(card.read_text().replace('"version": 1', '"version": 9'))
        (worker,) = served.server.workers(served.release.id)
        os.kill(worker["pid"], signal.SIGKILL)  # its successor reads the changed file
        log = served.server.folder / f"{served.release.id}.log"
        wait(lambda: "release.json was changed" in log.read_text())


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    made = release(tmp_path / "v1", breast_cancer())
    with running(tmp_path / "other", breast_cancer()) as other:
        taken, server = other.server.server(), LocalServer(tmp_path / "server")
        assert taken is not None
        port, pid, folder = taken["port"], taken["pid"], other.server.folder
        said = f"{port} cannot be listened on .*; the server of {folder} has it, stop that one: kill {pid}, or choose"
        with pytest.raises(UserError, match=said):
            start(server, made, tmp_path / "v1", taken["port"], tmp_path / "log")
        assert not server.folder.exists(), "it is told before anything is started"
        sibling = LocalServer(folder.parent / "sibling")
        with pytest.raises(UserError, match=f"stop that one: python run.py --stop --set name={folder.name}, or choose"):
            start(sibling, made, tmp_path / "v1", taken["port"], tmp_path / "log")


def test_a_full_disk_refuses_what_it_cannot_log_and_recovers(tmp_path: Path, small_disk: Path) -> None:
    rows = request_rows(breast_cancer(), 1)
    (tmp_path / "log").symlink_to(small_disk)
    answered = []
    with running(tmp_path, breast_cancer()) as served, httpx.Client(base_url=served.url) as client:
        while (answer := client.post("/predict", json=rows)).status_code == 200:
            answered += answer.json()["ids"]
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "No space left" in answer.json()["error"]
        assert client.get("/livez").status_code == 200
        assert logged(served.log) == sorted(answered)
        assert "serving_log_errors_total" in client.get("/metrics").text
        subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
        again = client.post("/predict", json=rows)
        assert again.status_code == 200
        assert logged(served.log) == sorted(answered + again.json()["ids"])


def test_a_server_that_runs_keeps_its_place_and_asks_for_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"host": "127.0.0.1", "port": 3011, "token": "", "pid": 1}
    monkeypatch.setattr(LocalServer, "server", lambda _: running)
    server = LocalServer(tmp_path / "kunden")
    stop = "stop it first: python run.py --stop"
    assert server.check("127.0.0.1", 3011, None) is None
    assert server.check("127.0.0.1", 3000, None) == f"the server stays at 127.0.0.1:3011; for 127.0.0.1:3000 {stop}"
    server._supervise("127.0.0.1", 3000, None, {})
    fault = rf"'kunden' at 127\.0\.0\.1:3011 runs with another token; set SERVING_TOKEN to it, or {stop}"
    with pytest.raises(UserError, match=fault):
        server._supervise("127.0.0.1", 3011, "secret", {})
