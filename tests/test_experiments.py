"""Experiments: what is tried changes nothing in production, and can be compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import Cli, Result, last_run, output

from loop.cli import runs
from loop.registry import champions
from loop.registry.results import keep_pages

Train = Callable[..., Result]

NAME, OTHER = "tried", "model.params={C: 1, max_iter: 1000}"


class Tried(NamedTuple):
    said: list[str]
    runs: list[Any]


@pytest.fixture
def tried(train: Train, once: Callable[..., Tried]) -> Tried:
    """Promote a weak model; then try a better one dry, the same with gate.promote off, and a bad one."""

    def make() -> Tried:
        found = Tried([], [])
        for changes, options in (
            (["model.params={C: 0.00001}", "gate.minimum={}"], ()),
            ([OTHER], ("--dry-run",)),
            ([OTHER, "gate.promote=off"], ()),
            (["model={estimator: sklearn.dummy.DummyClassifier}", "gate.promote=off"], ()),
        ):
            result = train(NAME, *changes, options=options)
            assert result.code == 0, result.err
            found.said.append(result.out)
            found.runs.append(last_run())
            assert [entry.version for entry in champions.history(NAME)] == [1]
        return found

    return once("tried", make)


def reports(page: str) -> str:
    return (runs.LOCAL / "reports" / NAME / page).read_text(encoding="utf-8")


def test_a_dry_run_judges_and_registers_nothing(tried: Tried) -> None:
    from mlflow import MlflowClient
    from zenml.client import Client

    said, runs = tried
    assert "promote, in a dry run" in said[1]
    said_dry = "dry run: nothing was registered, so this look at the holdout is not counted"
    assert output("verdict", runs[1]).reasons[0] == said_dry
    assert all(f"/projects/default/runs/{each.id}" in out for out, each in zip(said, runs, strict=True))
    assert output("judgement", runs[1]).decision == "promote"
    assert "register_model" not in runs[1].steps
    versions = Client().list_model_versions(model=NAME).items
    assert sorted(version.number for version in versions) == [1, 2, 3]  # of four trainings
    mlflow = MlflowClient(Client().active_stack.experiment_tracker.get_tracking_uri())
    assert len(mlflow.search_model_versions(f"name='{NAME}'")) == 3
    assert "dry run: nothing was registered" in reports("dry-run/verdict.html")


def test_what_may_not_be_promoted_is_registered_and_held_and_every_place_says_so(
    tried: Tried,
) -> None:
    from mlflow import MlflowClient
    from zenml.client import Client

    said, runs = tried
    registration, verdict = output("registration", runs[2]), output("verdict", runs[2])
    reason = "it would be promoted, but gate.promote is off"
    assert (registration.decision, registration.version, registration.champion) == ("hold", 2, 1)
    assert verdict.decision == "hold"
    assert registration.reasons[0] == verdict.reasons[0] == reason
    assert "hold, version 2" in said[2]
    assert reason in verdict.page
    mlflow = MlflowClient(Client().active_stack.experiment_tracker.get_tracking_uri())
    (version,) = (v for v in mlflow.search_model_versions(f"name='{NAME}'") if v.tags["zenml_version"] == "2")
    assert reason in Path(mlflow.download_artifacts(version.run_id, "verdict.html")).read_text(encoding="utf-8")


def test_each_use_case_has_an_experiment_of_mlflow_that_is_no_language_models(
    tried: Tried,
) -> None:
    from mlflow import MlflowClient
    from zenml.client import Client

    from loop.registry import tracking

    mlflow = MlflowClient(Client().active_stack.experiment_tracker.get_tracking_uri())
    found = mlflow.get_experiment_by_name(NAME)
    assert found is not None
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    assert len(mlflow.search_runs([found.experiment_id])) == 3
    assert f"/#/experiments/{found.experiment_id}/runs?" in tracking.pages("http://h")[NAME]


def test_pages_are_kept_by_version_with_a_link_to_the_champions(tried: Tried) -> None:
    for version in ("v1", "v2", "v3"):
        for page in ("evaluation", "contract", "verdict"):
            assert "<h1>" in reports(f"{version}/{page}.html")
    assert '<a href="../v1/verdict.html">this page of the champion, version 1</a>' in reports("v2/verdict.html")
    assert '<a href="v1/evaluation.html">' in reports("evaluation.html")
    assert "this page of the champion" not in reports("v1/verdict.html")


def test_a_later_run_that_holds_the_same_model_leaves_its_pages_alone(tmp_path: Path) -> None:
    for word, settled in (("promoted", False), ("the same", True)):
        keep_pages({"verdict": f"<h1>{word}</h1>"}, tmp_path, "v1", 1, settled=settled)
    assert "promoted" in (tmp_path / "v1/verdict.html").read_text()
    assert "the same" in (tmp_path / "verdict.html").read_text()


def test_history_lists_every_version_with_verdict_metric_who_and_what_differs(cli: Cli, tried: Tried) -> None:
    from zenml.client import Client

    result = cli("--history", "--set", f"name={NAME}")
    assert result.code == 0, result.err
    one, two, three = (" ".join(block.split()) for block in result.out.split("\n\n")[:3])
    assert "promote, the champion" in one
    assert "model.params.C: 1e-05" in one
    estimate = output("scorecard", tried.runs[2]).estimates["roc_auc"]
    for shown in (
        "hold",
        f"roc_auc {100 * estimate.confidence:g} %",
        f"({estimate.low:#.4g} – {estimate.high:#.4g})",
        "model.params.C: 1 (the champion: 1e-05)",
        f"by {Client().active_user.name}",
    ):
        assert shown in two
    assert "reject" in three
    assert "model.estimator: sklearn.dummy.DummyClassifier (the champion: sklearn.linear_model" in three
    assert result.out.count("UTC  version 1 (promotion by ") == 1


def test_compare_prints_and_draws_what_differs_on_the_same_rows(cli: Cli, tried: Tried) -> None:
    result = cli("--compare", "1", "2", "--set", f"name={NAME}", "--set", "evaluation.resamples=200")
    assert result.code == 0, result.err
    assert "model.params.C: 1e-05 → 1" in result.out
    scorecards = [output("scorecard", tried.runs[place]).estimates["roc_auc"] for place in (0, 2)]
    values = [float(word) for line in result.out.splitlines() if "  roc_auc " in line for word in line.split()[1:4]]
    one, two, lead = values
    assert [one, two] == pytest.approx([e.value for e in scorecards], rel=1e-3)
    assert lead == pytest.approx(two - one, abs=1e-3)
    page = reports("compare-1-2.html")
    assert "model.params.C" in page
    assert page.count("<circle") == len(output("scorecard", tried.runs[0]).estimates)


def test_comparing_what_is_not_there_is_one_line(cli: Cli, tried: Tried) -> None:
    result = cli("--compare", "1", "9", "--set", f"name={NAME}")
    assert (result.code, result.err) == (2, f"error: no version 9 of '{NAME}'; it has 1, 2, 3\n")


@pytest.mark.parametrize(
    "arguments", [("--pipeline", "deployment"), ("--pipeline", "training", "--schedule", "7 * * * *"), ("--history",)]
)
def test_only_a_training_runs_dry(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments, "--dry-run")
    assert result.code == 2
    assert result.err.startswith("error: --dry-run goes with --pipeline")


def test_a_model_that_was_held_back_is_promoted_when_it_may_be(train: Train) -> None:
    held = train("freed", "gate.promote=off")
    assert "champion" in held.out
    assert champions.champion("freed") is None
    assert train("freed").code == 0
    registration = output("registration")
    assert (registration.decision, registration.version, registration.champion) == ("promote", 1, 1)
    assert [version.decision for version in champions.versions("freed")] == ["promote"]
    assert "promote</span>" in (runs.LOCAL / "reports/freed/v1/verdict.html").read_text(encoding="utf-8")
