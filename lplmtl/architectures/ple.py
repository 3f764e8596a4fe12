"""Progressive layered extraction (Tang et al. 2020)."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import common
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class PLE(nn.Module):
  """Extraction levels on top of each other, separating tasks step by step.

  From g_{k,0} = g_{s,0} = x on, level j mixes for each task its own experts
  and the shared ones; every level but the last also passes on g_s, a mixture of
  all experts, to the shared experts above (eq. 5 and 6). The last is a CGC:

      g_{k,j} = softmax(W_kj g_{k,j-1}) [E_kj(g_{k,j-1}) ; E_sj(g_{s,j-1})]
      g_{s,j} = softmax(W_sj g_{s,j-1}) [E_1j ; ... ; E_Tj ; E_sj]
      y_k = h_k(g_{k,N})

  Shared parameters: `encoder`, every `level_*/shared_experts` and
  `level_*/shared_gate`; below the last level also `specific_experts_*`, whose
  outputs reach the other tasks through the shared gate; and below the last but
  one also `gate_*`, through the specific experts above. Their number: encoder;
  a level with inputs of width D, sum_k E_k + E_s experts, sum_k D (E_k + E_s)
  and, but for the last, D (sum_k E_k + E_s); and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    levels: template of an expert for each level, lowest first.
    num_specific: experts of each task alone: a number for all tasks and levels;
      a tuple with one for each task, in order (the paper's m_k); or a tuple
      with such a tuple for each level, as in ((1, 3), (2, 2)).
    num_shared: experts of all tasks: a number, or a tuple with one for each
      level.
    tower: template of the body of each tower; its head is added.
    gate_body: template of what stands below each gate's kernel, such as
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
  tower: common.Tower = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    return extraction.is_shared(path, len(self.levels))

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`."""
    names = common.task_names(self.tasks)
    common.check_levels(self.levels)
    x = common.encode(self.encoder, features, train=train)
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
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
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
  """Extraction levels `level_0`, `level_1`, ... within the calling module.

  Args:
    task_names: T names.
    templates: template of an expert for each level, lowest first.
    num_specific: experts of each task alone, as `PLE` takes them.
    num_shared: experts of all tasks, likewise.
    x: `[B, ...]`, the input of the lowest level.
    shared_gate_on_top: whether the topmost of these levels has a shared gate
      (it does where something above reads it).
    gate_body: template of what stands below each gate's kernel, or None.
    train: whether dropout acts.

  Returns:
    (task_outputs, shared_output, gate_weights): `{task: [B, H]}`, `[B, H]` or
    None, and one dict per level.
  """
  count = len(templates)
  specific = extraction.specific_counts(num_specific, len(task_names), count)
  common_experts = extraction.level_counts(num_shared, count)
  task_inputs = dict.fromkeys(task_names, x)
  shared: Any = x
  weights = []
  for i, template in enumerate(templates):
    level = extraction.ExtractionLevel(
      task_names,
      modules.fresh(template),
      specific[i],
      common_experts[i],
      shared_gate=shared_gate_on_top or i + 1 < len(templates),
      gate_body=modules.optional(gate_body),
      name=f'level_{i}',
    )
    task_inputs, shared, level_weights = level(task_inputs, shared, train=train)
    weights.append(level_weights)
  return task_inputs, shared, tuple(weights)
