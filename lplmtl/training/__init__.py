"""Training: `fit`, and the pure functions below it."""

from lplmtl.training.fit import FitResult as FitResult
from lplmtl.training.fit import fit as fit
from lplmtl.training.nonfinite import NonFiniteError as NonFiniteError
from lplmtl.training.progress import Keeper as Keeper
from lplmtl.training.repeated import fit_each as fit_each
from lplmtl.training.scoring import evaluate_source as evaluate_source
from lplmtl.training.scoring import predict_source as predict_source
from lplmtl.training.shuffle import make_shuffle as make_shuffle
