"""Losses of a student's outputs against a teacher's, per row.

Each is a frozen dataclass, so that a model whose tasks use it can be saved.
Their least value is that of a student whose outputs are the teacher's.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lplmtl.types import Array, LossFn


@dataclasses.dataclass(frozen=True)
class SoftDecisions:
  """Yes/no decisions: a binary cross-entropy with the teacher's probabilities.

      T^2 KL(s(u / T) || s(z / T)) + H(s(u)),    s: sigmoid

  z are the student's logits, u the teacher's, averaged over the K outputs. At T
  = 1 this is the cross-entropy itself. A higher temperature T compares logits
  rather than probabilities: rows of which the teacher is certain count more.

  Attributes:
    temperature: T > 0.

  Differs from the paper: the entropy H, a constant, keeps the value on the
  scale of the hard loss at every T, as balancers that read losses require.

  References:
    Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural
    Network".

  Example:
    >>> loss = SoftDecisions(temperature=2.0)
    >>> teacher = jnp.array([[0.0], [4.0]])
    >>> [round(float(x), 4) for x in loss(jnp.zeros((2, 1)), teacher)]
    [0.6931, 1.4013]
  """

  temperature: float = 1.0

  def __post_init__(self) -> None:
    check_temperature(self.temperature)

  def __call__(self, predictions: Array, teacher: Array) -> Array:
    """Returns `[B]` float32 for `[B, ..., K]` logits of both.

    Raises:
      ValueError: their shapes differ.
    """
    pair = _pair('SoftDecisions', predictions, teacher)
    cross_entropy = optax.sigmoid_binary_cross_entropy
    return _tempered(cross_entropy, jax.nn.sigmoid, pair, self.temperature)


@dataclasses.dataclass(frozen=True)
class SoftClasses:
  """One of K classes: as `SoftDecisions`, with softmax in place of sigmoid.

  Attributes:
    temperature: T > 0.

  Example:
    >>> loss = SoftClasses()(jnp.zeros((1, 2)), jnp.array([[0.0, 9.0]]))
    >>> round(float(loss[0]), 4)
    0.6931
  """

  temperature: float = 1.0

  def __post_init__(self) -> None:
    check_temperature(self.temperature)

  def __call__(self, predictions: Array, teacher: Array) -> Array:
    """Returns `[B]` float32 for `[B, ..., K]` logits of both.

    Raises:
      ValueError: their shapes differ.
    """
    pair = _pair('SoftClasses', predictions, teacher)
    cross_entropy = optax.softmax_cross_entropy
    return _tempered(cross_entropy, jax.nn.softmax, pair, self.temperature)


@dataclasses.dataclass(frozen=True)
class SoftNumber:
  """A number: the task's own loss, with the teacher's number as the label.

  Attributes:
    loss_fn: such as `losses.half_squared_error` or `losses.Huber(1.0)`.
    is_count: the outputs are logarithms of rates, the labels rates, as for
      `losses.half_poisson_deviance`.

  Example:
    >>> from lplmtl import losses
    >>> loss = SoftNumber(losses.half_squared_error)
    >>> loss(jnp.zeros((1, 1)), jnp.array([[2.0]])).tolist()
    [2.0]
  """

  loss_fn: LossFn
  is_count: bool = False

  def __call__(self, predictions: Array, teacher: Array) -> Array:
    """Returns `[B]` float32 for `[B, ..., 1]` outputs of both.

    Raises:
      ValueError: their shapes differ.
    """
    student, teacher = _pair('SoftNumber', predictions, teacher)
    labels = jnp.exp(teacher) if self.is_count else teacher
    return self.loss_fn(student, labels[..., 0])


def check_temperature(temperature: float) -> None:
  """Raises ValueError unless a temperature is a positive number."""
  if not 0 < temperature < float('inf'):
    raise ValueError(f'temperature must be a number > 0, found {temperature!r}')


def _pair(name: str, student: Array, teacher: Array) -> tuple[Array, Array]:
  if student.shape != teacher.shape or student.ndim < 2:
    raise ValueError(
      f"{name} expects the student's outputs and the teacher's [B, ..., K]; "
      f'found {student.shape} and {teacher.shape}'
    )
  return student.astype(jnp.float32), teacher.astype(jnp.float32)


def _tempered(
  cross_entropy: Callable[[Array, Array], Array],
  expected: Callable[[Array], Array],
  logits: tuple[Array, Array],
  temperature: float,
) -> Array:
  """Returns `[B]`, the mean over all other axes."""
  student, teacher = logits
  soft = expected(teacher / temperature)
  divergence = cross_entropy(student / temperature, soft) - cross_entropy(
    teacher / temperature, soft
  )
  entropy = cross_entropy(teacher, expected(teacher))
  values = temperature**2 * divergence + entropy
  return values.reshape(values.shape[0], -1).mean(axis=1)
