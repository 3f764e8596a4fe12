"""Rows of networks: settings tried on validation rows, then fresh seeds.

Settings that differ only in numbers train as one population, so that they
compile once; a row's final fit is one more population.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.comparison import populations, rows
from experiments.comparison.cells import Cell, Fitted
from experiments.comparison.plan import Plan
from experiments.datasets.base import Data
from experiments.launcher import memory, quality, scoring
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import training
from lplmtl.compression import leaves
from lplmtl.training import evaluation
from lplmtl.types import PyTree, Task

# Begins the names of parameters among the arrays of a fit; those of logits are
# names of tasks.
_PARAMETER = 'parameter: '


@dataclasses.dataclass(frozen=True)
class Networks:
  """A row of networks; see `rows.Row`.

  Attributes:
    name: of the row.
    plan: of the comparison.
    encode: returns the encoded rows for a number of bins.
    note: called with a line for each setting that diverges.
  """

  name: str
  plan: Plan
  encode: Callable[[int], Data]
  note: Callable[[str], None]

  @property
  def num_settings(self) -> int:
    """Number of settings that the row tries."""
    return len(self.plan.tuning_configs(self.name))

  @property
  def num_fits(self) -> int:
    """Number of models trained for the row in total."""
    plan = self.plan
    num_tuned = self.num_settings * plan.tuning_seeds
    if self.num_settings == 1:
      num_tuned = 0
    return num_tuned + plan.base.num_seeds

  def check(self) -> None:
    """Raises InputError for sizes that cannot be trained on these rows."""
    for config in self.plan.tuning_configs(self.name).values():
      data = self.encode(config.num_bins)
      try:
        populations.check(config, data)
      except InputError as error:
        raise InputError(f'row {self.name}: {error}') from error

  def tuning(self) -> list[Cell]:
    """Returns a cell per group of settings that compile together.

    There is none if there is nothing to choose.
    """
    configs = self.plan.tuning_configs(self.name)

    def cell(group: Mapping[str, Config]) -> Cell:
      inputs = {name: config.identity() for name, config in group.items()}
      return Cell('tune', inputs, lambda: self._tune(group))

    if len(configs) == 1:
      return []
    return [cell(group) for group in populations.groups(configs)]

  def choose(self, scores: rows.Scores) -> dict[str, str]:
    """Chooses one setting for all tasks: the best by the mean over them."""
    data = self.encode(self.plan.base.num_bins)
    names = [task.name for task in data.tasks]
    if not scores:
      only = next(iter(self.plan.tuning_configs(self.name)))
      return dict.fromkeys(names, only)
    return dict.fromkeys(names, rows.best(scores, names))

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fit of the chosen setting with fresh seeds."""
    (setting,) = set(chosen.values())
    config = self.plan.final_config(self.name, setting)
    return Cell(
      'final',
      config.identity(),
      lambda: train(config, self.encode(config.num_bins)),
    )

  def lesson(self, config: Config) -> Data:
    """Returns the rows to learn from, with the tasks to learn."""
    return self.encode(config.num_bins)

  def _tune(self, group: Mapping[str, Config]) -> Fitted:
    tasks = self.encode(self.plan.base.num_bins).tasks
    return rows.tried(self._try(group), tasks)

  def _try(self, group: Mapping[str, Config]) -> dict[str, Any]:
    """Scores all settings at once; one by one if one diverges (None)."""
    first, *others = group.items()
    data = self.lesson(first[1])
    try:
      return {**tune(group, data)}
    except training.NonFiniteError as error:
      if not others:
        name = first[0] or 'as given'
        self.note(f'{self.name}, {name}: left out, because {error}')
        return {first[0]: None}
    scores: dict[str, Any] = {}
    for setting, config in group.items():
      scores |= self._try({setting: config})
    return scores


def tune(
  configs: Mapping[str, Config], data: Data
) -> dict[str, dict[str, list[float]]]:
  """Trains the settings of one group, each with the same seeds.

  Returns:
    `{setting: {task: [S]}}`, each task's primary validation metric at each
    seed's best epoch.
  """
  first = next(iter(configs.values()))
  with memory.guard(first):
    (scores,) = tune_each(configs, [(first.seed, data)])
  return scores


