"""Gradient-boosted trees (LightGBM), which a user might choose instead.

Each task has models of its own, on the same rows and inputs as the networks;
see `objectives` for what they learn. Needs the extra `trees`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.comparison import objectives, tree_inputs
from experiments.datasets.base import Data
from experiments.launcher import quality, scoring
from experiments.launcher.errors import InputError
from lplmtl import losses
from lplmtl.training import parallel
from lplmtl.types import Batch, Task

# At most ROUNDS trees; training ends when PATIENCE in a row bring no gain.
ROUNDS, PATIENCE = 2000, 50
# Below this, one thread is as fast, and much faster where others use the cores:
# threads wait for each other at every split. On two busy cores 60 rounds on
# 2,000 rows took 16 s with two threads, and 0.4 s with one.
_MANY_ROWS = 20_000
MAX_PARAMETER = 1e9  # LightGBM stores counts as int32
# The parameters that may be tuned, under LightGBM's names.
NAMES = (
  'bagging_fraction', 'bagging_freq', 'cat_l2', 'cat_smooth', 'extra_trees',
  'feature_fraction', 'feature_fraction_bynode', 'lambda_l1', 'lambda_l2',
  'learning_rate', 'max_bin', 'max_cat_threshold', 'max_cat_to_onehot',
  'max_depth', 'min_data_in_leaf', 'min_data_per_group', 'min_gain_to_split',
  'min_sum_hessian_in_leaf', 'num_leaves', 'path_smooth',
)  # fmt: skip
_FIXED = {
  'verbosity': -1,
  # The same trees in every run of the same command.
  'deterministic': True, 'force_row_wise': True,
}  # fmt: skip


class Forest(NamedTuple):
  """One task's trained trees.

  Attributes:
    validation: the primary metric of the validation rows.
    scores: `[N, K]` float32, the task's outputs for the test rows.
    parameters: number of thresholds and leaf values.
    size: bytes of the files that LightGBM saves.
    seconds: of training.
    latency: median seconds to score one row.
  """

  validation: float
  scores: np.ndarray
  parameters: int
  size: int
  seconds: float
  latency: float


class Grown(NamedTuple):
  """The models of a task.

  Attributes:
    boosters: LightGBM's.
    history: of each, the metric of the validation rows after each round.
    encode: returns their inputs, `[N, M]` float64.
  """

  boosters: list[Any]
  history: list[list[float]]
  encode: Callable[[Batch], np.ndarray]


class _Rows(NamedTuple):
  """The rows with a label for a task: `[n, M]`, `[n, ...]`, `[n]` or None."""

  inputs: np.ndarray
  labels: np.ndarray
  weights: np.ndarray | None


def parse(text: str, flag: str = '--tree_setting') -> dict[str, Any]:
  """Parses `'num_leaves=31 learning_rate=0.05'`, which a flag gives."""
  parameters: dict[str, Any] = {}
  for part in text.split():
    name, equals, value = part.partition('=')
    try:
      number = float(value)
    except ValueError:
      number = float('nan')
    if not equals or not abs(number) <= MAX_PARAMETER or name not in NAMES:
      raise InputError(
        f'{flag} expects LightGBM parameters with numbers, such as '
        '"num_leaves=31 learning_rate=0.05"; the parameters are '
        f'{", ".join(NAMES)}; found {part!r}'
      )
    if name in parameters:
      raise InputError(f'{flag} sets {name} twice: once is enough')
    parameters[name] = int(number) if number.is_integer() else number
  return parameters


def check(settings: Mapping[str, Mapping[str, Any]], where: str = '') -> None:
  """Tries every setting on a few rows.

  Args:
    settings: `{name: parameters}`.
    where: begins the message.

  Raises:
    InputError: LightGBM is missing or rejects a setting.
  """
  lightgbm = package()
  inputs = np.random.default_rng(0).normal(size=(100, 2))
  for name, parameters in settings.items():
    rows = lightgbm.Dataset(inputs, inputs[:, 0] > 0)
    try:
      lightgbm.train({**_FIXED, 'objective': 'binary', **parameters}, rows, 1)
    except lightgbm.basic.LightGBMError as error:
      reason = str(error).split(' at /')[0]  # without the line in the C++ code
      raise InputError(
        f'{where}--tree_setting={name}: LightGBM rejects it: {reason}'
      ) from error


def check_tasks(tasks: Sequence[Task]) -> None:
  """Raises InputError for tasks that no objective of LightGBM fits."""
  others = [task.name for task in tasks if not objectives.models(task)]
  if others:
    raise InputError(
      f'the row `trees` cannot learn {", ".join(others)}, whose loss is none '
      'of those in lplmtl.tasks: leave the row out'
    )


def fit(
  parameters: Mapping[str, Any], task: Task, data: Data, seed: int
) -> Forest:
  """Trains one task's trees; the validation rows determine how many.

  Rows without a label for the task are left out of both.

  Args:
    parameters: LightGBM's.
    task: what to learn.
    data: rows whose numbers are not binned.
    seed: of the random choice of rows and columns.
  """
  start = time.perf_counter()
  boosters, _, encode = grow(parameters, task, data, seed)
  seconds = time.perf_counter() - start

  def predict(inputs: np.ndarray, **more: Any) -> np.ndarray:
    raw = [
      booster.predict(
        inputs, raw_score=True, num_iteration=booster.best_iteration, **more
      )
      for booster in boosters
    ]
    return objectives.outputs(raw)

  inputs = encode(data.test)
  held_out_scores = predict(encode(data.validation))[np.newaxis]
  metrics = score(task, held_out_scores, data.validation)
  return Forest(
    validation=float(metrics[quality.primary(metrics)][0]),
    scores=predict(inputs),
    parameters=sum(map(_count, boosters)),
    size=sum(
      len(booster.model_to_string(num_iteration=booster.best_iteration))
      for booster in boosters
    ),
    seconds=seconds,
    latency=scoring.latency(predict, inputs[:1], num_threads=1),
  )


def grow(
  parameters: Mapping[str, Any], task: Task, data: Data, seed: int
) -> Grown:
  """Trains one task's trees, as `fit` does, and returns them.

  Raises:
    InputError: LightGBM is missing.
  """
  encode, num_categories = tree_inputs.make_encoder(data.train, data.tables)
  train, held_out = (
    _labelled(task, rows, encode) for rows in (data.train, data.validation)
  )
  is_large = len(train.labels) >= _MANY_ROWS
  num_threads = parallel.num_cores() if is_large else 1
  run = {'num_threads': num_threads, 'seed': seed}
  found = [
    _train(
      {**_FIXED, **run, **model.parameters, **parameters},
      train._replace(labels=objectives.labels_of(task, model, train.labels)),
      held_out._replace(
        labels=objectives.labels_of(task, model, held_out.labels)
      ),
      num_categories,
    )
    for model in objectives.models(task)
  ]
  boosters, history = map(list, zip(*found, strict=True))
  return Grown(boosters, history, encode)


def score(task: Task, scores: np.ndarray, rows: Batch) -> dict[str, np.ndarray]:
  """Returns a task's metrics, `{metric: [S]}`, from `[S, N, K]` outputs.

  Without metrics a task has its loss.
  """
  where = scoring.labelled(rows, task.name)
  labels = losses.mask_labels(rows.labels[task.name], jnp.asarray(where))
  metric_fns = task.metric_fns or {'loss': scoring.mean_loss(task)}
  found = {}
  for name, fn in metric_fns.items():
    compiled = jax.jit(fn)
    found[name] = np.array([float(compiled(x, labels, where)) for x in scores])
  return found


def _labelled(
  task: Task, rows: Batch, encode: Callable[[Batch], np.ndarray]
) -> _Rows:
  where, weights = (
    scoring.labelled(rows, task.name),
    losses.row_weights(rows, task.name),
  )
  return _Rows(
    encode(rows)[where],
    np.asarray(rows.labels[task.name])[where],
    None if weights is None else np.asarray(weights)[where],
  )


def _train(
  parameters: Mapping[str, Any], train: _Rows, held_out: _Rows, categories: int
) -> tuple[Any, list[float]]:
  """Returns a trained booster, and its metric after each round.

  Validation rows count alike, as in the metrics by which networks are chosen.
  """
  lightgbm = package()
  rows = lightgbm.Dataset(
    train.inputs,
    train.labels,
    weight=train.weights,
    categorical_feature=list(range(categories)),
    free_raw_data=True,
  )
  history: dict[str, dict[str, list[float]]] = {}
  booster = lightgbm.train(
    parameters,
    rows,
    ROUNDS,
    valid_sets=[
      lightgbm.Dataset(held_out.inputs, held_out.labels, reference=rows)
    ],
    callbacks=[
      lightgbm.early_stopping(PATIENCE, verbose=False),
      lightgbm.record_evaluation(history),
    ],
  )
  ((_, metrics),) = history.items()
  return booster, next(iter(metrics.values()))


def _count(booster: Any) -> int:
  """Returns the number of thresholds and leaf values of a booster."""
  trees = booster.dump_model(num_iteration=booster.best_iteration)['tree_info']
  # A tree of n leaves has n values and n - 1 thresholds.
  return sum(2 * tree['num_leaves'] - 1 for tree in trees)


def package() -> Any:
  """Returns the package, with its warnings silenced.

  Raises:
    InputError: it cannot be imported.
  """
  try:
    import lightgbm  # an extra
  except (ImportError, OSError) as error:  # OSError: no libgomp
    raise InputError(
      f'trees need LightGBM, which cannot be imported ({error}): '
      "pip install 'lplmtl[trees]', or leave them out"
    ) from error
  logger = logging.getLogger('lightgbm')
  if not logger.handlers:
    logger.addHandler(logging.NullHandler())
  logger.propagate = False
  lightgbm.register_logger(logger)
  return lightgbm
