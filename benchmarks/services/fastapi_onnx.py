"""Serve the compiled model with FastAPI by hand: no contract, no log, no metrics, no token, numbers only."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI


def service() -> FastAPI:
    """Return the application; it scales with numpy, as our own does, and leaves all else to ONNX."""
    release = Path(os.environ["BENCHMARK_RELEASE"])
    (numbers,) = json.loads((release / "compiled.json").read_text(encoding="utf-8"))["parts"]
    _, means, scales = (np.array(step.get("by")) for step in numbers["steps"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(release / "model.onnx", options, providers=["CPUExecutionProvider"])
    (entry,), outputs = session.get_inputs(), [session.get_outputs()[-1].name]
    dtype = np.float64 if entry.type == "tensor(double)" else np.float32
    app = FastAPI()

    @app.post("/predict")
    async def predict(rows: list[list[float]]) -> dict[str, list[float]]:
        matrix = ((np.array(rows) - means) / scales).astype(dtype, copy=False)
        return {"scores": session.run(outputs, {entry.name: matrix})[0][:, 1].tolist()}

    return app
