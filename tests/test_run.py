"""The command line before anything starts: what it answers, and how it refuses."""

import json
import os
import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Cli

from loop import config
from loop.cli import commandline, console, runs
from loop.config import ROOT, UserError
from loop.deploying.contract import Status
from loop.registry import results
from loop.watching.monitor import Alarm
from loop.watching.policy import Decision, Requirement
from steps.send_alert import _alert

HEAVY = {"zenml", "pandas", "numpy", "sklearn", "mlflow", "evidently", "bentoml", "matplotlib", "sqlalchemy"}

REFUSED = {
    "pipeline": (["--pipeline", "trainin"], "did you mean 'training'?"),
    "stack": (["--pipeline", "training", "--stack", "locl"], "did you mean 'local'?"),
    "config": (["--pipeline", "training", "--config", "configs/frau.yaml"], "did you mean 'fraud'?"),
    "key": (["--pipeline", "training", "--set", "gate.margn=1"], "did you mean 'margin'?"),
    "section": (["--pipeline", "training", "--set", "gates.margin=1"], "did you mean 'gate'?"),
    "value": (["--pipeline", "training", "--set", "split.holdout=1.5"], "it is 1.5"),
    "type": (["--pipeline", "training", "--set", "data.rows=many"], "it is 'many'"),
    "no value": (["--pipeline", "training", "--set", "gate.margin"], "section.key=value"),
    "below a value": (["--pipeline", "training", "--set", "name.first=a"], "'name' holds a value"),
    "password": (
        ["--pipeline", "training", "--set", "data.source=postgresql://me:hunter2@db/x"],
        "environment variable",
    ),
    "file": (["--pipeline", "training", "--set", "data.source=/no/such.csv"], "/no/such.csv"),
    "rows to score": (["--pipeline", "inference"], "inference.source is missing"),
    "files to score": (
        ["--pipeline", "inference", "--set", "inference.source=/no/*.csv"],
        "no data file at inference.source '/no/*.csv'",
    ),
    "bundled set": (["--pipeline", "training", "--set", "data.source=sklearn:wein"], "did you mean 'wine'?"),
    "function": (["--pipeline", "training", "--set", "data.source=core.frod:x"], "core.frod"),
    "estimator without its package": (
        ["--pipeline", "training", "--set", "model.estimator=RandomForestClassifier"],
        "error: --set model.estimator: 'model.estimator': needs a dotted path such as "
        "sklearn.ensemble.RandomForestClassifier, it is 'RandomForestClassifier'",
    ),
    "bound that cannot be met": (
        ["--pipeline", "training", "--set", "gate.minimum.roc_auc=2"],
        "--set gate.minimum.roc_auc: 'gate.minimum': roc_auc is 1 at most, 2 can never be met",
    ),
    "name": (
        ["--pipeline", "training", "--set", "name=My-Churn"],
        "needs small letters, digits and underscores, 63 at most, such as my_churn; it is 'My-Churn'",
    ),
    "option": (["--pipeline", "training", "--stak", "local"], "did you mean '--stack'?"),
    "option for an action": (["--pipline", "training"], "no option '--pipline'; "),
    "a word too many": (["--list", "pipelines"], "no option 'pipelines'; "),
    "option with a value": (["--pipline=training"], "did you mean '--pipeline'?"),
    "no action": ([], "--pipeline"),
    "two actions": (["--list", "--history"], "not allowed with"),
    "version": (["--rollback", "0"], "the number of a version, 1 or more, it is '0'"),
    "an option of another action": (["--history", "--no-cache"], "--no-cache goes with --pipeline"),
    "an option that changes nothing": (["--schema", "--stack", "docker"], "--stack does not go with --schema"),
    "reason alone": (["--list", "--reason", "x"], "--reason goes with --rollback"),
    "traffic option alone": (["--status", "--label-delay", "0"], "--label-delay goes with --simulate"),
    "traffic of no rows": (["--simulate", "--rows", "0"], "--rows must be 1 or more, it is 0"),
    "scenario of a table": (["--simulate", "--scenario", "concept"], "use --config configs/fraud.yaml"),
    "schedule alone": (["--list", "--schedule", "7 * * * *"], "--schedule goes with --pipeline"),
    "malformed schedule": (["--pipeline", "monitoring", "--schedule", "7 * * *"], "needs five fields"),
    "new config without a target": (["--new-config", "a.csv"], "--target"),
}


