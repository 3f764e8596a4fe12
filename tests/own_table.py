"""A data set of its own, with several kinds of task, for the commands.

Small and generated: two categories, three numbers of which some are missing,
labels of which a fifth are missing, weights of rows.
"""

import dataclasses

import numpy as np

from experiments.datasets import base
from lplmtl import tables, tasks
from lplmtl.types import Batch

# The first metric of each, which decides: the others take long to compile.
TASKS = {
  task.name: dataclasses.replace(
    task, metric_fns=dict([*task.metric_fns.items()][:1])
  )
  for task in (
    tasks.binary('churn'),
    tasks.multiclass('segment', 3),
    tasks.regression('value'),
    tasks.poisson('visits'),
    tasks.ordinal('rating', 4),
    tasks.multilabel('tags', 2),
  )
}
NUMBERS = ('age', 'calls', 'spent')
SPLITS = {'train': 600, 'validation': 200, 'test': 200}
MEAN_VISITS = 2.0  # in units of which counts are learned
MEAN, STD = 250.0, 40.0  # of `value`, in its unit


def _columns(rng, count):
  columns = {
    'city': rng.choice(['Oslo', 'Rome', 'Lima'], count),
    'plan': rng.choice(['a', 'b', 'c', 'd'], count),
    **{name: rng.normal(size=count) for name in NUMBERS},
  }
  columns['age'][rng.random(count) < 0.1] = np.nan
  return columns


def _labels(rng, columns):
  """Returns `{task: labels}`, which depend on the columns."""
  rome = columns['city'] == 'Rome'
  signal = 1.5 * rome + columns['calls'] + np.nan_to_num(columns['age'], nan=2)
  noise = 0.5 * rng.normal(size=(7, len(signal)))
  return {
    'churn': (signal + noise[0] > 1).astype(np.int32),
    'segment': np.digitize(columns['spent'] + noise[1], (-0.6, 0.6)).astype(np.int32),
    'value': ((signal + noise[2] - 0.7) / 1.6).astype(np.float32),
    'visits': (rng.poisson(np.exp(0.5 * signal)) / MEAN_VISITS).astype(np.float32),
    'rating': np.digitize(signal + noise[3], (-0.5, 0.7, 2)).astype(np.int32),
    'tags': np.stack([signal + noise[4] > 1, columns['spent'] + noise[5] > 0], axis=1).astype(np.int32),
  }  # fmt: skip


def make(names=tuple(TASKS), seed=0):
  """Returns a `base.Dataset` of some of TASKS."""
  chosen = tuple(TASKS[name] for name in names)
  rng = np.random.default_rng(seed)
  columns = {split: _columns(rng, n) for split, n in SPLITS.items()}
  batches = {}
  for split, count in SPLITS.items():
    labels = _labels(rng, columns[split])
    where = {name: rng.random(count) < 0.8 for name in names}
    for name in names:
      missing = np.nan if labels[name].dtype == np.float32 else 0
      labels[name][~where[name]] = missing
    weights = {names[0]: rng.integers(1, 3, count).astype(np.float32)}
    batches[split] = Batch(
      None, {name: labels[name] for name in names}, where, weights
    )
  facts = {
    'dataset': 'own',
    'statement': 'generated rows',
    'files': {'all': {'file': 'own.csv', 'rows': 1000, 'sha256': str(seed)}},
    'targets': {
      'segment': {'kind': 'multiclass', 'classes': ['new', 'loyal', 'gone']},
      'value': {'kind': 'regression', 'unit': 'EUR', 'mean': MEAN, 'std': STD},
      'visits': {'kind': 'count', 'mean': MEAN_VISITS},
      'tags': {'kind': 'multilabel', 'columns': ['new', 'large']},
    },
  }

  def encode(num_bins, fitted=None, *, is_last=False):
    train = columns['train']
    fitted = fitted or tables.fit(
      {name: train[name] for name in ('city', 'plan')},
      {name: train[name] for name in NUMBERS},
      num_bins=num_bins,
      rules=tables.Rules(fill_missing=True),
    )
    made = {
      split: batch._replace(features=fitted.encode(columns[split]))
      for split, batch in batches.items()
    }
    return base.Data(
      chosen, **made, tables=fitted,
      facts={**facts, 'rows': SPLITS, 'unseen': {}}, optimum={},
    )  # fmt: skip

  source = base.Source(chosen, facts, {}, encode)
  return base.Dataset(
    lambda config: None, lambda config, console, saved=None: source
  )
