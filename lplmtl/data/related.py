"""Tasks that are related as closely as asked for, and how well one can do.

Ma et al. 2018 (section 3.2) draw two regressions whose weights have a given
cosine. `related` draws any number of tasks, in clusters, of numbers or of
yes/no labels, each with noise and a unit of its own. As the rows are generated,
the best possible outputs are known, and with them how much a model loses.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lplmtl import tasks as kinds
from lplmtl.types import Batch, Task

_KINDS = {'regression': kinds.regression, 'binary': kinds.binary}


class Drawn(NamedTuple):
  """Generated rows.

  Attributes:
    batch: features `[N, D]` float32; labels `{task: [N]}`, float32 for numbers
      and int32 for yes/no.
    ideal: `{task: [N]}` float32, the outputs that no model betters on average:
      means of numbers, log-odds of yes/no labels.
  """

  batch: Batch
  ideal: dict[str, np.ndarray]


class Problem(NamedTuple):
  """Tasks, and where their rows come from.

  Attributes:
    tasks: T tasks.
    draw: `(num_rows, seed) -> Drawn`. All seeds draw from one distribution.
  """

  tasks: tuple[Task, ...]
  draw: Callable[[int, int], Drawn]


class Outcome(NamedTuple):
  """How the labels of a task come from its mean m.

  Attributes:
    kind: `regression`, a number `scale (m + noise e)` with e standard normal;
      or `binary`, 1 if `m + noise e > 0` with e standard logistic, so that the
      log-odds are `m / noise`.
    num_sines: M >= 0; with 0 the mean is linear, and easy to learn.
    noise: >= 0, positive for yes/no labels; 0.1 is the paper's.
    scale: > 0, the unit of a number; yes/no labels have none.
  """

  kind: str = 'regression'
  num_sines: int = 4
  noise: float = 0.1
  scale: float = 1.0


def related(
  seed: int = 0,
  outcomes: Sequence[Outcome] = (Outcome(), Outcome()),
  *,
  correlation: float = 0.9,
  num_clusters: int = 1,
  num_features: int = 100,
) -> Problem:
  """Draws tasks whose weights have a given cosine, after Ma et al. 2018.

  Row x has D standard normal features, and task k the mean

      m_k = w_k x + sum over i = 1..M of sin(i w_k x + b_i)        (eq. 2, 3)

  with unit vectors w_k: `w_j w_k` is `correlation` for two tasks of a cluster,
  and 0 for tasks of different ones. All tasks have the same phases b_i, so that
  tasks with correlation 1 are one and the same.

  Departures from the paper, which leaves M, the frequencies and the phases
  open: frequencies 1 to M and uniform phases; M = 4 leaves small networks
  something to lose on 10,000 rows (with 1, all are nearly ideal). Clusters, and
  outcomes that differ between tasks, are additions.

  Args:
    seed: of weights and phases: another seed is another problem.
    outcomes: one for each of T tasks, which are named `task_1` to `task_T`.
    correlation: from -1 to 1.
    num_clusters: at most T; of equal size or nearly so, one after the other.
    num_features: D >= T.

  Raises:
    ValueError: an argument is out of bounds, or no weights have such cosines
      (three tasks cannot all have cosines of -1).

  Example:
    >>> problem = related(0, [Outcome(), Outcome('binary')], correlation=0.5)
    >>> rows = problem.draw(1000, seed=1)
    >>> rows.batch.features.shape, sorted(rows.batch.labels)
    ((1000, 100), ['task_1', 'task_2'])
    >>> found = optimum(problem.tasks, rows)  # primary metrics: R² and AUC
    >>> 0.99 < found['task_1'] < 1 and 0.98 < found['task_2'] < 1
    True

  References:
    Ma et al. 2018, "Modeling Task Relationships in Multi-task Learning with
    Multi-gate Mixture-of-Experts", section 3.2.
  """
  _check(outcomes, num_clusters, num_features)
  rng = np.random.default_rng(seed)
  weights = _weights(
    rng, len(outcomes), correlation, num_clusters, num_features
  )
  phases = rng.uniform(0, 2 * np.pi, max(o.num_sines for o in outcomes))
  tasks = tuple(_KINDS[o.kind](f'task_{k + 1}') for k, o in enumerate(outcomes))

  def draw(num_rows: int, seed: int) -> Drawn:
    if num_rows < 1:
      raise ValueError(f'expected at least 1 row, found {num_rows}')
    # Two numbers, so that the rows do not repeat the draws above.
    rng = np.random.default_rng((seed, 1))
    x = rng.normal(size=(num_rows, num_features))
    labels, ideal = {}, {}
    for task, outcome, product in zip(
      tasks, outcomes, weights @ x.T, strict=True
    ):
      mean = product + sum(
        np.sin((i + 1) * product + phases[i]) for i in range(outcome.num_sines)
      )
      labels[task.name], ideal[task.name] = _label(rng, outcome, mean)
    return Drawn(Batch(x.astype(np.float32), labels), ideal)

  return Problem(tasks, draw)


def optimum(tasks: Sequence[Task], rows: Drawn) -> dict[str, float]:
  """Returns `{task: primary metric}` of the ideal outputs on some rows.

  What a model's metric lacks to it is the model's regret.

  Args:
    tasks: of a Problem.
    rows: that it drew.

  Raises:
    ValueError: the rows are not `Drawn`, or those of other tasks.
  """
  if not isinstance(rows, Drawn):
    raise ValueError(
      'expected the rows as Problem.draw returns them, with their ideal '
      f'outputs; found {type(rows).__name__}'
    )
  for task in tasks:
    if task.name not in rows.ideal:
      raise ValueError(
        f'expected rows of a problem with {task.name}; these have '
        f'{", ".join(rows.ideal)}: draw them from the problem of these tasks'
      )
  found = {}
  for task in tasks:
    # Compiled: the AUC by single operations takes a hundred small programs.
    metric = jax.jit(next(iter(task.metric_fns.values())))
    ideal: Any = rows.ideal[task.name]
    labels = rows.batch.labels[task.name]
    is_there = (rows.batch.where or {}).get(task.name)
    where: Any = np.ones(len(labels), bool) if is_there is None else is_there
    found[task.name] = float(metric(ideal, labels, where))
  return found


def keep_labels(batch: Batch, counts: Mapping[str, int], seed: int) -> Batch:
  """Hides the labels of all but some rows, drawn at random for each task.

  Args:
    batch: rows that have no `where` yet.
    counts: `{task: how many labels to keep}`; other tasks keep all.
    seed: of the draw; more labels of one seed include fewer.

  Returns:
    The rows, with `where`.

  Raises:
    ValueError: a task is unknown, a count is not from 1 to N, or the rows have
      a `where`.

  Example:
    >>> rows = related().draw(50, seed=0).batch
    >>> int(keep_labels(rows, {'task_2': 10}, seed=0).where['task_2'].sum())
    10
  """
  if batch.where is not None:
    raise ValueError(
      'some labels are hidden already: give the counts of all tasks at once'
    )
  where: dict[str, Any] = {}
  for number, (task, count) in enumerate(sorted(counts.items())):
    if task not in batch.labels:
      raise ValueError(
        f'expected one of {", ".join(batch.labels)}, found {task!r}'
      )
    num_rows = len(batch.labels[task])
    if not 1 <= count <= num_rows:
      raise ValueError(
        f'{task}: expected 1 to {num_rows} labels, found {count}'
      )
    order = np.random.default_rng((seed, 2, number)).permutation(num_rows)
    where[task] = np.zeros(num_rows, bool)
    where[task][order[:count]] = True
  return batch._replace(where=where)


def _check(
  outcomes: Sequence[Outcome], num_clusters: int, num_features: int
) -> None:
  if not isinstance(outcomes, Sequence):
    raise ValueError(
      'expected a list of Outcomes, one for each task, such as '
      f'[Outcome()] * 2; found {outcomes!r}'
    )
  if not 1 <= num_clusters <= len(outcomes) <= num_features:
    raise ValueError(
      'expected 1 <= num_clusters <= tasks <= num_features, found '
      f'{num_clusters}, {len(outcomes)} and {num_features}'
    )
  for outcome in outcomes:
    if not isinstance(outcome, Outcome):
      raise ValueError(f'expected an Outcome for each task, found {outcome!r}')
    kind, num_sines, noise, scale = outcome
    if kind not in _KINDS:
      raise ValueError(
        f'expected a kind of {" or ".join(_KINDS)}, found {kind!r}'
      )
    is_noisy = noise > 0 or (noise == 0 and kind != 'binary')
    if not (num_sines >= 0 and is_noisy and scale > 0):
      raise ValueError(
        'expected num_sines >= 0, noise >= 0 (> 0 for yes/no labels) and scale '
        f'> 0, found {outcome}'
      )


def _label(
  rng: np.random.Generator, outcome: Outcome, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns labels and the ideal outputs, `[N]` each."""
  kind, _, noise, scale = outcome
  if kind == 'binary':
    is_positive = mean + noise * rng.logistic(size=len(mean)) > 0
    return is_positive.astype(np.int32), (mean / noise).astype(np.float32)
  numbers = scale * (mean + noise * rng.normal(size=len(mean)))
  return numbers.astype(np.float32), (scale * mean).astype(np.float32)


def _weights(
  rng: np.random.Generator,
  num_tasks: int,
  correlation: float,
  num_clusters: int,
  num_features: int,
) -> np.ndarray:
  """Returns `[T, D]` unit vectors with the cosines that `related` describes."""
  cluster = np.arange(num_tasks) * num_clusters // num_tasks
  cosines = np.where(cluster[:, None] == cluster, float(correlation), 0.0)
  np.fill_diagonal(cosines, 1.0)
  values, vectors = np.linalg.eigh(cosines)
  # Rounding makes an eigenvalue of 0 slightly negative.
  if not (abs(correlation) <= 1 and values.min() > -1e-9):
    raise ValueError(
      f'no {num_tasks} weights in {num_clusters} clusters have cosines of '
      f'{correlation}'
    )
  root = vectors * np.sqrt(np.maximum(values, 0.0))
  basis, _ = np.linalg.qr(rng.normal(size=(num_features, num_tasks)))
  return root @ basis.T
