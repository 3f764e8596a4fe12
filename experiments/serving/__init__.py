"""The machinery of experiments/serve.py."""
