"""The training pipeline, run as a user runs it; each test asks what came of it, never what was logged."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import QUICK, Cli, Result, Trained, last_run, output

from loop.cli import actions, runs
from loop.registry import champions

Train = Callable[..., Result]


def statuses() -> dict[str, str]:
    return {name: step.status.value for name, step in last_run().steps.items()}


def test_first_model_becomes_champion_by_minimum_bounds_alone_and_says_so(champion: Trained) -> None:
    assert champion.result.code == 0, champion.result.err
    (entry,) = champions.history(champion.name)
    assert (entry.version, entry.replaces, entry.kind, entry.run) == (1, None, "promotion", champion.run.name)
    assert any("first model" in reason for reason in entry.reasons)
    conditions = output("verdict", champion.run).conditions
    assert {c.metric for c in conditions} == {"roc_auc", "recall"}
    assert all(c.outcome == "passed" and c.n > 100 for c in conditions)


def test_summary_shows_steps_verdict_interval_report_and_next_command(champion: Trained) -> None:
    estimate, printed = output("scorecard", champion.run).estimates["roc_auc"], champion.result.out
    assert f"{estimate.low:.4g}" in printed
    assert all(step in printed for step in champion.run.steps)
    assert f"promote, version 1 of {champion.name}" in printed
    assert "make dashboard" in printed
    for page in ("evaluation", "contract", "verdict"):
        assert "<h1>" in (runs.LOCAL / f"reports/{champion.name}/{page}.html").read_text()


def test_second_identical_run_is_served_from_cache_and_holds_the_same_model(train: Train, champion: Trained) -> None:
    result = train(champion.name)
    assert result.code == 0
    states = statuses()
    assert {name for name, state in states.items() if state != "cached"} == {
        "ingest_rows",     # only reading tells whether the source has changed
        "fetch_champion",  # there is a champion now, so whatever looks at it runs again
        "validate_rows",
        "accept_rows",
        "compare_models",
        "register_model",
    } - {name for name, state in states.items() if state == "cached"}  # fmt: skip
    assert states["train_model"] == states["evaluate_model"] == states["split_rows"] == "cached"
    registration = output("registration")
    assert (registration.decision, registration.version) == ("hold", 1)
    assert "same model" in registration.reasons[0]
    assert len(champions.history(champion.name)) == 1
    train(champion.name)
    assert [name for name, state in statuses().items() if state != "cached"] == [
        "fetch_champion",
        "ingest_rows",
        "register_model",
    ]


def test_no_cache_runs_every_step_again(train: Train, champion: Trained) -> None:
    train(champion.name, options=("--no-cache",))
    assert set(statuses().values()) == {"completed"}


@pytest.fixture
def contest(train: Train, once: Callable[..., Any]) -> list[Any]:
    """Train a weak, a better and a bad model of one name, once; return their runs."""
    models = ["model.params={C: 0.00001}"], [], ["model={estimator: sklearn.dummy.DummyClassifier}"]

    def trained(*changes: str) -> Any:
        train("contest", "gate.minimum={}", *changes)
        return last_run()

    return once("contest", lambda: [trained(*changes) for changes in models])


def test_a_better_model_is_promoted_and_a_bad_one_rejected_on_the_same_holdout(contest: list[Any]) -> None:
    better = output("verdict", contest[1])
    assert better.decision == "promote"
    assert better.champion_version == 1
    bad = output("registration", contest[2])
    assert (bad.decision, bad.version, bad.champion) == ("reject", 3, 2)
    assert better.rows == output("verdict", contest[2]).rows
    assert [e.version for e in champions.history("contest")] == [1, 2]


def test_registries_show_who_is_champion_and_who_challenger(contest: list[Any]) -> None:
    from mlflow import MlflowClient
    from zenml.client import Client

    tags = {v.number: {t.name for t in v.tags} for v in Client().list_model_versions(model="contest", hydrate=True)}
    assert tags == {1: set(), 2: {"champion"}, 3: {"challenger"}}
    assert Client().get_model_version("contest", "production").number == 2
    assert set(Client().get_model_version("contest", 2).data_artifact_ids) >= {
        "verdict",
        "scorecard",
        "train_rows",
    }
    mlflow = MlflowClient(Client().active_stack.experiment_tracker.get_tracking_uri())
    for alias, number in (("champion", "2"), ("challenger", "3")):
        assert mlflow.get_model_version_by_alias("contest", alias).tags["zenml_version"] == number


def test_mlflow_holds_params_metrics_data_and_a_model_that_predicts_alike(champion: Trained) -> None:
    import mlflow
    from zenml.client import Client

    bundle, holdout = output("model", champion.run), output("holdout_rows", champion.run)
    mlflow.set_tracking_uri(Client().active_stack.experiment_tracker.get_tracking_uri())
    try:
        version = mlflow.MlflowClient().get_model_version_by_alias(champion.name, "champion")
        tracked = mlflow.get_run(version.run_id)
        assert tracked.data.params["model.estimator"] == bundle.card.recipe.model.estimator
        estimate = output("scorecard", champion.run).estimates["roc_auc"]
        assert tracked.data.metrics["roc_auc"] == estimate.value
        assert tracked.data.metrics["roc_auc_low"] == estimate.low
        (data,) = tracked.inputs.dataset_inputs
        assert bundle.card.data.startswith(data.dataset.digest)
        features = holdout[list(bundle.card.contract.features)].astype(float)
        loaded = mlflow.sklearn.load_model(version.source)
        assert (loaded.predict_proba(features)[:, 1] == bundle.scores(holdout)).all()
        info = mlflow.models.get_model_info(version.source)
        assert info.signature.inputs.input_names() == list(features)
        assert info.saved_input_example_info is not None
    finally:
        mlflow.set_tracking_uri("")


def test_mlflow_holds_a_recipe_of_any_names_and_any_length(train: Train, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from zenml.client import Client

    random = np.random.default_rng(0)
    table = pd.DataFrame({"income (€)": random.normal(size=300), "x": random.normal(size=300)})
    table["größe=1"] = random.choice(["x", "y"], 300)
    table["y"] = (table["income (€)"] + table["x"] + random.normal(size=300) > 0) * 1
    idle = [f"idle {number}" for number in range(1000)]
    pd.concat([table, pd.DataFrame(0, index=table.index, columns=idle)], axis=1).to_parquet(tmp_path / "odd.parquet")
    kinds = {"income (€)": "numeric", "größe=1": "categorical"}
    config = tmp_path / "odd.yaml"
    data = {"source": str(tmp_path / "odd.parquet"), "target": "y", "drop": idle, "kinds": kinds}
    config.write_text(json.dumps({"name": "odd_names", "data": data}))
    result = train("odd_names", options=("--config", str(config)))
    assert result.code == 0, result.err
    mlflow = MlflowClient(Client().active_stack.experiment_tracker.get_tracking_uri())
    run = mlflow.get_run(mlflow.get_model_version_by_alias("odd_names", "champion").run_id)
    assert json.loads(run.data.params["data.kinds"]) == kinds
    assert run.data.params["data.drop"].endswith("characters, see recipe.json")
    recipe = mlflow.download_artifacts(run.info.run_id, "recipe.json", str(tmp_path))
    assert json.loads(Path(recipe).read_text(encoding="utf-8"))["data"]["drop"] == idle


def test_works_on_the_bare_default_stack_with_one_line_about_tracking(train: Train) -> None:
    result = train("bare", options=("--stack", "default"))
    assert result.code == 0, result.err
    assert [line for line in result.out.splitlines() if "tracking is off" in line] == [
        "tracking is off: stack default has no experiment tracker"
    ]
    assert last_run().stack.name == "default"
    assert champions.champion("bare") is not None


@pytest.mark.parametrize("dataset", ["wine", "iris", "diabetes"])
def test_classes_and_numbers_train_too(cli: Cli, tmp_path: Path, dataset: str) -> None:
    config = tmp_path / f"{dataset}.yaml"
    config.write_text(f"name: {dataset}\ndata: {{source: 'sklearn:{dataset}', target: outcome}}\n")
    result = cli("--pipeline", "training", "--config", str(config), *QUICK)
    assert result.code == 0, result.err
    metric = {"wine": "accuracy", "iris": "accuracy", "diabetes": "r2"}[dataset]
    assert output("scorecard").estimates[metric].value > {"wine": 0.85, "iris": 0.85, "diabetes": 0.3}[dataset]
    assert output("registration").decision == "promote"


def test_fraud_stream_is_judged_on_its_latest_rows(cli: Cli) -> None:
    result = cli("--pipeline", "training", "--config", "configs/fraud.yaml", *QUICK)
    assert result.code == 0, result.err
    assert output("train_rows")["time"].max() < output("holdout_rows")["time"].min()
    assert output("registration").decision == "promote"


def test_rows_of_one_customer_stay_together_and_count_as_what_they_are_worth(cli: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    customer = np.arange(2400) // 12
    left = random.integers(0, 2, 200)[customer]
    spend = left + 0.8 * random.standard_normal(200)[customer] + 0.3 * random.standard_normal(2400)
    table = pd.DataFrame({"customer": customer, "order": np.arange(2400), "spend": spend, "left": left})
    table.to_csv(tmp_path / "orders.csv", index=False)
    config, named = tmp_path / "orders.yaml", "id: [order], group: [customer]"
    config.write_text(f"name: orders\ndata: {{source: '{tmp_path / 'orders.csv'}', target: left, {named}}}\n")
    result = cli("--pipeline", "training", "--config", str(config), *QUICK)
    assert result.code == 0, result.err
    contract, sides = output("contract"), [output(f"{side}_rows")["customer"] for side in ("train", "holdout")]
    assert set(contract.features) == {"spend"}
    assert contract.left_out == {"customer": "group", "order": "id"}
    assert not {*sides[0]} & {*sides[1]}
    estimate = output("scorecard").estimates["roc_auc"]
    assert sides[1].nunique() <= estimate.effective < len(sides[1]) / 3
    assert f"n = {len(sides[1])}, worth" in " ".join(output("verdict").reasons)
    assert "independent rows" in (runs.LOCAL / "reports/orders/evaluation.html").read_text()


def awkward_table(path: Path, rows: int = 600) -> None:
    """Write a CSV as people have them: spaces and unicode in names, mixed types, gaps, dates, free text."""
    random = np.random.default_rng(5)
    income = random.lognormal(10, 1, rows)
    joined = pd.Timestamp("2021-01-01") + pd.to_timedelta(random.integers(0, 1000, rows), unit="D")
    risk = (np.log(income) - 10) + (joined < "2022-06-01") + random.normal(0, 0.7, rows)
    table = pd.DataFrame(
        {
            "Kunden Nr": np.arange(rows),
            "Einkommen (€)": np.where(random.random(rows) < 0.1, np.nan, income),
            "Straße: Typ": random.choice(["Weg", "Allee", "Gasse", None], rows),
            "joined at": joined.strftime("%Y-%m-%d"),
            "aktiv?": random.choice(["True", "False"], rows),
            "Notiz, frei": [f"call {i} about {income[i]:.0f}" for i in range(rows)],
            "gemischt": [i if i % 3 else f"n/a {i % 5}" for i in range(rows)],
            "Ausfall": np.where(risk > 0.5, "ja", "nein"),
        }
    )
    table.to_csv(path, index=False)


def test_own_table_with_awkward_columns_trains_with_the_written_yaml_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "CONFIGS", tmp_path)
    awkward_table(tmp_path / "Kunden 2024.csv")
    written = cli("--new-config", str(tmp_path / "Kunden 2024.csv"), "--target", "Ausfall")
    assert written.code == 0, written.err
    (config,) = tmp_path.glob("*.yaml")
    assert str(config) in written.out
    again = cli("--new-config", str(tmp_path / "Kunden 2024.csv"), "--target", "Ausfall")
    assert again.code == 2
    result = cli("--pipeline", "training", "--config", str(config), *QUICK)
    assert result.code == 0, result.err
    contract = output("contract")
    kinds = {
        "Einkommen (€)": "numeric",
        "Straße: Typ": "categorical",
        "joined at": "datetime",
        "aktiv?": "boolean",
    }
    assert contract.features.items() >= kinds.items()
    assert contract.left_out["Notiz, frei"] == "text"
    assert output("scorecard").estimates["roc_auc"].low > 0.6


BAD_TABLES: dict[str, tuple[str, str]] = {
    "one class": ("a,y\n" + "1,1\n" * 50, "at least two different values"),
    "all-null column": ("a,b,y\n" + "".join(f"{i},,{i % 2}\n" for i in range(99)), "'b' holds no value"),
    "no target column": ("a,b\n1,2\n", "no column 'y' in table.csv"),
    "wrong separator": ("a;y\n1;2\n", "data.options.sep"),
    "empty file": ("", "table.csv is empty"),
    "no rows": ("a,y\n", "table.csv is empty"),
    "leaking target": (
        "a,b,y\n" + "".join(f"{i * 7 % 13},{i % 2},{i % 2}\n" for i in range(99)),
        "'b' alone",
    ),
    "missing labels": ("a,y\n" + "1,0\n2,1\n3,\n" * 20, "20 of 60 have none"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_bad_tables_are_one_line_exit_2_and_no_model(cli: Cli, tmp_path: Path, fault: str) -> None:
    from zenml.client import Client

    text, message = BAD_TABLES[fault]
    table, config = tmp_path / "table.csv", tmp_path / "bad.yaml"
    table.write_text(text)
    config.write_text(f"name: bad\ndata: {{source: '{table}', target: y}}\n")
    result = cli("--pipeline", "training", "--config", str(config))
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert message in result.err
    assert "bad" not in {model.name for model in Client().list_models(size=1000)}


def test_corrupt_parquet_and_unreachable_database_are_one_line(cli: Cli, tmp_path: Path) -> None:
    parquet = tmp_path / "table.parquet"
    parquet.write_bytes(b"PAR1" + b"junk" * 9 + b"PAR1")
    for changes, message in (
        ([f"data={{source: '{parquet}', target: y}}"], "table.parquet"),
        (["data={source: 'mysql+pymysql://u@127.0.0.1:1/x', target: y, query: select 1}"], "127.0.0.1"),
    ):
        sets = [word for change in changes for word in ("--set", change)]
        result = cli("--pipeline", "training", *sets)
        assert result.code == 2
        assert len(result.err.splitlines()) == 1
        assert message in result.err


def test_rows_that_break_the_champions_contract_stop_the_run_and_leave_its_report(cli: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame({"age": random.normal(40, 9, 400), "colour": random.choice(["red", "blue"], 400)})
    table["y"] = (table["age"] + random.normal(0, 5, 400) > 40).astype(int)
    config, csv = tmp_path / "c.yaml", tmp_path / "t.csv"
    config.write_text(f"name: contract\ndata: {{source: '{csv}', target: y}}\n")
    table.to_csv(csv, index=False)
    assert cli("--pipeline", "training", "--config", str(config), *QUICK).code == 0
    table.rename(columns={"colour": "color"}).to_csv(csv, index=False)
    result = cli("--pipeline", "training", "--config", str(config), *QUICK)
    assert result.code == 2
    assert "'color'" in result.err
    assert "'colour'" in result.err
    assert statuses()["accept_rows"] == "failed"
    assert [f.rule for f in output("contract_report").errors] == ["renamed_column"]
    assert "renamed_column" in output("contract_report").page
    assert [e.version for e in champions.history("contract")] == [1]


def test_a_source_that_changed_is_seen_despite_the_cache(cli: Cli, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame({"a": random.normal(size=300)}).assign(y=lambda t: (t["a"] + random.normal(size=300) > 0) * 1)
    database, config = tmp_path / "d.sqlite", tmp_path / "c.yaml"
    with sqlite3.connect(database) as connection:
        table.to_sql("t", connection, index=False)
    config.write_text(f"name: changing\ndata: {{source: 'sqlite:///{database}', query: select * from t, target: y}}\n")
    cli("--pipeline", "training", "--config", str(config), *QUICK)
    first = output("model").card.data
    with sqlite3.connect(database) as connection:
        connection.execute("update t set a = a * 1.5")
    connection.close()
    cli("--pipeline", "training", "--config", str(config), *QUICK)
    assert output("model").card.data != first
