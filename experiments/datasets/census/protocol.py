"""Census-Income (KDD) as arrays: which rows, which inputs, which labels.

Inputs never hold education, marital_stat or income_50k, of which the labels are
made (Ma et al. 2018 leave both of a group's columns out), nor instance_weight.
Vocabularies, scalers and bins come from the training rows alone.
"""

import hashlib
import pathlib
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.census import cache as census_cache
from experiments.datasets.census import files as census_files
from experiments.datasets.census import reader as census_reader
from experiments.datasets.census import sample as census_sample
from experiments.datasets.census.reader import Table
from experiments.launcher import display, options
from experiments.launcher.errors import InputError
from lplmtl import tables, types
from lplmtl import tasks as task_kinds

DATASETS = ('census', 'census66k', 'sample')
VALIDATIONS = ('tenth', 'test_half')
TASKS = {
  'income': ('income_50k', (census_reader.INCOME_ABOVE,)),
  'marital': ('marital_stat', (census_reader.NEVER_MARRIED,)),
  # Of the readings of "at least college", an associate degree or higher gives
  # the label correlation that Ma et al. report.
  'education': ('education', census_reader.EDUCATION_DEGREE),
}
LABEL_COLUMNS = tuple(column for column, _ in TASKS.values())
INPUTS = tuple(
  column
  for column in census_reader.COLUMNS
  if column not in (*LABEL_COLUMNS, census_reader.IGNORED)
)
CATEGORIES = tuple(c for c in INPUTS if c not in census_reader.NUMERIC)
MONEY = ('wage_per_hour', 'capital_gains', 'capital_losses', 'stock_dividends')


class Raw(NamedTuple):
  """Columns before any encoding.

  Attributes:
    train: columns of the training rows (validation rows among them).
    test: columns of the test rows.
    facts: what the rows are: `dataset`, `statement`, `files`.
    optimum: for generated rows, the AUC on the test rows of the probabilities
      that the labels were drawn from.
  """

  train: Table
  test: Table
  facts: dict[str, Any]
  optimum: dict[str, float]


class CensusData(NamedTuple):
  """Encoded rows.

  Attributes:
    train: Batch of NumPy arrays.
    validation: likewise.
    test: likewise.
    tables: how they were encoded.
    facts: those of Raw, `rows`, and `unseen`: per split, how many rows hold a
      value of a column that the training rows do not.
  """

  train: types.Batch
  validation: types.Batch
  test: types.Batch
  tables: tables.Tables
  facts: dict[str, Any]


def default_data_dir() -> pathlib.Path:
  """`$XDG_CACHE_HOME/lplmtl/census-income`, or the same under ~/.cache.

  Raises:
    InputError: the user has no home.
  """
  folder = options.cache_dir()
  if folder is None:
    raise InputError(
      'there is no home folder to keep the data in (HOME is not set): pass '
      '--data_dir, or try --dataset=sample'
    )
  return folder / 'census-income'


def make_tasks(names: Sequence[str]) -> tuple[types.Task, ...]:
  """Binary tasks by name; any non-empty subset of TASKS, in any order."""
  unknown = [name for name in names if name not in TASKS]
  if unknown or not names or len(set(names)) < len(names):
    raise InputError(
      f'tasks must be different ones of {", ".join(TASKS)}, at least one; '
      f'found {",".join(names) or "none"}'
    )
  return tuple(task_kinds.binary(name) for name in names)


def read(
  dataset: str,
  data_dir: pathlib.Path | None = None,
  *,
  num_rows: int = 20_000,
  seed: int = 0,
  progress: census_files.Progress = lambda done, total: None,
) -> Raw:
  """Reads (downloads, generates) the rows of a data set.

  Args:
    dataset: one of DATASETS.
    data_dir: folder of the files; None for the default one, which is made.
    num_rows: rows of the generated sample.
    seed: seed of the generated sample.
    progress: told of a download's progress.

  Raises:
    InputError: files that are missing, damaged or malformed.
  """
  if dataset == 'sample':
    sample = census_sample.make(num_rows, seed)
    facts = {
      'dataset': 'sample',
      'statement': 'generated sample, not UCI data '
      f'({num_rows:,} rows, seed {seed})',
      'files': {},
    }
    return Raw(sample.train, sample.test, facts, sample.optimum)
  if dataset not in DATASETS:
    raise InputError(
      f'dataset must be one of {", ".join(DATASETS)}; found {dataset!r}'
    )
  folder = _folder(data_dir)
  if not any(census_files.find(folder, s) for s in census_files.SPLITS):
    census_files.download(folder, progress)
  if dataset == 'census66k':
    return _census66k(folder)
  train, train_file = _split(folder, 'train')
  test, test_file = _split(folder, 'test')
  return Raw(train, test, _facts(train_file, test_file), {})


