"""Cross-stitch networks (Misra et al. 2016)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.architectures import common
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class CrossStitch(nn.Module):
  """A trunk a task, whose layers exchange what they have learned.

  After each level, every unit h of task k becomes a learned linear combination
  of the same unit of all tasks (eq. 1, one stitch for each unit, as the paper
  has one for each channel):

      x_k[h] = sum_j alpha_kj[h] f_j(x_j)[h]

  Shared parameters: `encoder`, every `level_*/trunk_*`, and below the top
  `level_*/stitch_*`. Their number: encoder, T trunks, T^2 H_l a level (H_l its
  width), and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    levels: template of a task's trunk for each level, lowest first.
    tower: template of the body of each tower; its head is added.
    own: alpha_kk at the start; the others share what is left of 1.

  Differs from the paper: the trunks start at random instead of as trained
  single-task networks, and read one encoder.

  References:
    Misra et al. 2016, "Cross-stitch Networks for Multi-task Learning".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  tower: common.Tower = experts.MLP((32,))
  own: float = 0.9

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    if path[0] == 'encoder':
      return True
    level = extraction.level_of(path)
    if level is None:
      return False
    is_top = level == len(self.levels) - 1
    return path[1].startswith('trunk_') or not is_top

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    names = common.task_names(self.tasks)
    common.check_levels(self.levels)
    if not 0 <= self.own <= 1:
      raise ValueError(f'own must be from 0 to 1, found {self.own}')
    x = common.encode(self.encoder, features, train=train)
    inputs = dict.fromkeys(names, x)
    for i, template in enumerate(self.levels):
      level = _Level(
        names, modules.fresh(template), self.own, name=f'level_{i}'
      )
      inputs = level(inputs, train=train)
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
    return predictions, {'gates': ()}


class _Level(nn.Module):
  task_names: tuple[str, ...]
  trunk: nn.Module
  own: float

  @nn.compact
  def __call__(
    self, inputs: dict[str, Array], *, train: bool = False
  ) -> dict[str, Array]:
    names = self.task_names
    pools = [mixture.Pool(f'trunk_{name}', 1, inputs[name]) for name in names]
    found, _ = mixture.apply(self, self.trunk, pools, train=train)
    outputs = jnp.concatenate([found[pool.name] for pool in pools], axis=1)

    def stitch(task: int, name: str) -> Array:
      def init(key: Array) -> Array:
        del key
        other = (1 - self.own) / max(len(names) - 1, 1)
        shape = (len(names), *outputs.shape[2:])
        shares = jnp.full(shape, other, jnp.float32)
        return shares.at[task].set(self.own if len(names) > 1 else 1.0)

      return self.param(f'stitch_{name}', init)

    alpha = jnp.stack([stitch(i, name) for i, name in enumerate(names)])
    mixed = jnp.einsum('kj...,bj...->bk...', alpha, outputs)
    return dict(zip(names, mixture.unstack(mixed), strict=True))
