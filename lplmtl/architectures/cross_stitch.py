"""Cross-stitch networks (Misra et al. 2016)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.architectures import _common
from lplmtl.layers import experts, extraction, mixture, modules, weighing
from lplmtl.types import Array, Task


class CrossStitch(nn.Module):
  """One trunk per task; the trunks exchange activations after each level.

  After each level, every unit h of task k becomes a learned linear combination
  of the same unit of all tasks (eq. 1, with one stitch per unit where the paper
  has one per channel):

      x_k[h] = sum_j alpha_kj[h] f_j(x_j)[h]

  Shared parameters: `encoder`, every `level_*/trunk_*` and, below the top
  level, `level_*/stitch_*`.

  Number of parameters: encoder, T trunks, T^2 H_l stitches for each level of
  width H_l, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    levels: template of a task's trunk per level, lowest first.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    own: initial value of alpha_kk, in [0, 1]; the other tasks' stitches share
      the remaining 1 - own equally. 0.9 is the paper's value, for two tasks.

  Differs from the paper: the trunks are initialised at random instead of from
  trained single-task networks, and read one shared encoder.

  References:
    Misra et al. 2016, "Cross-stitch Networks for Multi-task Learning".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  tower: _common.TowerBody = experts.MLP((32,))
  own: float = 0.9

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
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
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': ()})`."""
    names = _common.task_names(self.tasks)
    _common.check_levels(self.levels)
    if not 0 <= self.own <= 1:
      raise ValueError(f'own must be from 0 to 1, found {self.own}')
    x = _common.encode(self.encoder, features, train=train)
    inputs = dict.fromkeys(names, x)
    for i, template in enumerate(self.levels):
      level = _Level(
        names, modules.fresh(template), self.own, name=f'level_{i}'
      )
      inputs = level(inputs, train=train)
    predictions = _common.predict(self, inputs, train=train)
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
    by_pool, _ = mixture.apply(self, self.trunk, pools, train=train)
    outputs = jnp.concatenate([by_pool[pool.name] for pool in pools], axis=1)

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
    return dict(zip(names, weighing.unstack(mixed), strict=True))
