"""One company for all tests of a process: a ZenML server on MariaDB, an S3 and an MLflow, each of which starts once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from clients import Client
from parts import BUCKET, PASSWORD, ZenmlServer, mariadb, mlflow_server, s3, zenml_server

SECRETS = {
    "s3": {"key": "a-key", "secret": "a-secret-of-s3"},
    "mlflow": {"username": "loop", "password": "a-password-of-mlflow"},
}


class Company(NamedTuple):
    """What its people have in common, and where their machines' folders are."""

    server: ZenmlServer
    variables: dict[str, str]
    """What stack `server` asks for; the other files ask for more."""
    folder: Path
    key: str
    """Of the service account `robot`."""

    def client(self, name: str, stand_in: str = "", **variables: str) -> Client:
        return Client(self.folder / name, self.variables | variables, stand_in)

    def person(self, name: str, **variables: str) -> Client:
        """Return the machine of somebody who has a name and a password here."""
        return self.client(name, ZENML_STORE_USERNAME=name, ZENML_STORE_PASSWORD=PASSWORD, **variables)

    def robot(self, name: str = "robot", stand_in: str = "", **variables: str) -> Client:
        """Return a machine that has the service account's key."""
        return self.client(name, stand_in, ZENML_STORE_API_KEY=self.key, **variables)

    def newest_run(self, name: str) -> Any:
        """Return the newest training of a name, or None."""
        query = {"hydrate": "true", "sort_by": "desc:created", "name": f"startswith:training-{name}-"}
        found = self.server.ask("GET", "/runs", params=query)["items"]
        return found[0] if found else None


@pytest.fixture(scope="session")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    with (
        mariadb(folder / "mariadb") as url,
        s3(folder / "s3") as endpoint,
        mlflow_server(folder / "mlflow") as mlflow,
        zenml_server(folder / "zenml", url) as server,
    ):
        for person in ("ann", "ben"):
            server.add_user(person, PASSWORD)
        for name, values in SECRETS.items():
            server.ask("POST", "/secrets", json={"name": name, "private": False, "values": values})
        variables = {
            "ZENML_URL": server.url, "BUCKET": BUCKET, "S3_ENDPOINT": endpoint,
            "S3_KEY": "{{s3.key}}", "S3_SECRET": "{{s3.secret}}", "MLFLOW_TRACKING_URI": mlflow,
            "MLFLOW_USER": "{{mlflow.username}}", "MLFLOW_PASSWORD": "{{mlflow.password}}",
        }  # fmt: skip
        yield Company(server, variables, folder, server.add_service_account("robot"))
