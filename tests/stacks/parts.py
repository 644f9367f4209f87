"""Real parts of real stacks: each on a free loopback port, in a folder it is given, stopped whatever happens."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from conftest import untried
from servers import free_port
from sqlalchemy import create_engine, text

BUCKET = "artifacts"  # of each object store
USER, PASSWORD = "admin", "a-password-of-tests"  # of the ZenML server
ACCOUNT, KEY = "loop", base64.b64encode(b"an-account-key-of-tests").decode()  # of the Azure Blob store
AZURITE = "azurite@3.35.0"
GIVEN_UP = timedelta(minutes=1)  # ZenML's client gave up a request as old as this
SURVEY_DONE = {"email_opted_in": False, "user_metadata": {"finished_onboarding_survey": True}}


def program(name: str, package: str, *folders: Path) -> str:
    """Return the path of an installed program; without it the test is skipped, and in CI it fails."""
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"], "/usr/sbin"]))
    if not found:
        untried(f"no program '{name}' here, so what needs it was not tried; {package} has it")
    return found


class Part:
    """A program that can be killed and started again; whatever it starts itself ends with it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.folder, self.log = name, folder, folder / "log"
        self._command, self._ready, self._environment = command, ready, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._next: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Start the next process in the background; a program that reads a line first waits for `start`."""
        with self.log.open("ab") as log:
            self._next = subprocess.Popen(
                self._command, cwd=self.folder, env=self._environment,
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def start(self, seconds: float = 180) -> None:
        """Start it and wait until it answers."""
        if not self._next:
            self.prepare()
        self._process, self._next = self._next, None
        assert self._process
        assert self._process.stdin
        with self._process.stdin as line, suppress(BrokenPipeError):
            line.write(b"\n")
        wait_for(self._ready, f"{self.name} to answer", seconds, self._alive)

    def kill(self) -> None:
        """End it, and what it started, at once."""
        self._end(self._process, signal.SIGKILL)
        self._process = None

    def stop(self) -> None:
        """End it as one should, and its successor."""
        self._end(self._process, signal.SIGTERM)
        self._end(self._next, signal.SIGKILL)
        self._process = self._next = None

    @staticmethod
    def _end(process: subprocess.Popen[bytes] | None, first: signal.Signals) -> None:
        for sent in (first, signal.SIGKILL):
            if process:
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, sent)
                    process.wait(5)
        if process and process.stdin:
            process.stdin.close()

    def _alive(self) -> None:
        if self._process and (code := self._process.poll()) is not None:
            said = self.log.read_text(errors="replace").strip()[-1500:]
            raise RuntimeError(f"{self.name} ended with code {code}; {self.log} ends with: {said}")


def wait_for(
    ready: Callable[[], Any],
    what: str,
    seconds: float = 180,
    alive: Callable[[], None] = lambda: None,
    pause: float = 0.05,
) -> Any:
    """Ask until the answer is true, and return it; a connection that fails is a no."""
    end, why = time.monotonic() + seconds, "no"
    while time.monotonic() < end:
        alive()
        try:
            if answer := ready():
                return answer
        except (OSError, httpx.TransportError) as err:
            why = str(err)
        time.sleep(pause)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}; the last answer was: {why}")


@contextmanager
def running(part: Part) -> Iterator[None]:
    try:
        part.start()
        yield
    finally:
        part.stop()


def answers(url: str) -> Callable[[], object]:
    return lambda: httpx.get(url, timeout=5).status_code < 500


@contextmanager
def mariadb(folder: Path) -> Iterator[str]:
    """Start a MariaDB of an empty database; yield its address as ZenML's server wants it."""
    import pymysql

    data, port = folder / "data", free_port()
    folder.mkdir(parents=True)
    who = ["--user=root"] if os.geteuid() == 0 else []
    install = [program("mariadb-install-db", "Debian's mariadb-server"), "--no-defaults", f"--datadir={data}", *who]
    subprocess.run([*install, "--auth-root-authentication-method=normal", "--skip-test-db"], check=True, stdout=-3)
    setup = folder / "setup.sql"  # run before the first connection
    setup.write_text(
        "CREATE DATABASE IF NOT EXISTS zenml;\n"
        "CREATE USER IF NOT EXISTS user@'127.0.0.1' IDENTIFIED BY 'password';\n"
        "GRANT ALL ON *.* TO user@'127.0.0.1';\n"
    )
    command = [
        program("mariadbd", "Debian's mariadb-server"), "--no-defaults", f"--datadir={data}", *who,
        "--bind-address=127.0.0.1", f"--port={port}", "--socket=socket", f"--init-file={setup}",
        "--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync", "--skip-name-resolve",
    ]  # fmt: skip

    def ready() -> bool:
        try:
            pymysql.connect(host="127.0.0.1", port=port, user="user", password="password", database="zenml").close()
        except pymysql.OperationalError as err:
            raise ConnectionError(str(err)) from err
        return True

    with running(Part("MariaDB", command, folder, ready)):
        yield f"mysql://user:password@127.0.0.1:{port}/zenml"


