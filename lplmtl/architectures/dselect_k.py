"""MMoE with DSelect-k gates (Hazimeh et al. 2021)."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _checks
from lplmtl.architectures import _common
from lplmtl.layers import experts, mixture
from lplmtl.types import Array, Task


class DSelectK(nn.Module):
  """Each task selects at most k of E experts by a continuous, sparse gate.

  Selector i of a task maps the input to m = log2(E) numbers z_i. A smooth step
  makes them exactly 0 or 1 outside a narrow range, and then they are the digits
  of an expert's binary number:

      r(z)_e = prod_j (z_j where bit j of e is set, else 1 - z_j)
      g(x) = sum_{i=1..k} softmax(A x)_i r(S(W_i x + c_i))

  with S(t) = 0 below -gamma/2, 1 above gamma/2, and -2 t^3 / gamma^3 + 3 t / (2
  gamma) + 1/2 in between. The penalty is the mean entropy of the r, which
  drives each selector to a single expert:

      entropy * mean over rows of sum_k sum_i -sum_e r_e log r_e

  Shared parameters: `encoder`, `experts`.

  Number of parameters: encoder, E experts, k (D + 1) m + k D per task (without
  the k D if k = 1), and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    expert: template of an expert f_i.
    num_experts: E, a power of 2.
    num_selected: k, from 1 to E.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    gamma: width of the smooth step, > 0; 1 is the default of the authors' code.
    entropy: weight of the penalty, >= 0; the authors tune it per data set.

  Differs from the paper: E must be a power of 2, so that every binary number
  belongs to an expert and unused ones need no penalty; the entropy is a mean
  over rows instead of a sum; the codes have biases c_i; and the paper's static
  gates, which depend on the task but not on the row, are left out.

  References:
    Hazimeh et al. 2021, "DSelect-k: Differentiable Selection in the Mixture of
    Experts with Applications to Multi-Task Learning".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  expert: nn.Module = experts.MLP((64,))
  num_experts: int = 8
  num_selected: int = 2
  tower: _common.TowerBody = experts.MLP((32,))
  gamma: float = 1.0
  entropy: Any = 1e-3

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return path[0] in ('encoder', 'experts')

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `(logits, {'gates': one dict, 'penalty': scalar})`."""
    names = _common.task_names(self.tasks)
    _common.check_weight('entropy', self.entropy)
    if not self.gamma > 0:
      raise ValueError(f'gamma must be above 0, found {self.gamma}')
    count = self.num_experts
    if not _checks.is_whole_number(count) or count & (count - 1):
      raise ValueError(
        f'DSelect-k needs a power of 2 as num_experts, found {count}: take '
        f'{2 ** (math.ceil(count) - 1).bit_length() if count > 1 else 1}'
      )
    if (
      not _checks.is_whole_number(self.num_selected)
      or self.num_selected > count
    ):
      raise ValueError(
        f'num_selected must be from 1 to the number of experts, {count}; found '
        f'{self.num_selected}'
      )
    x = _common.encode(self.encoder, features, train=train)
    pool = mixture.Pool('experts', count, x)
    outputs, _ = mixture.apply(self, self.expert, [pool], train=train)
    flat = x.reshape(x.shape[0], -1)
    gates, inputs, penalty = {}, {}, jnp.float32(0)
    for name in names:
      gate = _Gate(count, self.num_selected, self.gamma, name=f'gate_{name}')
      gates[name], entropy = gate(flat)
      penalty += entropy
      weights = gates[name].astype(outputs['experts'].dtype)
      inputs[name] = jnp.einsum('be,be...->b...', weights, outputs['experts'])
    predictions = _common.predict(self, inputs, train=train)
    aux = {
      'gates': ({name: {'experts': w} for name, w in gates.items()},),
      'penalty': self.entropy * penalty,
    }
    return predictions, aux


class _Gate(nn.Module):
  num_experts: int
  num_selected: int
  gamma: float

  @nn.compact
  def __call__(self, x: Array) -> tuple[Array, Array]:
    """Returns `[B, E]` weights and the entropy, summed over selectors."""
    bits = int(math.log2(self.num_experts))
    if not bits:  # a single expert: nothing to select or to learn
      return jnp.ones((x.shape[0], 1), jnp.float32), jnp.float32(0)
    # The smooth step is flat outside +-gamma / 2, where a code would not learn.
    # On standardised inputs the codes start with a standard deviation of about
    # gamma / 10, for any number of inputs; the biases start as in the authors'
    # code, uniform within +-gamma / 100.
    scale = 0.1 * self.gamma / math.sqrt(x.shape[1])
    near = nn.initializers.uniform(self.gamma / 50)
    codes = nn.DenseGeneral(
      (self.num_selected, bits),
      kernel_init=nn.initializers.normal(scale),
      bias_init=lambda *args: near(*args) - self.gamma / 100,
      name='codes',
    )(x)
    shares = jnp.zeros((x.shape[0], 1), jnp.float32)
    if self.num_selected > 1:
      shares = nn.Dense(
        self.num_selected,
        use_bias=False,
        kernel_init=nn.initializers.zeros,
        name='shares',
      )(x)
    z = smooth_step(codes.astype(jnp.float32), self.gamma)[:, :, None]
    # [E, m]: the binary digits of the experts' numbers, lowest first.
    is_set = np.arange(self.num_experts)[:, None] >> np.arange(bits) & 1 > 0
    choice = jnp.where(is_set[None, None], z, 1 - z).prod(axis=-1)
    shares = jax.nn.softmax(shares.astype(jnp.float32), axis=-1)
    weights = jnp.einsum('bi,bie->be', shares, choice)
    # The inner `where` keeps the gradient of x log x finite at 0.
    entropy = -choice * jnp.log(jnp.where(choice > 0, choice, 1.0))
    return weights, entropy.sum(axis=(1, 2)).mean()


def smooth_step(t: Array, gamma: float) -> Array:
  """Rises from 0 at -gamma/2 to 1 at gamma/2, and is flat outside."""
  inside = -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5
  return jnp.where(t <= -gamma / 2, 0.0, jnp.where(t >= gamma / 2, 1.0, inside))
