"""Gradient-boosted trees (LightGBM): what a user would pick instead.

One model a task on the same rows and inputs: category ids as categories,
numbers as numbers. Needs the extra `trees`.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.launcher import scoring
from experiments.launcher.errors import InputError
from lplmtl.training import parallel
from lplmtl.types import Batch, Task

_LARGEST = 1e9  # of a parameter
ROUNDS, PATIENCE = 2000, 50  # at most so many trees; none better for so many
# What may be tuned, by LightGBM's own names.
NAMES = (
  'bagging_fraction', 'bagging_freq', 'cat_l2', 'cat_smooth', 'extra_trees',
  'feature_fraction', 'feature_fraction_bynode', 'lambda_l1', 'lambda_l2',
  'learning_rate', 'max_bin', 'max_cat_threshold', 'max_cat_to_onehot',
  'max_depth', 'min_data_in_leaf', 'min_data_per_group', 'min_gain_to_split',
  'min_sum_hessian_in_leaf', 'num_leaves', 'path_smooth',
)  # fmt: skip


def check(
  settings: Mapping[str, Mapping[str, Any]], tasks: Sequence[Task]
) -> None:
  """Tries every setting on a few rows.

  Raises:
    InputError: LightGBM is missing, or refuses one; a task that is not binary.
  """
  others = [task.name for task in tasks if task.label_range != (0, 1)]
  if others:
    raise InputError(
      f'the row `trees` is for binary tasks, found {", ".join(others)}: leave '
      'the row out'
    )
  try:
    import lightgbm
  except (ImportError, OSError) as error:  # OSError: without libgomp
    raise InputError(
      f'the row `trees` needs LightGBM, which cannot be imported ({error}): '
      "pip install -e '.[trees]', or leave the row out"
    ) from error
  logger = logging.getLogger('lightgbm')
  logger.addHandler(logging.NullHandler())
  logger.propagate = False
  lightgbm.register_logger(logger)
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(100, 2))
  for name, fields in settings.items():
    rows = lightgbm.Dataset(inputs, inputs[:, 0] > 0)
    try:
      lightgbm.train({**_FIXED, **fields}, rows, 1)
    except lightgbm.basic.LightGBMError as error:
      reason = str(error).split(' at /')[0]
      raise InputError(
        f'--tree_setting={name}: LightGBM refuses it: {reason}'
      ) from error


_FIXED = {
  'objective': 'binary', 'metric': 'auc', 'verbosity': -1,
  'deterministic': True, 'force_row_wise': True,
}  # fmt: skip


def parse(text: str) -> dict[str, Any]:
  """`'num_leaves=31 learning_rate=0.05'` as LightGBM's parameters."""
  found: dict[str, Any] = {}
  for part in text.split():
    name, equals, value = part.partition('=')
    try:
      number = float(value)
    except ValueError:
      number = float('nan')
    if not equals or not abs(number) <= _LARGEST or name not in NAMES:
      raise InputError(
        '--tree_setting wants numbers for parameters of LightGBM, such as '
        f'"num_leaves=31 learning_rate=0.05", from {", ".join(NAMES)}; found '
        f'{part!r}'
      )
    if name in found:
      raise InputError(f'--tree_setting sets {name} twice: once is enough')
    found[name] = int(number) if number.is_integer() else number
  return found


def fit(
  settings: Mapping[str, Any], task: str, data: Any, seed: int
) -> dict[str, Any]:
  """Trains one task's trees, as many as its validation AUC asks for.

  Args:
    settings: of LightGBM.
    task: whose label.
    data: CensusData, its numbers not binned.
    seed: of the draws of rows and columns.

  Returns:
    `validation` (the AUC), `scores` (`[N]` logits of the test rows),
    `parameters` (thresholds and leaf values), `seconds`, and `latency` (median
    seconds of one row).
  """
  import lightgbm

  start = time.perf_counter()
  num_categories = data.train.features['categories'].shape[1]
  train = lightgbm.Dataset(
    _inputs(data.train),
    data.train.labels[task],
    categorical_feature=list(range(num_categories)),
    free_raw_data=True,
  )
  held_out = lightgbm.Dataset(
    _inputs(data.validation), data.validation.labels[task], reference=train
  )
  threads = {'num_threads': parallel.num_cores(), 'seed': seed}
  model = lightgbm.train(
    {**_FIXED, **threads, **settings},
    train,
    ROUNDS,
    valid_sets=[held_out],
    callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
  )
  seconds = time.perf_counter() - start
  best = model.best_iteration
  row = _inputs(data.test)[:1]
  leaves = model.dump_model(num_iteration=best)['tree_info']
  return {
    'validation': float(model.best_score['valid_0']['auc']),
    'scores': np.asarray(
      model.predict(_inputs(data.test), raw_score=True, num_iteration=best),
      np.float32,
    ),
    'parameters': int(sum(2 * tree['num_leaves'] - 1 for tree in leaves)),
    'seconds': seconds,
    'latency': scoring.latency(model.predict, row, num_threads=1),
  }


def score(
  task: Task, scores: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
  """`{metric: [S]}` of a task's metrics, from `[S, N]` logits."""
  everywhere: Any = np.ones(len(labels), bool)
  return {
    name: np.array([float(fn(own, labels, everywhere)) for own in scores])
    for name, fn in task.metric_fns.items()
  }


def _inputs(batch: Batch) -> np.ndarray:
  """`[N, C + M]`, the category ids first."""
  features: Any = batch.features
  return np.concatenate(
    [features['categories'].astype(np.float64), features['numeric']], axis=1
  )
