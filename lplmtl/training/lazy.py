"""The step of a row-sparse optimiser, made of a plain one."""

from collections.abc import Callable
from typing import Any

from lplmtl import sparse
from lplmtl.training import rows, rowwise
from lplmtl.types import Batch, Model


def make_step(
  model: Model,
  optimizer: sparse.Lazy,
  axis_name: str | None,
  make_plain: Callable[[Model], Callable[..., Any]],
) -> Callable[..., Any]:
  """Returns a step that touches only the rows of tables that a batch reads.

  Args:
    model: see `lplmtl.types.Model`.
    optimizer: names the tables.
    axis_name: the mapped axis over which the rows of a batch are spread.
    make_plain: returns the plain step of a model, of its parameters and
      `optimizer.optimizer`.

  Returns:
    See `steps.make_train_step`.
  """

  def step(state: Any, batch: Batch) -> tuple[Any, Any]:
    which = rows.which_rows(
      model, optimizer, state.params, batch.features, axis_name
    )
    rowwise.check(optimizer.optimizer, state.params, which)
    plain = make_plain(rows.on_rows(model, which))
    small, metrics = plain(rows.gather(state, which), batch)
    return rows.scatter(state, small, which), metrics

  return step
