"""One meaning of a row: files of any format, /predict, /predict_csv and /invocations score it alike, to the bit."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from drawn import Column, tables, written
from hypothesis import HealthCheck, Phase, given, settings

from loop.config import Recipe, Serving
from loop.data.contract import learn_contract
from loop.data.sources import read_rows, read_table
from loop.data.split import resolve
from loop.serving.invocations import invoked_rows
from loop.serving.schema import Row, Schema
from loop.training.bundle import Bundle
from loop.training.fit import train


def trained(recipe: Recipe) -> Bundle:
    rows, reading = read_table(recipe.data)
    contract = learn_contract(rows, recipe.data, recipe.contract, reading=reading)
    return train(rows, contract, resolve(rows, recipe.data, recipe.split), recipe)


@settings(
    max_examples=15,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(tables(rows=24, largest=1e9))
def test_a_row_scores_alike_however_it_comes(tmp_path: Path, table: dict[str, Column]) -> None:
    sources = written(table, tmp_path)
    model = {"estimator": "sklearn.linear_model.LogisticRegression", "folds": 2}
    bundle = trained(Recipe.model_validate({"name": "drawn", "data": sources["csv"].model_dump(), "model": model}))
    contract = bundle.card.contract
    expected = bundle.scores(read_rows(sources["csv"], contract=contract))
    for source in sources.values():
        assert bundle.scores(read_rows(source, labelled=False, contract=contract)).tobytes() == expected.tobytes()

    def as_table(rows: list[Row]) -> pd.DataFrame:
        return pd.DataFrame([row[: len(schema.features)] for row in rows], columns=list(schema.features))

    schema, sent = Schema(bundle.card, Serving(max_rows=100)), [name for name in table if name != "the target"]
    columns = [table[name].values for name in sent]
    records = [dict(zip(sent, row, strict=True)) for row in zip(*columns, strict=True)]
    body = json.dumps(records, default=datetime.isoformat).encode()
    lines = pd.DataFrame({name: table[name].texts for name in sent}).to_csv(index=False).encode()
    formats = (
        {"dataframe_split": {"columns": sent, "data": [list(record.values()) for record in records]}},
        {"dataframe_records": records},
        {"instances": records},
        {"inputs": dict(zip(sent, columns, strict=True))},
    )
    invoked = [invoked_rows(schema, json.dumps(found, default=datetime.isoformat).encode()) for found in formats]
    for rows in (schema.rows(body), schema.csv_rows(lines), *invoked):
        assert bundle.scores(as_table(rows)).tobytes() == expected.tobytes()
    bodies = [json.dumps(record, default=datetime.isoformat).encode() for record in records[:3]]
    alone = [bundle.scores(as_table(schema.rows(body)))[0] for body in bodies]
    np.testing.assert_array_equal(alone, expected[:3])
