"""Census-Income (KDD) as arrays: which inputs, which labels, which split.

The inputs never contain education, marital_stat or income_50k, from which the
labels are made (Ma et al. 2018 also remove both columns of a pair of tasks),
nor instance_weight. Vocabularies, scalers and bins are fitted on the training
rows only.
"""

import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from experiments.datasets import base
from experiments.datasets.census import columns, loading
from experiments.datasets.census.loading import Rows
from experiments.datasets.census.reader import Table
from experiments.launcher import display
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import tables, tasks
from lplmtl.tables import Tables
from lplmtl.types import Batch, Task

VALIDATIONS = ('tenth', 'test_half')
# `{task: (column, positive values)}`
TASKS = {
  'income': ('income_50k', (columns.INCOME_ABOVE,)),
  'marital': ('marital_stat', (columns.NEVER_MARRIED,)),
  # Ma et al. predict "at least college"; of its possible readings, an associate
  # degree or higher gives the label correlation that they report.
  'education': ('education', columns.EDUCATION_DEGREE),
}
LABEL_COLUMNS = tuple(column for column, _ in TASKS.values())
INPUTS = tuple(
  column
  for column in columns.COLUMNS
  if column not in (*LABEL_COLUMNS, columns.IGNORED)
)
CATEGORIES = tuple(c for c in INPUTS if c not in columns.NUMERIC)
# Amounts are skewed over four orders of magnitude: scaled by their logarithm.
MONEY = ('wage_per_hour', 'capital_gains', 'capital_losses', 'stock_dividends')


def make_tasks(names: Sequence[str]) -> tuple[Task, ...]:
  """Returns binary tasks by name; any non-empty subset of TASKS, in any order.

  Raises:
    InputError: no name, an unknown one, or one given twice.
  """
  unknown = [name for name in names if name not in TASKS]
  if unknown or not names or len(set(names)) < len(names):
    raise InputError(
      f'--tasks must name one or more of {", ".join(TASKS)}, each at most '
      f'once; found {",".join(names) or "none"}'
    )
  return tuple(tasks.binary(name) for name in names)


def load(
  config: Config,
  console: display.Console,
  saved: Mapping[str, Any] = MappingProxyType({}),
) -> base.Source:
  """Reads the rows that a Config names; see `base.Load`."""
  del saved  # what the columns are is known
  folder = pathlib.Path(config.data_dir) if config.data_dir else None
  with display.download(console, 'UCI Census-Income (KDD)') as progress:
    raw = loading.read(
      config.dataset,
      folder,
      num_rows=config.num_rows,
      seed=config.split_seed,
      progress=progress,
    )

  def encode_rows(
    num_bins: int, tables: Tables | None = None, *, is_last: bool = False
  ) -> base.Data:
    del (
      is_last
    )  # raw rows are codes of one byte or two: there is little to gain
    return encode(
      raw,
      config.tasks,
      validation=config.validation,
      split_seed=config.split_seed,
      num_bins=num_bins,
      interpolate=config.interpolate,
      fitted=tables,
    )

  return base.Source(
    make_tasks(config.tasks), raw.facts, raw.optimum, encode_rows
  )


