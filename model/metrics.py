"""Metrics of your own, usable like the built-in ones: in `gate.metric`, `gate.minimum`, reports and monitoring."""

from loop.training.own import Own

METRICS: dict[str, Own] = {
    # A function of truth and decision, 0 or 1 (or of numbers), such as those of scikit-learn, with their imports above:
    #   from functools import partial
    #   from sklearn.metrics import fbeta_score
    #   "f2": Own(partial(fbeta_score, beta=2)),
    # of truth and score, where less is better:
    #   "miscalibration": Own(expected_calibration_error, of="score", greater_is_better=False),
}
