"""The family of roads: which way to a small network is best at equal bytes?

Networks drawn at the size that fits, and those made smaller from a trained PLE,
all trained by the same function, for as many epochs in all; one more after each
round of removing units.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

from experiments.frontier import courses, net, targets, ways
from experiments.frontier.courses import Course
from experiments.frontier.plan import Plan
from experiments.frontier.points import Point, Scored, constants
from experiments.frontier.teacher import Teacher
from lplmtl import compression
from lplmtl.compression import distillation, merging
from lplmtl.compression.lessons import Lesson
from lplmtl.compression.plans import Scheme

ROADS: dict[str, Callable[[targets.Target], ways.Ready]] = {
  'sple from scratch': functools.partial(ways.drawn, 'sple'),
  'ple from scratch': functools.partial(ways.drawn, 'ple'),
  'mmoe from scratch': functools.partial(ways.drawn, 'mmoe'),
  'shared_bottom from scratch': functools.partial(ways.drawn, 'shared_bottom'),
  'ple to sple': ways.to_sple,
  'ple by gates': ways.by_gates,
  'ple by neurons': ways.by_neurons,
  'ple by magnitude': ways.by_magnitude,
  'ple by disparse': ways.by_disparse,
  'ple of low rank': ways.low_ranks,
}


class Form(NamedTuple):
  """What the roads of one comparison have in common.

  Attributes:
    bits: of a number in a matrix.
    is_merged: whether values are merged.
    is_taught: whether a teacher's outputs are learned, or the labels.
  """

  bits: int
  is_merged: bool
  is_taught: bool

  def __str__(self) -> str:
    merged = ' merged' if self.is_merged else ''
    return f'int{self.bits}{merged}{" taught" if self.is_taught else ""}'


# Each of the others differs from the first in one respect.
FORMS = (
  Form(4, True, True),
  Form(8, True, True),
  Form(4, False, True),
  Form(4, True, False),
)
# Those of the recipe's small and large networks.
_SCHEMES = {
  4: Scheme(bits=4, scale_bits=8, vector_bits=8),
  8: Scheme(bits=8, scale_bits=16, vector_bits=16),
}
_NUM_IDS = 300  # which are as good as all, see lplmtl/compression/README.md


def points(plan: Plan, teacher: Teacher) -> list[Point]:
  """Returns a point per budget, form and road."""
  network = teacher.network
  # Once each, whichever point comes first.
  lesson = functools.cache(lambda: net.lesson(teacher, compression.Recipe()))
  find = functools.cache(functools.partial(_course, plan, teacher, lesson))
  inputs = {
    'teacher': teacher.inputs,
    'seeds': list(network.seeds),
    'tune_epochs': plan.tune_epochs,
    'num_ids': _NUM_IDS,
    'constants': constants(courses, targets, ways),
  }
  return [
    Point(
      f'{road} {budget} {form}',
      road,
      {
        **inputs,
        'form': form._asdict(),
        'scheme': dataclasses.asdict(_SCHEMES[form.bits]),
        # The budget of the point itself is None: no knee is between forms.
        'budget': budget,
      },
      network.data,
      functools.partial(_make, find, road, budget, form),
      num_fits=len(network.seeds),
    )
    for form in FORMS
    for budget in plan.budgets
    for road in ROADS
  ]


def _course(
  plan: Plan,
  teacher: Teacher,
  lesson: Callable[[], Lesson],
  is_merged: bool,
  is_taught: bool,
) -> Course:
  network = teacher.network
  data, config = network.data, network.config
  if is_merged:
    found = lesson().found
    merged = merging.merge_by(data.tables, found, num_ids=_NUM_IDS)
    data = net.recoded(data, merged.tables)
  train = data.train
  if is_taught:
    train = distillation.with_teacher(data.tasks, train, teacher.train)
    config = dataclasses.replace(config, dropout=0.0)
  config = dataclasses.replace(config, architecture='ple')
  return Course(config, data, train, is_taught, plan.tune_epochs)


def _make(
  find: Callable[[bool, bool], Course], road: str, budget: int, form: Form
) -> Scored:
  """Returns networks of at most `budget` bytes, one per seed.

  Raises:
    BudgetError: the road does not lead so far.
  """
  course = find(form.is_merged, form.is_taught)
  scheme = _SCHEMES[form.bits]
  ready = ROADS[road](targets.Target(course, budget, scheme))
  epochs = course.tune_epochs
  if ready.seeds is None:
    epochs += course.config.epochs
  seeds = courses.train(
    course,
    ready.models,
    ready.seeds,
    epochs,
    scheme=scheme,
    change=ready.change,
  )
  return courses.score(
    course, ready.models, seeds, scheme, is_sparse=ready.is_sparse
  )
