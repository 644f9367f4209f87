"""The steps, one stage a file."""

import functools
import importlib.metadata

# ZenML rescans every installed package for each stored table and model: 60 % of a warm run.
importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)
