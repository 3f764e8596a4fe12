"""Gradient-boosted trees (LightGBM), which a user might choose instead.

One model per task on the same rows and inputs: category ids as categories,
numbers as numbers. Needs the extra `trees`.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.datasets.base import Data
from experiments.launcher import scoring
from experiments.launcher.errors import InputError
from lplmtl.training import parallel
from lplmtl.types import Batch, Task

# At most ROUNDS trees; training ends when PATIENCE in a row bring no gain.
ROUNDS, PATIENCE = 2000, 50
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
  'objective': 'binary', 'metric': 'auc', 'verbosity': -1,
  # The same trees in every run of the same command.
  'deterministic': True, 'force_row_wise': True,
}  # fmt: skip


class Forest(NamedTuple):
  """One task's trained trees.

  Attributes:
    validation: the AUC on the validation rows.
    scores: `[N]` float32, logits of the test rows.
    parameters: number of thresholds and leaf values.
    seconds: of training.
    latency: median seconds to score one row.
  """

  validation: float
  scores: np.ndarray
  parameters: int
  seconds: float
  latency: float


def parse(text: str) -> dict[str, Any]:
  """Parses `'num_leaves=31 learning_rate=0.05'` into LightGBM parameters."""
  parameters: dict[str, Any] = {}
  for part in text.split():
    name, equals, value = part.partition('=')
    try:
      number = float(value)
    except ValueError:
      number = float('nan')
    if not equals or not abs(number) <= MAX_PARAMETER or name not in NAMES:
      raise InputError(
        '--tree_setting expects LightGBM parameters with numbers, such as '
        '"num_leaves=31 learning_rate=0.05"; the parameters are '
        f'{", ".join(NAMES)}; found {part!r}'
      )
    if name in parameters:
      raise InputError(f'--tree_setting sets {name} twice: once is enough')
    parameters[name] = int(number) if number.is_integer() else number
  return parameters


def check_tasks(tasks: Sequence[Task]) -> None:
  """Raises InputError for a task that is not binary."""
  others = [task.name for task in tasks if task.label_range != (0, 1)]
  if others:
    raise InputError(
      f'the row `trees` is for binary tasks only; found {", ".join(others)}: '
      'leave the row out'
    )


def check(settings: Mapping[str, Mapping[str, Any]]) -> None:
  """Tries every setting on a few rows.

  Raises:
    InputError: LightGBM is missing or rejects a setting.
  """
  lightgbm = _lightgbm()
  inputs = np.random.default_rng(0).normal(size=(100, 2))
  for name, parameters in settings.items():
    rows = lightgbm.Dataset(inputs, inputs[:, 0] > 0)
    try:
      lightgbm.train({**_FIXED, **parameters}, rows, 1)
    except lightgbm.basic.LightGBMError as error:
      reason = str(error).split(' at /')[0]  # without the line in the C++ code
      raise InputError(
        f'--tree_setting={name}: LightGBM rejects it: {reason}'
      ) from error


def fit(
  parameters: Mapping[str, Any], task: str, data: Data, seed: int
) -> Forest:
  """Trains one task's trees; validation AUC determines how many.

  Args:
    parameters: LightGBM's.
    task: the label to learn.
    data: rows whose numbers are not binned.
    seed: of the random choice of rows and columns.
  """
  lightgbm = _lightgbm()
  start = time.perf_counter()
  train = lightgbm.Dataset(
    _inputs(data.train),
    data.train.labels[task],
    categorical_feature=list(range(_num_categories(data.train))),
    free_raw_data=True,
  )
  held_out = lightgbm.Dataset(
    _inputs(data.validation), data.validation.labels[task], reference=train
  )
  run = {'num_threads': parallel.num_cores(), 'seed': seed}
  model = lightgbm.train(
    {**_FIXED, **run, **parameters},
    train,
    ROUNDS,
    valid_sets=[held_out],
    callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
  )
  seconds = time.perf_counter() - start
  best = model.best_iteration
  test = _inputs(data.test)
  scores = model.predict(test, raw_score=True, num_iteration=best)
  trees = model.dump_model(num_iteration=best)['tree_info']
  return Forest(
    validation=float(model.best_score['valid_0']['auc']),
    scores=np.asarray(scores, np.float32),
    # A tree of n leaves has n values and n - 1 thresholds.
    parameters=sum(2 * tree['num_leaves'] - 1 for tree in trees),
    seconds=seconds,
    latency=scoring.latency(model.predict, test[:1], num_threads=1),
  )


def score(
  task: Task, scores: np.ndarray, labels: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns a task's metrics, `{metric: [S]}`, from `[S, N]` logits."""
  everywhere = jnp.ones(len(labels), bool)
  return {
    name: np.array([float(fn(seed, labels, everywhere)) for seed in scores])
    for name, fn in task.metric_fns.items()
  }


def _lightgbm() -> Any:
  """Returns the package, with its warnings silenced.

  Raises:
    InputError: it cannot be imported.
  """
  try:
    import lightgbm  # an extra
  except (ImportError, OSError) as error:  # OSError: no libgomp
    raise InputError(
      f'the row `trees` needs LightGBM, which cannot be imported ({error}): '
      "pip install -e '.[trees]', or leave the row out"
    ) from error
  logger = logging.getLogger('lightgbm')
  if not logger.handlers:
    logger.addHandler(logging.NullHandler())
  logger.propagate = False
  lightgbm.register_logger(logger)
  return lightgbm


def _num_categories(batch: Batch) -> int:
  features: Any = batch.features  # a dict: see `Tables.encode`
  return features['categories'].shape[1]


def _inputs(batch: Batch) -> np.ndarray:
  """Returns `[N, C + M]`, the category ids first."""
  features: Any = batch.features
  return np.concatenate(
    [features['categories'].astype(np.float64), features['numeric']], axis=1
  )
