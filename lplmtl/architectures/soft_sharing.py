"""Soft sharing: models of their own, drawn towards each other."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.architectures import common
from lplmtl.layers import experts
from lplmtl.types import Array, PyTree, Task


class SoftSharing(nn.Module):
  """Single-task models whose trunks are tied by an L2 constraint.

  `y_k = h_k(f_k(x))`, and the penalty

      strength sum_{j<k} ||theta_j - theta_k||^2

  over the parameters theta_k of encoder and trunk of task k (Duong et al. 2015;
  the L2-Constrained model of Ma et al. 2018).

  Shared parameters: none; the penalty is no task's loss. Their number: that of
  single-task models.

  Attributes:
    tasks: T tasks.
    encoder: template of the encoders `encoder_<task>`; None for none.
    bottom: template of the trunks `bottom_<task>`.
    tower: template of the body of each tower h_k; its head is added.
    strength: of the penalty, >= 0.

  Differs from the papers: Duong et al. draw a target language's parser to a
  trained source language's; here, as in Ma et al., the two move together, and
  with T tasks every pair does, embeddings among them. Towers are left out of
  the penalty: each belongs to a task alone.

  References:
    Duong et al. 2015, "Low Resource Dependency Parsing: Cross-lingual Parameter
    Sharing in a Neural Network Parser".
    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((128,))
  tower: common.Tower = experts.MLP((32,))
  strength: Any = 1e-4

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    del path
    return False

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': (), 'penalty': scalar})`."""
    common.check_weight('strength', self.strength)
    hidden = common.own_trunks(self, features, train=train)
    params = self.variables.get('params', {})
    trunks = [
      {part: params.get(f'{part}_{name}', {}) for part in ('encoder', 'bottom')}
      for name in hidden
    ]
    pairs = itertools.combinations(trunks, 2)
    distance = sum((_distance(*pair) for pair in pairs), jnp.float32(0))
    predictions = common.predict(self.tasks, self.tower, hidden, train=train)
    return predictions, {'gates': (), 'penalty': self.strength * distance}


def _distance(a: PyTree, b: PyTree) -> Array:
  """Squared, in float32."""
  leaves = jax.tree.leaves(
    jax.tree.map(
      lambda x, y: jnp.sum(jnp.square((x - y).astype(jnp.float32))), a, b
    )
  )
  return sum(leaves, jnp.float32(0))
