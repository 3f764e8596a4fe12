"""Ordered classes: what the logits of K - 1 thresholds say about K classes.

Logit k belongs to the question whether the class is above k (see
`lplmtl.losses.ordinal_cross_entropy`). The functions take NumPy arrays or JAX
arrays, also inside jit, and return the same kind.
"""

import math
from typing import Any

# The sigmoid of 80 is 1 in float32; from 88 on, `exp` would overflow.
_MAX_LOGIT = 80.0


def probabilities(logits: Any) -> Any:
  """Returns the probability of each class.

      P(0) = 1 - s_0,   P(k) = s_(k-1) - s_k,   P(K-1) = s_(K-2)

  where s_k, the probability to be above k, is the sigmoid of a logit. The
  thresholds are learned independently, so a row's logits need not decrease;
  they are therefore sorted first, which leaves those that decrease unchanged,
  makes every probability >= 0, and never takes s further from the true
  probabilities (Chernozhukov et al. 2010).

  Args:
    logits: `[..., K - 1]` float.

  Returns:
    `[..., K]`, >= 0, with sum 1.

  References:
    Frank and Hall 2001, "A Simple Approach to Ordinal Classification".
    Chernozhukov, Fernández-Val and Galichon 2010, "Quantile and Probability
    Curves Without Crossing".

  Example:
    >>> import numpy as np
    >>> probabilities(np.log([3.0, 1 / 3])).round(2).tolist()
    [0.25, 0.5, 0.25]
  """
  xp = logits.__array_namespace__()
  falling = -xp.sort(-logits, axis=-1)
  above = 1 / (1 + xp.exp(-xp.clip(falling, -_MAX_LOGIT, _MAX_LOGIT)))
  edge = xp.ones_like(above[..., :1])
  at_least = xp.concat([edge, above, 0 * edge], axis=-1)
  return at_least[..., :-1] - at_least[..., 1:]


def classes(logits: Any) -> Any:
  """Returns the median class: the number of thresholds that are exceeded.

  The median has the smallest expected distance from the label, and does not
  depend on how crossing thresholds are put in order. It need not be the most
  probable class.

  Args:
    logits: `[..., K - 1]` float.

  Returns:
    `[...]` integer class indices, from 0 to K - 1.

  Example:
    >>> import numpy as np
    >>> classes(np.array([[2.0, 0.5, -1.0], [-3.0, -4.0, -5.0]])).tolist()
    [2, 0]
  """
  return (logits > 0).sum(axis=-1)


def median(probabilities: Any) -> Any:
  """Returns the median class of probabilities, such as the mean of an ensemble.

  Args:
    probabilities: `[..., K]` float, with sum 1.

  Returns:
    `[...]` integer class indices, from 0 to K - 1.

  Example:
    >>> import numpy as np
    >>> median(np.array([0.3, 0.3, 0.4])).tolist()
    1
  """
  up_to = probabilities.cumsum(axis=-1)[..., :-1]
  return (up_to < 0.5).sum(axis=-1)


def logits(probabilities: Any) -> Any:
  """Returns the logits of the thresholds: the inverse of `probabilities`.

  For metrics, which take logits, of probabilities that were averaged.

  Args:
    probabilities: `[..., K]` float, with sum 1.

  Returns:
    `[..., K - 1]`, in falling order, from -80 to 80.

  Example:
    >>> import numpy as np
    >>> np.exp(logits(np.array([0.25, 0.5, 0.25]))).round(2).tolist()
    [3.0, 0.33]
  """
  xp = probabilities.__array_namespace__()
  below = probabilities.cumsum(axis=-1)[..., :-1]
  # From the other end: 1 - below would lose the digits of small numbers.
  above = xp.flip(xp.flip(probabilities, axis=-1).cumsum(axis=-1), axis=-1)
  least = math.exp(-_MAX_LOGIT)
  odds = xp.maximum(above[..., 1:], least) / xp.maximum(below, least)
  return xp.clip(xp.log(odds), -_MAX_LOGIT, _MAX_LOGIT)
