"""Customized gate control: PLE's extraction level, once (Tang et al. 2020)."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import _common
from lplmtl.layers import experts, extraction, modules
from lplmtl.types import Task


class CGC(nn.Module):
  """Shared and specific experts; a task's gate mixes its own and the shared.

  `g_k(x) = softmax(W_k x) [E_k ; E_s]`, `y_k = h_k(g_k(x))` (eq. 1 to 4). This
  is PLE with one level; without specific experts it is MMoE.

  Shared parameters: `encoder` and `level_0/shared_experts`. A specific expert
  receives only its own task's gradient.

  Number of parameters: encoder, sum_k E_k + E_s experts, sum_k D (E_k + E_s)
  for the gates, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    expert: template of an expert.
    num_specific: number of task-specific experts (the paper's m_k): a number,
      or a tuple with one per task, in order.
    num_shared: number of shared experts.
    tower: template of the bodies of the towers h_k, or a tuple with one per
      task; linear heads are added.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  References:
    Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning Model for Personalized Recommendations".
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
    return extraction.is_shared(path, num_levels=1)

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict})`."""
    names = _common.task_names(self.tasks)
    (counts,) = extraction.specific_counts(self.num_specific, len(names), 1)
    extraction.level_counts((self.num_shared,), 1)
    x = _common.encode(self.encoder, features, train=train)
    level = extraction.ExtractionLevel(
      names,
      modules.fresh(self.expert),
      counts,
      self.num_shared,
      shared_gate=False,
      gate_body=modules.optional(self.gate_body),
      name='level_0',
    )
    inputs, _, weights = level(dict.fromkeys(names, x), x, train=train)
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': (weights,)}
