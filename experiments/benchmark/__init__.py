"""The machinery of `experiments.throughput`."""
