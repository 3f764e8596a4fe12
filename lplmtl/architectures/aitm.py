"""Adaptive information transfer (Xi et al. 2021), for tasks in a chain."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.architectures import _common
from lplmtl.layers import experts
from lplmtl.types import Array, Batch, Task


class AITM(nn.Module):
  """Each step of a chain learns what to transfer from the step before.

  q_k = f_k(x) is the representation of step k. From the second step on,
  attention combines two vectors u, the step's own q_k and the transferred
  p_k = relu(G_k z_{k-1}):

      z_k = sum_u w_u V u,  w_u = softmax_u(<K u, Q u> / sqrt(H))

  and z_1 = q_1. The tower predicts the probability c_k of the step from z_k. A
  step cannot be more likely than the one before, so the calibrator penalises

      calibration * mean over rows of sum_{k>1} max(c_k - c_{k-1}, 0)

  Shared parameters: `encoder`, and those of every step but the last, except
  its tower.

  Number of parameters: encoder; T trunks; for each of T - 1 transfers (H + 1) H
  for G and 3 H^2 for V, K and Q; and the towers.

  Attributes:
    tasks: T binary tasks in the order of the chain.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    bottom: template of the trunks f_k, whose outputs have one width H.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    calibration: weight of the penalty, >= 0; 0.6 is the paper's.

  References:
    Xi et al. 2021, "Modeling the Sequential Dependence among Audience
    Multi-step Conversions with Multi-task Learning in Targeted Display
    Advertising".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  bottom: nn.Module = experts.MLP((64,))
  tower: _common.TowerBody = experts.MLP(())
  calibration: Any = 0.6

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    if path[0].startswith('tower_'):
      return False
    return _common.serves_later_tasks(self.tasks, path)

  def check_labels(self, batch: Batch, name: str) -> None:
    """Raises ValueError unless the labels form a chain; `fit` calls this."""
    _common.check_chain_labels(self.tasks, batch, name)

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, 1] logits}, {'gates': (), 'penalty': scalar})`."""
    names = _common.check_chain(self.tasks)
    _common.check_weight('calibration', self.calibration)
    x = _common.encode(self.encoder, features, train=train)
    inputs = {f'bottom_{name}': x for name in names}
    trunks = _common.apply_copies(self, self.bottom, inputs, train=train)
    z: dict[str, Array] = {}
    for i, name in enumerate(names):
      q = trunks[f'bottom_{name}']
      if i:
        q = _Transfer(name=f'transfer_{name}')(z[names[i - 1]], q)
      z[name] = q
    predictions = _common.predict(self, z, train=train)
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
  def __call__(self, before: Array, current: Array) -> Array:
    width = current.shape[1]
    sent = nn.relu(
      nn.Dense(width, kernel_init=nn.initializers.he_normal(), name='transfer')(
        before
      )
    )
    tokens = jnp.stack([sent, current], axis=1)
    value, key, query = (
      nn.Dense(width, use_bias=False, name=name)(tokens)
      for name in ('value', 'key', 'query')
    )
    scores = jnp.sum(key * query, axis=-1).astype(jnp.float32) / width**0.5
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum('bu,buh->bh', weights, value)
