"""The machinery of experiments/export.py."""
