"""MMoE with several levels (the ML-MMoE of Tang et al. 2020)."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import _common
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class StackedMMoE(nn.Module):
  """Levels of shared experts; each expert reads its own mixture of those below.

  At level j, expert i reads `x_ij = sum_e g_ij(x)_e f_{e,j-1}(x_{e,j-1})`, a
  gated mixture of all experts below; the lowest level reads the input x. On
  top, one gate per task feeds its tower, as in MMoE. All gates read x.

  Shared parameters: `encoder`, every `level_*/expert*` and `level_*/selector_*`
  (the gates of the experts above), but not the tasks' gates on top.

  Number of parameters: encoder; E experts per level; the gates, D E E' at a
  level of E experts below one of E' and D E T at the top; and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    levels: template of an expert per level, lowest first.
    num_experts: E: a number, or a tuple with one per level.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Differs from the paper: Tang et al. draw this baseline without giving
  equations; that every expert above has a gate on x is our reading.

  References:
    Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning Model for Personalized Recommendations" (fig. 1).
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_experts: int | tuple[int, ...] = 4
  tower: _common.TowerBody = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    if path[0] == 'encoder':
      return True
    is_tasks_gate = path[1].startswith(('gate_', 'hidden_gate_'))
    return path[0].startswith('level_') and not is_tasks_gate

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`."""
    names = _common.task_names(self.tasks)
    _common.check_levels(self.levels)
    x = _common.encode(self.encoder, features, train=train)
    counts = extraction.level_counts(
      self.num_experts, len(self.levels), 'num_experts'
    )
    inputs: dict[str, Array] = {}
    gates = []
    for i, template in enumerate(self.levels):
      is_top = i + 1 == len(self.levels)
      above = range(0 if is_top else counts[i + 1])
      level = _Level(
        names if is_top else tuple(f'expert_{j}' for j in above),
        modules.fresh(template),
        counts[i],
        prefix='gate_' if is_top else 'selector_',
        gate_body=modules.optional(self.gate_body),
        name=f'level_{i}',
      )
      inputs, weights = level(x, inputs, train=train)
      gates.append(weights)
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': tuple(gates)}


class _Level(nn.Module):
  readers: tuple[str, ...]
  expert: nn.Module
  num_experts: int
  prefix: str
  gate_body: nn.Module | None

  @nn.compact
  def __call__(
    self, x: Array, inputs: dict[str, Array], *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, mixture.Weights]]:
    """Mixes the level's experts; they all read x if `inputs` is empty."""
    pools = [mixture.Pool(name, 1, value) for name, value in inputs.items()]
    pools = pools or [mixture.Pool('experts', self.num_experts, x)]
    all_pools = tuple(pool.name for pool in pools)
    mixed, weights = mixture.mix(
      self,
      self.expert,
      pools,
      [
        mixture.Gate(f'{self.prefix}{reader}', x, all_pools)
        for reader in self.readers
      ],
      train=train,
      gate_body=self.gate_body,
    )
    return (
      dict(zip(self.readers, mixed, strict=True)),
      dict(zip(self.readers, weights, strict=True)),
    )
