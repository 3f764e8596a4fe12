"""What the outputs of a task mean: from logits to predictions, in JAX."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lplmtl import losses, numeric, ordinal
from lplmtl.types import Array, Task


def of(
  task: Task, mean: float = 0.0, std: float = 1.0
) -> Callable[[Array], Array]:
  """Returns the function from outputs `[..., K]` to predictions.

  These are, by the task's loss, the probability of each label (binary and
  multi-label tasks), of each class (multiclass and ordinal tasks: K + 1 of the
  latter), an expected count, or a number. Outputs of a loss of one's own stay
  as they are.

  Args:
    task: the task; a distilled one means what its own loss means.
    mean: what is added to a number after scaling.
    std: what numbers and counts are multiplied by.
  """
  loss = getattr(task.loss_fn, 'hard', task.loss_fn)
  if loss is losses.softmax_cross_entropy:
    return lambda x: jax.nn.softmax(x, axis=-1)
  if loss is losses.ordinal_cross_entropy:
    return ordinal.probabilities
  if loss is losses.half_poisson_deviance:
    return lambda x: jnp.exp(jnp.minimum(x, numeric.MAX_LOG_RATE)) * std
  decisions = losses.binary_cross_entropy, losses.multilabel_cross_entropy
  if loss in decisions or isinstance(loss, losses.Focal):
    return jax.nn.sigmoid
  return lambda x: x * std + mean
