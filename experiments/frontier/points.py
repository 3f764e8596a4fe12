"""Points of the frontier: what a family makes of a number of bytes.

A point is a row of a comparison (`comparison.rows.Row`) without settings of its
own, so that it is kept, resumed and compared like any other. Every family makes
its points through one seam, a function that returns Scored.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.comparison import boosting, rows
from experiments.comparison.cells import Cell, Fitted
from experiments.datasets.base import Data
from experiments.launcher import scoring
from lplmtl.types import Batch

Outputs = Mapping[str, np.ndarray]


class Scored(NamedTuple):
  """What a family has made, one model per seed.

  Attributes:
    num_bytes: `[S]`, all constant data that a device needs to score a raw row.
    parts: `{part: bytes}`, of the first seed; may be empty.
    validation: `{task: [S, N, K]}`, outputs for the validation rows.
    test: likewise, for the test rows.
    parameters: number of parameters; None if there are none.
    multiply_adds: to score one row; None for models that only compare and add.
    kept: further arrays of the cell, see `models`.
  """

  num_bytes: list[int]
  parts: dict[str, int]
  validation: Outputs
  test: Outputs
  parameters: int | None = None
  multiply_adds: int | None = None
  kept: Mapping[str, np.ndarray] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class Point:
  """A family at a number of bytes; see `rows.Row`.

  Attributes:
    name: of the row.
    family: whose line of the picture the point is on.
    inputs: JSON data, all that `make` depends on besides the data set.
    data: the rows that are scored.
    make: does the work.
    budget: the most bytes that it may take; None if it takes what it takes.
    num_fits: models that `make` trains.
  """

  name: str
  family: str
  inputs: Any
  data: Data
  make: Callable[[], Scored]
  budget: int | None = None
  num_fits: int = 0

  @property
  def num_settings(self) -> int:
    """A point has nothing to choose from."""
    return 1

  def check(self) -> None:
    """Never raises: budgets out of reach are found when a point is made."""

  def tuning(self) -> list[Cell]:
    """Returns no cells."""
    return []

  def choose(self, scores: rows.Scores) -> dict[str, str]:
    """Returns the only setting there is."""
    return {task.name: '' for task in self.data.tasks}

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the work of the point."""
    inputs = {'family': self.family, 'budget': self.budget, **self.inputs}
    return Cell('point', inputs, self._fit)

  def _fit(self) -> Fitted:
    made = self.make()
    facts = {
      'test': metrics(made.test, self.data, self.data.test),
      'validation': metrics(made.validation, self.data, self.data.validation),
      'parameters': made.parameters,
      **size(self.family, made.num_bytes, made.parts, made.multiply_adds),
      'budget': self.budget,
    }
    arrays = {n: rows.without_single(x) for n, x in made.test.items()}
    return Fitted(facts, {**made.kept, **arrays})


def constants(*modules: types.ModuleType) -> dict[str, Any]:
  """Returns the constants that modules define or import, by module and name.

  They are inputs of what is fitted: with other numbers, it is fitted anew.
  """
  return {
    module.__name__: {
      name: value for name, value in vars(module).items() if name.isupper()
    }
    for module in modules
  }


def size(
  family: str,
  num_bytes: list[int],
  parts: Mapping[str, int],
  multiply_adds: int | None,
) -> dict[str, Any]:
  """Returns the facts that every row of a frontier has; see Scored."""
  return {
    'family': family,
    'num_bytes': round(float(np.mean(num_bytes))),
    'bytes_per_seed': num_bytes,
    'parts': dict(parts),
    'multiply_adds': multiply_adds,
  }


def metrics(outputs: Outputs, data: Data, batch: Batch) -> dict[str, Any]:
  """Returns `{task: {metric: {mean, std, per_seed}}}`.

  Args:
    outputs: `{task: [S, N, K]}`.
    data: whose tasks these are.
    batch: the N rows.
  """
  return {
    task.name: {
      name: scoring.over_seeds(values)
      for name, values in boosting.score(
        task, outputs[task.name], batch
      ).items()
    }
    for task in data.tasks
  }
