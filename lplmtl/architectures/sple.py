"""Semi-progressive layered extraction: PLE with a pruned top level."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from lplmtl.architectures import _common, ple
from lplmtl.layers import experts, extraction, mixture, modules
from lplmtl.types import Array, Task


class SPLE(nn.Module):
  """PLE whose top level has no task-specific experts.

  The levels below the top are PLE's, each with a shared gate. The top level
  (`level_<N-1>`) holds shared experts E_s only, which read g_{s,N-1}; the
  towers take over the deep task-specific extraction. Each task mixes the top
  experts by a gate `softmax(W_k g_{k,N-1})`. `top` selects how task k's own
  g_{k,N-1} reaches its tower; it is an option because the paper's figure is not
  public:

  - `concat`: `y_k = h_k([g_{k,N-1} ; softmax(W_k g_{k,N-1}) E_s])`;
  - `identity`: `y_k = h_k(softmax(W_k g_{k,N-1}) [g_{k,N-1} ; E_s])`, which
    requires equal widths;
  - `shared`: `y_k = h_k(softmax(W_k g_{k,N-1}) E_s)`, which a PLE without
    specific experts at the top computes.

  Shared parameters: `encoder`, every `level_*/shared_experts` and
  `level_*/shared_gate`; every `specific_experts_*`, because all are below the
  top, where the shared gate passes their outputs to the other tasks; and below
  the last level but one also `gate_*`, through the specific experts above.

  Number of parameters: below the top that of PLE, with a shared gate at every
  level; at the top E_s experts and D E_s T for the gates (with `identity`
  D (E_s + 1) T); and the towers.

  Attributes:
    tasks: T tasks.
    encoder: module that maps the features to `[B, ...]`; None to use them as
      they are.
    levels: template of an expert for each of the N levels, lowest first; with
      one level, g_{k,N-1} is the encoded features.
    num_specific: number of task-specific experts below the top: a number; a
      tuple with one per task; or a tuple with such a tuple for each of the
      N - 1 levels, such as ((1, 3),) with two levels.
    num_shared: number of shared experts below the top: a number, or a tuple
      with one for each of the N - 1 levels.
    num_top: number of experts at the top.
    tower: template of the towers' bodies, or a tuple with one per task; linear
      heads are added.
    top: 'concat', 'identity' or 'shared', see above.
    gate_body: template of the module below each gate's kernel, such as
      `MLP((32,))`; None for linear gates.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from lplmtl import tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = SPLE(todo, num_top=3)
    >>> key, x = jax.random.key(0), jnp.ones((2, 8))
    >>> (logits, aux), params = jax.eval_shape(model.init_with_output, key, x)
    >>> {pool: x.shape for pool, x in aux['gates'][1]['buy'].items()}  # [B, E]
    {'shared_experts': (2, 3)}
  """

  tasks: tuple[Task, ...]
  encoder: nn.Module | None = None
  levels: tuple[nn.Module, ...] = (experts.MLP((64,)), experts.MLP((64,)))
  num_specific: int | tuple[Any, ...] = 2
  num_shared: int | tuple[int, ...] = 2
  num_top: int = 2
  tower: _common.TowerBody = experts.MLP((32,))
  top: Literal['concat', 'identity', 'shared'] = 'concat'
  gate_body: nn.Module | None = None

  def is_shared(self, path: tuple[str, ...]) -> bool:
    """Returns whether a parameter receives gradients of several tasks."""
    return extraction.is_shared(path, len(self.levels))

  @nn.compact
  def __call__(
    self, features: Any, *, train: bool = False
  ) -> _common.Predictions:
    """Returns `({task: [B, K] logits}, {'gates': one dict per level})`.

    With `top='identity'`, the top gate's weight of g_{k,N-1} is listed under a
    pool named after the task.
    """
    names = _common.task_names(self.tasks)
    if self.top not in ('concat', 'identity', 'shared'):
      raise ValueError(
        f"top must be 'concat', 'identity' or 'shared', found {self.top!r}"
      )
    _common.check_levels(self.levels)
    x = _common.encode(self.encoder, features, train=train)
    below, shared, weights = ple.extract(
      names,
      self.levels[:-1],
      self.num_specific,
      self.num_shared,
      x,
      shared_gate_on_top=True,
      gate_body=self.gate_body,
      train=train,
    )
    inputs, top_weights = TopLevel(
      modules.fresh(self.levels[-1]),
      self.num_top,
      self.top,
      modules.optional(self.gate_body),
      name=f'level_{len(self.levels) - 1}',
    )(below, shared, train=train)
    predictions = _common.predict(self, inputs, train=train)
    return predictions, {'gates': (*weights, top_weights)}


class TopLevel(nn.Module):
  """SPLE's top level: shared experts, mixed by one gate per task.

  Attributes:
    expert: template of an expert.
    num_experts: E.
    top: see `SPLE`.
    gate_body: template of the module below each gate's kernel, or None.
  """

  expert: nn.Module
  num_experts: int
  top: str
  gate_body: nn.Module | None = None

  @nn.compact
  def __call__(
    self, below: dict[str, Array], shared: Array, *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, mixture.Weights]]:
    """Maps `{task: [B, H']}` and `[B, H']` to the towers' inputs."""
    names = tuple(below)
    given: list[mixture.Given] = []
    if self.top == 'identity':
      self._check_widths(below[names[0]], shared)
      given = [mixture.Given(name, below[name][:, None]) for name in names]
    mixed, weights = mixture.mix(
      self,
      self.expert,
      [*given, mixture.Pool('shared_experts', self.num_experts, shared)],
      [
        mixture.Gate(f'gate_{name}', below[name], (name, 'shared_experts'))
        for name in names
      ],
      train=train,
      gate_body=self.gate_body,
    )
    inputs = dict(zip(names, mixed, strict=True))
    if self.top == 'concat':
      inputs = {
        name: jnp.concatenate([below[name], inputs[name]], axis=-1)
        for name in names
      }
    return inputs, dict(zip(names, weights, strict=True))

  def _check_widths(self, below: Array, shared: Array) -> None:
    output = modules.output_shape(self.expert, shared)
    if below.shape[1:] != output.shape[1:]:
      raise ValueError(
        "top='identity' mixes the level below with the top experts and needs "
        f'equal widths; found {below.shape[1:]} below and {output.shape[1:]} '
        "at the top: make them equal, or take top='concat'"
      )
