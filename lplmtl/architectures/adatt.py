"""AdaTT, adaptive task-to-task fusion (Li et al. 2023)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl import experts, extraction, mixture, modules
from lplmtl.architectures import common
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
    num_specific: experts of each task's unit, >= 1.
    num_shared: experts of the shared unit, >= 0.
    tower: template of the body of each tower; its head is added.

  Differs from the paper: v_k starts at 1 / E_k each, so that a unit begins with
  the mean of its own experts.

  References:
    Li et al. 2023, "AdaTT: Adaptive Task-to-Task Fusion Network for Multitask
    Learning in Recommendations".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_specific: int = 2
  num_shared: int = 1
  tower: common.Tower = experts.MLP((32,))

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
    if self.num_specific < 1 or self.num_shared < 0:
      raise ValueError(
        'AdaTT needs at least 1 expert of each task and at least 0 shared '
        f'ones, found {self.num_specific} and {self.num_shared}'
      )
    x = common.encode(self.encoder, features, train=train)
    counts = dict.fromkeys(names, self.num_specific)
    if self.num_shared:
      counts['shared'] = self.num_shared
    inputs = dict.fromkeys(counts, x)
    gates = []
    for i, template in enumerate(self.levels):
      is_top = i + 1 == len(self.levels)
      level = _Level(
        tuple(counts.items()),
        modules.fresh(template),
        names if is_top else tuple(counts),
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
      self, self.expert, pools, selectors, train=train
    )
    mixed, weights = mixture.weigh(outputs, logits, selectors)
    fused = {}
    for name, own in zip(self.readers, mixed, strict=True):
      native = outputs[f'experts_{name}']
      shares = self.param(
        f'native_{name}', nn.initializers.constant(1 / native.shape[1]),
        (native.shape[1],),
      )  # fmt: skip
      shares = shares.astype(native.dtype)
      fused[name] = own + jnp.einsum('e,be...->b...', shares, native)
    return fused, dict(zip(self.readers, weights, strict=True))
