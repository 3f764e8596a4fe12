"""Adaptive information transfer (Xi et al. 2021), for tasks in a chain."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.architectures import common
from lplmtl.layers import experts
from lplmtl.types import Array, Batch, Task


class AITM(nn.Module):
  """Each step of a chain learns what to take over from the step before.

  q_k = f_k(x) are the features of step k. From the second step on, an attention
  over two vectors u, the own q_k and the transferred p_k = relu(G_k z_{k-1}),
  weighs their values:

      z_k = sum_u w_u V u,  w_u = softmax_u(<K u, Q u> / sqrt(H))

  and z_1 = q_1. A step cannot be likelier than the one before; the calibrator
  penalises that:

      calibration * mean over rows of sum_{k>1} max(p_k - p_{k-1}, 0)

  Shared parameters: `encoder`, and all of every step but the last, except for
  its tower. Their number: encoder, T trunks, T - 1 times (H + 1) H for G and 3
  H^2 for V, K and Q, and the towers.

  Attributes:
    tasks: T binary tasks in the order of the chain.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    bottom: template of the trunks f_k, to vectors of equal width H.
    tower: template of the body of each tower; its head is added.
    calibration: weight of the penalty, >= 0.

  References:
    Xi et al. 2021, "Modeling the Sequential Dependence among Audience
    Multi-step Conversions with Multi-task Learning in Targeted Display
    Advertising".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((64,))
  tower: common.Tower = experts.MLP(())
  calibration: Any = 0.6

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    if path[0].startswith('tower_'):
      return False
    return common.serves_later_tasks(self.tasks, path)

  def check_labels(self, batch: Batch, name: str) -> None:
    """Refuses rows that are no chain; `fit` asks."""
    common.check_chain_labels(self.tasks, batch, name)

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, 1] logits}, {'gates': (), 'penalty': scalar})`."""
    names = common.check_chain(self.tasks)
    common.check_weight('calibration', self.calibration)
    x = common.encode(self.encoder, features, train=train)
    z: dict[str, Array] = {}
    for i, name in enumerate(names):
      q = common.own_copy(self, self.bottom, f'bottom_{name}', x, train=train)
      if i:
        q = _Transfer(name=f'transfer_{name}')(z[names[i - 1]], q)
      z[name] = q
    predictions = common.predict(self.tasks, self.tower, z, train=train)
    chances = [jax.nn.sigmoid(predictions[name]) for name in names]
    excess = sum(
      (
        jnp.maximum(later - before, 0).mean()
        for before, later in itertools.pairwise(chances)
      ),
      jnp.float32(0),
    )
    return predictions, {'gates': (), 'penalty': self.calibration * excess}


class _Transfer(nn.Module):
  @nn.compact
  def __call__(self, before: Array, own: Array) -> Array:
    width = own.shape[1]
    sent = nn.relu(
      nn.Dense(width, kernel_init=nn.initializers.he_normal(), name='transfer')(
        before
      )
    )
    tokens = jnp.stack([sent, own], axis=1)
    value, key, query = (
      nn.Dense(width, use_bias=False, name=name)(tokens)
      for name in ('value', 'key', 'query')
    )
    scores = jnp.sum(key * query, axis=-1).astype(jnp.float32) / width**0.5
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum('bu,buh->bh', weights, value)
