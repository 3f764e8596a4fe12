"""An ONNX graph in the making, as plain data."""

import dataclasses
import itertools
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

# As of TensorProto.DataType.
TYPES = {
  'float32': 1, 'int32': 6, 'int64': 7, 'text': 8, 'bool': 9, 'float64': 11,
}  # fmt: skip


class Call(NamedTuple):
  """A node: an operator of `domain`, which is ONNX's own if empty."""

  kind: str
  operands: tuple[str, ...]
  results: tuple[str, ...]
  domain: str
  options: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
  """Nodes and constants, added one by one; values are known by name.

  Attributes:
    names: of inputs and outputs, which no other value may have.
    calls: the nodes so far, each after its operands.
    constants: `{name: array}`; equal ones are stored once.
  """

  names: Collection[str]
  calls: list[Call] = dataclasses.field(default_factory=list)
  constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  _known: dict[Any, str] = dataclasses.field(default_factory=dict)
  _numbers: Any = dataclasses.field(default_factory=itertools.count)

  def new_name(self) -> str:
    """Returns a name that no value has."""
    return next(
      name for i in self._numbers if (name := f'v{i}') not in self.names
    )

  def add(
    self,
    kind: str,
    *operands: str,
    result: str = '',
    domain: str = '',
    num_results: int = 1,
    **options: Any,
  ) -> str:
    """Adds a node, and returns the name of its first result.

    Args:
      kind: the operator.
      *operands: names of values.
      result: name of the first one; a new one if empty.
      domain: of the operator.
      num_results: how many it has.
      **options: its attributes.
    """
    results = [result or self.new_name()]
    results += [self.new_name() for _ in range(num_results - 1)]
    call = Call(kind, operands, tuple(results), domain, options)
    self.calls.append(call)
    return results[0]

  def constant(self, data: Any, dtype: Any = None) -> str:
    """Returns the name of a constant."""
    array = np.asarray(data, dtype, order='C')
    key = array.dtype, array.shape, array.tobytes()
    if key not in self._known:
      self._known[key] = self.new_name()
      self.constants[self._known[key]] = array
    return self._known[key]

  def live(self, results: Collection[str]) -> list[Call]:
    """Returns the nodes that results need."""
    needed, found = set(results), []
    for call in reversed(self.calls):
      if needed & set(call.results):
        needed |= set(call.operands)
        found.append(call)
    return found[::-1]


def log1p(graph: Graph, x: str, dtype: str) -> str:
  """Adds log(1 + x), which ONNX lacks, without loss where x is small.

  1 + x drops digits of x; there, the first term of the series in what was
  dropped puts them back.
  """
  one, half, zero = (graph.constant(n, dtype) for n in (1, 0.5, 0))
  sum_ = graph.add('Add', x, one)
  dropped = graph.add('Sub', x, graph.add('Sub', sum_, one))
  is_small = graph.add('Less', graph.add('Abs', x), half)
  more = graph.add('Where', is_small, graph.add('Div', dropped, sum_), zero)
  return graph.add('Add', graph.add('Log', sum_), more)


def expm1(graph: Graph, x: str, dtype: str) -> str:
  """Adds exp(x) - 1, which ONNX lacks: 2 exp(x / 2) sinh(x / 2).

  Below -80, where float32 has -1, the product would be of 0 and infinity.
  """
  half = graph.add(
    'Mul',
    graph.add('Max', x, graph.constant(-80, dtype)),
    graph.constant(0.5, dtype),
  )
  product = graph.add('Mul', graph.add('Exp', half), graph.add('Sinh', half))
  return graph.add('Mul', product, graph.constant(2, dtype))
