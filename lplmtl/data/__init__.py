"""Synthetic data, for examples and tests."""

from lplmtl.data.synthetic import clicks as clicks
