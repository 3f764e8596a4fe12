"""Distillation: a small student learns from what a teacher predicts.

`fit` needs no change: a distilled task is a Task, whose labels are a dict:

- `hard`: `[B, ...]`, the labels of the rows;
- `soft`: `[B, ..., K]`, the teacher's outputs (logits), see `teachers`;
- `known`: `[B]` bool, False where only the teacher labels the row.

    student = MMoE(tuple(distillation.distilled(task) for task in tasks))
    fit(key, student, optimizer, balancer,
        distillation.with_teacher(tasks, data, logits))

The parameters are those of the same student with the original tasks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lplmtl import _checks, losses
from lplmtl.compression import links, soft
from lplmtl.types import Array, Batch, LossFn, MetricFn, Task

_FORM = "a dict of 'hard', 'soft' and 'known': see distillation.with_teacher"


@dataclasses.dataclass(frozen=True)
class Distilled:
  """The loss of a distilled task: a share of it is the teacher's.

      (1 - share) hard + share soft;    soft alone where there is no label

  Attributes:
    hard: the task's own loss.
    soft: `(predictions [B, ..., K], teacher's outputs [B, ..., K]) -> [B]`.
    share: of the soft loss, from 0 to 1.
  """

  hard: LossFn
  soft: LossFn
  share: float = 1.0

  def __post_init__(self) -> None:
    if not 0 <= self.share <= 1:
      raise ValueError(f'share must be from 0 to 1, found {self.share!r}')

  def __call__(self, predictions: Array, labels: Any) -> Array:
    """Returns one loss per row, `[B]` float32.

    Raises:
      ValueError: labels or shapes do not match.
    """
    check_form(labels)
    hard = self.hard(predictions, labels['hard'])
    soft = self.soft(predictions, labels['soft'])
    mixed = (1 - self.share) * hard + self.share * soft
    return jnp.where(labels['known'].astype(bool), mixed, soft)


@dataclasses.dataclass(frozen=True)
class HardMetric:
  """A metric of a distilled task: that of the rows with labels of their own.

  Attributes:
    metric_fn: see `Task.metric_fns`.
  """

  metric_fn: MetricFn

  def __call__(self, predictions: Array, labels: Any, where: Array) -> Array:
    """Returns a scalar.

    Raises:
      ValueError: labels do not match.
    """
    check_form(labels)
    known = where & labels['known'].astype(bool)
    return self.metric_fn(predictions, labels['hard'], known)


def check_form(labels: Any) -> None:
  """Raises ValueError unless labels are those of a distilled task."""
  if not isinstance(labels, Mapping) or {'hard', 'soft', 'known'} - set(labels):
    found = sorted(labels) if isinstance(labels, Mapping) else 'an array'
    raise ValueError(
      f'the labels of a distilled task must be {_FORM}; found {found}'
    )


def distilled(
  task: Task, *, share: float = 1.0, temperature: float = 1.0
) -> Task:
  """Returns a task that learns from a teacher, with the same name and metrics.

  What the soft loss compares:

  | task | soft loss |
  |---|---|
  | binary, focal, multilabel, ordinal | each logit, as a probability |
  | multiclass | the probabilities of the classes |
  | regression, huber | the task's loss, from the teacher's number |
  | poisson | the task's loss, from the teacher's rate |

  That of a focal task is the plain cross-entropy, too: it is smallest where the
  student's logits are the teacher's, which a focal loss is not.

  Args:
    task: of `lplmtl.tasks`, or another one with a loss of `lplmtl.losses`.
    share: of the soft loss in that of a labelled row, from 0 (the labels alone)
      to 1 (the teacher alone).
    temperature: T > 0, see `SoftDecisions`; 1 for numbers and counts, which
      have no probabilities to soften.

  Raises:
    ValueError: `share` or `temperature` is out of range, or the loss is not
      one of `lplmtl.losses`.

  Example:
    >>> from lplmtl import tasks
    >>> task = distilled(tasks.binary('click'), share=0.9)
    >>> task.name, list(task.metric_fns)[:1], task.loss_fn.share
    ('click', ['auc'], 0.9)
  """
  soft.check_temperature(temperature)
  kind = links.of(task).kind
  soft_loss: LossFn
  if kind == 'decisions':
    soft_loss = soft.SoftDecisions(temperature)
  elif kind == 'classes':
    soft_loss = soft.SoftClasses(temperature)
  elif temperature != 1:
    raise ValueError(
      f'task {task.name!r}: the temperature of a {kind} must be 1, found '
      f'{temperature!r}: only probabilities can be softened'
    )
  else:
    soft_loss = soft.SoftNumber(task.loss_fn, is_count=kind == 'count')
  return Task(
    name=task.name,
    loss_fn=Distilled(task.loss_fn, soft_loss, share),
    num_outputs=task.num_outputs,
    metric_fns={name: HardMetric(fn) for name, fn in task.metric_fns.items()},
    # `with_teacher` checks the labels: the range is not that of the logits.
    label_range=None,
  )


def with_teacher(
  tasks: Sequence[Task], batch: Batch, logits: Mapping[str, Any]
) -> Batch:
  """Returns rows with the labels of distilled tasks.

  Args:
    tasks: the tasks as they were before `distilled`; others than those with a
      teacher may be left out.
    batch: N rows. Rows without a label under `where` remain, for the teacher to
      label. A task without labels at all may be left out of `labels`: the
      teacher alone then labels every row (it needs `share=1`, or rows of
      another batch to learn from the labels).
    logits: `{task: [N, ..., K]}`, the teacher's outputs for these rows, such as
      `evaluation.predict`'s or `teachers.ensemble_logits`'s. A task that they
      do not name keeps its labels, and must not be distilled.

  Raises:
    ValueError: an unknown task, other shapes than `[N, ..., K]`, outputs that
      are not finite, or labels out of their task's range.

  Example:
    >>> from lplmtl import tasks
    >>> batch = Batch(np.ones((2, 3)), {'click': np.array([0, 1])})
    >>> found = with_teacher([tasks.binary('click')], batch,
    ...                      {'click': np.array([[-2.0], [1.5]])})
    >>> {name: leaf.shape for name, leaf in found.labels['click'].items()}
    {'hard': (2,), 'soft': (2, 1), 'known': (2,)}
  """
  by_name = {task.name: task for task in tasks}
  if unknown := sorted(set(logits) - set(by_name)):
    raise ValueError(
      f'the teacher labels {unknown}, which are not tasks; the tasks are '
      f'{sorted(by_name)}'
    )
  num_rows = _checks.num_rows(batch.features)
  labels, where = dict(batch.labels), dict(batch.where or {})
  for name, outputs in logits.items():
    labels[name] = _labels(
      by_name[name],
      np.asarray(outputs, np.float32),
      labels.get(name),
      where.pop(name, None),
      num_rows,
    )
  return batch._replace(labels=labels, where=where or None)


def _labels(
  task: Task, soft: np.ndarray, hard: Any, where: Any, num_rows: int
) -> dict[str, np.ndarray]:
  fits = soft.ndim >= 2 and soft.shape[-1] == task.num_outputs
  if not fits or len(soft) != num_rows:
    raise ValueError(
      f"task {task.name!r}: the teacher's outputs must be "
      f'[{num_rows}, ..., {task.num_outputs}], found {soft.shape}'
    )
  if not np.isfinite(soft).all():
    raise ValueError(
      f"task {task.name!r}: the teacher's outputs are not all finite: leave "
      'those rows out'
    )
  known = np.ones(num_rows, bool) if where is None else np.asarray(where)
  if hard is None:
    hard, known = np.zeros(_label_shape(task, soft)), np.zeros(num_rows, bool)
  hard = np.asarray(hard)
  if hard.shape != _label_shape(task, soft):
    raise ValueError(
      f'task {task.name!r}: the labels must be {_label_shape(task, soft)} like '
      f"the teacher's outputs, found {hard.shape}"
    )
  low, high = task.label_range or (-np.inf, np.inf)
  if known.any() and not ((hard[known] >= low) & (hard[known] <= high)).all():
    raise ValueError(
      f'the labels of task {task.name!r} must be from {low} to {high}, found '
      f'{hard[known].min()} to {hard[known].max()}'
    )
  missing = ~known.reshape(-1, *[1] * (hard.ndim - 1))
  return {'hard': np.where(missing, 0, hard), 'soft': soft, 'known': known}


def _label_shape(task: Task, soft: np.ndarray) -> tuple[int, ...]:
  is_multilabel = task.loss_fn is losses.multilabel_cross_entropy
  return soft.shape if is_multilabel else soft.shape[:-1]
