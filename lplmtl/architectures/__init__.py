"""Architectures: Linen modules whose fields are the whole configuration."""

from lplmtl.architectures.cgc import CGC as CGC
from lplmtl.architectures.mmoe import MMoE as MMoE
from lplmtl.architectures.ple import PLE as PLE
from lplmtl.architectures.shared_bottom import SharedBottom as SharedBottom
from lplmtl.architectures.sple import SPLE as SPLE
