"""One extraction level of CGC and PLE."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from lplmtl import experts, gates
from lplmtl.types import Array


class ExtractionLevel(nn.Module):
  """Shared and task-specific experts, mixed by one gate a task.

  Level j of PLE (Tang et al. 2020, eq. 5 to 8). The specific experts E_k of
  task k read that task's input g_{k,j-1}, the shared experts E_s read
  g_{s,j-1}:

      g_{k,j} = softmax(W_k g_{k,j-1}) [E_k ; E_s]
      g_{s,j} = softmax(W_s g_{s,j-1}) [E_1 ; ... ; E_T ; E_s]

  Parameters: `specific_experts_<task>`, `shared_experts`, `gate_<task>` and,
  with `shared_gate`, `shared_gate`.

  Attributes:
    task_names: T names.
    expert: template of an expert.
    num_specific: experts of each task alone, >= 0.
    num_shared: experts of all tasks, >= 1.
    shared_gate: whether a level above needs g_{s,j}.
  """

  task_names: tuple[str, ...]
  expert: nn.Module
  num_specific: int
  num_shared: int
  shared_gate: bool

  @nn.compact
  def __call__(
    self,
    task_inputs: Mapping[str, Array],
    shared_input: Array,
    *,
    train: bool = False,
  ) -> tuple[dict[str, Array], Array | None, dict[str, Array]]:
    """Extracts one level.

    Args:
      task_inputs: `{task: [B, ...]}`.
      shared_input: `[B, ...]`.
      train: whether dropout acts.

    Returns:
      (task_outputs, shared_output, gate_weights): `{task: [B, H]}`, `[B, H]` or
      None, and `{task or 'shared': [B, E]}`.

    Raises:
      ValueError: a number of experts that makes no sense.
    """
    if self.num_specific < 0:
      raise ValueError(
        'the number of task-specific experts must be at least 0, found '
        f'{self.num_specific}'
      )
    specific = {}
    if self.num_specific:
      for name in self.task_names:
        copies = experts.Experts(
          experts.fresh(self.expert),
          self.num_specific,
          name=f'specific_experts_{name}',
        )
        specific[name] = copies(task_inputs[name], train=train)
    shared = experts.Experts(
      experts.fresh(self.expert), self.num_shared, name='shared_experts'
    )(shared_input, train=train)

    outputs, weights = {}, {}
    for name in self.task_names:
      pool = [specific[name], shared] if specific else [shared]
      outputs[name], weights[name] = self._select(
        f'gate_{name}', task_inputs[name], pool
      )
    shared_output = None
    if self.shared_gate:
      pool = [*specific.values(), shared]
      shared_output, weights['shared'] = self._select(
        'shared_gate', shared_input, pool
      )
    return outputs, shared_output, weights

  def _select(
    self, name: str, selector: Array, pool: list[Array]
  ) -> tuple[Array, Array]:
    outputs = jnp.concatenate(pool, axis=1)
    gate = gates.SoftmaxGate(outputs.shape[1], name=name)
    weights = gate(selector)
    return gates.mix(weights, outputs), weights
