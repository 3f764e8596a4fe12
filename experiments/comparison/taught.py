"""Rows of networks that learn from a teacher in place of the labels.

`teacher=trees` is the mean prediction of boosted trees; of `teacher=best` each
task has what the validation rows prefer: the trees, networks of the same
architecture without the row's own fields, or the mean of both. The teacher's
outputs replace the labels of the training rows; the labels of the validation
rows choose among epochs and settings as ever.
"""

import dataclasses
from collections.abc import Mapping

from experiments.comparison import networks, objectives, teaching
from experiments.comparison.cells import Cell, Fitted, Store
from experiments.comparison.plan import TREES
from experiments.comparison.trees import Trees
from experiments.datasets.base import Data
from experiments.launcher.options import Config
from lplmtl.compression import distillation
from lplmtl.types import Batch


@dataclasses.dataclass(frozen=True)
class Taught(networks.Networks):
  """A row of networks with a teacher; see `rows.Row`.

  Attributes:
    store: of the finished cells, among them the teacher's.
  """

  store: Store

  @property
  def num_fits(self) -> int:
    """Number of models trained for the row, those that teach it included.

    Those that try settings for the teacher belong to rows of their own.
    """
    tasks = self.encode(0).tasks
    members = sum(len(objectives.models(task)) for task in tasks)
    members += not self._is_taught_by_trees
    return super().num_fits + self.plan.tuning_seeds * members

  def check(self) -> None:
    """Raises InputError for sizes or tasks that cannot be trained."""
    Trees(TREES, self.plan, self.encode).check()
    super().check()

  def tuning(self) -> list[Cell]:
    """Returns a cell per group of settings that compile together."""
    return [self._named(cell) for cell in super().tuning()]

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fit of the chosen setting with fresh seeds."""
    (setting,) = set(chosen.values())
    config = self.plan.final_config(self.name, setting)

    def fit() -> Fitted:
      data, (outputs, names) = self.encode(config.num_bins), self._teach()
      lesson = _lesson(data, outputs)
      facts, arrays = networks.train(config, data, lesson=lesson)
      return Fitted({**facts, 'teacher': names}, arrays)

    return self._named(Cell('final', config.identity(), fit))

  def lesson(self, config: Config) -> Data:
    """Returns the rows with the teacher's outputs as labels.

    Raises:
      TeacherError: the teacher is no better than a constant.
    """
    return _lesson(self.encode(config.num_bins), self._teach()[0])

  @property
  def _is_taught_by_trees(self) -> bool:
    return self.plan.taught[self.name] == TREES

  @property
  def networks(self) -> networks.Networks:
    """The row of the networks of `teacher=best`: the architecture alone."""
    name = str((self.plan.rows[self.name] or {})['architecture'])
    plan = dataclasses.replace(
      self.plan, rows={**self.plan.rows, name: {'architecture': name}}
    )
    return networks.Networks(name, plan, self.encode, self.note)

  def _named(self, cell: Cell) -> Cell:
    """Returns a cell that is told apart from that of a row without teacher."""
    plan = self.plan
    teacher = {
      'settings': dict(plan.tree_settings),
      'seeds': [plan.base.seed, plan.tuning_seeds],
    }
    if not self._is_taught_by_trees:
      configs = self.networks.plan.tuning_configs(self.networks.name)
      teacher['networks'] = {n: c.identity() for n, c in configs.items()}
    inputs = {'networks': cell.inputs, 'teacher': teacher}
    return Cell(f'{cell.kind} taught', inputs, cell.fit)

  def _teach(self) -> tuple[teaching.Outputs, dict[str, str]]:
    """Returns the teacher's outputs, and what it is for each task."""
    data = self.encode(self.plan.base.num_bins)
    outputs = teaching.from_trees(self.plan, self.encode, self.store)
    names = dict.fromkeys(outputs, TREES)
    if not self._is_taught_by_trees:
      row = self.networks
      others = teaching.from_networks(row.plan, row, self.store)
      outputs, names = teaching.best(data, outputs, others)
    teaching.check(data, outputs)
    return outputs, names


def _lesson(data: Data, outputs: teaching.Outputs) -> Data:
  count = teaching.num_train(data)

  def taught(rows: Batch, part: slice) -> Batch:
    own = {name: both[part] for name, both in outputs.items()}
    return distillation.with_teacher(data.tasks, rows, own)

  return data._replace(
    tasks=tuple(distillation.distilled(task) for task in data.tasks),
    train=taught(data.train, slice(count)),
    validation=taught(data.validation, slice(count, None)),
  )
