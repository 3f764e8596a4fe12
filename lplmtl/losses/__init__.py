"""Losses per row, and their means over the rows that have a label."""

from lplmtl.losses.classification import Focal as Focal
from lplmtl.losses.classification import (
  binary_cross_entropy as binary_cross_entropy,
)
from lplmtl.losses.classification import (
  multilabel_cross_entropy as multilabel_cross_entropy,
)
from lplmtl.losses.classification import (
  ordinal_cross_entropy as ordinal_cross_entropy,
)
from lplmtl.losses.classification import (
  softmax_cross_entropy as softmax_cross_entropy,
)
from lplmtl.losses.means import mask_labels as mask_labels
from lplmtl.losses.means import masked_mean as masked_mean
from lplmtl.losses.means import row_totals as row_totals
from lplmtl.losses.means import row_weights as row_weights
from lplmtl.losses.means import task_losses as task_losses
from lplmtl.losses.regression import Huber as Huber
from lplmtl.losses.regression import (
  half_poisson_deviance as half_poisson_deviance,
)
from lplmtl.losses.regression import half_squared_error as half_squared_error
from lplmtl.losses.regression import squared_error as squared_error
