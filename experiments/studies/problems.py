"""The generated problem of a study: from the text of --problem to rows."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from experiments.datasets.base import Data
from experiments.launcher.errors import InputError
from experiments.studies import digits
from experiments.studies.digits import Digits
from experiments.studies.options import FACTOR
from lplmtl import data as generated
from lplmtl import tables
from lplmtl.types import Batch

_DIGITS = 'digits'


class Setup(Protocol):
  """A problem at one value of the factor."""

  @property
  def rows(self) -> int:
    """Rows to train on."""

  @property
  def task_names(self) -> list[str]:
    """Names of the tasks, in their order."""

  def draw(self, seed: int, num_bins: int = 0) -> Data:
    """Draws a problem and its rows; another seed draws others.

    Args:
      seed: of all.
      num_bins: of each feature.
    """


@dataclasses.dataclass(frozen=True)
class Related:
  """Tasks of a given relatedness; see `lplmtl.data.related`.

  A tuple has one value, or one for each task.

  Attributes:
    tasks: T.
    correlation: cosine of the weights of related tasks.
    clusters: of related tasks.
    features: D.
    kind: of label.
    sines: of the mean.
    noise: in the mean's unit.
    scale: of numbers.
    labels: how many of the training rows keep their label, 0 for all; as large
      a share of the validation rows does.
    rows: to train on.
    validation_rows: to select epochs and settings by.
    test_rows: to score; all have labels.
  """

  tasks: int = 2
  correlation: float = 0.9
  clusters: int = 1
  features: int = 100
  kind: tuple[str, ...] = ('regression',)
  sines: tuple[int, ...] = (4,)
  noise: tuple[float, ...] = (0.1,)
  scale: tuple[float, ...] = (1.0,)
  labels: tuple[int, ...] = (0,)
  rows: int = 10_000
  validation_rows: int = 2_000
  test_rows: int = 20_000

  def __post_init__(self) -> None:
    digits.check_rows(self.rows, self.validation_rows, self.test_rows)
    if not 1 <= self.clusters <= self.tasks <= self.features:
      raise InputError(
        '--problem: expected at least 1 cluster, as many tasks or more, and '
        f'as many features or more; found clusters={self.clusters} '
        f'tasks={self.tasks} features={self.features}'
      )
    if not -1 <= self.correlation <= 1:
      raise InputError(
        '--problem: expected a correlation from -1 to 1, found '
        f'{self.correlation:g}'
      )
    for count in self.labels:
      if not 0 <= count <= self.rows:
        raise InputError(
          f'--problem: expected labels from 1 to rows={self.rows}, or 0 for '
          f'all; found {count}'
        )
    try:
      self.make(0)
    except ValueError as error:
      raise InputError(f'--problem: {error}') from error

  @property
  def task_names(self) -> list[str]:
    """Names of the tasks, in their order."""
    return [f'task_{k + 1}' for k in range(self.tasks)]

  def make(self, seed: int) -> generated.Problem:
    """Returns the problem of a seed; raises ValueError if there is none."""
    outcomes = [
      generated.Outcome(*values)
      for values in zip(
        *(self.of_each(name) for name in ('kind', 'sines', 'noise', 'scale')),
        strict=True,
      )
    ]
    return generated.related(
      seed,
      outcomes,
      correlation=self.correlation,
      num_clusters=self.clusters,
      num_features=self.features,
    )

  def of_each(self, name: str) -> tuple[Any, ...]:
    """Returns a field's value for each of T tasks."""
    values = getattr(self, name)
    if len(values) not in (1, self.tasks):
      raise InputError(
        f'--problem: {name} needs one value, or one for each of {self.tasks} '
        f'tasks; found {len(values)}'
      )
    return values * (self.tasks // len(values))

  def draw(self, seed: int, num_bins: int = 0) -> Data:
    """Draws a problem and its rows; another seed draws others of both.

    Args:
      seed: of all.
      num_bins: of each feature.
    """
    problem = self.make(seed)
    # Three seeds of rows for each problem, none used twice.
    sizes = (self.rows, self.validation_rows, self.test_rows)
    drawn = [problem.draw(size, 3 * seed + i) for i, size in enumerate(sizes)]
    raw = [_columns(rows.batch.features) for rows in drawn]
    encoding = tables.fit({}, raw[0], num_bins=num_bins)
    train, validation, test = (
      rows.batch._replace(features=encoding.encode(columns))
      for rows, columns in zip(drawn, raw, strict=True)
    )
    return Data(
      tasks=problem.tasks,
      train=self._hide(train, 3 * seed),
      validation=self._hide(validation, 3 * seed + 1),
      test=test,
      tables=encoding,
      facts={'rows': {'train': self.rows}},
      optimum=generated.optimum(problem.tasks, drawn[2]),
    )

  def _hide(self, batch: Batch, seed: int) -> Batch:
    num_rows = len(batch.labels['task_1'])
    counts = {
      f'task_{k + 1}': max(1, round(count * num_rows / self.rows))
      for k, count in enumerate(self.of_each('labels'))
      if count
    }
    return generated.keep_labels(batch, counts, seed) if counts else batch


def _columns(features: np.ndarray) -> dict[str, np.ndarray]:
  return {f'x{i + 1}': column for i, column in enumerate(features.T)}


def parse(text: str, value: str) -> Setup:
  """Parses `'correlation=@ noise=0.1,0.5'`, with a value of the factor.

  The first word may be `digits`, for `Digits`.

  Raises:
    InputError: a field is unknown or given twice, or has no such value.
  """
  first, *rest = text.split() or ['']
  kind: Any = Digits if first == _DIGITS else Related
  parts = rest if kind is Digits else [first, *rest]
  known = {field.name: field.default for field in dataclasses.fields(kind)}
  found: dict[str, Any] = {}
  for part in filter(None, parts):
    name, equals, given = part.partition('=')
    if not equals or name not in known:
      near = difflib.get_close_matches(name, known)
      hint = f'did you mean {" or ".join(near)}? ' if near else ''
      raise InputError(
        f'--problem: {part!r} sets no field; {hint}expected field=value with '
        f'one of {", ".join(known)}'
      )
    if name in found:
      raise InputError(f'--problem sets {name} twice: once is enough')
    found[name] = _value(name, given.replace(FACTOR, value), known[name])
  return kind(**found)


def setups(text: str, values: Sequence[str]) -> dict[str, Setup]:
  """Returns `{value: Setup}` for all values of the factor.

  Raises:
    InputError: as `parse`, or there is no factor, or a value is given twice.
  """
  if FACTOR not in text:
    raise InputError(
      f'--problem={text}: nothing varies; put {FACTOR} in place of what does, '
      f'such as correlation={FACTOR}'
    )
  for value in values:
    if not value or values.count(value) > 1:
      raise InputError(
        f'--values must be different texts, found {",".join(values)!r}'
      )
  if not values:
    raise InputError('--values must name at least one value')
  return {value: parse(text, value) for value in values}


def _value(name: str, text: str, default: Any) -> Any:
  is_list = isinstance(default, tuple)
  kind = type(default[0] if is_list else default)
  try:
    values = tuple(kind(part) for part in text.split(','))
  except ValueError:
    values = ()
  if not values or (len(values) > 1 and not is_list):
    what = {int: 'a whole number', float: 'a number', str: 'a word'}[kind]
    several = ', or several separated by commas' if is_list else ''
    raise InputError(f'--problem: {name} must be {what}{several}; found {text}')
  return values if is_list else values[0]
