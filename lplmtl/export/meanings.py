"""What the outputs of a task mean: from logits to predictions, in JAX."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lplmtl import losses, numeric, ordinal
from lplmtl.compression import links
from lplmtl.types import Array, Task


class Meaning(NamedTuple):
  """What outputs mean.

  Attributes:
    kind: `decisions` (each has a probability of its own), `classes` (one of
      them holds), `ordered classes`, `count` (whose logarithm it is) or
      `number`.
    mean: what is added to a number after scaling.
    std: what numbers and counts are multiplied by.
  """

  kind: str
  mean: float = 0.0
  std: float = 1.0


def describe(task: Task, mean: float = 0.0, std: float = 1.0) -> Meaning:
  """Returns what the outputs of a task mean, which its loss determines.

  Outputs of a loss of one's own are numbers; those of a distilled task mean
  what its own loss means.

  Args:
    task: the task.
    mean: see Meaning.
    std: see Meaning.
  """
  loss = getattr(task.loss_fn, 'hard', task.loss_fn)
  if loss is losses.ordinal_cross_entropy:
    return Meaning('ordered classes', mean, std)
  try:
    kind = links.of(dataclasses.replace(task, loss_fn=loss)).kind
  except ValueError:  # a loss of one's own
    kind = 'number'
  return Meaning(kind, mean, std)


def of(
  task: Task, mean: float = 0.0, std: float = 1.0
) -> Callable[[Array], Array]:
  """Returns the function from outputs `[..., K]` to predictions.

  These are the probability of each label or class (K + 1 ordered ones), an
  expected count, or a number.

  Args:
    task: see `describe`.
    mean: see Meaning.
    std: see Meaning.
  """
  kind = describe(task).kind
  if kind == 'classes':
    return lambda x: jax.nn.softmax(x, axis=-1)
  if kind == 'ordered classes':
    return ordinal.probabilities
  if kind == 'count':
    return lambda x: jnp.exp(jnp.minimum(x, numeric.MAX_LOG_RATE)) * std
  if kind == 'decisions':
    return jax.nn.sigmoid
  return lambda x: x * std + mean
