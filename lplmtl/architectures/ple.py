"""Progressive layered extraction (Tang et al. 2020)."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import _common
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class PLE(nn.Module):
  """Stacked extraction levels that separate the tasks progressively.

  Starting from g_{k,0} = g_{s,0} = x, level j mixes each task's own experts and
  the shared ones. Every level but the last also passes g_s, a mixture of all
  experts, to the shared experts above (eq. 5 and 6). The last level is a CGC:

      g_{k,j} = softmax(W_kj g_{k,j-1}) [E_kj(g_{k,j-1}) ; E_sj(g_{s,j-1})]
      g_{s,j} = softmax(W_sj g_{s,j-1}) [E_1j ; ... ; E_Tj ; E_sj]
      y_k = h_k(g_{k,N})

  Shared parameters: `encoder`, every `level_*/shared_experts` and
  `level_*/shared_gate`; below the last level also `specific_experts_*`, whose
  outputs reach the other tasks through the shared gate; and below the last but
  one also `gate_*`, through the specific experts above.

  Number of parameters: encoder; per level with inputs of width D, sum_k E_k +
  E_s experts, sum_k D (E_k + E_s) for the tasks' gates and, except at the last
  level, D (sum_k E_k + E_s) for the shared gate; and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    levels: template of an expert per level, lowest first.
    num_specific: number of task-specific experts (the paper's m_k): one for all
      tasks and levels; a tuple with one per task, in order; or a tuple with
      such a tuple per level, such as ((1, 3), (2, 2)).
    num_shared: number of shared experts: a number, or a tuple with one per
      level.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  References:
    Tang et al. 2020, "Progressive Layered Extraction (PLE): A Novel Multi-Task
    Learning Model for Personalized Recommendations".

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from lplmtl import tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = PLE(todo, num_specific=(1, 3))
    >>> key, x = jax.random.key(0), jnp.ones((2, 8))
    >>> (logits, aux), params = jax.eval_shape(model.init_with_output, key, x)
    >>> {pool: x.shape for pool, x in aux['gates'][1]['buy'].items()}  # [B, E]
    {'shared_experts': (2, 2), 'specific_experts_buy': (2, 3)}
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_specific: int | tuple[Any, ...] = 2
  num_shared: int | tuple[int, ...] = 2
  tower: _common.TowerBody = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return extraction.is_shared(path, len(self.levels))

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`."""
    names = _common.task_names(self.tasks)
    _common.check_levels(self.levels)
    x = _common.encode(self.encoder, features, train=train)
    inputs, _, weights = extract(
      names,
      self.levels,
      self.num_specific,
      self.num_shared,
      x,
      shared_gate_on_top=False,
      gate_body=self.gate_body,
      train=train,
    )
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': weights}


def extract(
  task_names: tuple[str, ...],
  templates: tuple[nn.Module, ...],
  num_specific: Any,
  num_shared: Any,
  x: Array,
  *,
  shared_gate_on_top: bool,
  gate_body: nn.Module | None,
  train: bool,
) -> tuple[dict[str, Array], Any, tuple[dict[str, mixture.Weights], ...]]:
  """Applies extraction levels `level_0`, `level_1`, ... in the calling module.

  Args:
    task_names: T names.
    templates: template of an expert per level, lowest first.
    num_specific: number of task-specific experts, in any form `PLE` accepts.
    num_shared: number of shared experts, likewise.
    x: `[B, ...]`, the input of the lowest level.
    shared_gate_on_top: whether the topmost of these levels has a shared gate,
      for a level above that reads its output.
    gate_body: template of the module below each gate's kernel, or None.
    train: whether dropout is active.

  Returns:
    (task_outputs, shared_output, gate_weights): `{task: [B, H]}`, `[B, H]` or
    None, and one dict per level.
  """
  count = len(templates)
  specific = extraction.specific_counts(num_specific, len(task_names), count)
  shared = extraction.level_counts(num_shared, count)
  task_inputs = dict.fromkeys(task_names, x)
  shared_input: Any = x
  weights = []
  for i, template in enumerate(templates):
    level = extraction.ExtractionLevel(
      task_names,
      modules.fresh(template),
      specific[i],
      shared[i],
      shared_gate=shared_gate_on_top or i + 1 < len(templates),
      gate_body=modules.optional(gate_body),
      name=f'level_{i}',
    )
    task_inputs, shared_input, level_weights = level(
      task_inputs, shared_input, train=train
    )
    weights.append(level_weights)
  return task_inputs, shared_input, tuple(weights)