def tune_each(
  configs: Mapping[str, Config], draws: Iterable[tuple[int, Data]]
) -> Iterator[dict[str, dict[str, list[float]]]]:
  """Does as `tune` on each of several tables; see `populations.fit_each`."""
  size = next(iter(configs.values())).num_seeds
  fits = populations.fit_each(list(configs.values()), draws)
  for fitted, _, data in fits:
    scored = _chosen_validation(fitted, data.tasks)
    yield {
      name: {
        task: values[i * size : (i + 1) * size]
        for task, values in scored.items()
      }
      for i, name in enumerate(configs)
    }


def train(
  config: Config, data: Data, *, lesson: Data | None = None, keep: bool = False
) -> Fitted:
  """Trains one setting, and scores the test rows.

  Args:
    config: the setting.
    data: the rows.
    lesson: rows and tasks to learn, such as those of a teacher; None for
      `data`.
    keep: adds the parameters to the arrays, see `parameters_of`.
  """
  with memory.guard(config):
    fitted, model = populations.fit([config], lesson or data)
    if lesson:
      model = model.clone(tasks=data.tasks)
    validation = None if lesson else scoring.of_history(data.tasks, fitted)
    facts, arrays = _score(config, data, fitted, model, validation)
    if keep:
      for name, leaf in leaves.names(jax.device_get(fitted.params)).items():
        arrays[_PARAMETER + name] = leaf
    return Fitted(facts, arrays)


def fit_one(config: Config, data: Data) -> tuple[nn.Module, PyTree]:
  """Trains one setting; returns the model and its parameters `[S, ...]`."""
  with memory.guard(config):
    fitted, model = populations.fit([config], data)
  return model, jax.device_get(fitted.params)


def parameters_of(
  config: Config, data: Data, arrays: Mapping[str, np.ndarray]
) -> tuple[nn.Module, PyTree]:
  """Returns the model, and the parameters `[S, ...]` that `train` has kept."""
  model = populations.parts(config, data).model
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), populations.one_row(data)
  )
  params = leaves.map_named(
    lambda name, _: arrays[_PARAMETER + name], shapes['params']
  )
  return model, params


def _score(
  config: Config,
  data: Data,
  fitted: training.FitResult,
  model: nn.Module,
  validation: dict[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  params = jax.device_get(fitted.params)
  row = populations.one_row(data)
  rows_seen = fitted.steps_taken * config.batch_size * config.num_seeds
  weights = np.asarray(fitted.history[-1]['loss_weights'], np.float64)
  test = scoring.score(model, data.tasks, fitted.params, data.test)
  if validation is None:  # of the rows of a lesson, not of these
    validation = scoring.score(
      model, data.tasks, fitted.params, data.validation
    ).metrics
  first_seed = jax.tree.map(lambda x: x[0], params)
  predict = evaluation.make_predictor(model, first_seed)
  facts = {
    'test': test.metrics,
    'validation': validation,
    'calibration': test.calibration,
    **scoring.costs(model, params, row),
    'gates': test.gates,
    'loss_weights': {
      task.name: scoring.over_seeds(weights[:, i])
      for i, task in enumerate(data.tasks)
    },
    'best_epoch': fitted.best_epoch.tolist(),
    'examples_per_second': rows_seen / fitted.seconds['train'],
    'latency': scoring.latency(predict, row),
    'seconds': dict(fitted.seconds),
  }
  return facts, {n: rows.without_single(x) for n, x in test.logits.items()}


def _chosen_validation(
  fitted: training.FitResult, tasks: Sequence[Task]
) -> dict[str, list[float]]:
  """Returns `{task: [S]}`, the primary metric at each seed's best epoch."""
  scored = [r for r in fitted.history if 'validation' in r]
  epochs = np.array([record['epoch'] for record in scored])
  chosen = np.searchsorted(epochs, fitted.best_epoch)
  values = {}
  for task in tasks:
    metric = quality.primary(scored[0]['validation'][task.name])
    table = np.stack([r['validation'][task.name][metric] for r in scored])
    values[task.name] = rows.larger_is_better(
      metric, table[chosen, np.arange(len(chosen))]
    )
  return values
