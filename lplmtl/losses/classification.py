"""Losses per row of labels that are classes, in nats."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from lplmtl.losses import _shapes
from lplmtl.types import Array


def binary_cross_entropy(predictions: Array, labels: Array) -> Array:
  """Binary cross-entropy of logits, in nats.

  Args:
    predictions: `[B, ..., 1]` logits.
    labels: `[B, ...]`, 0 or 1, or a probability.

  Returns:
    `[B]` float32, averaged over further axes (pixels, words).

  Raises:
    ValueError: shapes do not match.
  """
  _shapes.check('binary_cross_entropy', predictions, labels, num_outputs=1)
  logits = predictions[..., 0].astype(jnp.float32)
  targets = labels.astype(jnp.float32)
  return _shapes.mean_per_row(
    optax.sigmoid_binary_cross_entropy(logits, targets)
  )


def softmax_cross_entropy(predictions: Array, labels: Array) -> Array:
  """Cross-entropy of K mutually exclusive classes, in nats.

  Args:
    predictions: `[B, ..., K]` logits, K >= 2.
    labels: `[B, ...]` class indices from 0 to K - 1; not checked, as values are
      unknown inside jit.

  Returns:
    `[B]` float32, averaged over further axes.

  Raises:
    ValueError: shapes do not match, or K is 1, for which the loss would always
      be 0.
  """
  _shapes.check('softmax_cross_entropy', predictions, labels)
  if predictions.shape[-1] < 2:
    raise ValueError(
      'softmax_cross_entropy expects at least 2 classes, found predictions of '
      f"shape {predictions.shape}: set the task's num_outputs to the number "
      'of classes'
    )
  return _shapes.mean_per_row(
    optax.softmax_cross_entropy_with_integer_labels(
      predictions.astype(jnp.float32), labels.astype(jnp.int32)
    )
  )


def multilabel_cross_entropy(predictions: Array, labels: Array) -> Array:
  """Binary cross-entropy of K labels that do not exclude each other, in nats.

  It is averaged over the labels, so that its scale is that of one binary task,
  however many labels there are.

  Args:
    predictions: `[B, ..., K]` logits.
    labels: `[B, ..., K]`, 0 or 1, or a probability.

  Returns:
    `[B]` float32, averaged over labels and further axes.

  Raises:
    ValueError: shapes do not match.
  """
  _shapes.check_alike('multilabel_cross_entropy', predictions, labels)
  return _shapes.mean_per_row(
    optax.sigmoid_binary_cross_entropy(
      predictions.astype(jnp.float32), labels.astype(jnp.float32)
    )
  )


def ordinal_cross_entropy(predictions: Array, labels: Array) -> Array:
  """Cross-entropy of K ordered classes, one binary decision per threshold.

      1 / (K - 1)  sum_k BCE(z_k, [y > k]),    k = 0, ..., K - 2

  Logit k says whether the class is above k (Frank & Hall 2001; trained together
  in one network by Niu et al. 2016). A class that is further away costs more,
  as it is on the wrong side of more thresholds. `lplmtl.ordinal` turns the
  logits into the probabilities of the classes.

  Args:
    predictions: `[B, ..., K - 1]` logits, K >= 2.
    labels: `[B, ...]` class indices from 0 to K - 1; not checked, as values are
      unknown inside jit.

  Returns:
    `[B]` float32, averaged over thresholds and further axes.

  Raises:
    ValueError: shapes do not match.

  Differs from the papers: the mean over thresholds in place of their sum, so
  that the scale is that of one binary task; and Niu et al. use two outputs with
  a softmax per threshold. Each threshold has weights of its own, so the
  probabilities of exceeding them may cross; CORAL (Cao et al. 2020) prevents
  that by sharing the weights and learning only a bias per threshold.

  References:
    Frank and Hall 2001, "A Simple Approach to Ordinal Classification".
    Niu et al. 2016, "Ordinal Regression with Multiple Output CNN for Age
    Estimation".
    Cao, Mirjalili and Raschka 2020, "Rank Consistent Ordinal Regression for
    Neural Networks with Application to Age Estimation".
  """
  _shapes.check('ordinal_cross_entropy', predictions, labels)
  thresholds = jax.lax.broadcasted_iota(
    jnp.int32, predictions.shape, predictions.ndim - 1
  )
  is_above = labels.astype(jnp.int32)[..., None] > thresholds
  return _shapes.mean_per_row(
    optax.sigmoid_binary_cross_entropy(
      predictions.astype(jnp.float32), is_above.astype(jnp.float32)
    )
  )


@dataclasses.dataclass(frozen=True)
class Focal:
  """Focal loss: binary cross-entropy in which easy rows count less.

      -(1 - p)^gamma log p,    p = P(the row's class)

  For rare positives, when it is the ranking that matters: the many negatives
  that are already recognised no longer drown the rest. Its minimum is not at
  the probability of the label: sigmoids of the logits lie closer to 1/2 and are
  *not calibrated probabilities*.

  Attributes:
    gamma: >= 0; 0 is the binary cross-entropy, 2 the paper's choice.

  Differs from the paper: no factor alpha per class; use `Batch.weights`.

  References:
    Lin et al. 2017, "Focal Loss for Dense Object Detection", eq. 4.

  Example:
    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[0.0], [4.0]])
    >>> loss = Focal(gamma=2.0)(logits, jnp.array([1, 1]))
    >>> [round(float(value), 6) for value in loss]
    [0.173287, 6e-06]
  """

  gamma: float = 2.0

  def __post_init__(self) -> None:
    if not 0 <= self.gamma < float('inf'):
      raise ValueError(
        f'gamma of the focal loss must be a number >= 0, found {self.gamma!r}'
      )

  def __call__(self, predictions: Array, labels: Array) -> Array:
    """Returns one loss per row.

    Args:
      predictions: `[B, ..., 1]` logits.
      labels: `[B, ...]`, 0 or 1; a probability counts as two rows, one of each
        class.

    Returns:
      `[B]` float32, averaged over further axes.

    Raises:
      ValueError: shapes do not match.
    """
    _shapes.check('Focal', predictions, labels, num_outputs=1)
    logits = predictions[..., 0].astype(jnp.float32)
    targets = labels.astype(jnp.float32)
    positive, negative = self._of_class(logits), self._of_class(-logits)
    return _shapes.mean_per_row(targets * positive + (1 - targets) * negative)

  def _of_class(self, logits: Array) -> Array:
    # (1 - p)^gamma as the exponential of a logarithm, whose gradient is finite
    # for every gamma; that of a power is not where p rounds to 1.
    ease = jax.nn.softplus(logits)  # -log(1 - p)
    return jnp.exp(-self.gamma * ease) * jax.nn.softplus(-logits)
