"""Small students: their sizes, and tables merged until they fit a budget."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from lplmtl import _checks
from lplmtl.architectures.shared_bottom import SharedBottom
from lplmtl.compression import device_bytes, merging, recoding
from lplmtl.compression.merging import Costs, Merged, Sensitivity
from lplmtl.compression.plans import Scheme
from lplmtl.compression.quantization import Quantized
from lplmtl.layers import crosses, encoder, experts
from lplmtl.tables import Tables
from lplmtl.types import Task

_TINY = Scheme(bits=4, scale_bits=8, vector_bits=4)
_SMALL = Scheme(bits=4, scale_bits=8, vector_bits=8)
_LARGE = Scheme(bits=8, scale_bits=16, vector_bits=16)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """A student: embeddings, one low-rank cross, one hidden layer, heads.

  Attributes:
    embed_dim: width of the embeddings.
    rank: of the cross layer.
    hidden: units of the layer that all tasks share.
    scheme: bits of its parameters.
  """

  embed_dim: int = 2
  rank: int = 4
  hidden: int = 8
  scheme: Scheme = _SMALL

  def __post_init__(self) -> None:
    for name in ('embed_dim', 'rank', 'hidden'):
      value = getattr(self, name)
      if not _checks.is_whole_number(value):
        raise ValueError(
          f'{name} must be a whole number of at least 1, found {value!r}'
        )
    if not isinstance(self.scheme, Scheme):
      raise ValueError(
        'scheme must be a Scheme, such as Scheme(bits=4); found '
        f'{self.scheme!r}'
      )


# The smallest budget, in bytes, for which sizes are taken. What the network
# does not need goes into values that keep an embedding of their own.
_BY_BUDGET = (
  (0, Sizes(1, 2, 4, _TINY)),
  (448, Sizes(2, 2, 4, _TINY)),
  (768, Sizes(2, 4, 8)),
  (1280, Sizes(2, 6, 12)),
  (2048, Sizes(3, 6, 12)),
  (3072, Sizes(4, 8, 16)),
  (6144, Sizes(4, 8, 16, _LARGE)),
  (12288, Sizes(4, 16, 32, _LARGE)),
  (32768, Sizes(8, 32, 64, _LARGE)),
)


def offered(tasks: Sequence[Task]) -> tuple[tuple[int, Sizes], ...]:
  """Returns sizes, the smallest first, with the budgets that they are for.

  The hidden layer has at least a unit for two outputs, so that many tasks do
  not squeeze through eight numbers.
  """
  least = math.ceil(sum(task.num_outputs for task in tasks) / 2)
  return tuple(
    (start, dataclasses.replace(sizes, hidden=max(sizes.hidden, least)))
    for start, sizes in _BY_BUDGET
  )


def make(tasks: Sequence[Task], tables: Tables, sizes: Sizes) -> SharedBottom:
  """Returns a student that reads what tables encode."""
  columns = encoder.TabularEncoder(
    tables.num_categories,
    sizes.embed_dim,
    num_buckets=tables.num_buckets,
    num_pieces=tables.num_pieces,
  )
  return SharedBottom(
    tuple(tasks),
    encoder=crosses.CrossNetwork(columns, rank=sizes.rank, num_layers=1),
    bottom=experts.MLP((sizes.hidden,)),
    tower=experts.MLP(()),
  )


@dataclasses.dataclass(frozen=True)
class Bytes(Costs):
  """Costs of values and columns of a student; `num_bytes` is exact.

  Attributes:
    tasks: of the student.
    sizes: of the student.
    raw_row: see `packing.pack`.
  """

  tasks: tuple[Task, ...] = ()
  sizes: Sizes = Sizes()
  raw_row: tuple[Any, ...] | None = None

  def num_bytes(self, tables: Tables) -> float:
    """Returns all bytes of the packed student with these tables."""
    parts = count_bytes(
      self.tasks,
      tables,
      self.sizes,
      hash_bits=self.hash_bits,
      row=self.raw_row,
    )
    return sum(parts.values())


def costs(
  tasks: Sequence[Task],
  sizes: Sizes,
  hash_bits: int = 8,
  row: Sequence[Any] | None = None,
) -> Bytes:
  """Returns what merging saves in a student."""
  scheme, width = sizes.scheme, sizes.embed_dim
  bits = width * (2 * sizes.rank + sizes.hidden) * scheme.bits
  bits += width * scheme.vector_bits  # the biases of the cross layer
  bits += scheme.scale_bits  # that of the column's embeddings
  return Bytes(
    row=width * (scheme.embedding_bits or scheme.bits) / 8,
    column=bits / 8,
    hash_bits=hash_bits,
    tasks=tuple(tasks),
    sizes=sizes,
    raw_row=None if row is None else tuple(row),
  )


def count_bytes(
  tasks: Sequence[Task],
  tables: Tables,
  sizes: Sizes,
  *,
  hash_bits: int = 8,
  row: Sequence[Any] | None = None,
) -> dict[str, int]:
  """Returns the bytes of a packed student by part; see `cost.count_bytes`."""
  model = make(tasks, tables, sizes)
  params = _shapes(model, tables)
  return device_bytes.count_bytes(
    Quantized(model, sizes.scheme), params, tables, hash_bits=hash_bits, row=row
  )


def fit_tables(
  tables: Tables,
  found: Sensitivity,
  budget: int,
  options: Sequence[tuple[int, Bytes]],
) -> tuple[Merged, Sizes]:
  """Merges values until a student fits a budget.

  Takes the largest student that fits the budget without merging, if there is
  one; else that which is meant for the budget, or the next smaller one that
  fits with all values merged.

  Args:
    tables: to merge.
    found: of these tables.
    budget: bytes, of all that a device stores.
    options: students, the smallest first, and the budgets they are meant for.

  Raises:
    BudgetError: none fits; says how many bytes the smallest takes.
  """
  smallest = math.inf
  for start, one in reversed(options):
    if start > budget and one.num_bytes(tables) > budget:
      continue
    try:
      merged = merging.merge_by(tables, found, num_bytes=budget, costs=one)
      return merged, one.sizes
    except merging.BudgetError as error:
      smallest = min(smallest, error.smallest)
  raise merging.BudgetError(
    f'budget={budget} cannot be reached: with all values merged that may be, '
    f'the smallest student takes {smallest:.0f} bytes',
    smallest,
  )


def _shapes(model: SharedBottom, tables: Tables) -> Any:
  return jax.eval_shape(
    model.init, jax.random.key(0), recoding.one_row(tables)
  )['params']
