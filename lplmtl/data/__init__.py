"""Synthetic data whose best possible metrics are known."""

from lplmtl.data.synthetic import clicks as clicks
