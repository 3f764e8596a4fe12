"""Mixtures of experts: pools of experts, and gates that weight them.

One level of any architecture with experts is one call of `mix`. Everything that
reads the same input runs as one contraction: the first layer of the experts of
all pools, together with the kernels of all gates. On a CPU a training step then
consists of a few large matrix products; a module for each pool and each gate
would make it many small ones.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
    name: names the parameters, which are stacked on axis 0.
    num_experts: E_p >= 1.
    x: `[B, ...]`.
  """

  name: str
  num_experts: int
  x: Array


class Given(NamedTuple):
  """Outputs that enter a mixture unchanged.

  Attributes:
    name: the name by which gates refer to them.
    outputs: `[B, E_p, ...]`.
  """

  name: str
  outputs: Array

  @property
  def num_experts(self) -> int:
    """E_p."""
    return self.outputs.shape[1]


class Gate(NamedTuple):
  """A gate over some of the pools.

  A linear softmax gate without bias, `g(x) = softmax(W x)` (Ma et al. 2018,
  eq. 8); with a gate body f it is `softmax(W f(x))`. A gate over a single
  expert has weight 1 and no parameters.

  Attributes:
    name: names the kernel, `[D, E_g]`, whose columns follow the order of
      `pools`. The parameters of a gate body are `hidden_<name>`, with a leading
      axis of size 1.
    x: `[B, ...]`, what the gate reads; flattened to `[B, D]`.
    pools: names of the pools that the gate mixes, in the order of all pools.
  """

  name: str
  x: Array
  pools: tuple[str, ...]


def mix(
  module: nn.Module,
  expert: nn.Module,
  pools: Sequence[Pool | Given],
  gates: Sequence[Gate],
  *,
  train: bool,
  gate_body: nn.Module | None = None,
) -> tuple[list[Array], list[Weights]]:
  """Mixes the experts' outputs once per gate.

  `m_g = sum_e g(x)_e f_e(x)` (Ma et al. 2018, eq. 7), where e runs over the
  experts of the gate's pools.

  Args:
    module: the module that owns the parameters; call `mix` in its compact
      method.
    expert: template of every expert (see `lplmtl.layers.modules.call`).
    pools: the experts, E in total.
    gates: the gates, G in total.
    train: whether dropout is active.
    gate_body: template of the module below each gate's kernel; None for linear
      gates.

  Returns:
    (mixed, weights): per gate, `[B, ...]` and the weights of the pools it
      mixes, `{pool: [B, E_p]}` float32, which sum to 1.

  Raises:
    ValueError: a number of experts below 1.
  """
  outputs, logits = apply(
    module, expert, pools, gates, train=train, gate_body=gate_body
  )
  return weigh(outputs, logits, gates)


