"""What a network must fit, and the sizes of those that do."""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.frontier import courses
from experiments.frontier.courses import Course
from experiments.launcher.options import Config
from lplmtl.compression import merging
from lplmtl.compression.plans import Scheme
from lplmtl.types import PyTree

_MOST_UNITS = 256
# Experts of each kind: two, or one if two would have fewer units each.
_COUNTS, _LEAST_UNITS = (2, 1), 8
_HALVINGS = 3  # of the widths of an encoder, at most


class Target(NamedTuple):
  """What a network must fit.

  Attributes:
    course: its rows.
    budget: bytes.
    scheme: how it is rounded.
  """

  course: Course
  budget: int
  scheme: Scheme

  def parts(self, model: Any, params: PyTree = None) -> dict[str, int]:
    """Returns the bytes of a network by part; see `courses.count`."""
    return courses.count(model, params, self.course, self.scheme)

  def num_bytes(self, model: Any, params: PyTree = None) -> int:
    """Returns the bytes of a network."""
    return sum(self.parts(model, params).values())


def fitting(architecture: str, target: Target) -> Config:
  """Returns the sizes of the largest network of an architecture that fits.

  The encoder is the same for all: that of the PLE, with its widths halved until
  it takes half of the budget at most.
  """
  config = target.course.config
  for halvings in range(_HALVINGS + 1):
    small = dataclasses.replace(
      config,
      architecture='shared_bottom',
      embed_dim=max(1, config.embed_dim >> halvings),
      cross_rank=max(1, config.cross_rank >> halvings),
    )
    encoder = target.num_bytes(target.course.model(sized(small, 1)))
    if encoder <= target.budget / 2:
      break
  small = dataclasses.replace(small, architecture=architecture)

  def size(count: int, units: int) -> int:
    return target.num_bytes(target.course.model(sized(small, units, count)))

  wide_enough = (n for n in _COUNTS if size(n, _LEAST_UNITS) <= target.budget)
  count = next(wide_enough, _COUNTS[-1])
  units = largest(
    functools.partial(size, count), (1, _MOST_UNITS), target.budget
  )
  return sized(small, units, count)


def sized(config: Config, units: int, count: int | None = None) -> Config:
  """Returns a Config with layers of other widths, and other experts.

  The bottom of a shared-bottom network is as wide as four experts, which is
  also how many an MMoE has for each that the others have of a kind: the
  proportions of the defaults.

  Args:
    config: the sizes to change.
    units: of every layer.
    count: of experts of each kind; None leaves them.
  """
  experts: dict[str, Any] = {}
  if count is not None:
    experts = dict.fromkeys(('num_specific', 'num_shared', 'num_top'), count)
    experts['num_experts'] = 4 * count
  return dataclasses.replace(
    config,
    expert_widths=((units,),) * len(config.expert_widths),
    tower_widths=(units,),
    bottom_widths=(4 * units,),
    **experts,
  )


def widths(config: Config) -> list[int]:
  """Returns the units of each layer of experts and towers."""
  return [*itertools.chain(*config.expert_widths), *config.tower_widths]


def largest(
  num_bytes: Callable[[int], int], ends: tuple[int, int], budget: int
) -> int:
  """Returns the largest number whose bytes fit, from one end to the other.

  Raises:
    BudgetError: not even those of the first do.
  """
  first, last = ends
  smallest = num_bytes(first)
  if smallest > budget:
    raise too_small(budget, smallest)
  larger = range(first + 1, last + 1)
  return first + bisect.bisect_right(larger, budget, key=num_bytes)


def too_small(budget: int, smallest: int) -> merging.BudgetError:
  """Returns the error of a budget that cannot be reached."""
  return merging.BudgetError(
    f'{budget:,} bytes are too few: the smallest takes {smallest:,}', smallest
  )