def load(config: options.Config, console: display.Console) -> Raw:
  """Reads the rows that a Config names, showing a download."""
  folder = pathlib.Path(config.data_dir) if config.data_dir else None
  with display.download(console) as progress:
    return read(
      config.dataset,
      folder,
      num_rows=config.num_rows,
      seed=config.split_seed,
      progress=progress,
    )


def encode(
  raw: Raw,
  task_names: Sequence[str],
  *,
  validation: str = 'tenth',
  split_seed: int = 0,
  num_bins: int = 32,
  fitted: tables.Tables | None = None,
) -> CensusData:
  """Splits and encodes.

  Args:
    raw: from `read`.
    task_names: which labels.
    validation: `tenth`, a random tenth of the training rows, every test row is
      test; or `test_half`, half of the test rows, the others are test.
    split_seed: seed of that choice.
    num_bins: quantile bins of each numeric column, 0 for none.
    fitted: tables to encode with; None fits them on the training rows.

  Raises:
    InputError: too few rows, a label with one class only, or a number far out
      of all bounds.
  """
  num_train, num_test = _num_rows(raw.train), _num_rows(raw.test)
  rng = np.random.default_rng(split_seed)
  everything = np.arange(num_test)
  if validation == 'tenth':
    order = rng.permutation(num_train)
    held_out = max(num_train // 10, 1)
    parts = {
      'train': (raw.train, np.sort(order[held_out:])),
      'validation': (raw.train, np.sort(order[:held_out])),
      'test': (raw.test, everything),
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
  columns = {
    split: {name: factor.take(rows) for name, factor in table.items()}
    for split, (table, rows) in parts.items()
  }
  if not all(len(rows) for _, rows in parts.values()):
    raise InputError(
      'too few rows: training, validation and test need at least one each; '
      f'found { {split: len(rows) for split, (_, rows) in parts.items()} }'
    )
  labels = {
    split: _labels(found, task_names, split) for split, found in columns.items()
  }
  split, features = 'train', {}  # `split`: for the message
  try:
    if fitted is None:
      fitted = _fit(columns['train'], num_bins)
    for split, found in columns.items():
      features[split] = fitted.encode(found)
  except tables.RowError as error:
    table, rows = parts[split]
    side = 'train' if table is raw.train else 'test'
    place = _place(raw.facts, side, int(rows[error.row]))
    raise InputError(
      f'{place}: {error.column} {error.complaint}: mend the row or leave it out'
    ) from error
  batches = {
    split: types.Batch(features[split], labels[split]) for split in parts
  }
  facts = {
    **raw.facts,
    'rows': {split: len(rows) for split, (_, rows) in parts.items()},
    'unseen': {
      split: fitted.unseen(features[split]) for split in ('validation', 'test')
    },
  }
  return CensusData(**batches, tables=fitted, facts=facts)


def _fit(known: Table, num_bins: int) -> tables.Tables:
  return tables.fit(
    {name: known[name] for name in CATEGORIES},
    {name: known[name] for name in census_reader.NUMERIC},
    log=MONEY,
    num_bins=num_bins,
  )


def _place(facts: dict[str, Any], side: str, row: int) -> str:
  """What to call a row, counted from 0, of the training or the test rows."""
  if len(facts['files']) == 2:
    return f'{facts["files"][side]["file"]}, line {row + 1}'
  return f'{facts["dataset"]}, row {row} of the {side} rows'


def _labels(
  columns: Table, task_names: Sequence[str], split: str
) -> dict[str, np.ndarray]:
  labels = {}
  for task in task_names:
    column, positive = TASKS[task]
    factor = columns[column]
    values = np.isin(factor.values, positive).astype(np.int32)[factor.codes]
    if values.min() == values.max():
      raise InputError(
        f'task {task}: the {len(values):,} {split} rows hold one class only '
        f'({column} is {"always" if values[0] else "never"} '
        f'{" or ".join(map(repr, positive[:2]))}); it can be neither learned '
        'nor scored: drop the task or use other rows'
      )
    labels[task] = values
  return labels


def _folder(data_dir: pathlib.Path | None) -> pathlib.Path:
  if data_dir is None:
    folder = default_data_dir()
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f'cannot make the data folder {folder} ({error.strerror}): pass '
        '--data_dir'
      ) from error
    return folder
  try:
    folder = data_dir.expanduser().absolute()
    mode = folder.stat().st_mode
  except (FileNotFoundError, NotADirectoryError):
    mode = 0
  except (OSError, RuntimeError, ValueError) as error:  # no such ~user, a NUL
    reason = getattr(error, 'strerror', None) or error
    raise InputError(
      f'--data_dir={data_dir} cannot be read ({reason})'
    ) from error
  if not stat.S_ISDIR(mode):
    raise InputError(
      f'--data_dir={data_dir} is no folder: make it (the files are downloaded '
      'into an empty one) or leave the flag out'
    )
  return folder


def _split(folder: pathlib.Path, split: str) -> tuple[Table, dict[str, Any]]:
  path = census_files.find(folder, split)
  if path is None:
    name = census_files.SPLITS[split]
    raise InputError(
      f'{folder} holds no {name} (nor {name}.gz, {census_files.INNER_ARCHIVE}, '
      f'{census_files.ARCHIVE}), though the other half is there'
    )
  packed = census_files.read(path)
  digest = hashlib.sha256(packed).hexdigest()
  kept = census_cache.path_of(path, split)
  found = census_cache.read(kept, split, digest) if kept else None
  if found is not None:
    return found
  source = census_files.unpack(path, packed, split)
  table = census_reader.parse(source.content, source.name)
  facts = {
    'file': path.name,
    'rows': _num_rows(table),
    'sha256': source.sha256,
    'label': source.label,
  }
  if kept:
    census_cache.write(kept, split, digest, table, facts)
  return table, facts


def _census66k(folder: pathlib.Path) -> Raw:
  """Rows of the official test file: i mod 6 in 0..3 train, 4 test, 5 unused."""
  test, test_file = _split(folder, 'test')
  if test_file['label'] == 'official':
    part = np.arange(_num_rows(test)) % 6
    kept, held = (
      {c: f.take(np.flatnonzero(rows)) for c, f in test.items()}
      for rows in (part < 4, part == 4)
    )
    facts = {
      'dataset': 'census66k',
      'statement': 'census66k: 5/6 of the official test rows, not comparable '
      'with published figures',
      'files': {'test': test_file},
    }
    return Raw(kept, held, facts, {})
  train, train_file = _split(folder, 'train')
  return Raw(train, test, _facts(train_file, test_file), {})


def _facts(
  train_file: dict[str, Any], test_file: dict[str, Any]
) -> dict[str, Any]:
  labels = {train_file['label'], test_file['label']}
  label = labels.pop() if len(labels) == 1 else 'other'
  rows = f'{train_file["rows"]:,} + {test_file["rows"]:,} rows'
  if label == 'official':
    statement = f'UCI Census-Income (KDD), the official files: {rows}'
  elif label == 'census66k':
    statement = f'census66k ({rows}): not comparable with published figures'
  else:
    label = 'other'
    statement = (
      f'local files that are neither the official ones nor census66k ({rows}, '
      f'SHA-256 {train_file["sha256"][:12]} and {test_file["sha256"][:12]})'
    )
  files = {'train': train_file, 'test': test_file}
  return {'dataset': label, 'statement': statement, 'files': files}


def _num_rows(table: Table) -> int:
  return len(next(iter(table.values())).codes)
