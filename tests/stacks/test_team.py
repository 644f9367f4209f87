"""The page of a team's server, followed word for word by hand, and its compose file, as far as no image is needed."""

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import yaml
from parts import Part, answers, mariadb, program
from servers import free_port

from loop.config import ROOT

PAGE = (ROOT / "stacks/team/README.md").read_text(encoding="utf-8")
ROOT_CERTIFICATE = "caddy/pki/authorities/local/root.crt"
COMPOSE = ROOT / "stacks/team/compose.yaml"


def block(begins: str) -> str:
    """Return the one block of commands of the page that begins with this."""
    (found,) = [text for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S) if text.startswith(begins)]
    return str(found)


class Shell:
    """Somebody at a machine who pastes the page's blocks into one shell after another."""

    def __init__(self, folder: Path, environment: Mapping[str, str], first: str = "") -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.environment, self.first = folder, environment, first

    def paste(self, text: str, *, seconds: float = 900, **edits: str) -> str:
        """Run commands, in which a reader replaced some words; return what was printed."""
        for old, new in edits.items():
            assert old in text
            text = text.replace(old, new)
        with (self.folder / "pasted.log").open("w+") as log:  # a pipe would be held by what is started
            done = subprocess.run(
                ["bash", "-ec", self.first + text], cwd=self.folder, env=self.environment, timeout=seconds,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
            log.seek(0)
            printed = log.read()
        assert done.returncode == 0, f"{text}\n{printed}"
        return printed


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a reader's machine, whose database and bucket, empty, and private CA are here."""
    home = tmp_path / "home"
    home.mkdir()
    world = {k: v for k, v in os.environ.items() if not k.startswith(("ZENML_", "AWS_", "MLFLOW_", "S3_", "PYTHON"))}
    port = free_port()
    moto = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    bucket = Part("moto", moto, tmp_path / "s3", answers(f"http://127.0.0.1:{port}/moto-api/data.json"))
    tools = f"{ROOT / '.venv/bin'}{os.pathsep}" if (ROOT / ".venv/bin/uv").exists() else ""
    for name in ("caddy", "aws", "curl", "openssl", "git", "make"):
        program(name, f"Debian's {name}")
    with mariadb(tmp_path / "mariadb") as url:
        (home / ".curlrc").write_text(f"cacert = {tmp_path / 'caddy' / ROOT_CERTIFICATE}\n")  # pip has another
        (home / ".my.cnf").write_text(f"[client]\nsocket={tmp_path / 'mariadb/data/socket'}\n")
        try:
            bucket.start()
            yield world | {
                "HOME": str(home), "XDG_DATA_HOME": str(tmp_path / "caddy"), "PATH": tools + world["PATH"],
                "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache/uv")),
                "ZENML_AUTO_OPEN_DASHBOARD": "false", "DB": url.rpartition(":")[2].partition("/")[0],
                "S3": f"http://127.0.0.1:{port}",
            }  # fmt: skip
        finally:
            bucket.stop()


