"""The memory that a program needs for what it computes on the way."""

import math
from collections.abc import Callable
from typing import Any

import jax

# Operations whose result is the operand, seen in another way.
_VIEWS = (
  'reshape',
  'squeeze',
  'expand_dims',
  'stop_gradient',
  'copy',
  'copy_p',
)


def peak_activations(fn: Callable[..., Any], *args: Any) -> int:
  """Returns the most bytes that are alive at once while a program runs.

  Operations run in the order in which they are written, each into new memory;
  an array is alive from when it is computed to its last use, reshapes cost
  nothing. Counts the arguments and all that depends on them: parameters, and
  what depends only on them, are constants if `fn` holds them. Code that fuses
  operations, or writes over its operands, needs less.

  Args:
    fn: a function that JAX can trace, such as `lambda x: model.apply({'params':
      params}, x)[0]`.
    *args: its arguments; arrays or `jax.ShapeDtypeStruct`s. Pass one row for
      the memory of a device.

  Example:
    >>> import jax.numpy as jnp
    >>> w = jnp.ones((8, 4))
    >>> peak_activations(lambda x: jnp.tanh(x @ w), jnp.ones((1, 8)))  # 8 + 4
    48
  """
  jaxpr = jax.make_jaxpr(fn)(*args).jaxpr
  every = [True] * len(jaxpr.invars)
  return _peak(jaxpr, every, every)


def _peak(jaxpr: Any, is_input: list[bool], ends: list[bool]) -> int:
  """Returns the peak of a program.

  Args:
    jaxpr: the program.
    is_input: which of its arguments are not constants.
    ends: which of them are not needed after it.
  """
  inputs = [v for v, is_in in zip(jaxpr.invars, is_input, strict=True) if is_in]
  roots = {id(v): v for v in inputs}  # where the numbers of a view are
  last_use = {
    id(v): 0 if end else len(jaxpr.eqns)
    for v, end in zip(jaxpr.invars, ends, strict=True)
  }
  for place, equation in enumerate(jaxpr.eqns):
    operands = [roots[id(v)] for v in equation.invars if id(v) in roots]
    if operands:
      is_view = equation.primitive.name in _VIEWS
      roots |= {id(v): operands[0] if is_view else v for v in equation.outvars}
      for v in (*operands, *equation.outvars):
        last_use[id(v)] = max(last_use.get(id(v), 0), place)
  results = [roots[id(v)] for v in jaxpr.outvars if id(v) in roots]
  last_use |= {id(v): len(jaxpr.eqns) for v in results}

  alive = {id(v): _bytes(v) for v in inputs}
  peak = sum(alive.values())
  for place, equation in enumerate(jaxpr.eqns):
    depends = [id(v) in roots for v in equation.invars]
    if not any(depends):
      continue
    new = {id(v): _bytes(v) for v in equation.outvars if roots[id(v)] is v}
    over = [
      is_in and last_use[id(roots[id(v)])] == place
      for v, is_in in zip(equation.invars, depends, strict=True)
    ]
    during = _during(equation, sum(new.values()), depends, over)
    peak = max(peak, sum(alive.values()) + during)
    alive |= new
    alive = {v: n for v, n in alive.items() if last_use[v] > place}
  return peak


def _during(
  equation: Any, results: int, depends: list[bool], over: list[bool]
) -> int:
  """Returns what an operation needs beside what is alive before it.

  Args:
    equation: the operation.
    results: bytes of its results.
    depends: which of its operands are not constants.
    over: which of them are not needed after it.
  """
  name = equation.primitive.name
  peaks = []
  for program in programs(equation.params):
    flags, ends = (depends, over) if name != 'cond' else (depends[1:], over[1:])
    count = len(program.invars)
    if len(flags) != count:
      flags = [True] * count
    repeats = name in ('scan', 'while')
    if repeats or len(ends) != count:
      ends = [False] * count
    held = zip(program.invars, flags, strict=True)
    inside = _peak(program, flags, ends)
    inside -= sum(_bytes(v) for v, is_input in held if is_input)
    peaks.append(inside + results if repeats else inside)
  return max(peaks, default=results)


def programs(params: dict[str, Any]) -> list[Any]:
  """Returns the programs inside a call, a scan, a conditional or a remat.

  The rules of a custom derivative are functions, not programs, and are left
  out.
  """
  values = [
    v
    for value in params.values()
    for v in (value if isinstance(value, tuple) else (value,))
  ]
  values = [getattr(v, 'jaxpr', v) for v in values]
  return [v for v in values if hasattr(v, 'eqns')]


def _bytes(variable: Any) -> int:
  aval = variable.aval
  return math.prod(aval.shape) * getattr(aval.dtype, 'itemsize', 4)
