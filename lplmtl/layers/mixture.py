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

from lplmtl import _alike
from lplmtl.layers import experts, gating, weighing
from lplmtl.types import Array

Gate = gating.Gate
Weights = weighing.Weights
# All gates mix all experts unless these are over four times as many as a gate
# sees. In PLE with 1 + 2 experts, gates that mix their own lengthen a step by
# 13 % with 8 tasks (2.6 times as many), and by 4 % with 12 (3.6 times as many).
_DENSE = 4


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
  return weigh(outputs, logits, gates, train=train)


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
    (outputs, logits): `{pool: [B, E_p, ...]}` and, for `weigh`, the gates'
    logits, `{gate: [B, E_g]}` or, if most gates see most experts, `[B, E]` with
    a column for each of the E experts.
  """
  stacks = {
    p.name: experts.declare(module, p.name, expert, p.num_experts, p.x)
    for p in pools
    if isinstance(p, Pool)
  }
  key = experts.dropout_key(module, train=train)
  sizes = {p.name: p.num_experts for p in pools}
  all_seen = sum(gating.num_seen(sizes, gate) for gate in gates)
  is_dense = len(gates) * sum(sizes.values()) <= _DENSE * all_seen
  logits = {
    gate.name: jnp.zeros(
      (gate.x.shape[0], sum(sizes.values()) if is_dense else 1), jnp.float32
    )
    for gate in gates
    if gating.num_seen(sizes, gate) == 1  # nothing to choose
  }
  gates = [gate for gate in gates if gate.name not in logits]
  if gate_body is not None:
    gates = gating.deepen(module, gate_body, gates, train=train)
  kernels = gating.kernels(module, sizes, gates)
  outputs = {p.name: p.outputs for p in pools if isinstance(p, Given)}
  read = [(p.name, p.x) for p in pools if isinstance(p, Pool)]
  readers = gating.readers(read, gates)

  def run(_: int, *call: Any) -> tuple[list[Array], list[Array]]:
    stacks, kernels, x, number = call
    return experts.run(
      expert,
      [(stack, len(jax.tree.leaves(stack)[0])) for stack in stacks],
      kernels,
      x,
      key=None if key is None else jax.random.fold_in(key, number),
      train=train,
    )

  calls = [
    (
      [stacks[name] for name in reader.pools],
      [kernels[name] for name in reader.gates],
      reader.x,
      np.uint32(i),
    )
    for i, reader in enumerate(readers)
  ]
  found = _alike.each(run, calls, list(map(_alike.shapes, calls)))
  for reader, (of_pools, of_gates) in zip(readers, found, strict=True):
    outputs |= zip(reader.pools, of_pools, strict=True)
    logits |= zip(reader.gates, of_gates, strict=True)
  if is_dense:
    logits |= {
      gate.name: gating.widened(sizes, gate, logits[gate.name])
      for gate in gates
    }
  return {p.name: outputs[p.name] for p in pools}, logits


def weigh(
  outputs: Mapping[str, Array],
  logits: Mapping[str, Array],
  gates: Sequence[Gate],
  *,
  train: bool = False,
) -> tuple[list[Array], list[Weights]]:
  """Mixes the results of `apply`; returns the same as `mix`."""
  sizes = {name: x.shape[1] for name, x in outputs.items()}
  joined = [logits[gate.name] for gate in gates]
  has_all = all(x.shape[1] == sum(sizes.values()) for x in joined)
  seen = [gating.seen(sizes, gate) for gate in gates]
  if has_all:
    found = weighing.over_all(outputs, joined, seen, train=train)
  else:
    found = weighing.over_own(outputs, joined, seen)
  mixed, weights = zip(*found, strict=True)
  return list(mixed), list(weights)


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
