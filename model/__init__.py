"""What is yours: derived columns, estimators, metrics, sources, and the packages they need. The engine asks by name."""
