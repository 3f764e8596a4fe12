"""Architectures: Linen modules whose fields are their whole configuration."""

from lplmtl.architectures.adatt import AdaTT as AdaTT
from lplmtl.architectures.aitm import AITM as AITM
from lplmtl.architectures.cgc import CGC as CGC
from lplmtl.architectures.cross_stitch import CrossStitch as CrossStitch
from lplmtl.architectures.dselect_k import DSelectK as DSelectK
from lplmtl.architectures.esmm import ESMM as ESMM
from lplmtl.architectures.mmoe import MMoE as MMoE
from lplmtl.architectures.mtan import MTAN as MTAN
from lplmtl.architectures.omoe import OMoE as OMoE
from lplmtl.architectures.ple import PLE as PLE
from lplmtl.architectures.shared_bottom import SharedBottom as SharedBottom
from lplmtl.architectures.single_task import SingleTask as SingleTask
from lplmtl.architectures.soft_sharing import SoftSharing as SoftSharing
from lplmtl.architectures.sple import SPLE as SPLE
from lplmtl.architectures.stacked_mmoe import StackedMMoE as StackedMMoE
from lplmtl.architectures.stem import STEM as STEM
from lplmtl.architectures.tensor_factorization import (
  TensorFactorization as TensorFactorization,
)

# For tasks in any order, none of which depends on another.
ARCHITECTURES = (
  SingleTask,
  SharedBottom,
  SoftSharing,
  CrossStitch,
  TensorFactorization,
  OMoE,
  MMoE,
  StackedMMoE,
  DSelectK,
  CGC,
  PLE,
  SPLE,
  MTAN,
  AdaTT,
  STEM,
)
# For binary tasks in the order in which they happen, such as click, then buy.
CHAINS = (ESMM, AITM)
