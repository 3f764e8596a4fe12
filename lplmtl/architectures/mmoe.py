"""Multi-gate mixture of experts (Ma et al. 2018)."""

from typing import Any

import flax.linen as nn

from lplmtl.architectures import common
from lplmtl.layers import experts, mixture
from lplmtl.types import Array, Task


class MMoE(common.Mixture):
  """`y_k = h_k(sum_i g_k(x)_i f_i(x))`, `g_k(x) = softmax(W_k x)` (eq. 6 to 8).

  Shared parameters: `encoder`, `experts`. Their number: encoder, E experts,
  D E T, and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    expert: template of an expert f_i.
    num_experts: E.
    tower: template of the body of each tower h_k, or a tuple with one for each
      task; the head is added. (So in every architecture.)
    gate_body: template of what stands below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  References:
    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts".

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from lplmtl import tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = MMoE(todo, num_experts=4)
    >>> key, x = jax.random.key(0), jnp.ones((2, 8))
    >>> (logits, aux), params = jax.eval_shape(model.init_with_output, key, x)
    >>> aux['gates'][0]['buy']['experts'].shape  # [B, E]
    (2, 4)
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  expert: nn.Module = experts.MLP((64,))
  num_experts: int = 8
  tower: common.Tower = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    return path[0] in ('encoder', 'experts')

  @nn.compact
  def _apply(
    self,
    features: Any,
    outputs: Array | None,
    *,
    train: bool,
    only_experts: bool = False,
  ) -> Any:
    names = common.task_names(self.tasks)
    x = common.encode(self.encoder, features, train=train)
    pool: Any = mixture.Pool('experts', self.num_experts, x)
    if outputs is not None:
      pool = mixture.Given('experts', outputs)
    if only_experts:
      found, _ = mixture.apply(self, self.expert, [pool], train=train)
      return found['experts']
    mixed, weights = mixture.mix(
      self,
      self.expert,
      [pool],
      [mixture.Selector(f'gate_{name}', x, ('experts',)) for name in names],
      train=train,
      gate_body=self.gate_body,
    )
    inputs = dict(zip(names, mixed, strict=True))
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
    return predictions, {'gates': (dict(zip(names, weights, strict=True)),)}
