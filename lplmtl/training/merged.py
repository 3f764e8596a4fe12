"""Evaluates a traced program with its equal operations merged into one.

A program for many tasks repeats itself: the parameters of each task are drawn,
differentiated and updated by the same operations on other operands, each of
which XLA would compile. Here operations that differ in their operands only are
collected and mapped over (`jax.vmap`), level by level, as Neubig et al. 2017 do
with the operations of sentences. The results stay the same, up to rounding.

References:
  Neubig, Goldberg and Dyer 2017, "On-the-fly Operation Batching in Dynamic
  Computation Graphs".
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as extended

from lplmtl import _alike
from lplmtl.training import operations
from lplmtl.types import Array, PyTree


class _Evaluation:
  """The values of a program as they become known."""

  def __init__(self, program: operations.Program):
    self._program = program
    self._places = program.places
    self.single: dict[operations.Value, Any] = dict(program.constants)
    self.stacks: dict[operations.Value, Any] = {}  # by kind
    self._parts: dict[operations.Value, list[Array]] = {}

  def results(self, outputs: Sequence[Sequence[int]]) -> list[Any]:
    """Runs the program; see `evaluate`."""
    for alike in self._program.kinds:
      self._run(alike)
    values = [[self._program.outputs[i] for i in group] for group in outputs]
    return [
      self._one(group[0]) if len(group) == 1 else self._stacked(group)
      for group in values
    ]

  def _one(self, operand: operations.Operand) -> Any:
    """Returns the value of an operand."""
    if isinstance(operand, operations.Literal):
      return operand.value
    if operand in self.single:
      return self.single[operand]
    kind, number = self._places[operand]
    if kind not in self._parts:
      self._parts[kind] = parts(self.stacks[kind])
    return self._parts[kind][number]

  def _stacked(self, operands: Sequence[operations.Operand]) -> Any:
    """Returns the values of operands on a leading axis."""
    literals = [x for x in operands if isinstance(x, operations.Literal)]
    if len(literals) == len(operands):
      return np.stack([np.asarray(x.value, x.aval.dtype) for x in literals])
    places = [place for x in operands if (place := self._place(x)) is not None]
    kinds = {place.kind for place in places}
    if len(kinds) > 1 or len(places) < len(operands):
      return _alike.stack(list(map(self._one, operands)))
    stack = self.stacks[kinds.pop()]
    numbers = np.array([place.number for place in places])
    first, last = int(numbers[0]), int(numbers[-1]) + 1
    if np.array_equal(numbers, np.arange(first, last)):
      return jax.lax.slice_in_dim(stack, first, last)
    return stack[numbers]

  def _run(self, alike: Sequence[operations.Operation]) -> None:
    """Computes the results of equal operations."""
    if len(alike) <= _alike.FEW:
      for operation in alike:
        self._run_one(operation)
      return
    columns = list(zip(*(x.operands for x in alike), strict=True))
    is_same = [_are_same(column) for column in columns]
    operands = [
      self._one(column[0]) if same else self._stacked(column)
      for column, same in zip(columns, is_same, strict=True)
    ]
    results = jax.vmap(
      lambda *operands: _bind(alike[0], operands),
      [None if same else 0 for same in is_same],
      axis_size=len(alike),
    )(*operands)
    self.stacks |= zip(alike[0].results, results, strict=True)

  def _run_one(self, operation: operations.Operation) -> None:
    runs = operations.runs(operation)
    for run in runs:
      whole = self._one(operation.operands[0])
      self.stacks[run.values[0]] = _cut(operation, whole, run)
    if sum(len(run.values) for run in runs) == len(operation.results):
      return
    if operation.primitive.name in ('stack', 'concatenate'):
      self.single[operation.results[0]] = self._joined(operation)
      return
    results = _bind(operation, list(map(self._one, operation.operands)))
    for value, result in zip(operation.results, results, strict=True):
      if value not in self._places:
        self.single[value] = result

  def _joined(self, operation: operations.Operation) -> Any:
    """Joins arrays, without cutting stacks of them into parts."""
    operands = operation.operands
    if operation.primitive.name == 'stack':
      axis = operation.params['axis']
      return jnp.moveaxis(self._stacked(operands), 0, axis)
    axis = operation.params['dimension']
    joined: list[Any] = []
    for kind, run in itertools.groupby(operands, self._kind):
      values = list(run)
      if kind is None:
        joined += map(self._one, values)
      else:
        joined.append(
          jax.lax.collapse(
            jnp.moveaxis(self._stacked(values), 0, axis), axis, axis + 2
          )
        )
    return jax.lax.concatenate(joined, axis)

  def _place(self, operand: operations.Operand) -> operations.Place | None:
    if isinstance(operand, operations.Literal):
      return None
    return self._places.get(operand)

  def _kind(self, operand: operations.Operand) -> operations.Value | None:
    place = self._place(operand)
    return None if place is None else place.kind


def _cut(
  operation: operations.Operation, whole: Any, run: operations.Run
) -> Any:
  """Returns the parts of a run on a leading axis."""
  axis, count = operation.params['axis'], len(run.values)
  end = run.start + count * run.size
  part = jax.lax.slice_in_dim(whole, run.start, end, axis=axis)
  if operation.primitive.name == 'split':
    shape = whole.shape
    part = part.reshape(*shape[:axis], count, run.size, *shape[axis + 1 :])
  return jnp.moveaxis(part, axis, 0)


def _are_same(column: Sequence[operations.Operand]) -> bool:
  return (
    len(
      {
        np.asarray(x.value).tobytes()
        if isinstance(x, operations.Literal)
        else x
        for x in column
      }
    )
    == 1
  )


def _bind(
  operation: operations.Operation, operands: Sequence[Any]
) -> list[Any]:
  found = operation.primitive.bind(*operands, **operation.params)
  return list(found) if operation.primitive.multiple_results else [found]


def parts(stack: Array) -> list[Array]:
  """Returns the arrays of a stack, each by the same operation.

  XLA compiles equal operations once. Slices differ in a constant, unless it is
  hidden. What makes the stack is hidden as well, or XLA would repeat it for
  each array, such as the draw of random numbers.
  """
  stack, *numbers = jax.lax.optimization_barrier(
    [stack, *(jnp.uint32(i) for i in range(len(stack)))]
  )
  return [
    jax.lax.dynamic_index_in_dim(stack, number, keepdims=False)
    for number in numbers
  ]


def run(fn: Callable[..., PyTree], *arguments: Any) -> PyTree:
  """Calls a function of pytrees, with its equal operations merged.

  Not to be differentiated: rules for derivatives of parts of the function, such
  as `jax.custom_jvp`, are lost.
  """
  closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*arguments)
  operands = jax.tree.leaves(arguments)
  program = operations.Program(closed, [])
  if closed.effects or all(len(alike) <= _alike.FEW for alike in program.kinds):
    results = extended.jaxpr_as_fun(closed)(*operands)
  else:
    found = _Evaluation(program)
    found.single |= zip(program.inputs, operands, strict=True)
    results = found.results([[i] for i in range(len(program.outputs))])
  return jax.tree.unflatten(jax.tree.structure(shapes), results)


def evaluate(
  closed: Any,
  arguments: Sequence[Array],
  inputs: Sequence[Sequence[int]],
  outputs: Sequence[Sequence[int]],
) -> list[Any]:
  """Evaluates a program of which many inputs and outputs are stacked.

  Args:
    closed: the program, from `jax.make_jaxpr`.
    arguments: an array for each of `inputs`; with a leading axis if it holds
      more than one.
    inputs: the positions of the program's inputs that each argument holds.
    outputs: the positions of the outputs that each result is to hold.

  Returns:
    An array for each of `outputs`, like the arguments.
  """
  program = operations.Program(closed, [p for p in inputs if len(p) > 1])
  found = _Evaluation(program)
  for positions, argument in zip(inputs, arguments, strict=True):
    known = found.single if len(positions) == 1 else found.stacks
    known[program.inputs[positions[0]]] = argument
  return found.results(outputs)
