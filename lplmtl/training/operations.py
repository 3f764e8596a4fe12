"""Reads a traced program, and finds the operations in it that are equal."""

import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lplmtl import _alike

# Calls of programs, by the parameter that holds the program. Rules for their
# derivatives no longer matter: this is the last step before compilation.
_CALLS = {
  'jit': 'jaxpr',
  'pjit': 'jaxpr',
  'custom_jvp_call': 'call_jaxpr',
  'custom_vjp_call': 'call_jaxpr',
}

Value = int  # names a value of the program


@dataclasses.dataclass(frozen=True, eq=False)
class Literal:
  """A number in a program."""

  value: Any
  aval: Any


Operand = Value | Literal


class Operation(NamedTuple):
  """A primitive of JAX with its parameters, and what it reads and makes."""

  primitive: Any
  params: dict[str, Any]
  operands: tuple[Operand, ...]
  results: tuple[Value, ...]

  @property
  def inputs(self) -> list[Value]:
    """The operands that are no literals."""
    return [x for x in self.operands if isinstance(x, Value)]


class Place(NamedTuple):
  """One of many equal values, which are stacked.

  Attributes:
    kind: the first of these values.
    number: which one.
  """

  kind: Value
  number: int


class Program:
  """A program by kinds of operations.

  Attributes:
    inputs: its inputs.
    outputs: its outputs.
    constants: values that are known.
    kinds: equal operations, those first on which others depend.
    places: of the values that are stacked.
  """

  def __init__(self, closed: Any, inputs: Sequence[Sequence[int]]):
    self._new = itertools.count()
    self._operations: list[Operation] = []
    self.constants: dict[Value, Any] = {}
    self.inputs = [next(self._new) for _ in closed.jaxpr.invars]
    self.outputs = self._read(closed, self.inputs)
    self.places: dict[Value, Place] = {}
    for positions in inputs:
      self._stack([self.inputs[i] for i in positions])
    self.kinds: list[list[Operation]] = []
    for level in self._levels():
      kinds: dict[Hashable, list[Operation]] = {}
      for operation in level:
        kinds.setdefault(self._key(operation), []).append(operation)
      for alike in kinds.values():
        self._add(alike)

  def _read(self, closed: Any, operands: Sequence[Any]) -> list[Operand]:
    """Collects the operations of a program, and of those that it calls."""
    known: dict[Any, Any] = dict(
      zip(closed.jaxpr.invars, operands, strict=True)
    )
    for variable, constant in zip(
      closed.jaxpr.constvars, closed.consts, strict=True
    ):
      known[variable] = next(self._new)
      self.constants[known[variable]] = constant

    def read(variable: Any) -> Operand:
      if hasattr(variable, 'val'):
        return Literal(variable.val, variable.aval)
      return known[variable]

    for equation in closed.jaxpr.eqns:
      inputs = tuple(map(read, equation.invars))
      inside = equation.params.get(_CALLS.get(equation.primitive.name, ''))
      if inside is not None:
        known |= zip(equation.outvars, self._read(inside, inputs), strict=True)
        continue
      results = tuple(next(self._new) for _ in equation.outvars)
      self._operations.append(
        Operation(equation.primitive, equation.params, inputs, results)
      )
      known |= zip(equation.outvars, results, strict=True)
    return list(map(read, closed.jaxpr.outvars))

  def _levels(self) -> list[list[Operation]]:
    """Returns the operations that outputs depend on, by level.

    Those of a level depend on those of the levels before only.
    """
    needed = {x for x in self.outputs if isinstance(x, Value)}
    live = []
    for operation in reversed(self._operations):
      if not needed.isdisjoint(operation.results):
        needed.update(operation.inputs)
        live.append(operation)
    levels: list[list[Operation]] = []
    height: dict[Value, int] = {}
    for operation in reversed(live):
      own = max((height.get(x, 0) for x in operation.inputs), default=0)
      height |= dict.fromkeys(operation.results, own + 1)
      if own == len(levels):
        levels.append([])
      levels[own].append(operation)
    return levels

  def _key(self, operation: Operation) -> Hashable:
    """Returns what equal operations have in common."""
    if operation.params.get('vmap_method', '') is None:
      return operation.results  # a call of the host that cannot be mapped over
    are_stacked = any(x in self.places for x in operation.inputs)
    operands: list[Hashable] = []
    for x in operation.operands:
      if isinstance(x, Value):
        place = self.places.get(x)
        operands.append(x if place is None else ('kind', place.kind))
      else:
        # Operations on the same operands are equal whatever their literals:
        # that is how keys for all parameters are derived from one random key.
        number = np.asarray(x.value).tobytes() if are_stacked else None
        operands.append((x.aval.shape, str(x.aval.dtype), number))
    params = tuple(
      (name, _alike.identity(value)) for name, value in operation.params.items()
    )
    return operation.primitive.name, params, tuple(operands)

  def _add(self, alike: list[Operation]) -> None:
    self.kinds.append(alike)
    if len(alike) > _alike.FEW:
      for results in zip(*(x.results for x in alike), strict=True):
        self._stack(results)
      return
    for operation in alike:
      for run in runs(operation):
        self._stack(run.values)

  def _stack(self, values: Sequence[Value]) -> None:
    for number, value in enumerate(values):
      self.places[value] = Place(values[0], number)


class Run(NamedTuple):
  """Many parts of one size that an operation cuts from an array in a row."""

  start: int
  size: int
  values: Sequence[Value]


def runs(operation: Operation) -> list[Run]:
  """Returns the runs of parts that an operation cuts, if there are any."""
  count = len(operation.results)
  if (
    operation.primitive.name not in ('split', 'unstack') or count <= _alike.FEW
  ):
    return []
  found, first, start = [], 0, 0
  sizes = operation.params.get('sizes', (1,) * count)
  for size, run in itertools.groupby(sizes):
    last = first + len(list(run))
    if last - first > _alike.FEW:
      found.append(Run(start, size, operation.results[first:last]))
    start += (last - first) * size
    first = last
  return found
