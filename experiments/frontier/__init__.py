"""The machinery of `experiments.compress`."""
