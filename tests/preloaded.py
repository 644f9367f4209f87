"""Import what a training needs, once, in the server that test processes are forked from."""

from zenml.utils.source_utils import set_custom_source_root

from loop.config import ROOT

set_custom_source_root(str(ROOT))

import matplotlib.figure  # noqa: E402, F401
import mlflow.sklearn  # noqa: E402, F401
import skops.io  # noqa: E402, F401

import pipelines.training  # noqa: E402, F401
