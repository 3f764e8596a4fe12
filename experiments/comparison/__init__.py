"""The machinery of `experiments.compare`."""