# Found by importing scikit-learn, which takes a second.
ESTIMATORS = {
    "metric": (["--pipeline", "training", "--set", "gate.metric=roc"], "did you mean 'roc_auc'?"),
    "minimum": (["--pipeline", "training", "--set", "gate.minimum.recal=1"], "did you mean 'recall'?"),
    "estimator": (
        ["--pipeline", "training", "--set", "model.estimator=sklearn.ensemble.RandomForest"],
        "did you mean 'RandomForestRegressor'?",
    ),
    "module": (
        ["--pipeline", "training", "--set", "model.estimator=sklearn.ensembel.X"],
        "cannot import 'sklearn.ensembel': No module named 'sklearn.ensembel'",
    ),
    "package": (
        ["--pipeline", "training", "--set", "model.estimator=nosuchboost.sklearn.Classifier"],
        "the package 'nosuchboost' is not installed; name it in model/requirements.in, then: pip install -r model/",
    ),
    "near package": (
        ["--pipeline", "training", "--set", "model.estimator=sklaern.svm.SVC"],
        "the package 'sklaern' is not installed; did you mean 'sklearn'?",
    ),
    "parameter": (["--pipeline", "training", "--set", "model.params.Cc=1"], "did you mean 'C'?"),
    "parameter of the default": (
        ["--pipeline", "training", "--config", "configs/fraud.yaml", "--set", "model.params.C=1"],
        "model.params: no 'C'; among",
    ),
}

# Each command line runs in a process of its own, forked from one that has imported `run` and nothing else.
EACH = """
import json, os, sys, run
for name, (arguments, _) in json.load(sys.stdin).items():
    if os.fork() == 0:
        for number, stream in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{sys.argv[1]}/{name}.{stream}", os.O_CREAT | os.O_WRONLY), number)
        print(run.main(arguments), set(sys.argv[2:]) & set(sys.modules), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all command lines of REFUSED and ESTIMATORS; return the folder of what each has printed."""
    folder = tmp_path_factory.mktemp("answers")
    command = [sys.executable, "-c", EACH, str(folder), *HEAVY]
    subprocess.run(command, cwd=ROOT, input=json.dumps(REFUSED | ESTIMATORS), check=True, text=True)
    return folder


@pytest.mark.parametrize("fault", REFUSED)
def test_refuses_in_one_line_with_exit_2_before_heavy_libraries_load(fault: str, answers: Path) -> None:
    out, err = ((answers / f"{fault}.{stream}").read_text() for stream in ("out", "err"))
    assert out.strip() == "2 set()"
    assert len(err.splitlines()) == 1, err
    assert REFUSED[fault][1] in err
    assert "hunter2" not in err


@pytest.mark.parametrize("fault", ESTIMATORS)
def test_refuses_an_estimator_in_one_line_with_exit_2_before_zenml_is_imported(fault: str, answers: Path) -> None:
    out, err = ((answers / f"{fault}.{stream}").read_text() for stream in ("out", "err"))
    assert out.startswith("2 ")
    assert not any(name in out for name in ("zenml", "mlflow", "evidently", "bentoml"))
    assert len(err.splitlines()) == 1, err
    assert ESTIMATORS[fault][1] in err


BAD_ROWS = {
    "one class": ("t.csv", b"a,y\n" + b"1,1\n2,1\n" * 30, "at least two different values"),
    "empty column": ("t.csv", b"a,b,y\n" + b"".join(b"%d,,%d\n" % (i, i % 2) for i in range(99)), "'b' holds no value"),
    "missing labels": ("t.csv", b"a,y\n" + b"1,0\n2,1\n3,\n" * 20, "20 of 60 have none"),
    "no rows": ("t.csv", b"a,y\n", "is empty"),
    "corrupt": ("t.parquet", b"PAR1" + b"junk" * 9 + b"PAR1", "cannot read t.parquet"),
    "one side": ("t.csv", b"a,y\n" + b"1,0\n1,1\n" * 5, "the holdout side of the split needs rows"),
    "refused": ("mysql+pymysql://u@127.0.0.1:1/x", b"", "cannot read from mysql+pymysql://u@127.0.0.1:1/x"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_refuses_bad_rows_before_zenml_is_imported(fault: str, tmp_path: Path) -> None:
    source, content, message = BAD_ROWS[fault]
    query = ", query: select 1" if "://" in source else ""
    if not query:
        (tmp_path / source).write_bytes(content)
        source = str(tmp_path / source)
    arguments = ["--pipeline", "training", "--set", f"data={{source: '{source}', target: y{query}}}"]
    slow = HEAVY - {"pandas", "numpy", "sqlalchemy"}
    code = f"import sys, run; code = run.main({arguments}); print(code, {slow} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.strip() == "2 set()"
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--list"], ["--schema"]])
def test_answers_without_heavy_libraries(arguments: list[str]) -> None:
    code = (
        "import sys, run\n"
        f"try: run.main({arguments})\n"
        "except SystemExit: pass\n"
        f"print({HEAVY} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr.strip() == "set()"
    assert result.stdout


def test_the_help_shows_each_action_with_its_options_and_an_example_that_it_takes() -> None:
    parser = commandline.parser()
    blocks = parser.format_help().split("\n  python run.py ")[1:]
    for (name, action), block in zip(commandline.ACTIONS.items(), blocks, strict=True):
        assert block.startswith(f"{action.example}\n")
        given = parser.parse_args(shlex.split(action.example.partition(" > ")[0]))
        assert commandline.chosen(given) is action
        for option in (name, *action.own):
            assert f"\n  --{option.replace('_', '-')} " in block
    assert "--change-shared " in blocks[-1]


def test_a_python_without_the_packages_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-S", "run.py", "--list"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert ". .venv/bin/activate" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("here", "the champion is as it was"),
        ("elsewhere", "goes on where it is"),
        ("containers", "has failed; the step in a container ends there, and no other starts"),
    ],
)
def test_ctrl_c_says_what_becomes_of_the_run(cli: Cli, monkeypatch: pytest.MonkeyPatch, place: str, said: str) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "start", interrupted)
    monkeypatch.setattr(runs, "give_to_containers", lambda: None)
    monkeypatch.setattr(runs.files.Stack, "runs_here", place == "here")
    monkeypatch.setattr(runs.files.Stack, "contained", place == "containers")
    result = cli("--pipeline", "training")
    assert result.code == 130
    assert said in result.err
    assert len(result.err.splitlines()) == 1


