"""Training: `fit`, and the pure functions below it."""

from lplmtl.training.fit import FitResult as FitResult
from lplmtl.training.fit import Keeper as Keeper
from lplmtl.training.fit import NonFiniteError as NonFiniteError
from lplmtl.training.fit import fit as fit
from lplmtl.training.fit import make_shuffle as make_shuffle
