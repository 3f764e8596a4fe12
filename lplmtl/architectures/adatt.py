"""AdaTT, adaptive task-to-task fusion (Li et al. 2023)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.architectures import common
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class AdaTT(nn.Module):
  """Levels in which each task mixes all experts, and keeps its own at hand.

  Unit k of a level has experts E_k that read its own f_k from below. It adds a
  gated mixture of the experts of all units to a learned combination of its own,
  which does not depend on the input:

      f_k <- softmax(W_k f_k) [E_1 ; ... ; E_T ; E_s] + v_k E_k

  With shared experts there is one more unit s, which works alike (AdaTT);
  without them this is AdaTT-sp.

  Shared parameters: `encoder`, every `experts_*` and, below the top, every
  `gate_*` and `native_*`; the shared unit's always. Their number, a level: its
  experts, and a unit D E + E_k, E being all experts of the level.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    levels: template of an expert for each level, lowest first.
    num_specific: experts of each task's unit, >= 1: a number for all tasks and
      levels; a tuple with one for each task, in order; or a tuple with such a
      tuple for each level, as in ((1, 3), (2, 2)).
    num_shared: experts of the shared unit: a number, or a tuple with one for
      each level; 0, at every level, for no such unit.
    tower: template of the body of each tower; its head is added.
    gate_body: template of what stands below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Differs from the paper: v_k starts at 1 / E_k each, so that a unit begins with
  the mean of its own experts. With one expert of its own v_k is learned as with
  more; the authors' code fixes it at 1.

  References:
    Li et al. 2023, "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask
    Learning in Recommendations".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_specific: int | tuple[Any, ...] = 2
  num_shared: int | tuple[int, ...] = 1
  tower: common.Tower = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
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
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`."""
    names = common.task_names(self.tasks)
    common.check_levels(self.levels)
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
    x = common.encode(self.encoder, features, train=train)
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
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
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
    everything = tuple(pool.name for pool in pools)
    selectors = [
      mixture.Selector(f'gate_{name}', inputs[name], everything)
      for name in self.readers
    ]
    outputs, logits = mixture.apply(
      self, self.expert, pools, selectors, train=train, gate_body=self.gate_body
    )
    mixed, weights = mixture.weigh(outputs, logits, selectors)
    fused = {}
    for name, own in zip(self.readers, mixed, strict=True):
      native = outputs[f'experts_{name}']
      count = native.shape[1]
      start = nn.initializers.constant(1 / count)
      shares = self.param(f'native_{name}', start, (count,), jnp.float32)
      shares = shares.astype(native.dtype)
      fused[name] = own + jnp.einsum('e,be...->b...', shares, native)
    return fused, dict(zip(self.readers, weights, strict=True))
