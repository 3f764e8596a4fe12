"""Mixtures of experts: pools of experts, and selectors that weight them.

One level of any architecture with experts is a call of `mix`. What reads the
same input runs as one contraction: the first layer of all experts, of whatever
pool, beside the kernels of all gates: on a CPU a step is made of few large
products, where a module for each pool and each gate would make many small ones.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.layers import experts
from lplmtl.types import Array

Weights = dict[str, Array]


class Pool(NamedTuple):
  """Experts that read one input.

  Attributes:
    name: of their parameters, stacked on axis 0.
    num_experts: E_p >= 1.
    x: `[B, ...]`.
  """

  name: str
  num_experts: int
  x: Array


class Given(NamedTuple):
  """Outputs that take part in a mixture as they are.

  Attributes:
    name: what selectors call them.
    outputs: `[B, E_p, ...]`.
  """

  name: str
  outputs: Array

  @property
  def num_experts(self) -> int:
    """E_p."""
    return self.outputs.shape[1]


class Selector(NamedTuple):
  """A gate over some of the pools.

  A linear softmax gate, `g(x) = softmax(W x)` (Ma et al. 2018, eq. 8), without
  bias; a module below makes it a deeper one, `softmax(W f(x))`. Where there is
  one expert to choose from, its weight is 1 and there are no parameters.

  Attributes:
    name: of its kernel, `[D, E_s]`, the columns in the order of `pools`; the
      parameters of a module below are `hidden_<name>`, with a leading 1.
    x: `[B, ...]`, what it reads, flattened when it is no vector.
    pools: names of the pools it may choose from, in the order of all pools.
  """

  name: str
  x: Array
  pools: tuple[str, ...]


def mix(
  module: nn.Module,
  expert: nn.Module,
  pools: Sequence[Pool | Given],
  selectors: Sequence[Selector],
  *,
  train: bool,
  gate_body: nn.Module | None = None,
) -> tuple[list[Array], list[Weights]]:
  """Mixes the experts' outputs once for each selector.

  `m_s = sum_e g_s(x)_e f_e(x)` (Ma et al. 2018, eq. 7), e over the experts of
  the selector's pools.

  Args:
    module: whose parameters these are; the call stands in its compact method.
    expert: template of every expert (see `lplmtl.layers.modules.call`).
    pools: the experts, E in all.
    selectors: the gates, G in all.
    train: whether dropout acts.
    gate_body: template of what stands below each gate's kernel; None for linear
      gates.

  Returns:
    (mixed, weights): for each selector `[B, ...]`, and the weights of the pools
      it may choose from, `{pool: [B, E_p]}` float32, together 1.

  Raises:
    ValueError: a number of experts below 1.
  """
  outputs, logits = apply(
    module, expert, pools, selectors, train=train, gate_body=gate_body
  )
  return weigh(outputs, logits, selectors)


def apply(
  module: nn.Module,
  expert: nn.Module,
  pools: Sequence[Pool | Given],
  selectors: Sequence[Selector] = (),
  *,
  train: bool,
  gate_body: nn.Module | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
  """The outputs of experts and the logits of gates, not yet mixed.

  Args and errors as those of `mix`.

  Returns:
    (outputs, logits): `{pool: [B, E_p, ...]}` and `{selector: [B, E]}`, with
    columns for all E experts, also those that the selector may not choose.
  """
  stacks = {
    p.name: experts.declare(module, p.name, expert, p.num_experts, p.x)
    for p in pools
    if isinstance(p, Pool)
  }
  key = experts.dropout_key(module, train=train)
  total = sum(p.num_experts for p in pools)
  # Without a choice, the mask of `weigh` leaves one of the zeros.
  logits = {
    s.name: jnp.zeros((s.x.shape[0], total), jnp.float32)
    for s in selectors
    if sum(_choices(s, pools)) == 1
  }
  selectors = [s for s in selectors if s.name not in logits]
  if gate_body is not None:
    selectors = _deepen(module, gate_body, selectors, train=train)
  kernels = _kernels(module, pools, selectors)
  outputs = {p.name: p.outputs for p in pools if isinstance(p, Given)}
  for i, x in enumerate(_inputs(pools, selectors)):
    here = [p for p in pools if isinstance(p, Pool) and p.x is x]
    gates = [s.name for s in selectors if s.x is x]
    found, scores = experts.run(
      expert,
      [(stacks[p.name], p.num_experts) for p in here],
      [kernels[name] for name in gates],
      x,
      key=None if key is None else jax.random.fold_in(key, i),
      train=train,
    )
    outputs |= zip([p.name for p in here], found, strict=True)
    logits |= zip(gates, scores, strict=True)
  return {p.name: outputs[p.name] for p in pools}, logits


def weigh(
  outputs: Mapping[str, Array],
  logits: Mapping[str, Array],
  selectors: Sequence[Selector],
) -> tuple[list[Array], list[Weights]]:
  """Mixes what `apply` returned; returns as `mix`."""
  names = tuple(outputs)
  counts = [outputs[name].shape[1] for name in names]
  allowed = np.array([[name in s.pools for name in names] for s in selectors])
  joined = jnp.stack(
    [logits[s.name].astype(jnp.float32) for s in selectors], axis=1
  )
  if not allowed.all():
    mask = np.repeat(allowed, counts, axis=1)
    joined = jnp.where(mask[None], joined, -jnp.inf)
  weights = jax.nn.softmax(joined, axis=-1)
  pool = jnp.concatenate(list(outputs.values()), axis=1)
  mixed = jnp.einsum('bge,be...->bg...', weights.astype(pool.dtype), pool)
  chosen = []
  for selector, own in zip(selectors, unstack(weights), strict=True):
    parts = dict(zip(names, experts.split(own, counts), strict=True))
    chosen.append(
      {name: parts[name] for name in names if name in selector.pools}
    )
  return unstack(mixed), chosen


def unstack(x: Array) -> list[Array]:
  """`[B, G, ...]` to G times `[B, ...]`."""
  return [part.squeeze(1) for part in experts.split(x, (1,) * x.shape[1])]


def _choices(
  selector: Selector, pools: Sequence[Pool | Given]
) -> tuple[int, ...]:
  """How many experts each of a selector's pools has."""
  return tuple(p.num_experts for p in pools if p.name in selector.pools)


