"""The machinery of `experiments.report`."""
