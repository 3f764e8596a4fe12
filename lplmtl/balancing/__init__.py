"""Balancers: pairs of pure functions from task losses to weights."""

from lplmtl.balancing.equal import equal as equal
from lplmtl.balancing.pcgrad import pcgrad as pcgrad
from lplmtl.balancing.uncertainty import uncertainty as uncertainty
from lplmtl.balancing.uncertainty import uncertainty_loss as uncertainty_loss
from lplmtl.balancing.uncertainty import (
  uncertainty_revised as uncertainty_revised,
)
from lplmtl.balancing.uncertainty import (
  uncertainty_revised_loss as uncertainty_revised_loss,
)
