"""Trained models on devices without Python: see README.md."""

from lplmtl.export.codes import with_codes as with_codes
from lplmtl.export.program import Program as Program
from lplmtl.export.rows import features as features
from lplmtl.export.tracing import UnsupportedError as UnsupportedError
from lplmtl.export.tracing import trace as trace
