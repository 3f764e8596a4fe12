"""STEM: embeddings of each task's own (Su et al. 2024)."""

from typing import Any

import flax.linen as nn
import jax

from lplmtl.architectures import common
from lplmtl.layers import experts, extraction, mixture
from lplmtl.types import Task


class STEM(nn.Module):
  """T + 1 encoders; all experts are seen forward, one's own go backward.

  Task k's experts read its own embedding x_k, the shared ones x_s. The gate of
  task k mixes the experts of all tasks and the shared ones, but no gradient of
  task k reaches the experts (and the embedding) of another task: All Forward,
  Task-specific Backward:

      y_k = h_k(softmax(W_k (x_k + x_s)) [sg(E_j), j != k ; E_k ; E_s])

  Shared parameters: `encoder_shared`, `shared_experts`. Their number: T + 1
  encoders, sum_j E_j + E_s experts, and a task D (sum_j E_j + E_s) and its
  tower.

  Attributes:
    tasks: T tasks.
    encoder: template of the encoders `encoder_<task>` and `encoder_shared`;
      None takes the features as they are.
    expert: template of an expert.
    num_specific: E_k, experts of each task, >= 1: a number, or a tuple with one
      for each task, in order.
    num_shared: E_s, experts of all tasks, >= 1.
    tower: template of the body of each tower; its head is added.
    gate_body: template of what stands below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Differs from the paper: one level of experts; gates are linear by default.

  References:
    Su et al. 2024, "STEM: Unleashing the Power of Embeddings for Multi-Task
    Recommendation".
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  expert: nn.Module = experts.MLP((64,))
  num_specific: int | tuple[int, ...] = 2
  num_shared: int = 2
  tower: common.Tower = experts.MLP((32,))
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Whether a parameter receives more than one task's gradient."""
    return path[0] in ('encoder_shared', 'shared_experts')

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict for its level})`."""
    names = common.task_names(self.tasks)
    (counts,) = extraction.specific_counts(self.num_specific, len(names), 1, 1)
    x = {
      name: common.own_copy(
        self, self.encoder, f'encoder_{name}', features, train=train
      )
      for name in (*names, 'shared')
    }
    pools = [
      mixture.Pool(f'specific_experts_{name}', count, x[name])
      for name, count in zip(names, counts, strict=True)
    ]
    pools.append(mixture.Pool('shared_experts', self.num_shared, x['shared']))
    everything = tuple(pool.name for pool in pools)
    selectors = [
      mixture.Selector(f'gate_{name}', x[name] + x['shared'], everything)
      for name in names
    ]
    outputs, logits = mixture.apply(
      self, self.expert, pools, selectors, train=train, gate_body=self.gate_body
    )
    inputs, gates = {}, {}
    for name in names:
      seen = {
        pool: x
        if pool in (f'specific_experts_{name}', 'shared_experts')
        else jax.lax.stop_gradient(x)
        for pool, x in outputs.items()
      }
      own = [s for s in selectors if s.name == f'gate_{name}']
      (inputs[name],), (gates[name],) = mixture.weigh(seen, logits, own)
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
    return predictions, {'gates': (gates,)}
