"""Generated data whose best reachable metrics are known."""

from lplmtl.data.synthetic import clicks as clicks
