"""Which parameters an optimiser freezes, read off its traced program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lplmtl.training import optimizers
from lplmtl.types import PyTree

# What is known about a value in a program, ordered so that `max` combines two:
# it is 0; it does not depend on a gradient; it may depend on one.
_ZERO, _FREE, _REACHED = range(3)
# Operations that map zeros to zeros.
_KEEPS_ZERO = frozenset(
  'add broadcast_in_dim convert_element_type copy neg reshape squeeze sub '
  'transpose'.split()
)


def moving(
  optimizer: optax.GradientTransformation, params: PyTree
) -> PyTree | None:
  """Returns which parameters the gradients can move.

  Parameters that an optimiser freezes, for instance by `optax.set_to_zero` in a
  `multi_transform` or a `masked`, must not count when gradients are compared: a
  direction that harms no task on all parameters may harm one on those that
  move. A parameter counts as frozen only if the traced `optimizer.update`
  proves it: its update depends on no gradient, in this step or, by way of the
  optimiser's state, in later ones. Anything undecided (a freeze inside a
  `lax.cond`, such as that of `optax.MultiSteps`) counts as moving.

  Args:
    optimizer: any optax transformation.
    params: the parameters; only shapes and dtypes matter.

  Returns:
    A pytree of bools like the parameters; None if all of them move, or none.
  """
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params
  )
  state = jax.eval_shape(optimizer.init, shapes)

  def run(gradient: PyTree, state: PyTree, params: PyTree) -> Any:
    loss = jnp.zeros((), jnp.float32)
    return optimizers.update(optimizer, gradient, state, params, loss)

  program = jax.make_jaxpr(run)(shapes, state, shapes).jaxpr
  num_params, num_state = (len(jax.tree.leaves(x)) for x in (shapes, state))
  if len(program.outvars) != num_params + num_state:
    return None  # the state changes its structure: a step will reject it
  in_state = [_FREE] * num_state
  while True:  # until the state of later steps is known as well
    inputs = [_REACHED] * num_params + in_state + [_FREE] * num_params
    outputs = _flow(program, inputs)
    after = [
      max(pair) for pair in zip(in_state, outputs[num_params:], strict=True)
    ]
    if after == in_state:
      break
    in_state = after
  moves = [known == _REACHED for known in outputs[:num_params]]
  if all(moves) or not any(moves):
    return None
  return jax.tree.unflatten(jax.tree.structure(shapes), moves)


def _flow(program: Any, inputs: list[int]) -> list[int]:
  """Returns what is known about a program's outputs, given its inputs."""
  known = dict(zip(map(id, program.invars), inputs, strict=True))

  def of(variable: Any) -> int:
    if hasattr(variable, 'val'):  # a literal
      value = variable.val
      return _ZERO if np.ndim(value) == 0 and value == 0 else _FREE
    return known.get(id(variable), _FREE)

  for equation in program.eqns:
    operands = [of(variable) for variable in equation.invars]
    inner = equation.params.get('jaxpr')
    if equation.primitive.name in ('jit', 'pjit'):
      outputs = _flow(inner.jaxpr, operands)
    else:
      outputs = [_result(equation.primitive.name, operands)]
      outputs *= len(equation.outvars)
    known.update(zip(map(id, equation.outvars), outputs, strict=True))
  return [of(variable) for variable in program.outvars]


def _result(name: str, inputs: list[int]) -> int:
  """Returns what is known about the results of an operation."""
  is_zero = {
    'mul': _ZERO in inputs,
    'div': inputs[:1] == [_ZERO],
    'select_n': set(inputs[1:]) == {_ZERO},
  }
  if is_zero.get(name, name in _KEEPS_ZERO and set(inputs) == {_ZERO}):
    return _ZERO
  return _REACHED if _REACHED in inputs else _FREE
