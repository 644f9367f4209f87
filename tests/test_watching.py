"""Watching: what Prometheus sees of a real server, what it is told of, and who is told."""

import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from conftest import untried
from servers import TOKEN, breast_cancer, free_port, release, request_rows, start

from loop.cli import commandline
from loop.config import ROOT
from loop.deploying.process import LocalServer
from loop.log.gauges import Gauge, publish
from loop.serving import state
from loop.watching import dashboard

SECONDS = 60
NAME = "breast_cancer"
MONITORING = ROOT / "monitoring"
RULES = yaml.safe_load((MONITORING / "rules.yaml").read_text(encoding="utf-8"))
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
NAMES = sorted({name for rule in ALERTS for name in re.findall(r"[a-z:]*(?:serving|monitoring)_[\w:]+", rule["expr"])})
QUERIES = [*NAMES, *(panel.query for panels in dashboard.PANELS.values() for panel in panels)]
PUBLISHED = {
    "monitoring_window_rows": [({}, 500)],
    "monitoring_refused_share": [({}, 0.02)],
    "monitoring_alarm": [({"kind": kind}, kind == "covariate") for kind in ("covariate", "label", "concept")],
    "monitoring_column_psi": [({"column": "mean radius"}, 0.4), ({"column": "mean area"}, 0.1)],
    "monitoring_column_missing_share": [({"column": "mean radius"}, 0.0)],
    "monitoring_prediction_psi": [({}, 0.2)],
    "monitoring_reference_auc": [({}, 0.7)],
    "monitoring_label_coverage": [({}, 0.3)],
    "monitoring_performance": [({"metric": "roc_auc", "bound": b}, v) for b, v in (("low", 0.9), ("value", 0.95))],
    "monitoring_estimated_performance": [({"metric": "roc_auc"}, 0.96)],
    "monitoring_retraining_due": [({}, 0.0)],
}
GAUGES = [Gauge(name=name, help="As monitoring says.", samples=samples) for name, samples in PUBLISHED.items()]


def installed(name: str, package: str) -> str:
    """Find a program of the machine; in CI its absence is a failure."""
    path = shutil.which(name)
    if path is None:
        untried(f"no {name} on this machine, watching was not tried with it; try: apt-get install {package}")
    return path


