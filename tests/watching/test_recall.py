"""An earlier champion comes back where its world does, and only there."""

import numpy as np
import pandas as pd
import pytest
from tables import recipe, trained

from loop.config import Evaluation, Gate
from loop.training.metrics import estimate
from loop.watching.recall import choose_champion

QUICK = Evaluation(resamples=200)


def world(sign, count=1200, seed=0):
    """Make rows of a world where taller people say yes, or shorter ones, or neither."""
    random = np.random.default_rng(seed)
    rows = pd.DataFrame({"nummer": np.arange(count) + 10_000 * seed, "größe": random.normal(170, 10, count)})
    noisy = sign * (rows["größe"] - 170) / 5 + random.logistic(size=count)
    rows["ja"] = np.where(noisy > 0, "ja", "nein")
    return rows.assign(art="x", preis=1.0)


@pytest.fixture(scope="module")
def models():
    """Train a model of each of two worlds; return both, each with the metrics of its own holdout."""
    found = []
    for sign in (1, -1):
        model, holdout = trained(world(sign), recipe())
        found.append((model, estimate(model.predictions(holdout), ["roc_auc"], QUICK)))
    return found


def test_the_model_of_the_world_that_came_back_is_chosen(models):
    first, second = models
    assert choose_champion(second[0], {1: first}, world(1, seed=2), Gate(), QUICK) == 1
    assert choose_champion(first[0], {2: second, 3: second}, world(-1, seed=2), Gate(), QUICK) == 2


def test_nothing_is_chosen_in_its_own_world_in_a_new_one_or_on_few_rows(models):
    first, second = models
    assert choose_champion(second[0], {1: first}, world(-1, seed=2), Gate(), QUICK) is None
    assert choose_champion(second[0], {}, world(1, seed=2), Gate(), QUICK) is None
    assert choose_champion(second[0], {1: first}, world(1, seed=2).head(20), Gate(), QUICK) is None
    weaker = world(0.3, seed=2)  # the first does better there than the second, but not what it once did
    assert choose_champion(second[0], {1: first}, weaker, Gate(), QUICK) is None
