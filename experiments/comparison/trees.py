"""The row of gradient-boosted trees, one LightGBM model per task."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.comparison import boosting, rows
from experiments.comparison.cells import Cell, Fitted
from experiments.comparison.plan import Plan
from experiments.datasets.base import Data
from experiments.launcher import scoring


@dataclasses.dataclass(frozen=True)
class Trees:
  """The row of trees; see `rows.Row`.

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
  def num_fits(self) -> int:
    """Number of models trained for the row in total."""
    plan = self.plan
    num_tuned = len(plan.tree_settings) * plan.tuning_seeds
    return (num_tuned + plan.base.num_seeds) * len(plan.base.tasks)

  def check(self) -> None:
    """Raises InputError for tasks that are not binary.

    `boosting.check` has tried the settings.
    """
    boosting.check_tasks(self.encode(0).tasks)

  def tuning(self) -> list[Cell]:
    """Returns a cell per setting."""
    plan = self.plan

    def cell(setting: str, parameters: Mapping[str, Any]) -> Cell:
      seeds = [plan.base.seed, plan.tuning_seeds]
      return Cell(
        'tune trees',
        {setting: parameters, 'seeds': seeds},
        lambda: self._tune(setting, parameters),
      )

    return [cell(*item) for item in plan.tree_settings.items()]

  def choose(self, scores: rows.Scores) -> dict[str, str]:
    """Chooses a setting for each task, because each has a model of its own."""
    return {task: rows.best(scores, [task]) for task in self.plan.base.tasks}

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fit of the chosen settings with fresh seeds."""
    plan = self.plan
    parameters = {task: plan.tree_settings[s] for task, s in chosen.items()}
    first_seed = plan.base.seed + plan.tuning_seeds
    return Cell(
      'final trees',
      {**parameters, 'seeds': [first_seed, plan.base.num_seeds]},
      lambda: self._train(parameters, first_seed),
    )

  def _tune(self, setting: str, parameters: Mapping[str, Any]) -> Fitted:
    base, data = self.plan.base, self.encode(0)
    scores = {
      task: [
        boosting.fit(parameters, task, data, base.seed + s).validation
        for s in range(self.plan.tuning_seeds)
      ]
      for task in base.tasks
    }
    return Fitted({'scores': {setting: scores}}, {})

  def _train(
    self, parameters: Mapping[str, Mapping[str, Any]], first_seed: int
  ) -> Fitted:
    data = self.encode(0)
    test, validation, logits = {}, {}, {}
    size = latency = seconds = 0.0
    for task in data.tasks:
      name = task.name
      forests = [
        boosting.fit(parameters[name], name, data, first_seed + s)
        for s in range(self.plan.base.num_seeds)
      ]
      logits[name] = np.stack([forest.scores for forest in forests])
      metrics = boosting.score(task, logits[name], data.test.labels[name])
      test[name] = {m: scoring.over_seeds(v) for m, v in metrics.items()}
      aucs = np.array([forest.validation for forest in forests])
      validation[name] = {'auc': scoring.over_seeds(aucs)}
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