def check(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


class Watched(NamedTuple):
    home: Path
    folder: Path
    prometheus: str
    told: list[dict[str, Any]]
    start: Callable[[str], LocalServer]

    def query(self, query: str) -> list[dict[str, Any]]:
        """Return the series that a query finds; a query that Prometheus refuses fails."""
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": query.replace("$model", ".+")})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def written(self) -> list[dict[str, Any]]:
        """Return what Prometheus is told to scrape."""
        found: list[dict[str, Any]] = json.loads((self.folder / "targets.json").read_text())
        return found

    def targets(self) -> dict[str, float]:
        return {one["metric"]["model"]: float(one["value"][1]) for one in self.query('up{job="serving"}')}


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Listen to what Alertmanager tells."""
    told: list[dict[str, Any]] = []

    class Heard(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Heard) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/?key=secret-of-the-hook", told
        finally:
            server.shutdown()
            thread.join()


def quick(folder: Path) -> Path:
    """Copy `monitoring/` with intervals that a test can wait for."""
    shutil.copytree(MONITORING, folder)
    for name in ("prometheus.yaml", "alertmanager.yaml"):
        text = (folder / name).read_text(encoding="utf-8")
        changed = re.sub(r"(scrape_interval|evaluation_interval|group_wait): \d+s", r"\1: 200ms", text)
        assert changed != text
        (folder / name).write_text(changed, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Run a server that asks for a token, and `make watch` on it with short intervals."""
    for name, package in (("prometheus", "prometheus"), ("prometheus-alertmanager", "prometheus-alertmanager")):
        installed(name, package)
    folder = tmp_path_factory.mktemp("watched")
    home, servers = folder / "serving", []
    made = release(folder / "v1", breast_cancer())

    def started(name: str) -> LocalServer:
        servers.append(LocalServer(home / name))
        start(servers[-1], made, folder / "v1", free_port(), folder / "logs" / name, token=TOKEN)
        servers[-1].switch(made.id)
        return servers[-1]

    code = (
        "import pathlib, sys; from loop.cli import watch; "
        f"watch.HERE, watch.TICK_SECONDS = pathlib.Path({str(quick(folder / 'monitoring'))!r}), 0.1; "
        "sys.exit(watch.main())"
    )
    with webhook() as (url, told):
        # Below the ports that any client of this machine may be given: two near ones have to stay free for a while.
        port = next(p for p in random.sample(range(20_000, 30_000), 100) if is_free(p) and is_free(p + 3))
        environment = os.environ | {"SERVING_HOME": str(home), "SERVING_TOKEN": TOKEN, "ALERT_WEBHOOK_URL": url}
        environment |= dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")  # nobody is there
        process = None
        try:
            started(NAME)
            process = subprocess.Popen(
                [sys.executable, "-c", code, "--port", str(port)],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            said = [process.stdout.readline() for _ in range(2)]
            assert said[-1].split() == ["prometheus", f"http://127.0.0.1:{port}/alerts"], said
            yield Watched(home, folder / "watching", f"http://127.0.0.1:{port}", told, started)
        finally:
            for server in servers:
                server.stop()
            if process is not None:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=SECONDS)
                finally:
                    process.kill()
    assert process.returncode == 0
    assert not list((folder / "watching").glob("token*")), "the token is left behind"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/-/ready")


@pytest.mark.prometheus
def test_every_panel_and_alert_finds_numbers_in_real_traffic(watched: Watched) -> None:
    publish(watched.folder.parent / "logs" / NAME, 1, datetime.now(UTC), GAUGES)
    server = LocalServer(watched.home / NAME).server()
    assert server is not None
    rows = request_rows(breast_cancer(), 20)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{server['port']}", headers={"authorization": f"Bearer {TOKEN}"}
    ) as client:
        until(lambda: watched.targets() == {NAME: 1})

        def empty() -> list[str]:
            ids = client.post("/predict", json=rows).json()["ids"]
            client.post("/feedback", json=[{"id": ids[0], "label": "benign"}])
            client.post("/predict", json=rows[0] | {"mean radius": 1e9})
            found = {query: [float(one["value"][1]) for one in watched.query(query)] for query in QUERIES}
            return [query for query, values in found.items() if not values or not all(map(math.isfinite, values))]

        deadline = time.monotonic() + 30
        while missing := empty():
            assert time.monotonic() < deadline, "\n".join(["no number from", *missing])
            time.sleep(0.1)
    (one,) = watched.query('monitoring_column_psi{column="mean radius"}')
    labels = {"model": NAME, "version": "1", "column": "mean radius", "job": "serving"}
    assert labels.items() <= one["metric"].items()
    assert "exported_model" not in one["metric"]


@pytest.mark.prometheus
def test_an_alarm_of_monitoring_is_told_with_the_next_command(watched: Watched) -> None:
    publish(watched.folder.parent / "logs" / NAME, 1, datetime.now(UTC), GAUGES)
    until(lambda: any(found["commonLabels"]["alertname"] == "Drift" for found in watched.told))
    (alert,) = next(found for found in watched.told if found["commonLabels"]["alertname"] == "Drift")["alerts"]
    assert alert["labels"] | {"model": NAME, "kind": "covariate", "version": "1"} == alert["labels"]
    assert alert["annotations"]["next"] == f"python run.py --pipeline monitoring --config configs/{NAME}.yaml"


@pytest.mark.prometheus
def test_follows_servers_that_start_die_and_are_stopped(watched: Watched) -> None:
    second = watched.start("second")
    until(lambda: watched.targets() == {NAME: 1, "second": 1})
    server = second.server()
    assert server is not None
    os.kill(server["pid"], signal.SIGKILL)
    until(lambda: watched.targets() == {NAME: 1, "second": 0})
    second.stop()
    until(lambda: [found["labels"]["model"] for found in watched.written()] == [NAME])


@pytest.mark.prometheus
def test_keeps_the_secrets_to_their_owner(watched: Watched) -> None:
    for name in ("token", "alertmanager.yaml"):
        assert (watched.folder / name).stat().st_mode & 0o777 == 0o600
    for secret, home in ((TOKEN, "token"), ("secret-of-the-hook", "alertmanager.yaml")):
        holders = [
            path for path in watched.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()
        ]
        assert holders == [watched.folder / home]
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.exists()]
        assert not [line for line in lines if secret.encode() in line]
    assert TOKEN not in httpx.get(f"{watched.prometheus}/api/v1/status/config").text


@pytest.mark.prometheus
def test_what_runs_is_what_the_tools_check(watched: Watched) -> None:
    check(installed("promtool", "prometheus"), "check", "config", str(watched.folder / "prometheus.yaml"))
    check(installed("amtool", "prometheus-alertmanager"), "check-config", str(watched.folder / "alertmanager.yaml"))