def test_a_step_in_a_container_shows_its_own_time_and_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    import zenml.client

    def step(name: str, start: int, end: int | None) -> SimpleNamespace:
        status = SimpleNamespace(value="completed" if end else "running")
        times = [None if second is None else datetime(2026, 1, 1, 0, 0, second) for second in (start, end)]
        return SimpleNamespace(name=name, status=status, start_time=times[0], end_time=times[1])

    steps = [step("ingest_rows", 9, 10), step("split_rows", 20, 22), step("train_model", 30, None)]
    begun = SimpleNamespace(id=1, created=datetime(2026, 1, 1))
    client = SimpleNamespace(
        list_pipeline_runs=lambda **_: SimpleNamespace(items=[begun]),
        list_run_steps=lambda **_: SimpleNamespace(items=steps),
    )
    monkeypatch.setattr(zenml.client, "Client", lambda: client)
    lines = [console._line(name, *state).plain for name, state in console._states("a run", True).items()]
    assert lines == [
        "  ✓ ingest_rows          1.0 s of 10.0 s with its container",
        "  ✓ split_rows           2.0 s of 12.0 s with its container",
        "  › train_model               ",
    ]
    lines = [console._line(name, *state).plain for name, state in console._states("a run", False).items()]
    assert lines[0] == "  ✓ ingest_rows          1.0 s"


def test_list_names_pipelines_configs_and_stacks(cli: Cli) -> None:
    out = cli("--list").out
    assert "training" in out
    assert "breast_cancer, fraud" in out
    assert "airflow, aws, azure, default, docker, gcp, kubeflow, kubernetes, local, server" in out


def test_the_committed_schema_is_the_one_printed(cli: Cli) -> None:
    assert (ROOT / "configs/schema.json").read_text(encoding="utf-8") == cli("--schema").out


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_is_valid_and_names_the_schema(path: Path) -> None:
    config.load(path)
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text("name: a\nname: b\ndata: {source: x.csv, target: y}\n")
    with pytest.raises(config.UserError, match="key 'name' stands twice"):
        config.load(twice)


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "name: a\ndata: source: x.csv\n": "cannot be read at line 2, column 13: look there and in the line above",
        "name: a\ndata:\n\tsource: x.csv\n": "cannot be read at line 3, column 1: ",
        "name: [a\ndata: {}\n": "cannot be read at line 2, column 5: ",
        "name: !own a\n": "has a fault at line 1, column 7: ",
        "name: caf\xe9\n": "is no plain text in UTF-8, as YAML has to be; save it as that",
        "name: \x00\n": "is no plain text in UTF-8, as YAML has to be; save it as that",
    }.items(),
)
def test_a_file_that_is_no_yaml_is_one_sentence_with_the_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(config.UserError, match=f"^{re.escape(f'{path} {said}')}[^\n]*$"):
        config.load(path)


def test_changes_are_typed(tmp_path: Path) -> None:
    path = ROOT / "configs/fraud.yaml"
    changed = config.load(path, ["data.rows=5", "data.options.scenario=covariate", "gate.minimum.f1=0.1"])
    assert changed.data.rows == 5
    assert changed.data.options == {"seed": 7, "scenario": "covariate"}
    assert changed.gate.minimum == {"roc_auc": 0.75, "f1": 0.1}


