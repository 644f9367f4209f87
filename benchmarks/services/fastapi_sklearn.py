"""Serve a scikit-learn pipeline as most tutorials do: named fields in pydantic, a DataFrame, `predict_proba`."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
from fastapi import FastAPI
from pydantic import Field, create_model

from loop.training.bundle import Bundle


def service() -> FastAPI:
    """Return the application."""
    bundle = Bundle.read(Path(os.environ["BENCHMARK_RELEASE"]))
    pipeline = bundle.pipeline
    fields: dict[str, Any] = {
        name.replace(" ", "_"): (float, Field(alias=name)) for name in bundle.card.contract.features
    }
    row: Any = create_model("Row", **fields)
    app = FastAPI()

    @app.post("/predict")
    def predict(rows: list[row]) -> dict[str, list[float]]:
        table = pd.DataFrame([one.model_dump(by_alias=True) for one in rows])
        return {"scores": pipeline.predict_proba(table)[:, 1].tolist()}

    return app
