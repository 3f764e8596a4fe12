"""Whether an optimiser treats each row of a table by itself."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lplmtl.training import optimizers, rows
from lplmtl.types import PyTree

# Operations that apply a program to their operands.
_CALLS = ('jit', 'pjit', 'closed_call', 'custom_jvp_call')


def check(
  optimizer: optax.GradientTransformation,
  params: PyTree,
  tables: Collection[rows.Path],
) -> None:
  """Raises ValueError if an update relates the rows of a table to each other.

  A row-sparse step shows the optimiser only some rows of a table, and of what
  it keeps for the table. Whatever it computes of these must have a value for
  each row again, as in Adam; LAMB takes the norm of a table. Of a gradient it
  may take the norm, as that is 0 outside these rows. Control flow, by which a
  gradient may wait for later steps (`optax.MultiSteps`), is refused.

  Args:
    optimizer: any optax transformation.
    params: the parameters; only shapes and dtypes matter.
    tables: the paths of the tables.
  """

  def run(gradient: PyTree, state: PyTree, params: PyTree) -> Any:
    loss = jnp.zeros((), jnp.float32)
    return optimizers.update(optimizer, gradient, state, params, loss)

  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
  )
  state = jax.eval_shape(optimizer.init, shapes)
  program = jax.make_jaxpr(run)(shapes, state, shapes).jaxpr
  names = rows.paths(params)
  of_rows = [
    rows.owner(path, names) in tables for path in rows.paths((state, params))
  ]
  wrong = _first_other(program, [*(False for _ in names), *of_rows])[1]
  if wrong is not None:
    raise ValueError(
      'sparse.lazy needs an optimiser that treats each row of a table by '
      'itself, in every step, such as optax.adam, adamw, adagrad or sgd; this '
      f'one computes {wrong!r} of a table or of what it keeps for one'
    )


def _first_other(
  program: Any, inputs: list[bool]
) -> tuple[list[bool], str | None]:
  """Finds an operation on rows whose result does not have these rows.

  Args:
    program: a jaxpr.
    inputs: which of its arguments have a value for each row of a table.

  Returns:
    (outputs, name): which of the outputs have, and the operation or None.
  """
  of_rows = {
    id(variable)
    for variable, is_one in zip(program.invars, inputs, strict=True)
    if is_one
  }
  for equation in program.eqns:
    operands = [id(variable) in of_rows for variable in equation.invars]
    if not any(operands):
      continue
    name, inner = equation.primitive.name, _inner(equation)
    if name in _CALLS and inner is not None:
      outputs, wrong = _first_other(inner, operands)
    else:
      shape = equation.invars[operands.index(True)].aval.shape
      alike = all(x.aval.shape == shape for x in equation.outvars)
      outputs = [True] * len(equation.outvars)
      wrong = None if alike and inner is None else name
    if wrong is not None:
      return [], wrong
    of_rows |= {
      id(variable)
      for variable, is_one in zip(equation.outvars, outputs, strict=True)
      if is_one
    }
  return [id(variable) in of_rows for variable in program.outvars], None


def _inner(equation: Any) -> Any:
  """Returns the program inside an operation, or None."""
  for value in equation.params.values():
    for part in value if isinstance(value, tuple | list) else (value,):
      if hasattr(part, 'eqns'):
        return part
      if hasattr(part, 'jaxpr'):
        return part.jaxpr
  return None
