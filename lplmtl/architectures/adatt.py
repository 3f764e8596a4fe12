"""AdaTT, adaptive task-to-task fusion (Li et al. 2023)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.architectures import _common
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class AdaTT(nn.Module):
  """Levels in which each task fuses all experts, with its own residual.

  Unit k of a level has experts E_k that read f_k, the output of unit k below.
  The unit adds a gated mixture of the experts of all units to a learned linear
  combination of its own experts, whose weights do not depend on the input:

      f_k <- softmax(W_k f_k) [E_1 ; ... ; E_T ; E_s] + v_k E_k

  With shared experts there is one more unit, s, of the same kind (AdaTT);
  without them this is AdaTT-sp.

  Shared parameters: `encoder`, every `experts_*` and, below the top level,
  every `gate_*` and `native_*`.

  Number of parameters: encoder, towers, and per level its E experts and, for
  each unit, D E + E_k. The top level has no gate or combination of the shared
  unit.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    levels: template of an expert per level, lowest first.
    num_specific: number of experts of each task's unit, >= 1: one for all tasks
      and levels; a tuple with one per task, in order; or a tuple with such a
      tuple per level, such as ((1, 3), (2, 2)).
    num_shared: number of experts of the shared unit: a number, or a tuple with
      one per level; 0 at every level for no shared unit.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Differs from the paper: every entry of v_k is initialised to 1 / E_k, so that
  a unit starts with the mean of its own experts. v_k is learned even if a unit
  has a single expert; the authors' code then fixes it at 1.

  References:
    Li et al. 2023, "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask
    Learning in Recommendations".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_specific: int | tuple[Any, ...] = 2
  num_shared: int | tuple[int, ...] = 1
  tower: _common.TowerBody = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    if path[0] == 'encoder':
      return True
    level = extraction.level_of(path)
    if level is None:
      return False
    is_top = level == len(self.levels) - 1
    return path[1].startswith('experts_') or not is_top

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`."""
    names = _common.task_names(self.tasks)
    _common.check_levels(self.levels)
    depth = len(self.levels)
    specific = extraction.specific_counts(
      self.num_specific, len(names), depth, least=1
    )
    shared = extraction.level_counts(self.num_shared, depth, least=0)
    if any(shared) and not all(shared):
      raise ValueError(
        'AdaTT has a shared unit at every level or at none; found num_shared='
        f'{self.num_shared}'
      )
    x = _common.encode(self.encoder, features, train=train)
    units = (*names, 'shared') if any(shared) else names
    inputs = dict.fromkeys(units, x)
    gates = []
    for i, template in enumerate(self.levels):
      is_top = i + 1 == len(self.levels)
      level = _Level(
        tuple(zip(units, (*specific[i], shared[i]), strict=False)),
        modules.fresh(template),
        names if is_top else units,
        modules.optional(self.gate_body),
        name=f'level_{i}',
      )
      inputs, weights = level(inputs, train=train)
      gates.append(weights)
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': tuple(gates)}


class _Level(nn.Module):
  counts: tuple[tuple[str, int], ...]
  expert: nn.Module
  readers: tuple[str, ...]
  gate_body: nn.Module | None

  @nn.compact
  def __call__(
    self, inputs: dict[str, Array], *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, mixture.Weights]]:
    pools = [
      mixture.Pool(f'experts_{name}', count, inputs[name])
      for name, count in self.counts
    ]
    all_pools = tuple(pool.name for pool in pools)
    gates = [
      mixture.Gate(f'gate_{name}', inputs[name], all_pools)
      for name in self.readers
    ]
    outputs, logits = mixture.apply(
      self, self.expert, pools, gates, train=train, gate_body=self.gate_body
    )
    mixed, weights = mixture.weigh(outputs, logits, gates, train=train)
    fused = {}
    for name, gated in zip(self.readers, mixed, strict=True):
      native = outputs[f'experts_{name}']
      count = native.shape[1]
      start = nn.initializers.constant(1 / count)
      shares = self.param(f'native_{name}', start, (count,), jnp.float32)
      shares = shares.astype(native.dtype)
      fused[name] = gated + jnp.einsum('e,be...->b...', shares, native)
    return fused, dict(zip(self.readers, weights, strict=True))