@pytest.mark.prometheus
def test_each_rule_does_what_its_test_says() -> None:
    promtool = installed("promtool", "prometheus")
    check(promtool, "check", "rules", "--lint-fatal", str(MONITORING / "rules.yaml"))
    check(promtool, "test", "rules", str(MONITORING / "rules_test.yaml"))


def test_each_alert_is_seen_to_fire_and_not_to_fire() -> None:
    tests = yaml.safe_load((MONITORING / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]
    seen = {(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test.get("alert_rule_test", ())}
    assert seen == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


def test_each_alert_says_in_a_sentence_what_is_wrong_and_what_to_do() -> None:
    page = (MONITORING / "README.md").read_text(encoding="utf-8")
    for rule in ALERTS:
        assert rule["annotations"]["summary"].endswith(".")
        assert f"`{rule['alert']}`" in page
        command = shlex.split(rule["annotations"]["next"].split(",")[0].replace("{{ $labels.model }}", NAME))
        if command[0] == "python":
            commandline.parser().parse_args(command[2:])


def test_the_dashboard_is_what_its_code_generates() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.generate(), "run: python -m loop.watching.dashboard"


def test_the_containers_are_given_files_that_are_there_and_listen_on_the_loopback() -> None:
    services = yaml.safe_load((MONITORING / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        assert service["network_mode"] == "host"
        assert re.search(r"127\.0\.0\.1", json.dumps([service.get("command"), service.get("environment")]))
        for volume in service["volumes"]:
            source = volume.removeprefix("${WATCHING_FOLDER:?}").split(":")[0]
            assert not source.startswith(".") or (MONITORING / source).is_file(), volume
    (datasource,) = yaml.safe_load((MONITORING / "grafana/datasources.yaml").read_text())["datasources"]
    assert (datasource["type"], datasource["uid"]) == (dashboard.PROMETHEUS.type_val, dashboard.PROMETHEUS.uid)


def watch(home: Path, *arguments: str, path: str = "/nowhere", token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"SERVING_HOME": str(home), "PATH": path, "SERVING_TOKEN": token}
    command = [sys.executable, "-m", "loop.cli.watch", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Pretend that a server runs which asks for no token."""
    held = state.lock(tmp_path / "serving" / NAME)
    assert held is not None
    state.write(held_by(tmp_path), {"pid": os.getpid(), "host": "0.0.0.0", "port": 3000, "token": ""})
    yield tmp_path / "serving"
    held.close()


def held_by(folder: Path) -> Path:
    return folder / "serving" / NAME / "server.json"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), ("apt-get install --no-install-recommends prometheus", "make watch ARGS=--compose")),
        (("--compose",), ("no 'docker compose'", "make watch")),
    ],
)
def test_names_what_is_missing_on_the_machine(home: Path, arguments: tuple[str, ...], named: tuple[str, ...]) -> None:
    done = watch(home, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert all(words in done.stderr for words in named)


def test_refuses_to_watch_nothing(tmp_path: Path) -> None:
    done = watch(tmp_path / "serving")
    assert done.returncode == 2
    assert done.stderr == "error: no server of this clone runs; start one: python run.py --pipeline deployment\n"


def test_says_what_is_wrong_with_the_state(home: Path) -> None:
    folder = home.parent / "watching"
    folder.write_text("something else")
    done = watch(home)
    said = f"error: something else is at {folder} (File exists); move it away and run it again\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize(("token", "words"), [("", "a token; set SERVING_TOKEN"), ("wrong", "another token")])
def test_says_which_server_asks_for_a_token(home: Path, tmp_path: Path, token: str, words: str) -> None:
    server = state.read(held_by(tmp_path))
    assert server is not None
    state.write(held_by(tmp_path), server | {"token": "0" * 64})
    done = watch(home, token=token)
    assert done.returncode == 2
    assert f"the server of {NAME} asks for {words}" in done.stderr


def test_finds_servers_in_containers_too_and_keeps_them_while_docker_is_away(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from loop.cli.watch import Servers

    (home / "fraud").mkdir()
    (home / "fraud/live").write_text("0123456789ab:3000")
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho fraud relay 9f 3010\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    servers = Servers(home)
    assert servers.targets() == {NAME: "127.0.0.1:3000", "fraud": "127.0.0.1:3010"}
    assert f"--filter=label=serving.home={home} " in (tmp_path / "asked").read_text()
    docker.write_text("#!/bin/sh\nexit 1\n")
    assert servers.targets() == {NAME: "127.0.0.1:3000", "fraud": "127.0.0.1:3010"}
    assert Servers(home).targets() == {NAME: "127.0.0.1:3000"}
