"""What a model computes for one row, as a graph."""

import dataclasses
from collections.abc import Mapping

from lplmtl.export import nodes
from lplmtl.export.nodes import Node


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """What a model computes for one row.

  Attributes:
    inputs: `{feature: node}` of shape `[1, ...]`; the name is empty if features
      are a single array.
    outputs: `{task: node}` of shape `[1, K]`.
  """

  inputs: Mapping[str, Node]
  outputs: Mapping[str, Node]

  @property
  def operations(self) -> list[Node]:
    """All operations, each after its operands."""
    return [
      node
      for node in nodes.order(list(self.outputs.values()))
      if node.kind not in ('input', 'constant')
    ]

  @property
  def constants(self) -> list[Node]:
    """The constants that operations or outputs use, in the order of use."""
    every = nodes.order(list(self.outputs.values()))
    return [node for node in every if node.kind == 'constant']
