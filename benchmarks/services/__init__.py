"""Services that others would write around the same model; `benchmarks.serving` compares with them.

Each module has `service()`, a factory for uvicorn, and finds the release's folder in BENCHMARK_RELEASE.
"""
