"""Gradient-boosted trees (LightGBM): what a user would pick instead.

One model a task on the same rows and inputs: category ids as categories,
numbers as numbers. Needs the extra `trees`.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.errors import InputError
from lplmtl import metrics, parallel
from lplmtl.types import Batch

ROUNDS, PATIENCE = 2000, 50  # at most so many trees; none better for so many


def check() -> None:
  """Raises an InputError where LightGBM is missing."""
  try:
    import lightgbm  # noqa: F401
  except ImportError as error:
    raise InputError(
      "the row `trees` needs LightGBM: pip install -e '.[trees]', or leave the "
      'row out'
    ) from error


def parse(text: str) -> dict[str, Any]:
  """`'num_leaves=31 learning_rate=0.05'` as LightGBM's parameters."""
  found: dict[str, Any] = {}
  for part in text.split():
    name, equals, value = part.partition('=')
    try:
      number = float(value)
    except ValueError:
      number = float('nan')
    if not equals or not np.isfinite(number):
      raise InputError(
        '--tree_setting wants LightGBM parameters that are numbers, such as '
        f'"num_leaves=31 learning_rate=0.05"; found {part!r}'
      )
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
  fixed = {
    'objective': 'binary', 'metric': 'auc', 'verbosity': -1, 'seed': seed,
    'num_threads': parallel.num_cores(), 'deterministic': True,
    'force_row_wise': True,
  }  # fmt: skip
  try:
    model = lightgbm.train(
      {**fixed, **settings},
      train,
      ROUNDS,
      valid_sets=[held_out],
      callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
  except lightgbm.basic.LightGBMError as error:
    raise InputError(f'LightGBM refuses {dict(settings)}: {error}') from error
  seconds = time.perf_counter() - start
  best = model.best_iteration
  leaves = model.dump_model(num_iteration=best)['tree_info']
  return {
    'validation': float(model.best_score['valid_0']['auc']),
    'scores': np.asarray(
      model.predict(_inputs(data.test), raw_score=True, num_iteration=best),
      np.float32,
    ),
    'parameters': int(sum(2 * tree['num_leaves'] - 1 for tree in leaves)),
    'seconds': seconds,
    'latency': _latency(model, _inputs(data.test)[:1]),
  }


def score(scores: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """`{metric: [S]}` of the metrics that networks have too."""
  fns: dict[str, Any] = {
    'auc': metrics.roc_auc,
    'average_precision': metrics.average_precision,
    'log_loss': metrics.log_loss,
    'calibration_error': metrics.calibration_error,
  }
  return {
    name: np.array([float(fn(own, labels)) for own in scores])
    for name, fn in fns.items()
  }


def _inputs(batch: Batch) -> np.ndarray:
  """`[N, C + M]`, the category ids first."""
  features: Any = batch.features
  return np.concatenate(
    [features['categories'].astype(np.float64), features['numeric']], axis=1
  )


def _latency(model: Any, row: np.ndarray, calls: int = 100) -> float:
  spent = []
  for _ in range(calls):
    start = time.perf_counter()
    model.predict(row, num_threads=1)
    spent.append(time.perf_counter() - start)
  return float(np.median(spent))
