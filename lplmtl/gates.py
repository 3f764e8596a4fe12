"""Gates: how much of each expert a task takes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl.types import Array


class SoftmaxGate(nn.Module):
  """Linear softmax gate, `g(x) = softmax(W x)` (Ma et al. 2018, eq. 8).

  The selector `x` is flattened when it is no vector; the softmax runs in
  float32.

  Attributes:
    num_experts: E.
  """

  num_experts: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Maps `[B, ...]` to weights `[B, E]` float32 that sum to 1."""
    x = x.reshape(x.shape[0], -1)
    logits = nn.Dense(self.num_experts, use_bias=False, name='logits')(x)
    return jax.nn.softmax(logits.astype(jnp.float32), axis=-1)


def mix(weights: Array, outputs: Array) -> Array:
  """Weighted sum of expert outputs, `sum_e w_e f_e` (Ma et al. 2018, eq. 7).

  Args:
    weights: `[B, E]`.
    outputs: `[B, E, ...]`.

  Returns:
    `[B, ...]` in the dtype of `outputs`.
  """
  return jnp.einsum('be,be...->b...', weights.astype(outputs.dtype), outputs)
