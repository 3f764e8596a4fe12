"""The dense network again, taught by what teaches the small ones.

It tells what distillation alone is worth, without a byte less.
"""

import functools

from experiments.comparison import networks
from experiments.frontier import dense
from experiments.frontier.options import DISTILLED_DENSE
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point, Scored
from experiments.frontier.teacher import Teacher
from lplmtl.compression import cost, distillation, encoders, teachers


def points(plan: Plan, teacher: Teacher) -> list[Point]:
  """Returns one point: the best dense network, with the same settings."""
  network = teacher.network
  return [
    Point(
      f'{network.name} distilled',
      DISTILLED_DENSE,
      {'teacher': teacher.inputs, 'seeds': list(network.seeds)},
      network.data,
      functools.partial(_make, teacher),
      num_fits=len(network.seeds),
    )
  ]


def _make(teacher: Teacher) -> Scored:
  """Trains the network again.

  Raises:
    TeacherError: the teacher is no better than a constant.
  """
  network, data = teacher.network, teacher.network.data
  for task in data.tasks:
    teachers.check_teacher(
      task,
      teacher.held_out[task.name],
      data.validation.labels[task.name],
      where=(data.validation.where or {}).get(task.name),
    )
  taught = data._replace(
    tasks=tuple(distillation.distilled(task) for task in data.tasks),
    train=distillation.with_teacher(data.tasks, data.train, teacher.train),
    validation=distillation.with_teacher(
      data.tasks, data.validation, teacher.held_out
    ),
  )
  model, params = networks.fit_one(network.config, taught)
  model, params = encoders.fold_steps(model.clone(tasks=data.tasks), params)
  validation, test = dense.predict(model, params, data)
  first = dense.seed(params, 0)
  parts = cost.count_bytes(model, first, data.tables)
  return Scored(
    [sum(parts.values())] * len(network.seeds),
    parts,
    validation,
    test,
    cost.count_parameters(first),
    dense.multiply_adds(model, first, data),
  )