@pytest.mark.stacks
def test_a_team_gets_from_nothing_to_a_shared_server_by_the_page(reader: dict[str, str], tmp_path: Path) -> None:
    zenml, mlflow = (f"localhost:{free_port()}" for _ in range(2))
    host = Shell(tmp_path / "team", reader)
    host.paste("mariadb -u root -e 'DROP DATABASE zenml'")  # a reader's is empty
    names = {
        "zenml.example.com": zenml, "mlflow.example.com": mlflow, "https://s3.example.com": reader["S3"],
        "ZENML_PORT=8080": f"ZENML_PORT={free_port()}", "MLFLOW_PORT=5000": f"MLFLOW_PORT={free_port()}",
        "DB_PORT=3306": f"DB_PORT={reader['DB']}", "https://git.example.com/loop.git": str(ROOT),
    }  # fmt: skip
    host.paste(block("umask 077"), **names)
    host.first = block("set -a; . ./team.env")
    host.paste(block("make -C loop"))
    start, stop = block("ZENML_SERVER=true") + block("curl --retry"), block("kill ")
    try:
        host.paste(start)
        trust(host, tmp_path / "ca.crt")
        host.paste(block("as_admin()"))
        people = dict(line.split() for line in (host.folder / "people.txt").read_text().splitlines())
        assert {*people} == {"ann", "ben"}
        work = block("make .venv/ready")
        said = {}
        for name, password in people.items():
            machine = clone(tmp_path / name, host)  # what was installed above is not installed again
            said[name] = machine.paste(work, **{"ann": name, "the-password": password})
            run_url = re.search(rf"next +(https://{zenml}/projects/default/runs/[\w-]+)", said[name])
            dashboard = re.search(r"dashboard of the stack's server: (\S+)", said[name])
            assert dashboard
            assert dashboard[1] == f"https://{zenml}"
            assert "promotion by ann in run" in said[name]  # ben's is the same model
            assert bool(run_url) == (name == "ann")
            assert password not in said[name]
        assert "cached" in said["ben"]
        robot = clone(tmp_path / "ci", host)
        robot.environment = host.environment | {"ZENML_STORE_API_KEY": (host.folder / "ci.key").read_text().strip()}
        robot.first = ". .venv/bin/activate; set -a; . ./loop.env; set +a\n"
        assert "cached" in robot.paste("python run.py --pipeline training --stack server")
        page = httpx.get(
            f"https://{zenml}", verify=ssl.create_default_context(cafile=host.environment["SSL_CERT_FILE"])
        )
        assert page.status_code == 200
        assert "<title>ZenML" in page.text
        for path in (tmp_path / "ann", tmp_path / "ben"):
            assert not [*path.glob(".local/**/*.pkl"), *path.glob(".local/**/*.parquet"), *path.glob(".local/**/*.db")]
        host.paste(block("mkdir -p backup"))
        host.paste(stop)
        host.paste("mariadb -u root -e 'DROP DATABASE zenml; DROP DATABASE mlflow'")
        host.paste("aws --endpoint-url $S3_ENDPOINT s3 rm --quiet --recursive s3://$BUCKET")
        (host.folder / "basic_auth.db").unlink()
        host.paste(block("cp backup/basic_auth.db"))
        host.paste(start)
        again = robot.paste("python run.py --history --stack server; python run.py --pipeline training --stack server")
        assert "promotion by ann in run" in again
        assert "cached" in again
    finally:
        subprocess.run(["bash", "-c", stop], cwd=host.folder, capture_output=True)


def test_the_compose_file_takes_its_secrets_from_the_pages_variables_and_pins_our_versions() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    services = yaml.safe_load(text)["services"]
    given = set(re.findall(r"^(\w+)=", block("umask 077"), re.M))
    asked = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    assert {name for name, _ in asked} <= given
    assert {must for _, must in asked} == {":?"}  # one that is missing ends it before anything starts
    held = [pair for service in services.values() for pair in service.get("environment", {}).items()]
    secret = [value for name, value in held if re.search("PASSWORD|SECRET|KEY", name)]
    assert len(secret) == 9
    assert all(re.fullmatch(r"\$\{\w+:\?\}", value) for value in secret)
    ours = dict(re.findall(r"^(zenml|mlflow)(?:\[.*\])?==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert services["zenml"]["image"] == f"zenmldocker/zenml-server:{ours['zenml']}"
    assert f'"mlflow[auth]=={ours["mlflow"]}"' in services["mlflow"]["build"]["dockerfile_inline"]
    assert all(re.search(r":.*\d", service.get("image", ":0")) for service in services.values())
    by_hand = set(re.findall(r"\b(ZENML_\w+)=", block("ZENML_SERVER=true")))
    assert {*services["zenml"]["environment"]} - {"FORWARDED_ALLOW_IPS"} <= by_hand


@pytest.mark.stacks
def test_the_compose_file_is_as_the_compose_specification_says(tmp_path: Path) -> None:
    command = [program("uv", "uv", Path(sys.executable).parent), "tool", "run", "check-jsonschema==0.39.0"]
    command += ["--builtin-schema", "vendor.compose-spec"]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(COMPOSE.read_text(encoding="utf-8").replace("content:", "contnt:"), encoding="utf-8")
    done = {path: subprocess.run([*command, path], capture_output=True, text=True) for path in (COMPOSE, wrong)}
    assert done[COMPOSE].returncode == 0, done[COMPOSE].stdout + done[COMPOSE].stderr
    assert "contnt" in done[wrong].stdout


def trust(host: Shell, bundle: Path) -> None:
    """Let a machine trust the proxy's own CA beside those it trusts already."""
    public = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
    bundle.write_text(public.read_text() + (Path(host.environment["XDG_DATA_HOME"]) / ROOT_CERTIFICATE).read_text())
    host.environment = {**host.environment, "SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}


def clone(folder: Path, host: Shell) -> Shell:
    """Return a person's clone, with the file that everybody was given."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    shutil.copy(host.folder / "loop.env", folder)
    (folder / ".venv").symlink_to(host.folder / "loop/.venv")
    return Shell(folder, host.environment)
