"""Teachers: their outputs, from ensembles and other libraries, and checks."""

import functools
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import losses, ordinal
from lplmtl.compression import links
from lplmtl.types import Array, Task


class TeacherError(ValueError):
  """A teacher from which there is nothing to learn."""


def to_logits(task: Task, predictions: Any) -> np.ndarray:
  """Converts what another library predicts to the outputs of a task.

  | task | predictions |
  |---|---|
  | binary | `[N]` or `[N, 1]` probabilities of yes |
  | multiclass, ordinal | `[N, C]` probabilities of the classes |
  | multilabel | `[N, K]` probabilities |
  | regression | `[N]` or `[N, 1]` numbers, in the unit of the labels |
  | poisson | `[N]` or `[N, 1]` rates |

  Probabilities are clipped to 1e-7 and 1 - 1e-7, so that logits are finite.

  Args:
    task: the task, which says what the predictions are.
    predictions: see above; such as `booster.predict(rows)` of LightGBM, or
      `predict_proba(rows)[:, 1]` of scikit-learn.

  Returns:
    `[N, K]` float32.

  Raises:
    ValueError: other shapes, numbers that are not finite, or probabilities
      outside 0 to 1.

  Example:
    >>> from lplmtl import tasks
    >>> to_logits(tasks.binary('click'), [0.5, 1.0]).astype(int).tolist()
    [[0], [16]]
  """
  link = links.of(task)
  means = np.asarray(predictions, np.float64)
  is_ordinal = task.loss_fn is losses.ordinal_cross_entropy
  width = task.num_outputs + is_ordinal
  if means.ndim == 1 and width == 1:
    means = means[:, None]
  if means.ndim != 2 or means.shape[1] != width:
    raise ValueError(
      f'task {task.name!r}: expected predictions of shape [N, {width}], found '
      f'{means.shape}'
    )
  low = -np.inf if link.kind == 'number' else 0
  high = 1 if link.kind in ('decisions', 'classes') else np.inf
  if not (np.isfinite(means) & (means >= low) & (means <= high)).all():
    raise ValueError(
      f'task {task.name!r}: expected finite predictions from {low} to {high}, '
      f'found {means.min()} to {means.max()}; raw scores of a booster are '
      'logits already'
    )
  if is_ordinal:  # to the probabilities of being above a class
    means = links.DECISIONS.mean(np.asarray(ordinal.logits(means)))
  return link.outputs(means).astype(np.float32)


def ensemble_logits(task: Task, logits: Any) -> np.ndarray:
  """Returns the outputs of the mean prediction of several teachers.

  Probabilities and rates are averaged, not logits. For teachers of several
  kinds, such as five networks and a booster, average each kind first.

  Args:
    task: the task, which says what is averaged.
    logits: `[S, N, ..., K]`, or a list of S arrays `[N, ..., K]`.

  Returns:
    `[N, ..., K]` float32.

  Raises:
    ValueError: there is no teacher, or their shapes differ.

  Example:
    >>> from lplmtl import tasks
    >>> members = np.log([[[3.0]], [[1 / 3]]])  # probabilities .75 and .25
    >>> abs(ensemble_logits(tasks.binary('click'), members)).tolist()
    [[0.0]]
  """
  shapes = {np.shape(member) for member in logits}
  if len(shapes) != 1 or len(next(iter(shapes))) < 2:
    raise ValueError(
      f'task {task.name!r}: expected outputs [N, ..., K] of one shape, found '
      f'{sorted(shapes)}'
    )
  link = links.of(task)
  members = np.asarray(logits, np.float64)
  return link.outputs(link.mean(members).mean(axis=0)).astype(np.float32)


def check_teacher(
  task: Task,
  logits: Any,
  labels: Any,
  *,
  where: Any = None,
  rivals: Mapping[str, Any] | None = None,
) -> dict[str, float]:
  """Checks a teacher on validation rows, which it must not have seen.

  A booster that stopped after its third tree, or a network that diverged,
  spoils every student that learns from it. Compares the loss and the primary
  metric with those of a constant and of other models.

  Args:
    task: the task.
    logits: `[N, ..., K]`, the teacher's outputs.
    labels: `[N, ...]`.
    where: `[N]` bool, True where a row has a label; None if all have.
    rivals: `{name: [N, ..., K] outputs}` of models that the teacher should
      beat, such as the student trained by itself.

  Returns:
    `{'loss': ..., metric: ...}` of the teacher.

  Raises:
    TeacherError: the teacher is not better than the best constant; a
      ValueError.
    ValueError: no row has a label, or shapes do not match.

  Warns:
    UserWarning: a rival has a smaller loss, or a better primary metric.

  Example:
    >>> from lplmtl import tasks
    >>> labels = np.array([0, 0, 1, 1])
    >>> teacher = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> check_teacher(tasks.binary('click'), teacher, labels)['auc']
    1.0
  """
  known = np.ones(len(labels), bool) if where is None else np.asarray(where)
  if not known.any():
    raise ValueError(f'task {task.name!r}: no validation row has a label')
  labels = np.asarray(labels)[known]

  compiled = jax.jit(functools.partial(_measure, task))

  def measure(outputs: Any) -> dict[str, float]:
    some = jnp.asarray(outputs, jnp.float32)[known]
    return jax.tree.map(float, compiled(some, labels))

  outputs = np.asarray(logits)
  own = measure(outputs)
  constant = measure(np.broadcast_to(_constant(task, labels), outputs.shape))
  # A good teacher may have the accuracy of a constant, where one class is far
  # more frequent than the others; its loss is smaller all the same.
  bad = [name for name in own if _is_better(name, constant[name], own[name])]
  if bad or not own['loss'] < constant['loss']:
    name = bad[0] if bad else 'loss'
    raise TeacherError(
      f"task {task.name!r}: the teacher's {name} on the validation rows is "
      f'{own[name]:.4f}, that of a constant {constant[name]:.4f}: train it '
      'longer, or use another one'
    )
  for rival, its_outputs in (rivals or {}).items():
    for name, value in measure(its_outputs).items():
      if _is_better(name, value, own[name]):
        warnings.warn(
          f"task {task.name!r}: the teacher's {name} on the validation rows is "
          f'{own[name]:.4f}, that of {rival} {value:.4f}: a better teacher '
          'makes a better student',
          stacklevel=2,
        )
  return own


def constant_loss(task: Task, labels: Any, where: Any = None) -> float:
  """Returns the mean loss of the best constant.

  Args:
    task: the task.
    labels: `[N, ...]`.
    where: `[N]` bool, True where a row has a label; None if all have.
  """
  labels = np.asarray(labels)
  labels = labels if where is None else labels[np.asarray(where)]
  outputs = _constant(task, labels)
  every = jnp.broadcast_to(outputs, (len(labels), *outputs.shape))
  return float(task.loss_fn(every, labels).mean())


def _constant(task: Task, labels: np.ndarray) -> np.ndarray:
  """Returns the outputs of the best constant, float32."""
  mean = links.targets(task, labels).mean(axis=0)
  return links.of(task).outputs(mean).astype(np.float32)


def _measure(task: Task, outputs: Array, labels: Array) -> dict[str, Array]:
  """Returns the mean loss and, if there is one, the primary metric."""
  where = jnp.ones(len(labels), bool)
  metrics = list(task.metric_fns.items())[:1]
  return {
    'loss': task.loss_fn(outputs, labels).mean(),
    **{name: fn(outputs, labels, where) for name, fn in metrics},
  }


def _is_better(name: str, value: float, other: float) -> bool:
  """Returns whether a metric is better; never, if one is undefined."""
  return value < other if name == 'loss' else value > other
