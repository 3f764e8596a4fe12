"""Balancers: pairs of pure functions from task losses to weights."""

from lplmtl.balancing.dwa import dwa as dwa
from lplmtl.balancing.equal import equal as equal
from lplmtl.balancing.exponential import exponential as exponential
from lplmtl.balancing.gls import gls as gls
from lplmtl.balancing.imtl_l import imtl_l as imtl_l
from lplmtl.balancing.imtl_l import imtl_l_loss as imtl_l_loss
from lplmtl.balancing.normalized import normalized as normalized
from lplmtl.balancing.pcgrad import pcgrad as pcgrad
from lplmtl.balancing.rlw import rlw as rlw
from lplmtl.balancing.static import static as static
from lplmtl.balancing.stch import stch as stch
from lplmtl.balancing.uncertainty import uncertainty as uncertainty
from lplmtl.balancing.uncertainty import uncertainty_loss as uncertainty_loss
from lplmtl.balancing.uncertainty import (
  uncertainty_revised as uncertainty_revised,
)
from lplmtl.balancing.uncertainty import (
  uncertainty_revised_loss as uncertainty_revised_loss,
)
