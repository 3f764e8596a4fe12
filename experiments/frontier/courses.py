"""How the models of all roads are trained, counted and scored."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from experiments.datasets.base import Data
from experiments.frontier import dense
from experiments.frontier.points import Scored
from experiments.launcher import build
from experiments.launcher.options import Config
from lplmtl import training
from lplmtl.compression import (
  cost,
  distillation,
  encoders,
  low_rank,
  magnitude,
  quantization,
  sparsity,
)
from lplmtl.compression.plans import Scheme
from lplmtl.types import Batch, PyTree, Task

# Changes an optimiser that takes so many steps.
Change = Callable[
  [optax.GradientTransformation, int], optax.GradientTransformation
]
# The parts of `cost.count_bytes` that zeros can be left out of.
_MATRICES = ('embeddings', 'weights')
# At the first step: the best of 2e-3, 5e-3 and 1e-2 by the validation rows.
RATE = 5e-3
ROWS = 4096  # of calibration: enough, see lplmtl/compression/pruning.md


@dataclasses.dataclass(frozen=True, eq=False)
class Course:
  """What roads have in common that read the same tables and labels.

  Attributes:
    config: of the PLE from which they start: its sizes, its balancer, and how
      it is trained.
    data: encoded by the tables.
    train: the training rows, with a teacher's outputs if there is one.
    is_taught: whether there is.
    tune_epochs: of training a network after it was made smaller.
  """

  config: Config
  data: Data
  train: Batch
  is_taught: bool
  tune_epochs: int

  @property
  def tasks(self) -> tuple[Task, ...]:
    """The tasks as they are trained."""
    tasks = self.data.tasks
    return (
      tuple(map(distillation.distilled, tasks)) if self.is_taught else tasks
    )

  @property
  def calibration(self) -> Batch:
    """The first training rows, which are in no order."""
    return jax.tree.map(lambda x: x[:ROWS], self.train)

  def model(self, config: Config, *, has_steps: bool = False) -> Any:
    """Returns the model of a Config for these tables.

    Args:
      config: names the architecture and its sizes.
      has_steps: whether ordered bins have steps, which help training, but must
        be folded before parameters are rounded.
    """
    model = build.make_model(
      config, self.tasks, build.make_encoder(config, self.data.tables)
    )
    if has_steps:
      return model
    return encoders.replace(model, encoders.find(model).clone(num_ordered=0))

  @functools.cached_property
  def trained(self) -> tuple[Any, list[PyTree]]:
    """The PLE that roads start from, and the parameters of each seed."""
    return self.train_ple(self.config, self.config.learning_rate)

  def train_ple(self, config: Config, rate: float) -> tuple[Any, list[PyTree]]:
    """Trains a PLE of other sizes, without rounding; see `trained`."""
    model = self.model(config, has_steps=True)
    models = [model] * config.num_seeds
    seeds = train(self, models, None, config.epochs, rate=rate)
    folded = [encoders.fold_steps(model, params) for params in seeds]
    return folded[0][0], [params for _, params in folded]


def train(
  course: Course,
  models: Sequence[Any],
  start: Sequence[PyTree] | None,
  num_epochs: int,
  *,
  rate: float = RATE,
  scheme: Scheme | None = None,
  change: Change | None = None,
) -> list[PyTree]:
  """Trains a model per seed, of which equal ones are one population.

  The learning rate falls to 0 along a cosine. Networks that learn from the
  labels alone are those of their best epoch by the validation rows, others of
  the last: a teacher's outputs do not overfit, and those that become sparse are
  done at the end only.

  Args:
    course: the rows, and how to train.
    models: of each seed.
    start: their parameters; None draws them.
    num_epochs: of training.
    rate: the learning rate at the first step.
    scheme: to round parameters by while training; None does not round.
    change: of the optimiser, if any.

  Returns:
    The parameters of each seed.
  """
  config = course.config
  num_steps = course.data.facts['rows']['train'] // config.batch_size
  optimizer = build.make_optimizer(
    dataclasses.replace(config, learning_rate=rate), num_epochs * num_steps
  )
  if change:
    optimizer = change(optimizer, num_epochs * num_steps)
  has_choice = not course.is_taught and change is None
  found: list[Any] = [None] * len(models)
  for places in _groups(models):
    model = models[places[0]]
    fitted = training.fit(
      jax.vmap(jax.random.key)(np.array(places) + config.seed),
      quantization.Quantized(model, scheme) if scheme else model,
      optimizer,
      build.make_balancer(config, course.tasks, num_steps),
      course.train,
      validation=course.data.validation if has_choice else None,
      batch_size=config.batch_size,
      num_epochs=num_epochs,
      start=dense.stack([start[i] for i in places]) if start else None,
    )
    params = jax.device_get(fitted.params)
    for number, place in enumerate(places):
      found[place] = dense.seed(params, number)
  return found


def count(
  model: Any, params: PyTree, course: Course, scheme: Scheme
) -> dict[str, int]:
  """Returns the bytes of a network by part, once it is rounded.

  Args:
    model: any.
    params: of one seed, or their shapes; None for those that it draws.
    course: has the tables.
    scheme: how it is rounded.
  """
  if params is None:
    one_row = jax.tree.map(lambda x: x[:1], course.train.features)
    params = jax.eval_shape(model.init, jax.random.key(0), one_row)['params']
  rounded = quantization.Quantized(model, scheme)
  return cost.count_bytes(rounded, params, course.data.tables)


def sparse(
  parts: dict[str, int], params: PyTree, scheme: Scheme
) -> dict[str, int]:
  """Returns the bytes by part if zeros are left out of matrices.

  Args:
    parts: what `count` returns.
    params: of one seed.
    scheme: how they are rounded.
  """
  matrices = sparsity.matrices(params)
  others = {k: n for k, n in parts.items() if k not in _MATRICES}
  return {**others, 'weights': magnitude.sparse_bytes(matrices, scheme.bits)}


def score(
  course: Course,
  models: Sequence[Any],
  seeds: Sequence[PyTree],
  scheme: Scheme,
  *,
  is_sparse: bool = False,
) -> Scored:
  """Rounds, counts and scores a network per seed.

  Args:
    course: the rows.
    models: of each seed.
    seeds: the parameters of each seed.
    scheme: how they are rounded.
    is_sparse: whether zeros are left out, see `sparse`.
  """
  rounded = [
    quantization.thaw(
      quantization.freeze(quantization.Quantized(model, scheme), params)
    )
    for model, params in zip(models, seeds, strict=True)
  ]
  parts = [
    count(model, params, course, scheme)
    for model, params in zip(models, rounded, strict=True)
  ]
  if is_sparse:
    parts = [
      sparse(one, params, scheme)
      for one, params in zip(parts, rounded, strict=True)
    ]
  outputs: list[Any] = [None] * len(models)
  for places in _groups(models):
    params = dense.stack([rounded[i] for i in places])
    both = dense.predict(models[places[0]], params, course.data)
    for number, place in enumerate(places):
      outputs[place] = dense.seed(both, number)
  validation, test = dense.stack(outputs)
  first, params = models[0], rounded[0]
  if isinstance(first, low_rank.LowRank):  # products of factors are no work
    first, params = low_rank.multiply(first, params)
  return Scored(
    [sum(one.values()) for one in parts],
    parts[0],
    validation,
    test,
    cost.count_parameters(rounded[0]),
    dense.multiply_adds(first, params, course.data),
  )


def _groups(models: Sequence[Any]) -> list[list[int]]:
  """Returns the places of equal models, together."""
  groups: list[list[int]] = []
  for place, model in enumerate(models):
    for group in groups:
      if models[group[0]] == model:
        group.append(place)
        break
    else:
      groups.append([place])
  return groups
