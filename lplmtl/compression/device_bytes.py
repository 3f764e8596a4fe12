"""The bytes of a model on a device, known before it is trained."""

import collections
from collections.abc import Sequence
from typing import Any

from lplmtl import _checks
from lplmtl.compression import bits, device_tables, leaves, packing, plans
from lplmtl.compression.packing import Leaf
from lplmtl.compression.plans import Plan
from lplmtl.compression.quantization import Quantized
from lplmtl.tables import Tables
from lplmtl.types import PyTree


def count_bytes(
  model: Any,
  params: PyTree,
  tables: Tables | None = None,
  *,
  hash_bits: int = 8,
  row: Sequence[Any] | None = None,
) -> dict[str, int]:
  """Counts what `packing.pack` would take, from shapes alone.

  Args:
    model: Quantized; or any other model, whose parameters are counted in their
      own dtypes.
    params: parameters, or their shapes (`jax.eval_shape`), of one seed.
    tables: that encode the inputs; None counts the parameters only.
    hash_bits: see `packing.pack`.
    row: see `packing.pack`.

  Returns:
    `{part: bytes}`, of those parts that the model has: `embeddings`, `weights`,
    `biases` (all that is no matrix), `scales`; of the tables `hashes`, `ids`
    (which values share one), `edges`, `numbers` (means, deviations, fills) and
    `descriptors`. Their sum is `Packed.num_bytes`.

  Raises:
    ValueError: as for `packing.pack`.

  Example:
    >>> import jax, lplmtl
    >>> from lplmtl import data, tasks
    >>> model = Quantized(lplmtl.SharedBottom((tasks.binary('click'),)))
    >>> x = data.clicks(1).features
    >>> params = jax.eval_shape(model.init, jax.random.key(0), x)['params']
    >>> count_bytes(model, params)  # 8 x 128 + 128 x 32 + 32 codes of 4 bits
    {'biases': 644, 'scales': 322, 'weights': 2576}
  """
  _checks.check_params(params)
  named = leaves.names(params)
  if isinstance(model, Quantized):
    made = leaves.names(plans.make(model.model, model.scheme, params))
    layout = [_planned(name, named[name], made[name]) for name in named]
  else:
    layout = [packing.plain_leaf(name, leaf) for name, leaf in named.items()]
  numbers: collections.Counter[tuple[str, int]] = collections.Counter()
  for leaf in layout:
    for stream, count, size in leaf.streams:
      numbers[stream, size] += count
  sections = {
    stream: bits.num_bytes(count, size)
    for (stream, size), count in numbers.items()
  }
  if tables is not None:
    packing.check_tables(layout, device_tables.checked(tables))
    packed = device_tables.pack(tables, hash_bits, row)
    sections |= {name: array.nbytes for name, array in packed.items()}
  return packing.by_part(sections)


def _planned(name: str, leaf: Any, plan: Plan) -> Leaf:
  part = packing.part_of(name, plan.is_matrix)
  if plan.bits > 8:
    return Leaf(name, part, leaf.shape, plan.bits)
  if plan.sizes:
    scale_shape: tuple[int, ...] = (len(plan.sizes), 1)
  else:
    axes = {axis % len(leaf.shape) for axis in plan.axes} if leaf.shape else ()
    scale_shape = tuple(
      1 if axis in axes else size for axis, size in enumerate(leaf.shape)
    )
  return Leaf(
    name, part, leaf.shape, plan.bits, plan.scale_bits, scale_shape, plan.sizes
  )
