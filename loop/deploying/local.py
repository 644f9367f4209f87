"""Make servers a component of ZenML's stacks: `zenml stack describe` shows who deploys, and where.

ZenML 0.98's own deployers do not fit: its BentoML model deployer fails on every bentoml since 1.4.16, and its
pipeline deployments run a whole pipeline for each request. These flavors are of the type `model_deployer`, build
on `loop.serving`, and share one small contract, so that the deployment pipeline does not know which one it has.
"""

import os
import secrets
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from pydantic import field_validator
from zenml.model_deployers.base_model_deployer import (
    BaseModelDeployer,
    BaseModelDeployerConfig,
    BaseModelDeployerFlavor,
)
from zenml.utils.secret_utils import SecretField

from loop.config import UserError
from loop.deploying.contract import Bento, Status
from loop.deploying.process import LocalServer, answers, reached
from loop.serving.release import check_secret

LOCALHOST = "localhost"


class BentoDeployer(BaseModelDeployer):
    """What all deployers share: where the token comes from, and no part in ZenML's own life-cycle of servers."""

    @property
    def token(self) -> str | None:
        """Return the bearer token that clients must send, from the component's secret or SERVING_TOKEN."""
        return getattr(self.config, "token", None) or os.environ.get("SERVING_TOKEN") or None

    def _hash_key(self) -> str:
        """Return the key that personal columns are hashed with: the environment's, else this clone's own."""
        if given := os.environ.get("SERVING_HASH_KEY"):
            return given
        path = _home() / "HASH_KEY"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists() or not path.stat().st_size:  # a killed run may have left an empty one
            new = path.with_name(f"HASH_KEY.{secrets.token_hex(4)}")
            with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            new.replace(path)
        return path.read_text()

    def check_secret(self, bento: Bento) -> str:
        """Return what marks requests to a release as checks, from the key that its server has too."""
        return check_secret(self._hash_key(), bento.sha256)

    def check(self, name: str, port: int) -> str | None:
        """Say nothing: where a place has rules of its own, `start` knows them."""

    def log(self, name: str) -> str:
        """Return the folder of a model's logs."""
        return str(_home().parent / "logs" / name)

    def written(self, name: str) -> dict[str, str]:
        """Return nothing: servers are started."""
        return {}

    # That life-cycle keeps the state of servers in a database, where a server that died runs for ever.
    def _elsewhere(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError("servers are deployed by 'python run.py --pipeline deployment'; see also --status and --stop")

    perform_deploy_model = perform_stop_model = perform_start_model = perform_delete_model = _elsewhere

    @staticmethod
    def get_model_server_info(service: Any) -> dict[str, str | None]:
        """Return nothing: no server is ever registered in ZenML's database."""
        return {}


class LocalConfig(BaseModelDeployerConfig):
    """Where a local server listens, and who may ask it."""

    host: str = "127.0.0.1"
    token: str | None = SecretField(default=None)

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        try:
            ip_address(host if host != LOCALHOST else "127.0.0.1")
        except ValueError as err:
            raise ValueError(f"needs an IP address of this machine or {LOCALHOST}, it is '{host}'") from err
        return host

    @property
    def address(self) -> str:
        """Return the IP address to listen on."""
        return "127.0.0.1" if self.host == LOCALHOST else self.host


class LocalDeployer(BentoDeployer):
    """Run releases as supervised processes of this machine, which outlive the pipeline and the terminal."""

    @property
    def config(self) -> LocalConfig:
        """Return the component's configuration."""
        return self._config  # type: ignore[return-value]

    def check(self, name: str, port: int) -> str | None:
        """Refuse another token than the server's that runs; it keeps its host and port, which is said."""
        return _server(name).check(self.config.address, port, self.token)

    def start(self, bento: Bento, port: int, workers: int) -> list[str]:
        """Start a release's workers on ports of their own."""
        host = self.config.address
        if not ip_address(host).is_loopback and not self.token:
            raise UserError(f"host {host} can be reached from elsewhere, which needs a token; set SERVING_TOKEN")
        release = {
            "id": bento.release,
            "folder": f"{bento.path}/src",
            "sha256": bento.sha256,
            "workers": workers,
            "log": self.log(bento.name),
        }
        environment = {"SERVING_HASH_KEY": self._hash_key()}
        return _server(bento.name).start(release, host, port, self.token, environment)

    def switch(self, bento: Bento) -> None:
        """Let the release's workers take over the public socket."""
        _server(bento.name).switch(bento.release)

    def discard(self, bento: Bento) -> None:
        """Stop the release's workers."""
        _server(bento.name).discard(bento.release)

    def names(self) -> list[str]:
        """Return the names that have a folder."""
        return sorted(path.name for path in _home().glob("[a-z]*") if path.is_dir())

    def status(self, name: str) -> Status | None:
        """Ask the supervisor's lock and a worker, never a database."""
        server = _server(name)
        release, running = server.live(), server.server()
        if release is None:
            return None
        if running is None:
            return Status(name=name, state="stopped", release=release)
        workers = server.workers(release)
        return Status(
            name=name,
            state="running" if workers and all(answers(f"127.0.0.1:{w['port']}") for w in workers) else "failing",
            release=release,
            since=datetime.fromtimestamp((server.folder / "live").stat().st_mtime, UTC),
            url=f"http://{reached(running['host'], running['port'])}",
            process=f"pid {running['pid']}, workers {', '.join(str(w['pid']) for w in workers) or 'none'}",
        )

    def stop(self, name: str) -> bool:
        """Stop the server; requests under way are answered."""
        return _server(name).stop()


class BentoFlavor(BaseModelDeployerFlavor):
    """What ZenML asks of a flavor; each of ours says it in three values."""

    called: ClassVar[str]
    config: ClassVar[type[BaseModelDeployerConfig]]
    deployer: ClassVar[type[BentoDeployer]]

    @property
    def name(self) -> str:
        """Return the flavor's name."""
        return self.called

    @property
    def config_class(self) -> type[BaseModelDeployerConfig]:
        """Return the configuration's class."""
        return self.config

    @property
    def implementation_class(self) -> type[BentoDeployer]:
        """Return the deployer's class."""
        return self.deployer


class LocalFlavor(BentoFlavor):
    """A supervised process on this machine."""

    called, config, deployer = "bento_local", LocalConfig, LocalDeployer


def _home() -> Path:
    return Path(os.environ["SERVING_HOME"])


def _server(name: str) -> LocalServer:
    return LocalServer(_home() / name)
