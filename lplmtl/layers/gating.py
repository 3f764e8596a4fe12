"""Gates below their softmax: which experts they see, kernels and bodies."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import _alike
from lplmtl.layers import experts, products
from lplmtl.types import Array


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


def seen(sizes: Mapping[str, int], gate: Gate) -> list[str]:
  """Returns the names of the pools that a gate mixes, in order."""
  return [name for name in sizes if name in gate.pools]


def num_seen(sizes: Mapping[str, int], gate: Gate) -> int:
  """Returns E_g, the number of experts that a gate mixes."""
  return sum(sizes[name] for name in seen(sizes, gate))


def deepen(
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
  by_input = readers((), gates)

  def run(_: int, stacks: Any, x: Array, number: Any) -> list[Array]:
    return experts.run(
      gate_body,
      [(stack, 1) for stack in stacks],
      [],
      x,
      key=None if key is None else jax.random.fold_in(key, number),
      train=train,
    )[0]

  calls = [
    ([stacks[name] for name in reader.gates], reader.x, np.uint32(i))
    for i, reader in enumerate(by_input)
  ]
  deeper: dict[str, Array] = {}
  found = _alike.each(run, calls, list(map(_alike.shapes, calls)))
  for reader, hidden in zip(by_input, found, strict=True):
    deeper |= zip(reader.gates, hidden, strict=True)
  return [gate._replace(x=deeper[gate.name].squeeze(1)) for gate in gates]


def kernels(
  module: nn.Module,
  sizes: Mapping[str, int],
  gates: Sequence[Gate],
) -> dict[str, Array]:
  """Returns each gate's kernel, `[D, E_g]`."""
  found = {}
  for gate in gates:
    width = int(np.prod(gate.x.shape[1:]))
    found[gate.name] = module.param(
      gate.name, nn.initializers.lecun_normal(),
      (width, num_seen(sizes, gate)), jnp.float32,
    )  # fmt: skip
  return found


def widened(sizes: Mapping[str, int], gate: Gate, logits: Array) -> Array:
  """Returns logits `[B, E]`, with zeros for experts that a gate does not see.

  `weigh` masks these, so that all gates mix in one contraction.

  Args:
    sizes: the number of experts of each pool, E in total.
    gate: the gate.
    logits: `[B, E_g]`, of the experts that it sees.
  """
  names = seen(sizes, gate)
  if len(names) == len(sizes):
    return logits
  parts = iter(products.split(logits, [sizes[name] for name in names]))
  columns = [
    next(parts)
    if name in names
    else jnp.zeros((logits.shape[0], size), logits.dtype)
    for name, size in sizes.items()
  ]
  return jnp.concatenate(columns, axis=1)


class Reader(NamedTuple):
  """What reads one input: names of pools and of gates."""

  x: Array
  pools: list[str]
  gates: list[str]


def readers(
  pools: Sequence[tuple[str, Array]], gates: Sequence[Gate]
) -> list[Reader]:
  """Returns the distinct inputs, by identity, in order of first use.

  Args:
    pools: the name and the input of each pool.
    gates: all gates.
  """
  found: dict[int, Reader] = {}
  for name, x in pools:
    found.setdefault(id(x), Reader(x, [], [])).pools.append(name)
  for gate in gates:
    found.setdefault(id(gate.x), Reader(gate.x, [], [])).gates.append(gate.name)
  return list(found.values())
