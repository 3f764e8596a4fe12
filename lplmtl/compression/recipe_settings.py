"""The settings of `recipe.compress`."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from lplmtl import _checks
from lplmtl.compression.student import Sizes


@dataclasses.dataclass(frozen=True)
class Recipe:
  """How `compress` trains and what it counts.

  Attributes:
    num_steps: of training; rounded up to whole epochs. A tiny network underfits
      for long: 14,000 steps are 60 epochs of 60,000 rows.
    learning_rate: of AdamW, reached in the first twentieth of the steps, from
      where it falls to 0 along a cosine.
    weight_decay: of AdamW; keeps the largest numbers, and with them the scales
      of the others, small.
    batch_size: rows of a step, or all if there are fewer.
    share: of the teacher in the losses, see `distillation.distilled`; 0 trains
      on the labels alone.
    temperature: see `distillation.distilled`; numbers and counts have none.
    weights: `{task: factor}`, 1 for tasks that are not named. Losses count in
      units of those of a constant; with 2, a task counts twice as much.
    rounded: whether training computes with rounded parameters; False rounds
      them afterwards, at a loss.
    sizes: of the student; None takes those for the budget.
    hash_bits: 8 or 16, see `packing.pack`.
    row: all columns of a raw row, if a device picks some (see `packing.pack`).
  """

  num_steps: int = 14_000
  learning_rate: float = 5e-3
  weight_decay: float = 0.01
  batch_size: int = 256
  share: float = 1.0
  temperature: float = 1.0
  weights: Mapping[str, float] | None = None
  rounded: bool = True
  sizes: Sizes | None = None
  hash_bits: int = 8
  row: tuple[Any, ...] | None = None

  def __post_init__(self) -> None:
    for name in ('num_steps', 'batch_size'):
      value = getattr(self, name)
      if not _checks.is_whole_number(value):
        raise ValueError(
          f'{name} must be a whole number of at least 1, found {value!r}'
        )
    if not 0 < self.learning_rate < math.inf:
      raise ValueError(
        f'learning_rate must be a number > 0, found {self.learning_rate!r}'
      )
    if not 0 <= self.weight_decay < math.inf:
      raise ValueError(
        f'weight_decay must be a number >= 0, found {self.weight_decay!r}'
      )
    for name, factor in (self.weights or {}).items():
      if not 0 < factor < math.inf:
        raise ValueError(
          f'weights must be numbers > 0, found {factor!r} for task {name!r}'
        )
    if not 0 <= self.share <= 1:
      raise ValueError(f'share must be from 0 to 1, found {self.share!r}')


@dataclasses.dataclass(frozen=True)
class Within:
  """A budget in terms of quality: the fewest bytes that are good enough.

  Attributes:
    tolerance: by how much the primary metric of each task, the mean over the
      student's seeds on the validation rows, may be below that of the model to
      be compressed (`Compressed.dense`). A task without metrics has its loss.
    least: bytes of the smallest student to try.
    most: bytes of the largest.
  """

  tolerance: float = 0.002
  least: int = 512
  most: int = 65536

  def __post_init__(self) -> None:
    if not 0 <= self.tolerance < math.inf:
      raise ValueError(
        f'tolerance must be a number >= 0, found {self.tolerance!r}'
      )
    whole = map(_checks.is_whole_number, (self.least, self.most))
    if not all(whole) or self.least > self.most:
      raise ValueError(
        'least and most must be whole numbers of bytes, the smaller one first; '
        f'found {self.least!r} and {self.most!r}'
      )
