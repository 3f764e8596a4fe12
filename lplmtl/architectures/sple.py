"""Semi-progressive layered extraction: PLE, pruned at the top."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from lplmtl import experts, gates
from lplmtl.architectures import common, ple
from lplmtl.types import Array, Task


class SPLE(nn.Module):
  """PLE whose top level has no task-specific experts.

  Levels below the top are PLE's, each with its shared gate. The top level
  (`level_<N-1>`) holds shared experts E_s only, which read g_{s,N-1}; the
  towers take over the deep task-specific work. Each task mixes the top experts
  by a gate `softmax(W_k g_{k,N-1})`. How task k's own g_{k,N-1} reaches its
  tower is `top`, for the figure of the paper is not public:

  - `concat`: tower k reads [g_{k,N-1} ; gated E_s];
  - `identity`: the gate mixes {g_{k,N-1}, E_s}, of equal widths;
  - `shared`: the gate mixes E_s alone, what a PLE without specific experts at
    its top computes.

  Shared parameters: `encoder`, every `level_*/shared_experts` and
  `level_*/shared_gate`, and the `specific_experts_*`: all of them stand below
  the top, where the shared gate hands their outputs to the other tasks.

  Attributes:
    tasks: T tasks.
    encoder: module from features to `[B, ...]`; None takes them as they are.
    levels: template of an expert for each of the N levels, lowest first; with
      one level, the task's own input is the encoded features.
    num_specific: experts of each task alone, at every level below the top.
    num_shared: experts of all tasks, at every level below the top.
    num_top: experts of the top level.
    tower: template of the body of each tower; its head is added.
    top: the reading of the top level.
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_specific: int = 2
  num_shared: int = 2
  num_top: int = 2
  tower: nn.Module = experts.MLP((32,))
  top: Literal['concat', 'identity', 'shared'] = 'concat'

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`.

    With `top='identity'` the top gate's first column is g_{k,N-1}'s.
    """
    names = common.task_names(self.tasks)
    if self.top not in ('concat', 'identity', 'shared'):
      raise ValueError(
        f"top must be 'concat', 'identity' or 'shared', found {self.top!r}"
      )
    if not self.levels:
      raise ValueError(
        'SPLE needs at least one level: one expert template per level in '
        '`levels`; found none'
      )
    x = common.encode(self.encoder, features, train=train)
    own, shared, weights = ple.extract(
      names,
      self.levels[:-1],
      self.num_specific,
      self.num_shared,
      x,
      shared_gate_on_top=True,
      train=train,
    )
    inputs, top_weights = TopLevel(
      experts.fresh(self.levels[-1]),
      self.num_top,
      self.top,
      name=f'level_{len(self.levels) - 1}',
    )(own, shared, train=train)
    predictions = common.predict(self.tasks, self.tower, inputs, train=train)
    return predictions, {'gates': (*weights, top_weights)}


class TopLevel(nn.Module):
  """SPLE's top: shared experts, gated by each task.

  Attributes:
    expert: template of an expert.
    num_experts: E.
    top: see `SPLE`.
  """

  expert: nn.Module
  num_experts: int
  top: str

  @nn.compact
  def __call__(
    self, own: dict[str, Array], shared: Array, *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, Array]]:
    """Maps `{task: [B, H']}` and `[B, H']` to the towers' inputs."""
    outputs = experts.Experts(
      experts.fresh(self.expert), self.num_experts, name='shared_experts'
    )(shared, train=train)
    inputs, weights = {}, {}
    for name, g in own.items():
      pool = outputs
      if self.top == 'identity':
        if g.shape[1:] != outputs.shape[2:]:
          raise ValueError(
            "top='identity' mixes the level below with the top experts and "
            f'needs equal widths; found {g.shape[1:]} below and '
            f'{outputs.shape[2:]} on top: make them equal or take '
            "top='concat'"
          )
        pool = jnp.concatenate([g[:, None], outputs], axis=1)
      gate = gates.SoftmaxGate(pool.shape[1], name=f'gate_{name}')
      weights[name] = gate(g)
      mixed = gates.mix(weights[name], pool)
      if self.top == 'concat':
        mixed = jnp.concatenate([g, mixed], axis=-1)
      inputs[name] = mixed
    return inputs, weights
