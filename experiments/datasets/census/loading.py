"""The rows of Census-Income (KDD): read from disk, downloaded or generated.

Each file is parsed once; `cache` serves its columns from then on.
"""

import hashlib
import pathlib
import stat
from typing import Any, NamedTuple, cast

import numpy as np

from experiments.datasets import cache
from experiments.datasets.census import files, reader, sample
from experiments.datasets.census.reader import Table
from experiments.launcher import options
from experiments.launcher.errors import InputError


class Rows(NamedTuple):
  """Columns before they are split and encoded.

  Attributes:
    train: columns of the training rows (validation rows among them).
    test: columns of the test rows.
    facts: what the rows are: `dataset`, `statement`, `files`.
    optimum: `{task: AUC}` of the generator, see `sample.Sample`; empty for
      rows from files.
  """

  train: Table
  test: Table
  facts: dict[str, Any]
  optimum: dict[str, float]


def default_data_dir() -> pathlib.Path:
  """Returns `$XDG_CACHE_HOME/lplmtl/census-income`, or that under ~/.cache.

  Raises:
    InputError: the user has no home folder.
  """
  folder = options.cache_dir()
  if folder is None:
    raise InputError(
      'there is no home folder to keep the data in (HOME is not set): pass '
      '--data_dir, or try --dataset=sample'
    )
  return folder / 'census-income'


def read(
  dataset: str,
  data_dir: pathlib.Path | None = None,
  *,
  num_rows: int = 20_000,
  seed: int = 0,
  progress: files.Progress = lambda done, total: None,
) -> Rows:
  """Reads the rows of a data set; downloads or generates them if need be.

  Args:
    dataset: `census`, `census66k` or `sample`.
    data_dir: folder of the files; None for the default one, which is created.
    num_rows: rows of the generated sample.
    seed: seed of the generated sample.
    progress: called as a download proceeds.

  Raises:
    InputError: files that are missing, damaged or malformed.
  """
  if dataset == 'sample':
    return _generated(num_rows, seed)
  folder = _folder(data_dir)
  if not any(files.find(folder, split) for split in files.SPLITS):
    files.download(folder, progress)
  if dataset == 'census66k':
    return _census66k(folder)
  return _both_files(folder)


def count(table: Table) -> int:
  """Returns the number of rows of a table."""
  return len(next(iter(table.values())).codes)


def _generated(num_rows: int, seed: int) -> Rows:
  made = sample.make(num_rows, seed)
  facts = {
    'dataset': 'sample',
    'statement': 'generated sample, not UCI data '
    f'({num_rows:,} rows, seed {seed})',
    'files': {},
  }
  return Rows(made.train, made.test, facts, made.optimum)


def _both_files(folder: pathlib.Path) -> Rows:
  train, train_file = _split(folder, 'train')
  test, test_file = _split(folder, 'test')
  return Rows(train, test, _facts(train_file, test_file), {})


def _census66k(folder: pathlib.Path) -> Rows:
  """Splits the official test file: i mod 6 is 0..3 train, 4 test, 5 unused."""
  test, test_file = _split(folder, 'test')
  if test_file['label'] != 'official':  # the two halves, already made
    return _both_files(folder)
  part = np.arange(count(test)) % 6
  train_part, test_part = (
    {c: f.take(np.flatnonzero(chosen)) for c, f in test.items()}
    for chosen in (part < 4, part == 4)
  )
  facts = {
    'dataset': 'census66k',
    'statement': 'census66k: 5/6 of the official test rows, not comparable '
    'with published figures',
    'files': {'test': test_file},
  }
  return Rows(train_part, test_part, facts, {})


def _folder(data_dir: pathlib.Path | None) -> pathlib.Path:
  if data_dir is None:
    folder = default_data_dir()
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f'cannot create the data folder {folder} ({error.strerror}): pass '
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
      f'--data_dir={data_dir} is not a folder: create it (the files are '
      'downloaded into an empty one) or leave the flag out'
    )
  return folder


def _split(folder: pathlib.Path, split: str) -> tuple[Table, dict[str, Any]]:
  path = files.find(folder, split)
  if path is None:
    name = files.SPLITS[split]
    raise InputError(
      f'{folder} holds no {name} (nor {name}.gz, {files.INNER_ARCHIVE}, '
      f'{files.ARCHIVE}), although the other file is there'
    )
  packed = files.read(path)
  digest = hashlib.sha256(packed).hexdigest()
  cache_path = cache.path_of(path, split)
  cached = cache.read(cache_path, split, digest) if cache_path else None
  if cached is not None:
    return cast(Table, cached[0]), cached[1]
  source = files.unpack(path, packed, split)
  table = reader.parse(source.content, source.name)
  facts = {
    'file': path.name,
    'rows': count(table),
    'sha256': source.sha256,
    'label': source.label,
  }
  if cache_path:
    cache.write(cache_path, split, digest, table, facts)
  return table, facts


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
  both = {'train': train_file, 'test': test_file}
  return {'dataset': label, 'statement': statement, 'files': both}
