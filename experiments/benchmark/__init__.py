"""What `experiments.throughput` is made of."""
