"""Metrics over whole data sets: exact, masked, and usable in jit and vmap.

Each takes logits (or predictions), labels and `where`, `[N]` bool, True for the
rows that count. A metric that is undefined (no rows, or only one class) is NaN.

A soft label, a probability y, counts as two rows: a positive one with weight y
and a negative one with weight 1 - y. With soft labels, AUC and average
precision stay below 1 however good the scores are.
"""

from lplmtl.metrics.classification import Calibration as Calibration
from lplmtl.metrics.classification import accuracy as accuracy
from lplmtl.metrics.classification import calibration_curve as calibration_curve
from lplmtl.metrics.classification import calibration_error as calibration_error
from lplmtl.metrics.classification import log_loss as log_loss
from lplmtl.metrics.classification import ordinal_accuracy as ordinal_accuracy
from lplmtl.metrics.classification import quadratic_kappa as quadratic_kappa
from lplmtl.metrics.ranking import average_precision as average_precision
from lplmtl.metrics.ranking import (
  macro_average_precision as macro_average_precision,
)
from lplmtl.metrics.ranking import macro_roc_auc as macro_roc_auc
from lplmtl.metrics.ranking import roc_auc as roc_auc
from lplmtl.metrics.regression import mean_absolute_error as mean_absolute_error
from lplmtl.metrics.regression import poisson_d2 as poisson_d2
from lplmtl.metrics.regression import r2 as r2
