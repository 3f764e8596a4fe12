"""The teacher of all distilled families: dense networks and boosted trees.

The ensemble of the best dense network's seeds; where the validation rows say
that it helps, the mean with LightGBM's prediction, for each task by itself.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.comparison import boosting, objectives, teaching
from experiments.comparison.cells import Cell, Fitted, Store
from experiments.datasets.base import Data
from experiments.frontier import dense
from experiments.frontier.dense import Trained
from experiments.launcher import quality
from lplmtl.compression import teachers
from lplmtl.types import Batch, Task

# Small trees, each from a third of the columns, and cautious with categories:
# what compare_group1 chose for income of eight settings, at twice its rate.
_PARAMETERS = boosting.parse(
  'num_leaves=15 learning_rate=0.04 feature_fraction=0.3 bagging_fraction=0.8 '
  'bagging_freq=1 cat_smooth=50 min_data_in_leaf=50'
)
# The mean of several is better than each.
_SEEDS = (0, 1, 2)
# The members of a teacher.
NETWORK, TREES = 'network', 'LightGBM'


class Teacher(NamedTuple):
  """What a distilled family learns from.

  Attributes:
    network: the best dense network; all of its seeds are an ensemble.
    trees: `{task: [N, K]}`, LightGBM's outputs for the training rows, of those
      tasks where they help.
    alone: `{member: {task: [N, K]}}`, the outputs of NETWORK, and of TREES for
      the tasks that LightGBM can learn, for the training rows.
    train: `{task: [N, K]}`, the outputs of all together for the training rows.
    held_out: likewise, for the validation rows.
  """

  network: Trained
  trees: dict[str, np.ndarray]
  alone: dict[str, dict[str, np.ndarray]]
  train: dict[str, np.ndarray]
  held_out: dict[str, np.ndarray]

  @property
  def inputs(self) -> dict[str, Any]:
    """JSON data: all that the teacher depends on besides the data set."""
    return {
      'dense': self.network.config.identity(),
      'trees': list(self.trees),
      'tree_parameters': _PARAMETERS,
      'tree_seeds': _SEEDS,
    }


def make(
  network: Trained,
  raw: Callable[[], Data],
  store: Store,
  note: Callable[[str], None],
) -> Teacher:
  """Trains what the teacher needs besides the network, or loads it.

  Args:
    network: the best dense network.
    raw: returns the rows as trees read them, without bins.
    store: of the finished cells.
    note: called with a line that says what the teacher is.
  """
  data = network.data
  ensemble = {
    split: {
      task.name: teachers.ensemble_logits(task, logits[task.name])
      for task in data.tasks
    }
    for split in ('train', 'validation')
    for logits in [dense.outputs(network, split)]
  }
  trees: dict[str, np.ndarray] = {}
  train, held_out = dict(ensemble['train']), dict(ensemble['validation'])
  validation = {}
  boosted = _boosted(data.tasks, raw, store)
  members = {NETWORK: ensemble['train'], TREES: {}}
  for task in data.tasks:
    name, alone = task.name, held_out[task.name]
    validation[name] = _primary(task, alone, data.validation)
    if name not in boosted:
      continue
    ours, others = np.split(boosted[name], [len(train[name])])
    members[TREES][name] = ours
    both = teachers.ensemble_logits(task, [alone, others])
    value = _primary(task, both, data.validation)
    if _is_better(task, value, validation[name]):
      trees[name], held_out[name], validation[name] = ours, both, value
      train[name] = teachers.ensemble_logits(task, [train[name], ours])
  helped = f', with LightGBM for {", ".join(trees)}' if trees else ''
  shown = ' '.join(f'{quality.shown(v)} {t}' for t, v in validation.items())
  note(
    f'teacher: {len(network.seeds)} seeds of {network.name}{helped}: on '
    f'validation {shown}'
  )
  return Teacher(network, trees, members, train, held_out)


def _boosted(
  tasks: tuple[Task, ...], raw: Callable[[], Data], store: Store
) -> dict[str, np.ndarray]:
  """Returns `{task: [N, K]}`, for training and then validation rows.

  Empty if LightGBM is not installed.
  """
  if importlib.util.find_spec('lightgbm') is None:
    return {}
  cell = Cell(
    'teacher trees',
    {'parameters': _PARAMETERS, 'seeds': _SEEDS},
    lambda: _fit(tasks, raw()),
  )
  return store.get(cell).arrays


def _fit(tasks: tuple[Task, ...], data: Data) -> Fitted:
  return Fitted(
    {},
    {
      task.name: teaching.mean_outputs(_PARAMETERS, task, data, _SEEDS)
      for task in tasks
      if objectives.models(task)
    },
  )


def _primary(task: Task, outputs: np.ndarray, rows: Batch) -> float:
  found = boosting.score(task, outputs[np.newaxis], rows)
  return float(found[quality.primary(found)][0])


def _is_better(task: Task, value: float, other: float) -> bool:
  is_loss = quality.is_loss(next(iter(task.metric_fns), 'loss'))
  return value < other if is_loss else value > other
