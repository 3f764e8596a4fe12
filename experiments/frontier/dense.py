"""The dense networks, as they are trained and in fewer bits.

What a frontier is compared with, and what teaches its families.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.comparison import networks, rows
from experiments.comparison.cells import Cell, Fitted, Store
from experiments.datasets.base import Data
from experiments.frontier import points
from experiments.frontier.points import Point, Scored
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl.compression import (
  cost,
  device_tables,
  encoders,
  lessons,
  packing,
  quantization,
)
from lplmtl.tables import Tables
from lplmtl.types import PyTree

FLOAT16, INT8 = 'float16', 'int8'


class Dense(networks.Networks):
  """A dense network as it was trained, float32; see `rows.Row`.

  Its final fit keeps the parameters, for the other forms and as a teacher.
  """

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fit of the chosen setting with fresh seeds."""
    config = self.config(chosen)
    data = self.encode(config.num_bins)
    return Cell(
      'dense', config.identity(), lambda: _train(self.name, config, data)
    )

  def config(self, chosen: Mapping[str, str]) -> Config:
    """Returns the Config of the final fit."""
    (setting,) = set(chosen.values())
    return self.plan.final_config(self.name, setting)


class Trained(NamedTuple):
  """A finished dense network.

  Attributes:
    name: of the row.
    config: of its final fit.
    model: a module without steps: their sums are in the embeddings.
    params: `[S, ...]`.
    data: encoded as the network reads it.
  """

  name: str
  config: Config
  model: Any
  params: PyTree
  data: Data

  @property
  def seeds(self) -> range:
    """The S seeds, which the families share."""
    config = self.config
    return range(config.seed, config.seed + config.num_seeds)


def check(tables: Tables) -> None:
  """Raises InputError for columns whose bytes cannot be counted."""
  try:
    device_tables.checked(tables)
  except ValueError as error:
    ways = {'categories': tables.booleans, 'ignore': tables.dates}
    given = ' '.join(
      f'--{flag}={",".join(map(str, names))}'
      for flag, names in ways.items()
      if names
    )
    raise InputError(
      f'{error}, or leave them out' + (f': {given}' if given else '')
    ) from error


def load(row: Dense, finished: rows.Finished, store: Store) -> Trained:
  """Returns a finished network with its parameters."""
  config = row.config(finished.chosen)
  data = row.encode(config.num_bins)
  cell = store.load(row.final(finished.chosen))
  assert cell is not None  # it is finished
  model, params = networks.parameters_of(config, data, cell.arrays)
  return Trained(row.name, config, *encoders.fold_steps(model, params), data)


def forms(trained: Trained) -> list[Point]:
  """Returns the network in fewer bits, as rounded after training."""
  return [
    Point(
      f'{trained.name} {form}',
      trained.name,
      {'dense': trained.config.identity(), 'form': form},
      trained.data,
      functools.partial(_stored, trained, form),
    )
    for form in (FLOAT16, INT8)
  ]


def outputs(trained: Trained, split: str) -> dict[str, np.ndarray]:
  """Returns `{task: [S, N, K]}` for one split of the rows."""
  return _outputs(trained.model, trained.params, trained.data, split)


def predict(
  model: Any, params: PyTree, data: Data
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns the outputs for the validation rows, and for the test rows."""
  validation, test = (
    _outputs(model, params, data, split) for split in ('validation', 'test')
  )
  return validation, test


def multiply_adds(model: Any, params: PyTree, data: Data) -> int:
  """Returns the multiply-adds of scoring one row.

  Args:
    model: any model.
    params: of one seed.
    data: whose rows it reads.
  """
  one_row = jax.tree.map(lambda x: x[:1], data.test.features)
  return cost.multiply_adds(
    lambda params, x: model.apply({'params': params}, x)[0], params, one_row
  )


def _train(name: str, config: Config, data: Data) -> Fitted:
  facts, arrays = networks.train(config, data, keep=True)
  model, params = encoders.fold_steps(
    *networks.parameters_of(config, data, arrays)
  )
  first = seed(params, 0)
  parts = cost.count_bytes(model, first, data.tables)
  total = [sum(parts.values())] * config.num_seeds
  operations = multiply_adds(model, first, data)
  return Fitted(
    {**facts, **points.size(name, total, parts, operations)}, arrays
  )


def _stored(trained: Trained, form: str) -> Scored:
  """Rounds, packs and scores every seed."""
  rounded, packed = [], []
  for number in range(len(trained.seeds)):
    params = seed(trained.params, number)
    frozen = (
      quantization.as_float16(params)
      if form == FLOAT16
      else quantization.freeze(
        quantization.Quantized(trained.model, quantization.Scheme(bits=8)),
        params,
      )
    )
    packed.append(packing.pack(frozen, trained.data.tables))
    rounded.append(quantization.thaw(frozen))
  params = stack(rounded)
  validation, test = predict(trained.model, params, trained.data)
  return Scored(
    [one.num_bytes for one in packed],
    packed[0].parts,
    validation,
    test,
    cost.count_parameters(rounded[0]),
    multiply_adds(trained.model, rounded[0], trained.data),
  )


def _outputs(
  model: Any, params: PyTree, data: Data, split: str
) -> dict[str, np.ndarray]:
  features = getattr(data, split).features
  num_seeds = len(jax.tree.leaves(params)[0])
  seeds = [seed(params, number) for number in range(num_seeds)]
  return stack(lessons.predict(model, seeds, features))


def seed(params: PyTree, number: int) -> PyTree:
  """Returns what one of S seeds has of `[S, ...]`, such as its parameters."""
  return jax.tree.map(lambda x: np.asarray(x)[number], params)


def stack(seeds: Sequence[PyTree]) -> PyTree:
  """Returns `[S, ...]` of S seeds."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *seeds)
