"""What teaches rows of networks: boosted trees, networks, or their mean."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.comparison import boosting, networks, rows
from experiments.comparison.cells import Cell, Fitted, Store
from experiments.comparison.plan import TREES, Plan
from experiments.comparison.rows import Row
from experiments.comparison.trees import Trees
from experiments.datasets.base import Data
from experiments.launcher import quality
from experiments.launcher.options import Config
from lplmtl.compression import teachers
from lplmtl.training import evaluation
from lplmtl.types import Batch, Task

# Of one member or of both: `{task: [N, K]}`, the outputs for the training rows
# and then the validation rows.
Outputs = dict[str, np.ndarray]
_NETWORKS, _BOTH = 'networks', 'both'


def from_trees(
  plan: Plan, encode: Callable[[int], Data], store: Store
) -> Outputs:
  """Returns the mean predictions of the trees that validation rows prefer.

  They have the seeds of tuning, so that they are others than those of the row
  `trees`, with which a network may be compared.
  """
  row = Trees(TREES, plan, encode)
  settings = {
    task: plan.tree_settings[name] for task, name in _tried(row, store).items()
  }
  seeds = range(plan.base.seed, plan.base.seed + plan.tuning_seeds)

  def fit() -> Fitted:
    data = encode(0)
    return Fitted(
      {},
      {
        task.name: mean_outputs(settings[task.name], task, data, seeds)
        for task in data.tasks
      },
    )

  return store.get(
    Cell('teacher trees', {**settings, 'seeds': list(seeds)}, fit)
  ).arrays


def from_networks(plan: Plan, row: networks.Networks, store: Store) -> Outputs:
  """Returns the mean predictions of a row of networks with its best setting.

  They are trained again with the seeds of tuning, as no outputs for training
  rows are kept of those.
  """
  (setting,) = set(_tried(row, store).values())
  config = plan.tuning_configs(row.name)[setting]
  return store.get(
    Cell(
      'teacher networks',
      config.identity(),
      lambda: Fitted({}, _fit(config, row.encode(config.num_bins))),
    )
  ).arrays


def best(
  data: Data, trees: Outputs, others: Outputs
) -> tuple[Outputs, dict[str, str]]:
  """Returns what the validation rows prefer, for each task by itself.

  Args:
    data: its training and validation rows.
    trees: outputs of trees.
    others: outputs of networks.

  Returns:
    (outputs, names): `{task: 'trees', 'networks' or 'both'}`, the latter for
    the mean prediction.
  """
  outputs, names = {}, {}
  for task in data.tasks:
    members = {TREES: trees[task.name], _NETWORKS: others[task.name]}
    members[_BOTH] = teachers.ensemble_logits(task, list(members.values()))
    values = {
      name: _primary(task, one[num_train(data) :], data.validation)
      for name, one in members.items()
    }
    names[task.name] = max(values, key=lambda name: values[name])
    outputs[task.name] = members[names[task.name]]
  return outputs, names


def check(data: Data, outputs: Outputs) -> None:
  """Raises TeacherError if a teacher is no better than a constant."""
  for task in data.tasks:
    teachers.check_teacher(
      task,
      outputs[task.name][num_train(data) :],
      data.validation.labels[task.name],
      where=(data.validation.where or {}).get(task.name),
    )


def num_train(data: Data) -> int:
  """Returns the number of training rows."""
  return int(data.facts['rows']['train'])


def mean_outputs(
  parameters: Mapping[str, Any], task: Task, data: Data, seeds: Sequence[int]
) -> np.ndarray:
  """Returns the outputs of the mean prediction of LightGBM models.

  Args:
    parameters: LightGBM's.
    task: what they learn.
    data: rows without bins.
    seeds: one model each.

  Returns:
    `[N, K]`, for the training rows and then the validation rows.
  """
  both = data._replace(test=Batch(_features(data), {}))
  return teachers.ensemble_logits(
    task, [boosting.fit(parameters, task, both, i).scores for i in seeds]
  )


def _tried(row: Row, store: Store) -> dict[str, str]:
  """Returns the settings that a row prefers, which are tried if need be."""
  for cell in row.tuning():
    store.get(cell)
  found = rows.chosen(row, store)
  assert found is not None  # all have just been tried
  return found


def _fit(config: Config, data: Data) -> Outputs:
  model, params = networks.fit_one(config, data)
  features = _features(data)
  members = [
    evaluation.predict(
      model, jax.tree.map(lambda x, i=i: x[i], params), features
    )
    for i in range(config.num_seeds)
  ]
  return {
    task.name: teachers.ensemble_logits(
      task, [one[task.name] for one in members]
    )
    for task in data.tasks
  }


def _features(data: Data) -> Any:
  """Returns those of the training rows and then the validation rows."""
  return jax.tree.map(
    lambda *parts: np.concatenate(parts),
    data.train.features,
    data.validation.features,
  )


def _primary(task: Task, outputs: np.ndarray, batch: Batch) -> float:
  """Returns the primary metric; larger is better."""
  found = boosting.score(task, outputs[np.newaxis], batch)
  name = quality.primary(found)
  return rows.larger_is_better(name, found[name])[0]