def encode(
  raw: Rows,
  task_names: Sequence[str],
  *,
  validation: str = 'tenth',
  split_seed: int = 0,
  num_bins: int = 32,
  interpolate: bool = False,
  fitted: Tables | None = None,
) -> base.Data:
  """Splits and encodes rows.

  Args:
    raw: from `loading.read`.
    task_names: the labels to make.
    validation: `tenth` takes a random tenth of the training rows and keeps all
      test rows for testing; `test_half` takes a random half of the test rows
      and keeps the other half for testing.
    split_seed: seed of that choice.
    num_bins: quantile bins per numeric column, 0 for none.
    interpolate: see `lplmtl.tables.fit`.
    fitted: tables to encode with; None fits them on the training rows.

  Raises:
    InputError: too few rows, a label with one class only, or a number that is
      out of bounds.
  """
  parts = _parts(raw, validation, split_seed)
  splits = {
    split: {name: factor.take(chosen) for name, factor in table.items()}
    for split, (table, chosen) in parts.items()
  }
  labels = {
    split: _labels(table, task_names, split) for split, table in splits.items()
  }
  split, features = 'train', {}  # `split`: for the message
  try:
    if fitted is None:
      fitted = _fit(splits['train'], num_bins, interpolate)
    for split in splits:
      features[split] = fitted.encode(splits[split])
  except tables.RowError as error:
    table, chosen = parts[split]
    side = 'train' if table is raw.train else 'test'
    place = _place(raw.facts, side, int(chosen[error.row]))
    raise InputError(
      f'{place}: {error.column} {error.complaint}: correct the row or leave it '
      'out'
    ) from error
  batches = {split: Batch(features[split], labels[split]) for split in parts}
  facts = {
    **raw.facts,
    'rows': {split: len(chosen) for split, (_, chosen) in parts.items()},
    'unseen': {
      split: fitted.unseen(features[split]) for split in ('validation', 'test')
    },
  }
  return base.Data(
    make_tasks(task_names),
    train=batches['train'],
    validation=batches['validation'],
    test=batches['test'],
    tables=fitted,
    facts=facts,
    optimum=raw.optimum,
  )


def _parts(
  raw: Rows, validation: str, split_seed: int
) -> dict[str, tuple[Table, np.ndarray]]:
  """Returns `{split: (table, its row numbers)}`."""
  num_train, num_test = loading.count(raw.train), loading.count(raw.test)
  rng = np.random.default_rng(split_seed)
  if validation == 'tenth':
    order = rng.permutation(num_train)
    held_out = max(num_train // 10, 1)
    parts = {
      'train': (raw.train, np.sort(order[held_out:])),
      'validation': (raw.train, np.sort(order[:held_out])),
      'test': (raw.test, np.arange(num_test)),
    }
  elif validation == 'test_half':
    order = rng.permutation(num_test)
    parts = {
      'train': (raw.train, np.arange(num_train)),
      'validation': (raw.test, np.sort(order[: num_test // 2])),
      'test': (raw.test, np.sort(order[num_test // 2 :])),
    }
  else:
    raise InputError(
      f'validation must be one of {", ".join(VALIDATIONS)}; found '
      f'{validation!r}'
    )
  counts = {split: len(chosen) for split, (_, chosen) in parts.items()}
  if not all(counts.values()):
    raise InputError(
      'too few rows: training, validation and test need at least one each; '
      f'found {counts}'
    )
  return parts


def _fit(known: Table, num_bins: int, interpolate: bool) -> Tables:
  return tables.fit(
    {name: known[name] for name in CATEGORIES},
    {name: known[name] for name in columns.NUMERIC},
    log=MONEY,
    num_bins=num_bins,
    interpolate=interpolate,
  )


def _place(facts: dict[str, Any], side: str, row: int) -> str:
  """Returns what to call a row, counted from 0, of the train or test rows."""
  if len(facts['files']) == 2:
    return f'{facts["files"][side]["file"]}, line {row + 1}'
  return f'{facts["dataset"]}, row {row} of the {side} rows'


def _labels(
  table: Table, task_names: Sequence[str], split: str
) -> dict[str, np.ndarray]:
  labels = {}
  for task in task_names:
    column, positive = TASKS[task]
    factor = table[column]
    values = np.isin(factor.values, positive).astype(np.int32)[factor.codes]
    if values.min() == values.max():
      raise InputError(
        f'task {task}: the {len(values):,} {split} rows hold one class only '
        f'({column} is {"always" if values[0] else "never"} '
        f'{" or ".join(map(repr, positive[:2]))}), which can be neither '
        'learned nor scored: drop the task or use other rows'
      )
    labels[task] = values
  return labels


DATASET = base.Dataset(lambda config: make_tasks(config.tasks), load)