def apply(
  module: nn.Module,
  expert: nn.Module,
  pools: Sequence[Pool | Given],
  gates: Sequence[Gate] = (),
  *,
  train: bool,
  gate_body: nn.Module | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Computes the experts' outputs and the gates' logits without mixing them.

  Takes the arguments of `mix` and raises the same errors.

  Returns:
    (outputs, logits): `{pool: [B, E_p, ...]}` and `{gate: [B, E]}`, with a
    column for each of the E experts, including those outside the gate's pools.
  """
  stacks = {
    p.name: experts.declare(module, p.name, expert, p.num_experts, p.x)
    for p in pools
    if isinstance(p, Pool)
  }
  key = experts.dropout_key(module, train=train)
  num_experts = sum(p.num_experts for p in pools)
  # A gate over one expert: `weigh` masks all of these zeros but one.
  logits = {
    gate.name: jnp.zeros((gate.x.shape[0], num_experts), jnp.float32)
    for gate in gates
    if sum(_pool_sizes(gate, pools)) == 1
  }
  gates = [gate for gate in gates if gate.name not in logits]
  if gate_body is not None:
    gates = _deepen(module, gate_body, gates, train=train)
  kernels = _kernels(module, pools, gates)
  outputs = {p.name: p.outputs for p in pools if isinstance(p, Given)}
  for i, x in enumerate(_inputs(pools, gates)):
    pools_of_x = [p for p in pools if isinstance(p, Pool) and p.x is x]
    gates_of_x = [gate.name for gate in gates if gate.x is x]
    outputs_of_x, logits_of_x = experts.run(
      expert,
      [(stacks[p.name], p.num_experts) for p in pools_of_x],
      [kernels[name] for name in gates_of_x],
      x,
      key=None if key is None else jax.random.fold_in(key, i),
      train=train,
    )
    outputs |= zip([p.name for p in pools_of_x], outputs_of_x, strict=True)
    logits |= zip(gates_of_x, logits_of_x, strict=True)
  return {p.name: outputs[p.name] for p in pools}, logits


def weigh(
  outputs: Mapping[str, Array],
  logits: Mapping[str, Array],
  gates: Sequence[Gate],
) -> tuple[list[Array], list[Weights]]:
  """Mixes the results of `apply`; returns the same as `mix`."""
  names = tuple(outputs)
  sizes = [outputs[name].shape[1] for name in names]
  allowed = np.array([[name in gate.pools for name in names] for gate in gates])
  joined = jnp.stack(
    [logits[gate.name].astype(jnp.float32) for gate in gates], axis=1
  )
  if not allowed.all():
    mask = np.repeat(allowed, sizes, axis=1)
    joined = jnp.where(mask[None], joined, -jnp.inf)
  weights = jax.nn.softmax(joined, axis=-1)
  pool = jnp.concatenate(list(outputs.values()), axis=1)
  mixed = jnp.einsum('bge,be...->bg...', weights.astype(pool.dtype), pool)
  weights_by_pool = []
  for gate, row in zip(gates, unstack(weights), strict=True):
    parts = dict(zip(names, experts.split(row, sizes), strict=True))
    weights_by_pool.append(
      {name: parts[name] for name in names if name in gate.pools}
    )
  return unstack(mixed), weights_by_pool


class Mixture(nn.Module):
  """One pool of experts and its gates, as a separate module.

  For architectures with several methods that use the experts: Linen allows one
  compact method per class. With `nn.share_scope` the parameters keep their
  names; the fields then need names that the calling module does not have.

  Attributes:
    expert_template: template of every expert.
    gate_template: template of the module below each gate's kernel, or None.
  """

  expert_template: nn.Module
  gate_template: nn.Module | None = None

  @nn.compact
  def __call__(
    self, pool: Pool | Given, gates: Sequence[Gate] = (), *, train: bool = False
  ) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns what `apply` returns."""
    return apply(
      self,
      self.expert_template,
      [pool],
      gates,
      train=train,
      gate_body=self.gate_template,
    )


def unstack(x: Array) -> list[Array]:
  """Splits `[B, G, ...]` into G arrays `[B, ...]`."""
  return [part.squeeze(1) for part in experts.split(x, (1,) * x.shape[1])]


def _pool_sizes(gate: Gate, pools: Sequence[Pool | Given]) -> tuple[int, ...]:
  """Returns the number of experts in each of a gate's pools."""
  return tuple(p.num_experts for p in pools if p.name in gate.pools)


def _deepen(
  module: nn.Module,
  gate_body: nn.Module,
  gates: Sequence[Gate],
  *,
  train: bool,
) -> list[Gate]:
  """Applies the gate bodies; returns gates that read their outputs."""
  stacks = {
    gate.name: experts.declare(
      module, f'hidden_{gate.name}', gate_body, 1, gate.x
    )
    for gate in gates
  }
  key = experts.dropout_key(module, train=train)
  deeper = {}
  for i, x in enumerate(_inputs((), gates)):
    gates_of_x = [gate for gate in gates if gate.x is x]
    hidden, _ = experts.run(
      gate_body,
      [(stacks[gate.name], 1) for gate in gates_of_x],
      [],
      x,
      key=None if key is None else jax.random.fold_in(key, i),
      train=train,
    )
    for gate, output in zip(gates_of_x, hidden, strict=True):
      deeper[gate.name] = gate._replace(x=output.squeeze(1))
  return [deeper[gate.name] for gate in gates]


def _kernels(
  module: nn.Module,
  pools: Sequence[Pool | Given],
  gates: Sequence[Gate],
) -> dict[str, Array]:
  """Returns each gate's kernel with a column for every expert, `[D, E]`.

  The columns of experts outside the gate's pools are zero, and `weigh` masks
  their logits, so that all gates mix in one contraction.
  """
  kernels = {}
  for gate in gates:
    width = int(np.prod(gate.x.shape[1:]))
    sizes = _pool_sizes(gate, pools)
    kernel = module.param(
      gate.name, nn.initializers.lecun_normal(), (width, sum(sizes)),
      jnp.float32,
    )  # fmt: skip
    parts = iter(experts.split(kernel, sizes))
    columns = [
      next(parts)
      if p.name in gate.pools
      else jnp.zeros((width, p.num_experts), kernel.dtype)
      for p in pools
    ]
    kernels[gate.name] = jnp.concatenate(columns, axis=1)
  return kernels


def _inputs(
  pools: Sequence[Pool | Given], gates: Sequence[Gate]
) -> list[Array]:
  """Returns the distinct inputs, by identity, in order of first use."""
  inputs: list[Array] = []
  read = [pool.x for pool in pools if isinstance(pool, Pool)]
  for x in (*read, *(gate.x for gate in gates)):
    if not any(x is known for known in inputs):
      inputs.append(x)
  return inputs


def __getattr__(name: str) -> Any:
  """Keeps the former name of `Gate` for one more release."""
  if name != 'Selector':
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  warnings.warn(
    'lplmtl.layers.mixture.Selector is now mixture.Gate',
    DeprecationWarning,
    stacklevel=2,
  )
  return Gate
