import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tables import mixed, recipe, trained

from loop.config import Contract, Evaluation, Gate, Recipe
from loop.data.checks import ContractReport, check_rows, check_table
from loop.data.contract import DataContract, learn_contract
from loop.pages.plots import draw_plots
from loop.pages.report import column_importance, contract_page, evaluation_page, number, verdict_page
from loop.training.bundle import Bundle
from loop.training.compiled.preparation import read_parts, sources
from loop.training.gate import Condition, Verdict, judge
from loop.training.metrics import Predictions, constant_predictions, estimate, measure, metric_names, unit

EVALUATION = Evaluation(resamples=200)
NASTY = "東<u>$1&'$2\"</u>"  # no longer than a plot shows


class Page(HTMLParser):
    """Collect the tags and texts of a page, and insist that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open
        outside = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", text)  # names, not addresses
        assert "http" not in outside
        assert not re.search(r'(src|href|url)\s*[=(]\s*"?(?!#)\w', outside)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)

    def handle_data(self, text: str) -> None:
        self.texts.append(" ".join(text.split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def evaluated(bundle: Bundle, holdout: pd.DataFrame) -> str:
    predictions = bundle.predictions(holdout)
    estimates = estimate(predictions, metric_names(predictions.task), EVALUATION)
    return evaluation_page(bundle, holdout, predictions, estimates)


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_the_evaluation_shows_the_estimates(target: str) -> None:
    bundle, holdout = trained(mixed(), recipe(target))
    text = evaluated(bundle, holdout)
    assert evaluated(Bundle(bundle.card, bundle.model_file), holdout) == text
    page = Page(text)
    predictions = bundle.predictions(holdout)
    for name, found in estimate(predictions, metric_names(predictions.task), EVALUATION).items():
        row = page.texts.index(name)
        shown = [cell for cell in page.texts[row : row + 12] if cell]
        interval = f"{number(found.low)} to {number(found.high)}"
        said = [unit(name, predictions)] if unit(name, predictions) else []
        constant = number(measure(name, constant_predictions(predictions, bundle.card.prior)))
        crossed = number(bundle.card.cross_validation[name])
        assert shown[: 5 + len(said)] == [name, *said, number(found.value), interval, constant, crossed]
    assert "<b>Bär</b>" in page.texts  # a column's name, as text
    assert text.count("<svg") == (2 if target == "preis" else 4)
    for fact in (bundle.card.data, bundle.card.code, bundle.card.model, "(min_samples_leaf=20)"):
        assert fact in page.text


def test_a_source_is_shown_without_what_may_be_secret() -> None:
    bundle, holdout = trained(mixed(), recipe())
    source = {"source": "https://h/${BUCKET}/a.csv?id=s3cret"}
    data = bundle.card.recipe.data.model_validate(bundle.card.recipe.data.model_dump() | source)
    card = bundle.card.model_copy(update={"recipe": bundle.card.recipe.model_copy(update={"data": data})})
    text = evaluated(Bundle(card, bundle.model_file), holdout)
    assert "<code>https://h/${BUCKET}/a.csv</code>" in text
    assert "s3cret" not in text


def test_the_column_that_decides_is_the_most_important_and_idle_ones_are_not() -> None:
    bundle, holdout = trained(mixed(1000), recipe())
    importance = dict(column_importance(bundle, holdout, bundle.predictions(holdout)).losses)
    assert next(iter(importance)) == "größe"
    assert importance["größe"] > 0.1 > importance["alter"]
    alone = holdout[holdout["ja"] == "ja"]
    assert column_importance(bundle, alone, bundle.predictions(alone)).losses == []


def test_of_a_wide_table_the_columns_that_move_the_scores_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, holdout = trained(mixed(1000), recipe())
    predictions = bundle.predictions(holdout)
    assert column_importance(bundle, holdout, predictions).first_rows == 0
    monkeypatch.setattr("loop.pages.report.IMPORTANCE_COLUMNS", 2)
    monkeypatch.setattr("loop.pages.report._FIRST_LOOKS", 5000)
    found = column_importance(bundle, holdout, predictions)
    assert found.losses[0][0] == "größe"
    assert len(found.losses) == 2
    assert found.columns == 5
    assert 10 <= found.first_rows < 200
    said = "Of 5 columns, to look at all of which would take too long, these 2 moved the scores most when shuffled on"
    assert f"{said} {found.first_rows} rows." in Page(evaluated(bundle, holdout)).text


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_every_part_of_the_matrix_is_known_to_come_from_its_column(target: str) -> None:
    bundle, holdout = trained(mixed(), recipe(target))
    matrix, owners = (
        bundle.prepare(holdout),
        np.array(list(bundle.card.contract.features))[list(sources(read_parts(bundle.pipeline, bundle.card.contract)))],
    )
    assert len(owners) == matrix.shape[1]
    for name in bundle.card.contract.features:
        shuffled = holdout.copy()
        shuffled[name] = holdout[name].sample(frac=1, random_state=0).array
        changed = (bundle.prepare(shuffled) != matrix).any(axis=0)
        assert changed.any()
        assert set(owners[changed]) == {name}


@pytest.mark.parametrize("name", ["self", "", "index", "assign", 'a"b', "x" * 400])
def test_any_name_of_a_column_trains_and_has_its_pages(name: str) -> None:
    rows, wanted = mixed().rename(columns={"größe": name}), recipe()
    bundle, holdout = trained(rows, wanted)
    text = Page(evaluated(bundle, holdout)).text
    assert f"{name} " in text
    contract = bundle.card.contract
    report = ContractReport(findings=check_table(rows, wanted.data, wanted.contract, contract), rows=len(rows))
    assert name in Page(contract_page("a", report, contract)).text


def nasty(target: str) -> tuple[pd.DataFrame, Recipe]:
    """Name the target, a column, its values and the classes as no one should."""
    rows = mixed(300).rename(columns={"städte": NASTY, target: f"{target}{NASTY}"})
    rows[NASTY] = rows[NASTY].replace("Köln", NASTY)
    wanted = recipe(target)
    target = f"{target}{NASTY}"
    if wanted.data.target != "preis":
        rows[target] = rows[target].replace({"ja": NASTY, "klein": f"_{NASTY}"})
    return rows, wanted.model_copy(update={"data": wanted.data.model_copy(update={"target": target})})


@pytest.mark.parametrize("target", ["ja", "art", "preis"])
def test_names_from_the_data_are_text_on_every_page(target: str) -> None:
    rows, wanted = nasty(target)
    bundle, holdout = trained(rows, wanted)
    contract = bundle.card.contract
    found = check_rows(holdout.assign(**{f"{NASTY}!": 1}), contract, Contract())
    pages = [
        evaluated(bundle, holdout),
        contract_page("a", ContractReport(findings=found, rows=len(holdout)), contract),
        verdict_page("a", Verdict(decision="hold", reasons=(NASTY,), rows=1)),
    ]
    for text in pages:
        page = Page(text)
        assert "u" not in page.tags
        assert NASTY in page.text
    if target == "art":
        assert f"_{NASTY}" in Page(draw_plots(bundle.predictions(holdout))["ROC"]).text


def extreme(task: str, rows: int, classes: int = 3) -> Predictions:
    labels = tuple(f"class {code}" for code in range(classes))
    if task == "regression":
        return Predictions(task="regression", truth=np.full(rows, 5.0), scores=np.full(rows, 5.0))
    if task == "binary":
        return Predictions("binary", np.zeros(rows, int), np.full(rows, 0.5), 0.5, labels[:2])
    return Predictions("multiclass", np.zeros(rows, int), np.full((rows, classes), 1 / classes), None, labels)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("rows", [1, 30])
def test_plots_bear_one_row_and_one_class(task: str, rows: int) -> None:
    for svg in draw_plots(extreme(task, rows)).values():
        Page(svg)


def test_plots_bear_many_classes() -> None:
    many = extreme("multiclass", 60, classes=60)
    plots = draw_plots(many.take(np.arange(60)))
    assert "class 59" not in "".join(plots.values())


@pytest.mark.parametrize("target", ["ja", "preis"])
def test_a_holdout_of_one_row_still_has_a_page(target: str) -> None:
    bundle, holdout = trained(mixed(), recipe(target))
    assert "is undefined on these holdout rows" in Page(evaluated(bundle, holdout[:1])).text


def contract_of_every_kind() -> tuple[pd.DataFrame, DataContract, Recipe]:
    wanted = recipe()
    rows = mixed().assign(
        konstant=5,
        leer=None,
        notiz=[f"Notiz {i}" for i in range(600)],
        code=[f"c{i % 40}" for i in range(600)],
        stunde=pd.Timestamp("2024-01-01 12:30") + pd.to_timedelta(np.arange(600), "h"),
    )
    return rows, learn_contract(rows, wanted.data, wanted.contract), wanted


def test_the_contract_says_what_each_column_held() -> None:
    rows, contract, wanted = contract_of_every_kind()
    report = ContractReport(
        findings=check_table(rows, wanted.data, wanted.contract, contract), rows=600, compared_with=3
    )
    text = contract_page("kreuz", report, contract)
    assert contract_page("kreuz", report, contract) == text
    page = Page(text)
    assert "600 rows checked against the contract of champion version 3" in page.text
    assert all(finding.sentence in page.texts for finding in report.findings)
    cells = [cell for cell in page.texts if cell]
    shown = {name: cells[cells.index(name) + 1 :] for name in (*contract.features, *contract.left_out)}
    alter, code, stunde = shown["alter"], shown["code"], shown["stunde"]
    assert alter[0] == "numeric"
    assert alter[2] == "18 to 89"
    assert shown["größe"][1] == f"{100 * rows['größe'].isna().mean():.1f} %"
    assert shown["<b>Bär</b>"][2] == f"true {rows['<b>Bär</b>'].astype(float).mean():.0%}"
    assert code[1:3] == ["none", "c0 2%, c1 2%, c10 2%, c11 2%, c12 2%, c13 2%, c14 2%, c15 2% and 32 more"]
    assert stunde[2] == "2024-01-01 12:30:00 to 2024-01-26 11:30:00"
    assert shown["seit"][2] == f"{rows['seit'].min():%Y-%m-%d} to {rows['seit'].max():%Y-%m-%d}"
    reasons = {name: shown[name][0] for name in contract.left_out}
    assert reasons == {name: f"left out: {reason}" for name, reason in contract.left_out.items()}


@pytest.mark.parametrize("target", ["ja", "preis"])
def test_the_verdict_shows_every_condition(target: str) -> None:
    bundle, holdout = trained(mixed(), recipe(target))
    predictions = bundle.predictions(holdout)
    gate = Gate(minimum={"roc_auc": 0.8, "log_loss": 0.4} if target == "ja" else {"r2": 0.2})
    verdict = judge(predictions, predictions, bundle.card.prior, gate, EVALUATION, champion_version=3)
    text = verdict_page("kreuz", verdict)
    page = Page(text)
    assert text.count("<circle") == len(verdict.conditions) == len(gate.minimum) + 2
    for condition in verdict.conditions:
        assert condition.sentence in page.texts
        assert f"{number(condition.value)} {condition.bound:g} {number(condition.low)} to" in re.sub(
            r" +", " ", page.text
        )


def test_the_verdict_says_what_counts_at_which_level_and_in_which_unit() -> None:
    truth = np.arange(100) % 2
    predictions = Predictions("binary", truth, truth * 0.8 + 0.1, costs=(1.0, 7.0))
    verdict = judge(predictions, predictions, (0.5, 0.5), Gate(metric="cost"), EVALUATION, champion_version=3)
    text = Page(verdict_page("kreuz", verdict)).text
    assert "cost a row, 1 for a false positive, 7 for a false negative" in text
    assert "one-sided 95 % bounds" in text
    assert "Every condition counts: promotion needs all passed, one failed rejects, anything else holds." in text


def condition(**values: float) -> Condition:
    common: dict[str, Any] = {
        "name": "minimum_r2",
        "metric": "r2",
        "n": 9,
        "confidence": 0.95,
        "sentence": "",
    }
    return Condition(outcome="inconclusive", **common, **values)


def test_an_interval_is_drawn_to_scale_or_not_at_all() -> None:
    def drawn(condition: Condition) -> list[float]:
        page = verdict_page("a", Verdict(decision="hold", reasons=(), conditions=(condition,), rows=9))
        return [float(place) for place in re.findall(r'c?x[12]?="([\d.]+)%"', page)]

    bound, _, low, high, value = drawn(condition(low=0.2, value=0.3, high=0.6, bound=0.1))
    assert (bound, high) == (5, 95)
    assert (value - low) / (high - low) == pytest.approx(0.25, abs=0.01)
    assert drawn(condition(low=0, value=0, high=0, bound=0)) == [5, 5, 5, 5, 5]
    assert drawn(condition(low=np.nan, value=np.nan, high=np.nan, bound=0)) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.862, "0.8620"),
        (12345.6, "12,346"),
        (3.0, "3"),
        (-0.01234567, "-0.01235"),
        (np.nan, "–"),
        (17, "17"),
    ],
)
def test_a_number_has_as_many_digits_as_a_reader_can_use(value: float, shown: str) -> None:
    assert number(value) == shown
