"""How far a run has come, and how one epoch leads to the next."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from lplmtl.training.steps import TrainState
from lplmtl.types import PyTree, Task

Record = dict[str, Any]


class Choice(NamedTuple):
  """Each seed's best epoch so far, and which seeds still run; `[S]` each.

  Attributes:
    best_epoch: int, from 1; 0 before the first evaluation.
    best_score: float, the mean primary metric of that epoch (see `undefined`).
    stale: int, the evaluations since that epoch.
    active: bool, False once a seed has stopped.
  """

  best_epoch: np.ndarray
  best_score: np.ndarray
  stale: np.ndarray
  active: np.ndarray


class Progress(NamedTuple):
  """All that `fit` needs to resume between two steps.

  Attributes:
    state: the TrainState, with a leading S axis.
    best_params: the best parameters so far, with a leading S axis.
    metrics: `{name: [S, N, ...]}` of the N steps of the current epoch, 0 for
      those to come.
    choice: see `Choice`.
    num_skipped: `[S]` int, the non-finite steps that were skipped before the
      seed stopped.
    epoch: how many epochs are over.
    step: how many steps of the current epoch have been taken, from 0 to N - 1
      (N before the epoch is closed).
    history: one dict for each epoch that is over.
    fingerprint: of the source of the rows; empty for rows in memory.
  """

  state: TrainState
  best_params: PyTree
  metrics: dict[str, np.ndarray]
  choice: Choice
  num_skipped: np.ndarray
  epoch: int
  step: int
  history: tuple[Record, ...]
  fingerprint: str = ''

  @property
  def num_steps(self) -> int:
    """N, the steps of an epoch."""
    return self.metrics['losses'].shape[1]

  @property
  def total_steps(self) -> int:
    """Steps taken since the start."""
    return self.epoch * self.num_steps + self.step


class Keeper(Protocol):
  """What `fit` requires of an object that saves its progress."""

  def restore(self, like: Progress) -> Progress | None:
    """Returns the progress saved last, or None.

    Args:
      like: the progress of a new run; its structure, its shapes and its random
        keys must match.
    """

  def next_pause(self, progress: Progress) -> int:
    """Returns the step of the epoch, from `progress.step + 1` to N, to run to.

    `fit` pauses there, and calls `save_if_due`.
    """

  def save_if_due(self, progress: Progress) -> None:
    """Saves the progress if that is due; an exception ends `fit`."""


def start(
  state: TrainState,
  num_seeds: int,
  num_steps: int,
  num_tasks: int,
  fingerprint: str = '',
) -> Progress:
  """Returns the progress of a run that has not taken a step."""
  shape = (num_seeds, num_steps, num_tasks)
  return Progress(
    state,
    state.params,
    {
      'losses': np.zeros(shape, np.float32),
      'weights': np.zeros(shape, np.float32),
      'present': np.zeros(shape, bool),
      'residual': np.zeros(shape[:2], np.float32),
      'skipped': np.zeros(shape[:2], bool),
    },
    Choice(
      np.zeros(num_seeds, np.int32),
      np.full(num_seeds, -np.inf),
      np.zeros(num_seeds, np.int32),
      np.ones(num_seeds, bool),
    ),
    num_skipped=np.zeros(num_seeds, np.int32),
    epoch=0,
    step=0,
    history=(),
    fingerprint=fingerprint,
  )


def advance(
  progress: Progress,
  state: TrainState,
  new_metrics: Mapping[str, np.ndarray],
  last: int,
  first: int = 0,
) -> Progress:
  """Returns the progress after the steps from `progress.step` to `last`.

  Args:
    progress: before these steps.
    state: the TrainState after them.
    new_metrics: `{name: [S, n, ...]}`, of which only these steps are used.
    last: the number of steps of the epoch that have been taken.
    first: the step of the epoch that the first of the n steps is.
  """
  new, own = (
    slice(progress.step, last),
    slice(progress.step - first, last - first),
  )
  metrics = {name: x.copy() for name, x in progress.metrics.items()}
  for name, x in metrics.items():
    x[:, new] = new_metrics[name][:, own]
  skipped = metrics['skipped'][:, new].sum(axis=1, dtype=np.int32)
  counted = np.where(progress.choice.active, skipped, 0).astype(np.int32)
  return progress._replace(
    state=state,
    metrics=metrics,
    num_skipped=progress.num_skipped + counted,
    step=last,
  )


def end_epoch(
  progress: Progress,
  tasks: Sequence[Task],
  scores: Mapping[str, Mapping[str, np.ndarray]] | None,
  patience: int | None,
) -> tuple[Progress, np.ndarray]:
  """Closes an epoch once all its steps have been taken.

  Args:
    progress: its `step` is N.
    tasks: T tasks.
    scores: `{task: {metric: [S]}}` of the validation rows; None if the epoch
      was not evaluated.
    patience: see `fit`.

  Returns:
    (progress, improved): the progress with one more entry in its history, its
    `best_params` unchanged; `[S]` bool, which seeds have a new best epoch.
  """
  epoch = progress.epoch + 1
  record = _summarise(progress.metrics, epoch, progress.choice.active)
  choice, improved = progress.choice, np.zeros(len(progress.num_skipped), bool)
  if scores is not None:
    record['validation'] = _ordered(scores, tasks)
    without = undefined((*progress.history, record), tasks)
    mean_scores = _score(scores, tasks, without)
    choice, improved = choose(choice, mean_scores, epoch, patience)
  _freeze(record, progress.history)
  return progress._replace(
    metrics={name: np.zeros_like(x) for name, x in progress.metrics.items()},
    choice=choice,
    epoch=epoch,
    step=0,
    history=(*progress.history, record),
  ), improved


def choose(
  choice: Choice, scores: np.ndarray, epoch: int, patience: int | None
) -> tuple[Choice, np.ndarray]:
  """Updates the choice with the scores of an epoch, `[S]`.

  Ties go to the earlier epoch; a seed that has stopped keeps its choice.

  Returns:
    (choice, improved): `improved`, `[S]` bool, is True where the epoch is the
    best so far.
  """
  better = (scores > choice.best_score) | (choice.best_epoch == 0)
  improved = better & choice.active
  stale = np.where(improved, 0, choice.stale + 1).astype(np.int32)
  active = choice.active
  if patience is not None:
    active = active & (stale < patience)
  best_epoch = np.where(improved, epoch, choice.best_epoch).astype(np.int32)
  best_score = np.where(improved, scores, choice.best_score)
  return Choice(best_epoch, best_score, stale, active), improved


def undefined(
  history: Sequence[Mapping[str, Any]], tasks: Sequence[Task]
) -> list[str]:
  """Names the tasks whose primary metric the validation rows do not define.

  An example is the ROC AUC of rows of a single class. Such a metric is NaN for
  every seed with a finite loss, at the first evaluation that has such a seed.
  One evaluation decides for the whole run, so that the scores of all epochs are
  means over the same tasks. A metric that is NaN later, or beside a non-finite
  loss, is that of a bad model.

  Args:
    history: the epochs so far.
    tasks: T tasks.
  """
  evaluations = [r['validation'] for r in history if 'validation' in r]

  def is_undefined(task: Task) -> bool:
    metric = next(iter(task.metric_fns), 'loss')
    for evaluation in evaluations:
      values = evaluation[task.name]
      is_finite = np.isfinite(values['loss'])
      if is_finite.any():
        return bool(np.isnan(values[metric][is_finite]).all())
    return False

  return [task.name for task in tasks if is_undefined(task)]


def _summarise(
  metrics: Mapping[str, np.ndarray], epoch: int, active: np.ndarray
) -> Record:
  """Returns the entry of an epoch in the history, from `[S, N, T]` metrics.

  A mean over no step is NaN, and so are the figures of the last step if all
  steps were skipped.
  """
  skipped = metrics['skipped']
  counted = metrics['present'] & ~skipped[..., None]
  values = np.where(counted, metrics['losses'], 0).astype(np.float64)
  count = counted.sum(axis=1)
  none = np.all(skipped, axis=1)
  last = skipped.shape[1] - 1 - np.argmin(skipped[:, ::-1], axis=1)
  weights = metrics['weights'][np.arange(len(last)), last].astype(np.float64)
  residual = np.where(skipped, 0, metrics['residual']).max(axis=1)
  return {
    'epoch': epoch,
    'losses': np.where(
      count > 0, values.sum(axis=1) / np.maximum(count, 1), np.nan
    ),
    'loss_weights': np.where(none[:, None], np.nan, weights),
    'residual': np.where(none, np.nan, residual.astype(np.float64)),
    'active': active.copy(),
  }


def _score(
  scores: Mapping[str, Mapping[str, np.ndarray]],
  tasks: Sequence[Task],
  without: Sequence[str],
) -> np.ndarray:
  """Returns the mean of the primary metrics, `[S]`; -inf where it is NaN.

  If no task has a metric that is defined: the negated mean loss.
  """
  counted = [task for task in tasks if task.name not in without]
  primary = []
  for task in counted or tasks:
    name = next(iter(task.metric_fns), 'loss') if counted else 'loss'
    values = scores[task.name][name]
    primary.append(-values if name == 'loss' else values)
  mean = np.mean(primary, axis=0, dtype=np.float64)
  return np.where(np.isnan(mean), -np.inf, mean)


def _ordered(
  scores: Mapping[str, Mapping[str, np.ndarray]], tasks: Sequence[Task]
) -> dict[str, dict[str, np.ndarray]]:
  """Restores the order of the tasks: JAX sorts the keys of dicts."""
  return {
    task.name: {
      m: np.asarray(scores[task.name][m], np.float64)
      for m in (*task.metric_fns, 'loss')
    }
    for task in tasks
  }


def _freeze(record: Record, history: Sequence[Record]) -> None:
  """Repeats the last figures of the seeds that have stopped, in place."""
  active = record['active']
  if active.all():
    return
  last = next(r for r in reversed(history) if 'validation' in r)

  def keep(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    mask = active.reshape(active.shape + (1,) * (new.ndim - 1))
    return np.where(mask, new, old)

  for name in ('losses', 'loss_weights', 'residual'):
    record[name] = keep(record[name], last[name])
  for task, values in record.get('validation', {}).items():
    for name, value in values.items():
      values[name] = keep(value, last['validation'][task][name])


def to_json(value: Any) -> Any:
  """Returns a history, or an entry of it, as JSON data."""
  if isinstance(value, dict):
    return {name: to_json(v) for name, v in value.items()}
  if isinstance(value, tuple | list):
    return [to_json(v) for v in value]
  return value.tolist() if isinstance(value, np.ndarray) else value


def from_json(data: Any) -> Any:
  """Returns an entry of a history; the inverse of `to_json`."""
  if isinstance(data, dict):
    return {name: from_json(v) for name, v in data.items()}
  return np.array(data) if isinstance(data, list) else data
