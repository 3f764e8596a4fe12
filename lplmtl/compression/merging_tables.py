"""Tables with merged values, and the bytes that they take."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lplmtl.compression import device_tables
from lplmtl.compression.merging_path import Column, Prices
from lplmtl.compression.merging_sensitivity import Sensitivity
from lplmtl.dates import Date
from lplmtl.numeric import Numeric
from lplmtl.tables import Tables


@dataclasses.dataclass(frozen=True)
class Costs:
  """What values and columns cost in bytes, beside the tables themselves.

  The defaults are those of a small network with 4 bits a number: embeddings of
  width 2, a cross layer of rank 4 and 8 hidden units.

  Attributes:
    row: bytes of an id's embedding: `embed_dim * bits / 8`.
    column: bytes of the weights that read one column: `embed_dim * (2 * rank +
      hidden units) * bits / 8`.
    hash_bits: of the hash that a value is recognised by, 8 or 16.

  Raises:
    ValueError: an id costs nothing, a column less, or a hash has other bits.
  """

  row: float = 1.0
  column: float = 16.0
  hash_bits: int = 8

  def __post_init__(self) -> None:
    if not (self.row > 0 and self.column >= 0):
      raise ValueError(
        'row must be above 0 bytes and column at least 0, found '
        f'{self.row!r} and {self.column!r}'
      )
    if self.hash_bits not in (8, 16):
      raise ValueError(f'hash_bits must be 8 or 16, found {self.hash_bits!r}')

  def num_bytes(self, tables: Tables) -> float:
    """Returns the bytes of tables and of all that grows with their ids.

    Raises:
      ValueError: no device can use such tables (see `device_tables`).
    """
    sections = device_tables.pack(tables, self.hash_bits)
    sizes = tables.num_categories
    own = sum(array.nbytes for array in sections.values())
    return own + self.row * sum(sizes) + self.column * len(sizes)


def ids_of(tables: Tables) -> dict[Any, np.ndarray]:
  """Returns `{column: [n + 1] ids}`, of unseen values and of each value."""
  return {
    name: np.asarray(tables.merged.get(name, range(len(values) + 1)))
    for name, values in tables.vocabularies.items()
  }


def columns(tables: Tables, found: Sensitivity, costs: Costs) -> list[Column]:
  """Returns the columns of `categories`, to be merged."""
  made = []
  bounds = np.cumsum(tables.num_categories)[:-1]
  parts = zip(
    np.split(found.vectors, bounds),
    np.split(found.total(), bounds),
    strict=True,
  )
  ids, scalers = list(ids_of(tables).values()), tables.binned
  for i, (vectors, curvature) in enumerate(parts):
    if i < len(ids):
      # Of the tables, a seed and a count; for each value a hash and a bit.
      prices = Prices(costs.row, (costs.hash_bits + 1) / 8, costs.column + 2)
      sizes = np.bincount(ids[i][1:], minlength=len(vectors))
      made.append(Column(vectors, curvature, prices, sizes))
    else:
      # Of the tables, what kind of number it is, a count and a format.
      edge = _edge_bytes(list(scalers.values())[i - len(ids)])
      prices = Prices(costs.row, edge, costs.column + 3)
      made.append(Column(vectors, curvature, prices))
  return made


def merged(
  tables: Tables, groups: Sequence[np.ndarray], found: Sensitivity
) -> Tables:
  """Returns tables in which each group of values has one id.

  Args:
    tables: C columns of categories and bins.
    groups: from `merging_path.groups`.
    found: of the same tables.
  """
  bounds = np.cumsum(tables.num_categories)[:-1]
  counts = np.split(found.counts, bounds)
  unused = [not g[0].any() for g in np.split(found.total(), bounds)]
  vocabularies, new_ids = {}, {}
  for i, (name, ids) in enumerate(ids_of(tables).items()):
    new = _numbered(groups[i], ids, counts[i], is_free=unused[i])
    if new.any():
      vocabularies[name] = tables.vocabularies[name]
      if (np.diff(new) != 1).any():
        new_ids[name] = tuple(new.tolist())
  bins = dict(
    zip(tables.binned, groups[len(tables.vocabularies) :], strict=True)
  )
  numerics = {}
  for name, scaler in tables.numerics.items():
    if name in bins:
      kept = np.diff(bins[name]) != 0
      edges = tuple(np.asarray(scaler.edges)[kept].tolist())
      scaler = dataclasses.replace(scaler, edges=edges, only_bins=True)
    if scaler.edges or scaler.flag or not scaler.only_bins:
      numerics[name] = scaler
  return dataclasses.replace(
    tables,
    vocabularies=vocabularies,
    numerics=numerics,
    booleans=tuple(name for name in tables.booleans if name in vocabularies),
    dates=_dates(tables, numerics),
    merged=new_ids,
  )


def _numbered(
  groups: np.ndarray, ids: np.ndarray, counts: np.ndarray, *, is_free: bool
) -> np.ndarray:
  """Returns the new ids of unseen values and of each value, `[n + 1]`.

  Unseen values that training rows do not hold join the group of most values,
  none of which then has to be told from them.

  Args:
    groups: `[k]`, of each old id.
    ids: `[n + 1]`, the old ids.
    counts: `[k]`, rows of each old id.
    is_free: whether training rows hold no unseen value.
  """
  if is_free and len(groups) > 1:
    known, places = np.unique(groups[1:], return_inverse=True)
    sizes = np.bincount(places, np.bincount(ids[1:], minlength=len(groups))[1:])
    rows = np.bincount(places, counts[1:])
    groups = groups.copy()
    groups[0] = known[np.lexsort((rows, sizes))[-1]]
  order = {int(group): None for group in groups}  # that of unseen values first
  numbers = {group: i for i, group in enumerate(order)}
  return np.array([numbers[int(group)] for group in groups])[ids]


def _dates(tables: Tables, numerics: dict[Any, Numeric]) -> dict[Any, Date]:
  """Returns dates without the parts that have disappeared."""
  found = {}
  for name, date in tables.dates.items():
    parts = tuple(part for part in date.parts if f'{name}.{part}' in numerics)
    if parts or date.flag:
      found[name] = dataclasses.replace(date, parts=parts)
  return found


def _edge_bytes(scaler: Numeric) -> int:
  return device_tables.stored_edges(np.asarray(scaler.edges))[1].itemsize
