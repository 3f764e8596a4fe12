"""Encoder tables that hold what some rivals use, and nothing else.

Codes that no task tells apart share an id, edges that none needs are left out,
and columns of which nothing remains are gone. All tasks share the tables.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.frontier.inputs import Inputs
from lplmtl.tables import UNSEEN, Tables


class Shared(NamedTuple):
  """Tables, and what became of the codes of the inputs.

  Attributes:
    tables: what a device encodes with.
    columns: the columns of the inputs that are left, in the order in which the
      tables encode them.
    ids: for each of these `[size]` ints, the id of each code.
    num_categories: how many of them are categories.
    num_flags: how many, the last ones, are flags.
  """

  tables: Tables
  columns: tuple[int, ...]
  ids: tuple[np.ndarray, ...]
  num_categories: int
  num_flags: int

  @property
  def sizes(self) -> list[int]:
    """The number of ids of each column."""
    return [int(ids.max()) + 1 for ids in self.ids]


def share(
  inputs: Inputs,
  parts: Sequence[Mapping[int, np.ndarray]],
  *,
  keep_unseen: bool = False,
) -> Shared:
  """Returns the smallest tables that serve all.

  Args:
    inputs: whose tables are reduced.
    parts: what each of those that share them tells apart: `{column: [size]
      ints}`, equal for codes that count alike.
    keep_unseen: whether unseen values count as `parts` says; otherwise, if
      training has none, as what saves most bytes.
  """
  tables = inputs.tables
  used = sorted(
    {c for part in parts for c, of in part.items() if of.min() != of.max()}
  )
  ids = {
    c: _ids(inputs, c, [of[c] for of in parts if c in of], keep_unseen)
    for c in used
  }
  names = list(tables.vocabularies)
  categories = [c for c in used if c < len(names)]
  binned = [
    name for name, n in tables.numerics.items() if n.edges and not n.interpolate
  ]
  bins = {
    name: len(names) + i
    for i, name in enumerate(binned)
    if len(names) + i in ids
  }
  first = len(names) + len(binned)
  flags = {
    name: first + i for i, name in enumerate(tables.flags) if first + i in ids
  }
  reduced = Tables(
    {names[c]: tables.vocabularies[names[c]] for c in categories},
    {
      name: dataclasses.replace(
        n,
        edges=_edges(n.edges, ids[bins[name]]) if name in bins else (),
        flag=name in flags,
        only_bins=True,
      )
      for name, n in tables.numerics.items()
      if name in bins or name in flags
    },
    missing=tables.missing,
    merged={names[c]: _merged(tables, names[c], ids[c]) for c in categories},
  )
  return Shared(
    reduced,
    tuple(used),
    tuple(ids[c] for c in used),
    len(categories),
    len(flags),
  )


def _ids(
  inputs: Inputs,
  column: int,
  parts: Sequence[np.ndarray],
  keep_unseen: bool,
) -> np.ndarray:
  """Returns the ids of a column's codes, those of one group together.

  Numbers keep their order. Of categories the group with the id 0, which costs
  no hashes, is that of unseen values, or the largest if training has none.
  """
  signatures = np.stack(parts, axis=1)
  if column >= inputs.num_unordered:
    starts = (np.diff(signatures, axis=0) != 0).any(axis=1)
    return np.concatenate([[0], np.cumsum(starts)])
  _, groups = np.unique(signatures, axis=0, return_inverse=True)
  groups = groups.ravel()
  seen = np.arange(len(groups)) != UNSEEN
  if keep_unseen or (inputs.codes['train'][column] == UNSEEN).any():
    free = groups[UNSEEN]
  else:
    free = np.argmax(np.bincount(groups[seen]))
    groups[UNSEEN] = free
  order = np.unique(groups)
  ids = np.zeros(order[-1] + 1, int)
  ids[order[order != free]] = np.arange(1, len(order))
  return ids[groups]


def _edges(edges: Sequence[float], ids: np.ndarray) -> tuple[float, ...]:
  return tuple(
    edge for edge, new in zip(edges, np.diff(ids), strict=True) if new
  )


def _merged(tables: Tables, name: Any, ids: np.ndarray) -> tuple[int, ...]:
  old = tables.merged.get(name, range(len(tables.vocabularies[name]) + 1))
  return tuple(int(ids[i]) for i in old)


def recode(shared: Shared, codes: np.ndarray) -> np.ndarray:
  """Returns `[columns, N]` ids of rows from `[F, N]` codes of the inputs."""
  return np.stack(
    [
      ids[codes[column]]
      for column, ids in zip(shared.columns, shared.ids, strict=True)
    ]
  )
