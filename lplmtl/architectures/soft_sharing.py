"""Soft sharing: a model per task, drawn towards the others by a penalty."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl import _alike
from lplmtl.architectures import _common
from lplmtl.layers import experts
from lplmtl.types import Array, PyTree, Task


class SoftSharing(nn.Module):
  """Single-task models whose trunks are tied by an L2 penalty.

  `y_k = h_k(f_k(x))`, with the penalty

      strength sum_{j<k} ||theta_j - theta_k||^2

  over the parameters theta_k of the encoder and trunk of task k (Duong et al.
  2015; the L2-Constrained model of Ma et al. 2018).

  Shared parameters: none, because the penalty does not belong to any task's
  loss.

  Number of parameters: that of `SingleTask`.

  Attributes:
    tasks: T tasks.
    encoder: template of the encoders `encoder_<task>`; None for none.
    bottom: template of the trunks `bottom_<task>`.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added.
    strength: weight of the penalty, >= 0; worth tuning, since a suitable value
      depends on the size of the trunks.

  Differs from the papers: Duong et al. draw the parser of a target language
  towards a trained one of a source language. Here, as in Ma et al., both models
  move; with T tasks, the penalty covers every pair. It includes the embeddings,
  but not the towers, which are task-specific.

  References:
    Duong et al. 2015, "Low Resource Dependency Parsing: Cross-lingual Parameter
    Sharing in a Neural Network Parser".
    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: _common.TowerBody = experts.MLP((32,))
  strength: Any = 1e-4

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    del path
    return False

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': (), 'penalty': scalar})`."""
    _common.check_weight('strength', self.strength)
    hidden = _common.apply_trunks(self, features, train=train)
    params = self.variables.get('params', {})
    trunks = [
      {part: params.get(f'{part}_{name}', {}) for part in ('encoder', 'bottom')}
      for name in hidden
    ]
    if len(trunks) <= _alike.FEW:
      # A stack would copy all trunks: for two tasks, a tenth of a step.
      pairs = itertools.combinations(trunks, 2)
      distance = sum((_between(*pair) for pair in pairs), jnp.float32(0))
    else:
      distance = _distance(_alike.stack(trunks))
    predictions = _common.predict(self, hidden, train=train)
    return predictions, {'gates': (), 'penalty': self.strength * distance}


def _between(a: PyTree, b: PyTree) -> Array:
  """Returns the squared distance between two trunks, in float32."""
  squares = jax.tree.map(
    lambda x, y: jnp.sum(jnp.square((x - y).astype(jnp.float32))), a, b
  )
  return sum(jax.tree.leaves(squares), jnp.float32(0))


def _distance(trunks: PyTree) -> Array:
  """Returns the sum of squared distances between all pairs, in float32.

  It is T times the sum of squared distances from the mean.

  Args:
    trunks: parameters with a leading T axis.
  """

  def from_mean(x: Array) -> Array:
    return jnp.sum(jnp.square((x - x.mean(axis=0)[None]).astype(jnp.float32)))

  leaves = jax.tree.leaves(trunks)
  return sum((len(x) * from_mean(x) for x in leaves), jnp.float32(0))
