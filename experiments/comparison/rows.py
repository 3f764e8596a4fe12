"""A row of the table, from its first fit to its figures.

There are two kinds of rows, `networks.Networks` and `trees.Trees`; everything
here works with either.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments.comparison.cells import Cell, Fitted, Store
from experiments.launcher import display, quality
from lplmtl import training
from lplmtl.types import Task

# `{setting: {task: [S]}}`, primary validation metrics; larger is better.
Scores = Mapping[str, Mapping[str, Sequence[float]]]


class Row(Protocol):
  """What every kind of row can do."""

  @property
  def name(self) -> str:
    """The row as `--row` gives it."""

  @property
  def num_settings(self) -> int:
    """Number of settings that the row tries."""

  @property
  def num_fits(self) -> int:
    """Number of models trained for the row in total."""

  def check(self) -> None:
    """Raises InputError for sizes that cannot be trained on these rows."""

  def tuning(self) -> list[Cell]:
    """Returns cells that try all settings; none if there is only one.

    They return what `tried` does.
    """

  def choose(self, scores: Scores) -> dict[str, str]:
    """Returns the best settings, `{task: setting}`.

    Args:
      scores: empty if there is only one.
    """

  def final(self, chosen: Mapping[str, str]) -> Cell:
    """Returns the fit with fresh seeds.

    Its facts hold `test` and `validation` (`{task: {metric: {mean, std,
    per_seed}}}`), `parameters` and `latency` (seconds per row) at least; its
    arrays are logits of the test rows, `{task: [S, N]}` (`[S, N, K]` for K
    classes).
    """


class Finished(NamedTuple):
  """A finished row.

  Attributes:
    name: of the row.
    chosen: `{task: setting}`.
    num_fits: models trained for it.
    facts: of the final fit.
    scores: `{task: [S, N]}`, logits of the test rows.
    environment: versions, device and commit of the final fit.
    num_settings: tried for it.
  """

  name: str
  chosen: dict[str, str]
  num_fits: int
  facts: dict[str, Any]
  scores: dict[str, np.ndarray]
  environment: dict[str, Any]
  num_settings: int = 1


def fit(
  row: Row,
  store: Store,
  is_late: Callable[[], bool],
  note: Callable[[str], None],
) -> bool:
  """Fits what a row still lacks.

  Args:
    row: any row.
    store: of the finished cells.
    is_late: returns whether it is too late to start another fit.
    note: called with a line per fit, and per warning.

  Returns:
    False if time ran out before the row was finished.

  Raises:
    NonFiniteError: every setting diverged, or the final fit did.
  """
  for cell in row.tuning():
    if not _fit_cell(cell, row.name, store, is_late, note):
      return False
  final = _final_cell(row, store)
  assert final is not None  # its settings have just been tried
  return _fit_cell(final, row.name, store, is_late, note)


def finished(row: Row, store: Store) -> Finished | None:
  """Returns a row's figures; None unless all of its fits are finished."""
  try:
    cell = _final_cell(row, store)
  except training.NonFiniteError:
    return None
  fitted = store.load(cell) if cell else None
  if cell is None or fitted is None:
    return None
  return Finished(
    row.name,
    chosen(row, store) or {},
    row.num_fits,
    fitted.facts,
    fitted.arrays,
    store.environment(cell),
    row.num_settings,
  )


def tried(
  scores: Mapping[str, Mapping[str, Sequence[float]] | None],
  tasks: Sequence[Task],
) -> Fitted:
  """Returns what becomes of settings.

  Args:
    scores: as `Scores`; None in place of a setting's if it diverged.
    tasks: whose primary metrics they are.
  """
  metrics = {task.name: primary(task) for task in tasks}
  return Fitted({'scores': scores, 'metrics': metrics}, {})


def primary(task: Task) -> str:
  """Returns the name of a task's primary metric; `loss` if it has none."""
  return quality.primary(task.metric_fns or {'loss': None})


def best(scores: Scores, tasks: Sequence[str]) -> str:
  """Returns the setting with the best mean over tasks; the first in a tie.

  A task whose metric is NaN in every setting (the validation rows do not define
  it) does not count; a setting with any other NaN ranks last.
  """
  means = {
    setting: {task: np.mean(metrics[task]) for task in tasks}
    for setting, metrics in scores.items()
  }
  counted = [
    task
    for task in tasks
    if not all(np.isnan(metrics[task]) for metrics in means.values())
  ]

  def mean(setting: str) -> float:
    value = np.mean([scores[setting][task] for task in counted or tasks])
    return float(np.nan_to_num(value, nan=-np.inf))

  return max(scores, key=mean)


def larger_is_better(metric: str, values: Any) -> list[float]:
  """Returns the `[S]` values of a metric as Scores: a loss is negated."""
  array = np.asarray(values, float)
  return (-array if quality.is_loss(metric) else array).tolist()


def without_single(logits: np.ndarray) -> np.ndarray:
  """Returns `[S, N]` in place of `[S, N, 1]`; other shapes as they are."""
  return logits[..., 0] if logits.shape[-1] == 1 else logits


def chosen(row: Row, store: Store) -> dict[str, str] | None:
  """Returns `{task: setting}`; None unless all settings have been tried.

  Settings that diverged are left out.

  Raises:
    NonFiniteError: every setting diverged.
  """
  tuning = row.tuning()
  if not tuning:
    return row.choose({})
  scores: dict[str, Any] = {}
  for cell in tuning:
    fitted = store.load(cell)
    if fitted is None:
      return None
    for setting, metrics in fitted.facts['scores'].items():
      if metrics is not None:
        scores[setting] = metrics
  if not scores:
    raise training.NonFiniteError(
      'losses or gradients are not finite in any setting: lower the learning '
      'rate'
    )
  return row.choose(scores)


def _final_cell(row: Row, store: Store) -> Cell | None:
  setting = chosen(row, store)
  return row.final(setting) if setting else None


def _fit_cell(
  cell: Cell,
  name: str,
  store: Store,
  is_late: Callable[[], bool],
  note: Callable[[str], None],
) -> bool:
  """Fits a cell if it is missing; returns False if it is too late to."""
  if store.load(cell) is not None:
    return True
  if is_late():
    return False
  start = time.perf_counter()
  with display.plain_warnings(note):
    fitted = cell.fit()
  store.save(cell, fitted)
  seconds = time.perf_counter() - start
  note(f'{name}: {_summary(fitted.facts)} ({seconds:.1f} s)')
  return True


def _summary(facts: Mapping[str, Any]) -> str:
  """Returns the figures of a fit as part of a line."""
  if 'scores' not in facts:
    names = {task: quality.primary(m) for task, m in facts['test'].items()}
    values = {
      task: facts['test'][task][name]['mean'] for task, name in names.items()
    }
    return f'test {_listed(values, names)}'
  texts = (
    f'{_listed({t: np.mean(v) for t, v in scores.items()}, facts["metrics"])}'
    f'{f" with {setting}" if setting else ""}'
    for setting, scores in facts['scores'].items()
    if scores is not None
  )
  return f'validation {", ".join(texts)}'


def _listed(values: Mapping[str, Any], metrics: Mapping[str, str]) -> str:
  """Returns `AUC 0.9 a 0.8 b`; a metric is named where it changes."""
  parts, last = [], ''
  for task, value in values.items():
    name = quality.label(metrics[task])
    parts += [name] * (name != last) + [quality.shown(value), task]
    last = name
  return ' '.join(parts)