def _deepen(
  module: nn.Module,
  gate_body: nn.Module,
  selectors: Sequence[Selector],
  *,
  train: bool,
) -> list[Selector]:
  """Selectors that read what the gate's module makes of their inputs."""
  stacks = {
    s.name: experts.declare(module, f'hidden_{s.name}', gate_body, 1, s.x)
    for s in selectors
  }
  key = experts.dropout_key(module, train=train)
  deeper = {}
  for i, x in enumerate(_inputs((), selectors)):
    here = [s for s in selectors if s.x is x]
    hidden, _ = experts.run(
      gate_body,
      [(stacks[s.name], 1) for s in here],
      [],
      x,
      key=None if key is None else jax.random.fold_in(key, i),
      train=train,
    )
    for selector, own in zip(here, hidden, strict=True):
      deeper[selector.name] = selector._replace(x=own.squeeze(1))
  return [deeper[s.name] for s in selectors]


def _kernels(
  module: nn.Module,
  pools: Sequence[Pool | Given],
  selectors: Sequence[Selector],
) -> dict[str, Array]:
  """Each selector's kernel, with a column for every expert, `[D, E]`.

  The columns of experts that it may not choose are zeros, and will be masked:
  all selectors then mix in one contraction.
  """
  kernels = {}
  for selector in selectors:
    width = int(np.prod(selector.x.shape[1:]))
    chosen = _choices(selector, pools)
    kernel = module.param(
      selector.name,
      nn.initializers.lecun_normal(),
      (width, sum(chosen)),
      jnp.float32,
    )
    own = iter(experts.split(kernel, chosen))
    columns = [
      next(own)
      if p.name in selector.pools
      else jnp.zeros((width, p.num_experts), kernel.dtype)
      for p in pools
    ]
    kernels[selector.name] = jnp.concatenate(columns, axis=1)
  return kernels


def _inputs(
  pools: Sequence[Pool | Given], selectors: Sequence[Selector]
) -> list[Array]:
  """The different inputs, each once."""
  inputs: list[Array] = []
  read = [pool.x for pool in pools if isinstance(pool, Pool)]
  for x in (*read, *(selector.x for selector in selectors)):
    if not any(x is known for known in inputs):
      inputs.append(x)
  return inputs
