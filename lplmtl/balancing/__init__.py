"""Balancers: pairs of pure functions from task losses to weights.

Every constructor in the three tuples below works without arguments (defaults
are the papers' values, where they give any); `normalized` wraps another
balancer and is in none of the tuples.
"""

from lplmtl.balancing._loop import balance as balance
from lplmtl.balancing._loop import first_state as first_state
from lplmtl.balancing.aligned_mtl import aligned_mtl as aligned_mtl
from lplmtl.balancing.cagrad import cagrad as cagrad
from lplmtl.balancing.config import config as config
from lplmtl.balancing.coordinates import combine as combine
from lplmtl.balancing.coordinates import gramian as gramian
from lplmtl.balancing.db_mtl import db_mtl as db_mtl
from lplmtl.balancing.dualproj import dualproj as dualproj
from lplmtl.balancing.dwa import dwa as dwa
from lplmtl.balancing.equal import equal as equal
from lplmtl.balancing.excess_mtl import excess_mtl as excess_mtl
from lplmtl.balancing.exponential import exponential as exponential
from lplmtl.balancing.fairgrad import fairgrad as fairgrad
from lplmtl.balancing.famo import famo as famo
from lplmtl.balancing.gls import gls as gls
from lplmtl.balancing.graddrop import graddrop as graddrop
from lplmtl.balancing.gradnorm import gradnorm as gradnorm
from lplmtl.balancing.gradvac import gradvac as gradvac
from lplmtl.balancing.imtl_g import imtl_g as imtl_g
from lplmtl.balancing.imtl_l import imtl_l as imtl_l
from lplmtl.balancing.imtl_l import imtl_l_loss as imtl_l_loss
from lplmtl.balancing.mgda import mgda as mgda
from lplmtl.balancing.moco import moco as moco
from lplmtl.balancing.nash_mtl import nash_mtl as nash_mtl
from lplmtl.balancing.normalized import normalized as normalized
from lplmtl.balancing.pcgrad import pcgrad as pcgrad
from lplmtl.balancing.random import random as random
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
from lplmtl.balancing.upgrad import upgrad as upgrad

# These return a Balancer that weights the losses by their values or its state.
LOSS_WEIGHTINGS = (
  equal,
  static,
  exponential,
  uncertainty,
  uncertainty_revised,
  imtl_l,
  dwa,
  gls,
  rlw,
  random,
  stch,
  famo,
)
# These return a Balancer whose `needs_gramian` is True.
GRAMIAN_METHODS = (
  gradnorm,
  pcgrad,
  gradvac,
  mgda,
  cagrad,
  imtl_g,
  config,
  nash_mtl,
  fairgrad,
  aligned_mtl,
  upgrad,
  dualproj,
)
# These return an Aggregator: they need the gradients, coordinate by coordinate.
AGGREGATORS = (graddrop, moco, db_mtl, excess_mtl)
