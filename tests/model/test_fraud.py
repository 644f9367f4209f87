import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal
from sklearn.metrics import roc_auc_score

from loop.config import UserError
from model.fraud import SCENARIOS, card_transactions, fraud_probability

ROWS = 60_000
FEATURES = ["amount", "merchant", "country", "channel", "previous_24h", "distance_km", "device_score"]


@pytest.fixture(scope="module")
def streams() -> dict[str, pd.DataFrame]:
    return {scenario: card_transactions(ROWS, scenario=scenario) for scenario in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_row_is_the_same_however_it_is_asked_for(scenario: str) -> None:
    whole = card_transactions(10_000, scenario=scenario)
    assert_frame_equal(whole.head(100), card_transactions(100, scenario=scenario))
    later = card_transactions(5_000, scenario=scenario, start=4_000)
    assert_frame_equal(whole.iloc[4_000:9_000].reset_index(drop=True), later)


def test_another_seed_is_another_stream() -> None:
    assert not card_transactions(100, seed=1).amount.equals(card_transactions(100, seed=2).amount)


def test_rows_are_like_card_traffic(streams: dict[str, pd.DataFrame]) -> None:
    rows = streams["none"]
    assert rows.transaction_id.is_unique
    assert rows.time.is_monotonic_increasing
    assert (rows.time.dt.hour == rows.hour).all()
    assert (rows.hour.between(9, 20)).mean() > 0.6
    assert (rows.amount > 0).all()
    assert abs(np.log(rows.amount).skew()) < 0.5
    assert (rows.card_since <= rows.time).all()
    assert (rows.distance_km.isna() == (rows.channel == "online")).all()
    assert 0.04 < rows.device_score.isna().mean() < 0.06
    assert {str(dtype) for dtype in rows.dtypes} == {"int64", "float64", "str", "datetime64[us]"}


def test_frauds_are_rare_and_can_be_ranked_but_not_perfectly(streams: dict[str, pd.DataFrame]) -> None:
    for scenario in ("none", "concept"):
        rows = streams[scenario]
        assert 0.01 < rows.fraud.mean() < 0.03
        assert 0.85 < roc_auc_score(rows.fraud, fraud_probability(rows, scenario)) < 0.92


def test_covariate_moves_the_features_and_keeps_what_makes_a_fraud(streams: dict[str, pd.DataFrame]) -> None:
    before, after = streams["none"], streams["covariate"]
    assert after.amount.median() > 1.3 * before.amount.median()
    assert after.distance_km.median() > 1.3 * before.distance_km.median()
    assert (after.merchant == "electronics").mean() > 1.5 * (before.merchant == "electronics").mean()
    same = [
        "transaction_id",
        "time",
        "country",
        "channel",
        "card_since",
        "hour",
        "previous_24h",
        "device_score",
    ]
    assert_frame_equal(before[same], after[same])
    expected = fraud_probability(after)  # by the probability without drift
    for part in np.array_split(np.argsort(expected), 4):
        error = np.sqrt(expected[part].mean() / len(part))
        assert abs(after.fraud.to_numpy()[part].mean() - expected[part].mean()) < 4 * error


def test_label_triples_the_frauds_and_keeps_each_class_as_it_was(streams: dict[str, pd.DataFrame]) -> None:
    before, after = streams["none"], streams["label"]
    assert 2.6 < after.fraud.mean() / before.fraud.mean() < 3.4
    assert after.time.is_monotonic_increasing
    assert not after[FEATURES].duplicated().any()
    for fraud in (0, 1):
        old, new = (rows[rows.fraud == fraud] for rows in (before, after))
        for name in ("amount", "hour", "previous_24h", "distance_km", "device_score"):
            error = np.sqrt(old[name].var() / old[name].count() + new[name].var() / new[name].count())
            assert abs(new[name].mean() - old[name].mean()) < 4 * error, name
        shares = [rows.merchant.value_counts(normalize=True) for rows in (old, new)]
        assert (shares[0] - shares[1]).abs().max() < 4 * np.sqrt(0.25 / len(old) + 0.25 / len(new))


def test_concept_changes_what_makes_a_fraud_and_nothing_else(streams: dict[str, pd.DataFrame]) -> None:
    before, after = streams["none"], streams["concept"]
    assert_frame_equal(before.drop(columns="fraud"), after.drop(columns="fraud"))
    assert 0.6 < after.fraud.mean() / before.fraud.mean() < 1.5
    assert roc_auc_score(after.fraud, fraud_probability(after)) < 0.75


def test_missing_hides_device_scores_and_nothing_else(streams: dict[str, pd.DataFrame]) -> None:
    before, after = streams["none"], streams["missing"]
    assert_frame_equal(before.drop(columns="device_score"), after.drop(columns="device_score"))
    assert after.device_score.isna().mean() > 0.5
    seen = after.device_score.notna()
    assert_series_equal(before.device_score[seen], after.device_score[seen])


def test_schema_renames_one_column_and_turns_one_into_strings(streams: dict[str, pd.DataFrame]) -> None:
    before, after = streams["none"], streams["schema"]
    assert after.amount.dtype == "str"
    after = after.rename(columns={"merchant_category": "merchant"})
    assert_frame_equal(before, after.assign(amount=pd.to_numeric(after.amount)))


def test_refuses_what_is_no_stream() -> None:
    with pytest.raises(UserError, match=r"no scenario 'covariat'.*did you mean 'covariate'"):
        card_transactions(10, scenario="covariat")
    for rows, seed, start in ((0, 7, 0), (1, -1, 0), (1, 7, -1)):
        with pytest.raises(UserError, match="rows must be 1 or more"):
            card_transactions(rows, seed, start=start)