def test_state_stays_in_the_clone_and_the_users_own_zenml_is_left_alone(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, run\nfrom loop.cli import runs\n"
        f"runs.LOCAL = pathlib.Path({str(tmp_path / 'local')!r})\n"
        "assert run.main(['--history']) == 2\n"
        "from zenml.client import Client\n"
        "from zenml.config.global_config import GlobalConfiguration\n"
        "store = Client().active_stack.artifact_store\n"
        "print(GlobalConfiguration().config_directory, Client().zen_store.url, store.path)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ZENML")}
    home = {**environment, "HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "home/.config")}
    (tmp_path / "home").mkdir()
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=home, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(str(tmp_path / "local") in place for place in result.stdout.splitlines()[-1].split())
    assert not list((tmp_path / "home").rglob("*zenml*"))


def test_a_terminal_obeys_no_name_and_a_line_holds_what_it_says(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    result = cli("--pipeline", "y\x1b]0;owned\x07\nerror: no")
    assert result.code == 2
    assert result.err.startswith(r"error: no pipeline 'y\x1b]0;owned\x07\nerror: no'; ")
    assert len(result.err.splitlines()) == 1
    console.fields([("refused", "it is '\x1b[2J\u202e'\nverdict   promote")])
    assert capsys.readouterr().out.rstrip() == r"refused  it is '\x1b[2J\u202e'\nverdict   promote"
    alarm = Alarm(kind="concept", sentence="worst where a is\nnext: \x07", helps="")
    made = {"version": 1, "alarms": (alarm,), "start": None, "time": datetime(2026, 1, 1), "action": "nothing"}
    lines = _alert(Decision.model_construct(run="r", **made), "m", [])["text"].split("\n")
    assert [line.partition(":")[0] for line in lines] == ["m, version 1", "concept drift", "report", "next"]


TOP = {"console", "commands", "runs", "commandline", "startup", "run"}


def test_a_command_that_is_printed_acts_on_what_this_one_did_and_can_be_pasted(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--config", "configs/fraud.yaml", "--set", "name=nobody", "--set", "data.options={start: 1}")
    result = cli("--history", *given)
    assert result.code == 2
    printed = result.err.strip().partition("train one: python run.py ")[2]
    found = commandline.parser().parse_args(shlex.split(printed))
    assert (found.pipeline, found.config, found.set) == ("training", Path(given[1]), [given[3], given[5]])
    long = f"make dashboard, then python run.py {printed * 3}"
    console.fields([("verdict", "promote " * 30), ("next", long)])
    first, *_, last = capsys.readouterr().out.splitlines()
    assert last == f"next     {long}"
    assert len(first) < 100
    path = "/a/path/" + "folder/" * 20
    console.fields([("report", f"{path}verdict.html, also evaluation.html")])
    assert capsys.readouterr().out.rstrip("\n") == f"report  {path}verdict.html, also evaluation.html"


def test_a_server_that_is_watched_is_named_by_its_config() -> None:
    assert config.command_of("fraud", "--status") == "python run.py --status --config configs/fraud.yaml"
    assert config.command_of("ill", "--status") == "python run.py --status --set name=ill"


@pytest.mark.parametrize(("served", "said"), [("2", True), ("1", False), (None, False)])
def test_a_rollback_says_that_a_server_still_answers_with_the_other_version(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, served: str | None, said: bool
) -> None:
    status = Status(name="ill", state="running", release=f"v{served}-1f2e", url="http://127.0.0.1:3000")
    monkeypatch.setattr("loop.registry.champions.rollback", lambda *_: SimpleNamespace(version=1, replaces=2))
    monkeypatch.setattr("loop.deploying.local.LocalDeployer.status", lambda *_: None if served is None else status)
    printed = cli("--rollback").out
    hint = "the server at http://127.0.0.1:3000 still answers with version 2; to change that: python run.py --pipeline"
    assert (hint in printed) == said


@pytest.mark.parametrize(
    ("action", "said"), [("advise", "policy.mode is advise, so nothing was started"), ("wait", "waits: too early")]
)
def test_what_was_decided_is_said_in_words(action: str, said: str) -> None:
    requirements = (Requirement(name="wait", met=False, sentence="too early"),)
    assert said in results.decided(Decision.model_construct(action=action, requirements=requirements))


def test_a_rollback_that_cannot_be_deployed_says_how_to_finish(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise UserError("the port is taken")

    monkeypatch.setattr("loop.registry.champions.rollback", lambda *_: SimpleNamespace(version=1, replaces=2))
    monkeypatch.setattr("loop.cli.runs.run_pipeline", refuse)
    result = cli("--rollback", "--deploy")
    assert result.code == 2
    assert result.err == ("error: the port is taken; then deploy version 1: python run.py --pipeline deployment\n")
