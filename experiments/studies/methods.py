"""A method at one value of the factor: settings tried, then fresh draws.

Every fit has a problem, rows and initial parameters of its own, drawn by one
seed; all methods get the same ones. Fits of equal sizes share their programs.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.comparison import networks, populations, rows
from experiments.comparison.cells import Cell, Fitted
from experiments.comparison.plan import Plan
from experiments.datasets.base import Data
from experiments.launcher import memory, scoring
from experiments.launcher.options import Config
from experiments.studies.problems import Setup
from lplmtl import training
from lplmtl.training import evaluation

Draw = Callable[[int, int], Data]


@dataclasses.dataclass(frozen=True)
class Method:
  """See `rows.Row`.

  Attributes:
    method: the row of the study.
    value: of the factor.
    setup: the problem at that value.
    draw: returns the rows for a seed and a number of bins.
    plan: the rows and settings, and how many draws.
    note: called with a line for each setting that diverges.
  """

  method: str
  value: str
  setup: Setup
  draw: Draw
  plan: Plan
  note: Callable[[str], None]

  @property
  def name(self) -> str:
    """The method and the value, as progress shows them."""
    return f'{self.method} at {self.value}'

  @property
  def num_settings(self) -> int:
    """Number of settings that the method tries."""
    return len(self.plan.tuning_configs(self.method))

  @property
  def num_fits(self) -> int:
    """Number of models trained in total."""
    plan = self.plan
    num_tuned = self.num_settings * plan.tuning_seeds
    return (num_tuned if self.num_settings > 1 else 0) + plan.base.num_seeds

  def check(self) -> None:
    """Raises InputError for sizes that cannot be trained on these rows."""
    for config in self.plan.tuning_configs(self.method).values():
      populations.check(config, self._draw(config))

  def tuning(self) -> list[Cell]:
    """Returns a cell per group of settings that compile together."""
    configs = self.plan.tuning_configs(self.method)

    def cell(group: Mapping[str, Config]) -> Cell:
      return Cell('tune', self._inputs(group), lambda: self._tune(group))

    if len(configs) == 1:
      return []
    return [cell(group) for group in populations.groups(configs)]

  def choose(self, scores: rows.Scores) -> dict[str, str]:
    """Chooses one setting for all tasks: the best by the mean over them."""
    if not scores:
      return {'all': next(iter(self.plan.tuning_configs(self.method)))}
    tasks = next(iter(scores.values()))
    return {'all': rows.best(scores, list(tasks))}

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fits of the chosen setting on fresh draws."""
    config = self.plan.final_config(self.method, chosen['all'])
    inputs = self._inputs({chosen['all']: config})
    return Cell('final', inputs, lambda: self._train(config))

  def _inputs(self, group: Mapping[str, Config]) -> dict[str, Any]:
    return {
      'problem': _identity(self.setup),
      'settings': {name: config.identity() for name, config in group.items()},
      'draws': next(iter(group.values())).num_seeds,
    }

  def _draw(self, config: Config) -> Data:
    return self.draw(config.seed, config.num_bins)

  def _draws(self, config: Config) -> Iterator[tuple[int, Data]]:
    """Yields a seed, for rows and parameters, and the rows of each draw."""
    for seed in range(config.seed, config.seed + config.num_seeds):
      yield seed, self.draw(seed, config.num_bins)

  def _tune(self, group: Mapping[str, Config]) -> Fitted:
    """Scores settings on each draw; None for one that diverges on any."""
    found: dict[str, Any] = {name: None for name in group}
    first = next(iter(group.values()))
    one = {n: dataclasses.replace(c, num_seeds=1) for n, c in group.items()}
    try:
      with memory.guard(first):
        for scores in networks.tune_each(one, self._draws(first)):
          for name, by_task in scores.items():
            so_far = found[name] or {}
            found[name] = {
              task: [*so_far.get(task, ()), *values]
              for task, values in by_task.items()
            }
    except training.NonFiniteError as error:
      if len(group) > 1:
        one_by_one = [self._tune({name: c}) for name, c in group.items()]
        merged = {
          k: v for f in one_by_one for k, v in f.facts['scores'].items()
        }
        return rows.tried(merged, self._draw(first).tasks)
      (name,) = group
      found = {name: None}
      self.note(f'{self.name}, {name or "as given"}: left out, because {error}')
    return rows.tried(found, self._draw(first).tasks)

  def _train(self, config: Config) -> Fitted:
    test: dict[str, list[float]] = {}
    optimum: dict[str, list[float]] = {}
    best_epoch: list[int] = []
    with memory.guard(config):
      one = dataclasses.replace(config, num_seeds=1)
      fits = populations.fit_each([one], self._draws(config))
      for fitted, model, data in fits:
        scored = _score(model, fitted.params, data)
        for task in data.tasks:
          test.setdefault(task.name, []).append(scored[task.name])
          optimum.setdefault(task.name, []).append(data.optimum[task.name])
        best_epoch.append(int(fitted.best_epoch[0]))
    facts = {
      'test': {
        task.name: {
          next(iter(task.metric_fns)): scoring.over_seeds(
            np.array(test[task.name])
          )
        }
        for task in data.tasks
      },
      'optimum': optimum,
      'best_epoch': best_epoch,
      **scoring.costs(model, fitted.params, populations.one_row(data)),
    }
    return Fitted(facts, {})


def _identity(setup: Setup) -> dict[str, Any]:
  fields: Any = setup  # every kind is a dataclass
  return {'kind': type(setup).__name__, **dataclasses.asdict(fields)}


def _score(model: nn.Module, params: Any, data: Data) -> dict[str, float]:
  """Returns the primary test metrics of the only seed."""
  one_seed = jax.tree.map(lambda x: x[0], params)
  outputs = evaluation.predict(model, one_seed, data.test.features)
  found = {}
  for task in data.tasks:
    metric = jax.jit(next(iter(task.metric_fns.values())))
    labels: Any = data.test.labels[task.name]
    where: Any = np.ones(len(labels), bool)
    found[task.name] = float(metric(outputs[task.name], labels, where))
  return found
