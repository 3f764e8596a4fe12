"""Merges the values whose embeddings matter least to the losses.

    merged = merge(tables, model, params, batch, num_ids=150)
    encoder = TabularEncoder(merged.tables.num_categories, embed_dim=2)

Rows are then encoded by the new tables, and a model of them trained from
scratch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from lplmtl.compression import merging_path as path
from lplmtl.compression import merging_tables
from lplmtl.compression.encoders import fold_steps as fold_steps
from lplmtl.compression.merging_sensitivity import Sensitivity as Sensitivity
from lplmtl.compression.merging_sensitivity import sensitivity as sensitivity
from lplmtl.compression.merging_tables import Costs as Costs
from lplmtl.tables import Tables
from lplmtl.types import Batch, PyTree

_COSTS = Costs()


class BudgetError(ValueError):
  """A budget that merging cannot reach.

  Attributes:
    smallest: ids or bytes that are left with all values merged that may be.
  """

  def __init__(self, message: str, smallest: float):
    super().__init__(message)
    self.smallest = smallest


class Merged(NamedTuple):
  """What `merge` returns.

  Attributes:
    tables: the new ones, of which some columns may have disappeared.
    loss: the expected increase of the losses if the values of a group got the
      same embedding in the old model, relative to the mean loss of each task
      and summed over tasks.
    dropped: the raw columns that have disappeared.
  """

  tables: Tables
  loss: float
  dropped: tuple[Any, ...]


def merge(
  tables: Tables,
  model: Any,
  params: PyTree,
  batch: Batch,
  *,
  num_ids: int | None = None,
  num_bytes: float | None = None,
  costs: Costs = _COSTS,
) -> Merged:
  """Merges values step by step, the least loss per byte first.

  A step merges two categories of a column, or two neighbouring bins; or it
  makes a whole column one group, which then disappears. What it costs is the
  loss of moving the embeddings to the best common one (see
  `merging_path.Column`), by the curvature of `sensitivity`; columns are taken
  as independent of each other. Unseen values share the id of the group with
  most values, as these then need no entry on a device, unless training rows
  hold some (`Rules.min_count`).

  Of numbers that have bins, only the bins are encoded from now on
  (`Numeric.only_bins`). Other numbers, flags of missing ones and hashed columns
  stay as they are. Time grows with the cube of the largest vocabulary: 4 s at
  1,000 values on one core.

  Args:
    tables: fitted with bins, without `interpolate`.
    model: a trained model of these tables with a TabularEncoder; the better it
      is the better, whatever its size.
    params: its parameters, of one seed.
    batch: calibration rows; a few thousand of the training rows will do.
    num_ids: the most ids that the new tables may have, `sum(num_categories)`.
    num_bytes: the most bytes, by `costs.num_bytes`; give one of the two.
    costs: what ids and columns cost beside the tables.

  Raises:
    BudgetError: the budget cannot be reached; a ValueError.
    ValueError: there is no budget or there are two, or as for `sensitivity`.

  References:
    Ward 1963, "Hierarchical Grouping to Optimize an Objective Function".

  Example:
    >>> import jax, numpy as np, lplmtl
    >>> from lplmtl import tables, tasks
    >>> x = np.arange(60.0)
    >>> fitted = tables.fit({}, {'x': x}, num_bins=30)
    >>> batch = Batch(fitted.encode({'x': x}), {'y': (x > 20).astype(int)})
    >>> encoder = lplmtl.TabularEncoder(fitted.num_categories, embed_dim=2)
    >>> model = lplmtl.SharedBottom((tasks.binary('y'),), encoder=encoder)
    >>> init = jax.jit(model.init)
    >>> params = init(jax.random.key(0), batch.features)['params']
    >>> merged = merge(fitted, model, params, batch, num_ids=4)
    >>> merged.tables.num_categories
    (4,)
  """
  _budget(num_ids, num_bytes)  # before what takes long
  found = sensitivity(tables, model, params, batch)
  return merge_by(
    tables, found, num_ids=num_ids, num_bytes=num_bytes, costs=costs
  )


def merge_by(
  tables: Tables,
  found: Sensitivity,
  *,
  num_ids: int | None = None,
  num_bytes: float | None = None,
  costs: Costs = _COSTS,
) -> Merged:
  """Merges by a sensitivity that is known; several budgets can share it.

  Arguments, result and errors are those of `merge`.
  """
  budget = _budget(num_ids, num_bytes)
  sizes = tables.num_categories
  if found.vectors.shape[0] != sum(sizes):
    raise ValueError(
      f'the sensitivity is that of {len(found.vectors)} ids, the tables have '
      f'{sum(sizes)}: pass the tables that it was measured with'
    )
  columns = merging_tables.columns(tables, found, costs)
  steps = path.find(columns, may_empty=_has_other_inputs(tables))

  def made(count: int) -> Tables:
    groups = path.groups(sizes, steps[:count])
    return merging_tables.merged(tables, groups, found)

  def size(count: int) -> float:
    new = made(count)
    is_ids = num_ids is not None
    return sum(new.num_categories) if is_ids else costs.num_bytes(new)

  smallest = size(len(steps))
  if smallest > budget:
    raise BudgetError(
      f'{"num_bytes" if num_ids is None else "num_ids"}={budget} cannot be '
      f'reached: with all values merged that may be, {smallest:g} are left',
      smallest,
    )
  count = _first(lambda count: size(count) <= budget, len(steps))
  new = made(count)
  return Merged(
    new,
    sum(step.loss for step in steps[:count]),
    tuple(name for name in tables.columns if name not in new.columns),
  )


def _budget(num_ids: int | None, num_bytes: float | None) -> float:
  if (num_ids is None) == (num_bytes is None):
    raise ValueError(
      'give a budget, either num_ids or num_bytes; found '
      f'num_ids={num_ids!r} and num_bytes={num_bytes!r}'
    )
  return num_bytes if num_bytes is not None else num_ids  # type: ignore[return-value]


def _has_other_inputs(tables: Tables) -> bool:
  """Returns whether a model has inputs that no merging takes away."""
  numbers = tables.numerics.values()
  are_kept = [n.interpolate or not (n.edges or n.only_bins) for n in numbers]
  return bool(tables.hashed or tables.flags or any(are_kept))


def _first(is_enough: Callable[[int], bool], most: int) -> int:
  """Returns the least number that is enough, at most `most`, which is."""
  low, high = 0, most
  while low < high:
    middle = (low + high) // 2
    low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
  return low
