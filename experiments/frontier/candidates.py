"""What a rival offers at a number of bytes, and the choice between offers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.launcher import quality, scoring
from lplmtl import losses
from lplmtl.types import Batch, Task


class NotMadeError(ValueError):
  """A model that cannot be made of so few bytes, or of these rows."""


class Candidate(NamedTuple):
  """A model for all tasks.

  Attributes:
    num_bytes: all constant data that a device needs to score a raw row.
    settings: JSON data: how it was made.
    validation: `{task: [N, K]}` float32 outputs.
    test: likewise.
  """

  num_bytes: int
  settings: dict[str, Any]
  validation: dict[str, np.ndarray]
  test: dict[str, np.ndarray]


class Offer(NamedTuple):
  """A model of one task.

  Attributes:
    num_bytes: by itself.
    quality: its primary metric on validation rows; larger is better.
    model: whatever it is.
  """

  num_bytes: int
  quality: float
  model: Any


def measure(task: Task, rows: Batch) -> Callable[[np.ndarray], float]:
  """Returns a function from `[N, K]` outputs to the task's primary metric.

  Larger is better: a loss is negated.
  """
  where = scoring.labelled(rows, task.name)
  labels = losses.mask_labels(rows.labels[task.name], jnp.asarray(where))
  metric_fns = task.metric_fns or {'loss': scoring.mean_loss(task)}
  name = quality.primary(metric_fns)
  metric = jax.jit(metric_fns[name])
  sign = -1 if quality.is_loss(name) else 1
  return lambda outputs: (
    sign * float(metric(jnp.asarray(outputs, jnp.float32), labels, where))
  )


def front(points: Sequence[Offer]) -> list[Offer]:
  """Returns the points that no smaller one equals, by size."""
  found: list[Offer] = []
  for point in sorted(points, key=lambda p: (p.num_bytes, -p.quality)):
    if not found or point.quality > found[-1].quality:
      found.append(point)
  return found


def split(
  fronts: Mapping[str, Sequence[Offer]],
  budget: int,
  size: Callable[[Mapping[str, Offer]], int],
) -> dict[str, Offer]:
  """Splits a budget between tasks, for the best mean over the tasks.

  Each step takes what raises a task most per byte, as long as it fits.

  Args:
    fronts: for each task what `front` returned.
    budget: in bytes.
    size: the bytes of a choice, in which tasks share tables.

  Raises:
    NotMadeError: not even the smallest points fit.
  """
  places = dict.fromkeys(fronts, 0)

  def choice(moved: Mapping[str, int]) -> dict[str, Offer]:
    return {name: fronts[name][i] for name, i in moved.items()}

  least = size(choice(places))
  if least > budget:
    raise NotMadeError(
      f'the smallest model takes {least} bytes, more than {budget}'
    )
  now = least
  while True:
    steps = []
    for name, place in places.items():
      old = fronts[name][place]
      for i in range(place + 1, len(fronts[name])):
        new = fronts[name][i]
        more = new.num_bytes - old.num_bytes
        # Sharing may save something: a little more than the rest may fit.
        if more <= 1.3 * (budget - now):
          steps.append(((new.quality - old.quality) / more, name, i))
    for _, name, i in sorted(steps, reverse=True):
      moved = {**places, name: i}
      needed = size(choice(moved))
      if needed <= budget:
        places, now = moved, needed
        break
    else:
      return choice(places)


def split_all(
  fronts: Mapping[str, Sequence[Offer]],
  budgets: Sequence[int],
  size: Callable[[Mapping[str, Offer]], int],
) -> dict[int, dict[str, Offer]]:
  """Returns `split` of each budget that is large enough.

  Raises:
    NotMadeError: none is.
  """
  found = {}
  for budget in budgets:
    try:
      found[budget] = split(fronts, budget, size)
    except NotMadeError:
      if budget == max(budgets):  # then none is
        raise
  return found
