"""Rows of gradient-boosted trees, LightGBM models for each task."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.comparison import boosting, objectives, rows
from experiments.comparison.cells import Cell, Fitted
from experiments.comparison.plan import Plan
from experiments.datasets.base import Data
from experiments.launcher import quality, scoring
from lplmtl.types import Task


@dataclasses.dataclass(frozen=True)
class Trees:
  """A row of trees; see `rows.Row`.

  Attributes:
    name: of the row.
    plan: of the comparison.
    encode: returns the encoded rows for a number of bins; here always 0,
      because trees choose bins themselves.
  """

  name: str
  plan: Plan
  encode: Callable[[int], Data]

  @property
  def num_settings(self) -> int:
    """Number of settings that each task tries."""
    return len(self._settings)

  @property
  def num_fits(self) -> int:
    """Number of models trained for the row in total."""
    plan = self.plan
    num_tuned = self.num_settings * plan.tuning_seeds
    if self.num_settings == 1:
      num_tuned = 0
    num_models = sum(len(objectives.models(task)) for task in self._tasks())
    return (num_tuned + plan.base.num_seeds) * num_models

  def check(self) -> None:
    """Raises InputError for tasks that trees cannot learn.

    `boosting.check` has tried the settings.
    """
    boosting.check_tasks(self._tasks())

  def tuning(self) -> list[Cell]:
    """Returns a cell per setting; none if there is nothing to choose."""
    plan = self.plan

    def cell(setting: str, parameters: Mapping[str, Any]) -> Cell:
      seeds = [plan.base.seed, plan.tuning_seeds]
      return Cell(
        'tune trees',
        {setting: parameters, 'seeds': seeds},
        lambda: self._tune(setting, parameters),
      )

    if self.num_settings == 1:
      return []
    return [cell(*item) for item in self._settings.items()]

  def choose(self, scores: rows.Scores) -> dict[str, str]:
    """Chooses a setting for each task, because each has models of its own."""
    names = [task.name for task in self._tasks()]
    if not scores:
      return dict.fromkeys(names, next(iter(self._settings)))
    return {name: rows.best(scores, [name]) for name in names}

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fit of the chosen settings with fresh seeds."""
    plan = self.plan
    parameters = {task: self._settings[s] for task, s in chosen.items()}
    first_seed = plan.base.seed + plan.tuning_seeds
    return Cell(
      'final trees',
      {**parameters, 'seeds': [first_seed, plan.base.num_seeds]},
      lambda: self._train(parameters, first_seed),
    )

  @property
  def _settings(self) -> dict[str, dict[str, Any]]:
    return self.plan.tree_configs(self.name)

  def _tasks(self) -> tuple[Task, ...]:
    return self.encode(0).tasks

  def _tune(self, setting: str, parameters: Mapping[str, Any]) -> Fitted:
    base, data = self.plan.base, self.encode(0)
    scores = {
      task.name: rows.larger_is_better(
        rows.primary(task),
        [
          boosting.fit(parameters, task, data, base.seed + s).validation
          for s in range(self.plan.tuning_seeds)
        ],
      )
      for task in data.tasks
    }
    return rows.tried({setting: scores}, data.tasks)

  def _train(
    self, parameters: Mapping[str, Mapping[str, Any]], first_seed: int
  ) -> Fitted:
    data = self.encode(0)
    test, validation, logits = {}, {}, {}
    size = latency = seconds = 0.0
    for task in data.tasks:
      name = task.name
      forests = [
        boosting.fit(parameters[name], task, data, first_seed + s)
        for s in range(self.plan.base.num_seeds)
      ]
      scores = np.stack([forest.scores for forest in forests])
      metrics = boosting.score(task, scores, data.test)
      logits[name] = rows.without_single(scores)
      test[name] = {m: scoring.over_seeds(v) for m, v in metrics.items()}
      held_out = np.array([forest.validation for forest in forests])
      primary = quality.primary(metrics)
      validation[name] = {primary: scoring.over_seeds(held_out)}
      # A row needs the trees of every task; seeds are alternatives.
      size += float(np.mean([forest.parameters for forest in forests]))
      latency += float(np.median([forest.latency for forest in forests]))
      seconds += sum(forest.seconds for forest in forests)
    facts = {
      'test': test,
      'validation': validation,
      'parameters': round(size),
      'latency': latency,
      'seconds': {'train': seconds},
    }
    return Fitted(facts, logits)