SERVE = """
import sys, uvicorn
from zenml.service_connectors.service_connector_registry import service_connector_registry
from zenml.zen_server.zen_server_api import app
service_connector_registry.register_builtin_service_connectors()
print("imported", flush=True)
if sys.stdin.readline():
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


class ZenmlServer(Part):
    """A ZenML server with its dashboard; what it knows is in its database.

    Its imports take longest, so call `prepare_successor` before `kill` where the next `start` must take seconds:
    ZenML's client gives up a request after 30 s.
    """

    def __init__(self, folder: Path, store_url: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ZENML_")} | {
            "ZENML_SERVER": "true",
            "ZENML_CONFIG_PATH": str(folder / "config"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_STORE_TYPE": "sql",
            "ZENML_STORE_URL": store_url,
            "ZENML_STORE_BACKUP_STRATEGY": "disabled",
            "ZENML_SERVER_AUTO_ACTIVATE": "1",
            "ZENML_SERVER_JWT_SECRET_KEY": "k" * 64,  # tokens outlive a restart
            "ZENML_DEFAULT_USER_NAME": USER,
            "ZENML_DEFAULT_USER_PASSWORD": PASSWORD,
        }
        self._database = create_engine(store_url.replace("mysql:", "mysql+pymysql:"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serve.py").write_text(SERVE)  # a server without a file of its own cannot look at flavors of ours
        command = [sys.executable, str(folder / "serve.py"), str(port)]
        super().__init__("ZenML's server", command, folder, answers(f"{self.url}/ready"), environment)

    def prepare_successor(self) -> None:
        """Have the next process at the point where it needs a moment only."""
        before = self.log.read_text(errors="replace").count("imported")
        self.prepare()
        wait_for(lambda: self.log.read_text(errors="replace").count("imported") > before, "the server's successor")

    def kill_between_requests(self) -> None:
        """End it at once, in a moment when it owes nobody an answer.

        ZenML has no way out of the other case: a request whose server died half-way stays "being processed" in its
        database, each repetition of it gets 429, and the client gives up.
        """
        assert self._process
        wait_for(self._owes_nobody, "a moment between two requests", pause=0.01)
        self.kill()

    def _owes_nobody(self) -> bool:
        """Say whether it may be killed now; if so it stands still."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)
        with self._database.connect() as database:
            open_requests = text("SELECT count(*) FROM api_transaction WHERE NOT completed AND created > :since")
            if not database.scalar(open_requests, {"since": datetime.now(UTC).replace(tzinfo=None) - GIVEN_UP}):
                return True
        os.killpg(self._process.pid, signal.SIGCONT)
        return False

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Call its REST API as the administrator."""
        with httpx.Client(base_url=f"{self.url}/api/v1", timeout=30) as client:
            login = client.post("/login", data={"username": USER, "password": PASSWORD}).raise_for_status()
            client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
            return client.request(method, path, **options).raise_for_status().json()

    def add_user(self, name: str, password: str) -> None:
        """Create a user who is no administrator and is asked no question by the dashboard."""
        self.ask("POST", "/users", json={"name": name, "password": password, "is_admin": False, **SURVEY_DONE})

    def add_service_account(self, name: str) -> str:
        """Create a service account; return its API key."""
        account = self.ask("POST", "/service_accounts", json={"name": name, "active": True})
        key = self.ask("POST", f"/service_accounts/{account['id']}/api_keys", json={"name": "tests"})
        return str(key["body"]["key"])


@contextmanager
def zenml_server(folder: Path, store_url: str = "") -> Iterator[ZenmlServer]:
    """Start a ZenML server on a database, of its own unless one is given; the dashboard asks its user nothing."""
    server = ZenmlServer(folder, store_url or f"sqlite:///{folder / 'zenml.db'}")
    with running(server):
        server.ask("PUT", "/current-user", json=SURVEY_DONE)
        yield server


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Start an MLflow server that keeps runs in SQLite and hands artifacts through; yield its address."""
    port = free_port()
    options = ("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts", "--workers", "1")
    places = ("--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port))
    command = [sys.executable, "-m", "mlflow", "server", *options, *places]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # four processes for agents' work
    url = f"http://127.0.0.1:{port}"
    with running(Part("MLflow's server", command, folder, answers(f"{url}/health"), environment)):
        yield url


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Start an S3 with an empty bucket; yield its endpoint, which takes any key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with running(Part("moto", command, folder, answers(f"{url}/moto-api/data.json"))):
        httpx.put(f"{url}/{BUCKET}").raise_for_status()
        yield url


@contextmanager
def blob(folder: Path, packages: Path) -> Iterator[str]:
    """Start an Azure Blob store with an empty container; yield its connection string.

    Azurite is installed into `packages`, unless it is there.
    """
    from azure.storage.blob import BlobServiceClient

    azurite = packages / "node_modules/.bin/azurite-blob"
    if not azurite.exists():
        npm = [program("npm", "Debian's npm"), "install", "--prefix", packages, "--no-audit", "--no-fund"]
        subprocess.run([*npm, "--omit=optional", "--loglevel=error", AZURITE], check=True, stdout=-3)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [azurite, "--blobPort", str(port), "--location", folder, "--skipApiVersionCheck", "--disableTelemetry"]
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
    with running(Part("Azurite", command, folder, answers(url), environment)):
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={url}/{ACCOUNT};"
        )
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container(BUCKET)
        yield connection


@contextmanager
def gcs(folder: Path) -> Iterator[str]:
    """Start a Google Cloud Storage with an empty bucket; yield the value for STORAGE_EMULATOR_HOST."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    start = ("start", "--host", "127.0.0.1", "--port", str(port), "--default-bucket", BUCKET, "--quiet")
    command = [sys.executable, "-m", "gcp_storage_emulator", "--data-dir", folder / "data", *start]
    with running(Part("the GCS emulator", command, folder, answers(f"{url}/storage/v1/b/{BUCKET}"))):
        yield url


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Start a Docker registry; yield HOST:PORT, from which Docker pulls without TLS, being loopback."""
    host, config = f"127.0.0.1:{free_port()}", folder / "config.yml"
    folder.mkdir(parents=True)
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder / 'images'}}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    command = [program("docker-registry", "Debian's docker-registry"), "serve", config]
    with running(Part("the Docker registry", command, folder, answers(f"http://{host}/v2/"))):
        yield host
