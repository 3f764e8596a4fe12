"""Synthetic data, for examples and tests."""

from lplmtl.data.customer_table import customers as customers
from lplmtl.data.synthetic import clicks as clicks
