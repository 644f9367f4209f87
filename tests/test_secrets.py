"""A secret stands in an environment variable, and in nothing that this project writes."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from pydantic import ValidationError
from servers import free_port

from loop.cli import runs
from loop.config import STORED, Data, Inference, UserError, load
from loop.data.sources import read_rows
from loop.variables import shown

SIGNATURE, TOKEN = "planted5ignature", "plantedB34rer"


def data(source: str = "a.csv", **given: Any) -> Data:
    return Data(source=source, target="label", **given)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("postgresql://ann:s3cret@h/x", "a password"),
        ("postgresql://ann:pa$s3cret@h/x", "a password"),
        ("postgresql://ann:s3cret/#?x@h/x", "a password"),
        ("postgresql://ann:s3cret${PART}@h/x", "a password"),
        ("POSTGRESQL://:s3cret@h", "a password"),
        ("https:/ann:s3cret@h/x.csv", "a password"),
        ("//ann:s3cret@h/x.csv", "a password"),
        ("s3://AKIA:s3/cret@bucket/x.csv", "a password"),
        ("zip://*.csv::https://ann:s3cret@h/x.zip", "a password"),
        ("https://h/x.csv?of=https%3A%2F%2Fann%3As3cret%40h", "a password"),
        ("https://s3cret@github.com/x.csv", "a token"),
        ("git+https://s3cret@h/x.csv", "a token"),
        ("https://h/x.csv?a=1&password=s3cret", "a secret (password)"),
        ("https://h/x.csv?X-Amz-Signature=s3cret", "a secret (X-Amz-Signature)"),
        ("https://h/x.csv?sv=2024&sig=s3cret", "a secret (sig)"),
        ("https://h/x.csv?api-key=s3cret", "a secret (api-key)"),
        ("https://h/x.csv#access_token=s3cret", "a secret (access_token)"),
        ("https://h/x.csv?jwt=s3cret", "a secret (jwt)"),
        ("postgresql://h/x?user=ann&PassWord=s3cret", "a secret (PassWord)"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dann%3BPWD%3Ds3cret", "a secret (PWD)"),
    ],
)
def test_an_address_with_a_secret_is_refused_wherever_one_is_given(source: str, what: str, tmp_path: Path) -> None:
    for place in (data, lambda url: Inference(source=url), lambda url: Inference(output=url)):
        with pytest.raises(ValidationError) as error:
            place(source)
        (found,) = error.value.errors()
        assert found["msg"].startswith(f"Value error, holds {what}; put")
    config = tmp_path / "c.yaml"
    config.write_text(f"name: c\ndata: {{source: '{source}', target: y}}\n")
    with pytest.raises(UserError) as told:
        load(config)
    assert "write ${NAME}" in str(told.value)
    assert "s3cret" not in str(told.value)
    stored = Data.model_validate_json(f'{{"source": "{source}", "target": "y"}}', context=STORED)  # by earlier versions
    assert stored.source


@pytest.mark.parametrize(
    "source",
    [
        "${DB}",
        "postgresql://${USER}:${PASSWORD}@h/x?sslkey=/k&ssl_key=/k",
        "postgresql://ann@[::1]/x",
        "https://${TOKEN}@github.com/x.csv?sig=${SIG}&id=5",
        "http://h:8080/a@b.csv",
        "hdfs://h:8020/a@b.csv",
        "sftp://ann@h/x.csv",
        "abfs://container@account.dfs.core.windows.net/x.csv",
        "zip://*.csv::abfs://container@account/x.zip",
        "s3://bucket/2024:05/a@b.csv",
        "sqlite:////data/a:b@c.db",
        "data/a:b@c.csv",
    ],
)
def test_an_address_without_one_is_taken(source: str) -> None:
    assert data(source).shown_source == source.split("?")[0]


def test_a_password_that_was_filled_in_is_not_shown() -> None:
    assert shown("https://ann:s3cret@h/x.csv?sig=s3cret") == "https://ann:***@h/x.csv"


@pytest.mark.parametrize(
    "options",
    [
        {"storage_options": {"key": "s3cret"}},
        {"storage_options": {"client_kwargs": {"aws_secret_access_key": "s3cret"}}},
        {"storage_options": {"client_kwargs": {"endpoint_url": "http://ann:s3cret@h"}}},
        {"storage_options": {"headers": {"X-Mine": "s3cret"}}},
        {"storage_options": {"headers": {"Authorization": "Bearer s3cret"}}},
        {"storage_options": {"auth": ["ann", "s3cret"]}},
        {"storage_options": {"connection_string": "AccountKey=s3cret"}},
        {"accountKey": "s3cret"},
        {"passWord": "s3cret"},
        {"dsn": "host=h user=ann password=s3cret"},
        {"dsn": "host=h password = 's3cret'"},
        {"odbc": "DRIVER={X};UID=ann;PWD={s3cret}"},
        {"blob": "AccountName=ann;AccountKey=s3cret=="},
        {"password": 123},
        {"anything": "${S3CRET}"},
        {"anything": ["${S3CRET}"]},
    ],
)
def test_options_hold_no_secret_and_nothing_that_is_filled_in_early(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        data(options=options)
    (found,) = error.value.errors()
    assert "environment variable and write $(NAME)" in found["msg"]
    assert "s3cret" not in found["msg"]


def test_options_that_are_no_secret_are_taken() -> None:
    headers = {"Authorization": "Bearer $(TOKEN)", "User-Agent": "loop", "Accept": "text/csv"}
    harmless = {"token": "anon", "anon": True, "secret": None, "endpoint_url": "http://h:9000", "headers": headers}
    texts = {"dsn": "host=h user=ann password='$(PW)' sslmode=on", "query": "select key from t where key = 5 and a=b"}
    options = {**texts, "sep": ";", "sort_key": "day", "max_tokens": 5, "storage_options": harmless}
    assert data(options=options).options == options


def test_nothing_else_in_a_config_is_filled_in_early(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("name: c\ndata: {source: a.csv, target: y}\nmodel: {params: {a: ['${S3CRET}']}}\n")
    with pytest.raises(UserError, match=r"c\.yaml: model\.params\.a holds \$\{…\}, which ZenML would store"):
        load(config)


def test_variables_in_options_are_read_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "told.py").write_text("import pandas as pd\ndef told(a): return pd.DataFrame({'label': a['b']})\n")
    monkeypatch.syspath_prepend(tmp_path)
    given = data("told:told", options={"a": {"b": ["$(FIRST)!", "$(FIRST)$(SECOND)", 3]}})
    monkeypatch.setenv("FIRST", "one")
    with pytest.raises(UserError, match=r"data\.options\.a\.b needs the environment variable SECOND, which is not set"):
        read_rows(given)
    monkeypatch.setenv("SECOND", "$(FIRST)")
    assert read_rows(given).label.tolist() == ["one!", "one$(FIRST)", "3"]


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Serve a table to whoever has both secrets."""

    def do_GET(self) -> None:
        known = f"sig={SIGNATURE}" in self.path and self.headers["Authorization"] == f"Bearer {TOKEN}"
        content = self.server.table if known else b""  # type: ignore[attr-defined]
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def guarded() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Guarded) as server:
        server.table = (
            read_rows(Data(source="sklearn:breast_cancer", target="diagnosis", rows=400)).to_csv(index=False).encode()
        )  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/t.csv?sig=${{PLANTED_SIGNATURE}}"
        server.shutdown()


def test_a_planted_secret_stands_in_nothing_that_is_written(
    cli: Cli, guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_SIGNATURE", SIGNATURE)
    monkeypatch.setenv("PLANTED_TOKEN", TOKEN)
    options = "{storage_options: {headers: {Authorization: Bearer $(PLANTED_TOKEN)}}}"
    changes = ("name=planted", f"data.source='{guarded}'", f"data.options={options}", f"serving.port={free_port()}",
               f"inference.source='{guarded}'", f"inference.output={tmp_path}", "evaluation.resamples=200")  # fmt: skip
    sets = [word for change in changes for word in ("--set", change)]
    shown = ""
    try:
        for pipeline in ("training", "inference", "deployment"):
            result = cli("--pipeline", pipeline, *sets)
            assert result.code == 0, result.err
            shown += result.out + result.err
    finally:
        cli("--stop", "--set", "name=planted")
    files = [path for path in (*runs.LOCAL.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert {"zenml.db", "mlflow.db", "card.json", "bento.yaml", "evaluation.html"} <= {path.name for path in files}
    for secret in (SIGNATURE, TOKEN):
        assert secret not in shown
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
