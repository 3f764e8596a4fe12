"""STEM: shared and task-specific embeddings (Su et al. 2024)."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl import _alike
from lplmtl.architectures import _common
from lplmtl.layers import experts, extraction, mixture
from lplmtl.types import Array, Task


class STEM(nn.Module):
  """T + 1 encoders; a task uses all experts, but trains its own and the shared.

  The experts of task k read its own embedding x_k, the shared experts read x_s.
  The gate of task k mixes the experts of all tasks and the shared ones, but no
  gradient of task k reaches the experts and the embedding of another task
  ("All Forward Task-specific Backward"; sg is stop_gradient):

      y_k = h_k(softmax(W_k (x_k + x_s)) [sg(E_j), j != k ; E_k ; E_s])

  Shared parameters: `encoder_shared`, `shared_experts`.

  Number of parameters: T + 1 encoders, sum_j E_j + E_s experts, a gate of
  D (sum_j E_j + E_s) per task, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: template of the encoders `encoder_<task>` and `encoder_shared`;
      None to use the features as they are.
    expert: template of an expert.
    num_specific: E_k, the number of task-specific experts, >= 1: a number, or a
      tuple with one per task, in order.
    num_shared: E_s, the number of shared experts, >= 1.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Differs from the paper: one level of experts; gates are linear by default.

  References:
    Su et al. 2024, "STEM: Unleashing the Power of Embeddings for Multi-Task
    Recommendation".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  expert: nn.Module = experts.MLP((64,))
  num_specific: int | tuple[int, ...] = 2
  num_shared: int = 2
  tower: _common.TowerBody = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return path[0] in ('encoder_shared', 'shared_experts')

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict for its level})`."""
    names = _common.task_names(self.tasks)
    (counts,) = extraction.specific_counts(self.num_specific, len(names), 1, 1)
    readers = (*names, 'shared')
    inputs = {f'encoder_{name}': features for name in readers}
    encoded = _common.apply_copies(self, self.encoder, inputs, train=train)
    x = dict(zip(readers, encoded.values(), strict=True))
    pools = [
      mixture.Pool(f'specific_experts_{name}', count, x[name])
      for name, count in zip(names, counts, strict=True)
    ]
    pools.append(mixture.Pool('shared_experts', self.num_shared, x['shared']))
    all_pools = tuple(pool.name for pool in pools)
    # Sums over tasks, here and below, are taken at once: the gradient of what
    # all tasks share would otherwise be a sum with a term for each.
    # For two tasks, a step would take 1.37 times as long.
    are_few = len(names) <= _alike.FEW
    if are_few:
      read = [x[name] + x['shared'] for name in names]
    else:
      stack = jnp.stack([x[name] for name in names]) + x['shared'][None]
      read = list(jnp.unstack(stack))
    gates = [
      mixture.Gate(f'gate_{name}', x, all_pools)
      for name, x in zip(names, read, strict=True)
    ]
    outputs, logits = mixture.apply(
      self,
      self.expert,
      pools,
      gates,
      train=train,
      gate_body=self.gate_body,
    )
    # Not of the dict itself, whose order JAX would change.
    fixed = {name: jax.lax.stop_gradient(x) for name, x in outputs.items()}
    if are_few:
      found = [
        mixture.weigh(_seen(name, outputs, fixed), logits, [gate])
        for name, gate in zip(names, gates, strict=True)
      ]
      mixed = [x for (x,), _ in found]
      weights = [own for _, (own,) in found]
    else:
      mixed, weights = mixture.weigh(fixed, logits, gates)
      mixed = _trained(names, outputs, mixed, weights)
    inputs = dict(zip(names, mixed, strict=True))
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': (dict(zip(names, weights, strict=True)),)}


def _seen(
  name: str, outputs: Mapping[str, Array], fixed: Mapping[str, Array]
) -> dict[str, Array]:
  """Returns outputs of which the task's own and the shared are trained."""
  trained = (f'specific_experts_{name}', 'shared_experts')
  return {
    pool: (outputs if pool in trained else fixed)[pool] for pool in outputs
  }


def _trained(
  names: tuple[str, ...],
  outputs: Mapping[str, Array],
  mixed: Sequence[Array],
  weights: Sequence[mixture.Weights],
) -> list[Array]:
  """Returns mixtures that train each task's own experts and the shared ones.

  Adds `g (E - sg(E))` for these, which is 0; its gradient is g.

  Args:
    names: T names.
    outputs: `{pool: [B, E_p, ...]}`.
    mixed: T mixtures of outputs through which no gradient flows.
    weights: of all outputs in these, `{pool: [B, E_p]}`.
  """
  nothing = jax.tree.map(lambda x: x - jax.lax.stop_gradient(x), dict(outputs))
  shared = nothing.pop('shared_experts')
  shares = jnp.stack([own['shared_experts'] for own in weights])
  common = jnp.einsum('tbe,be...->tb...', shares.astype(shared.dtype), shared)
  trained = []
  for name, x, own, extra in zip(
    names, mixed, weights, jnp.unstack(common), strict=True
  ):
    pool = f'specific_experts_{name}'
    share = own[pool].astype(extra.dtype)
    trained.append(
      x + extra + jnp.einsum('be,be...->b...', share, nothing[pool])
    )
  return trained
