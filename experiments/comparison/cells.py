"""The finished fits of a comparison, each in files of its own.

A cell is the work of one program: a group of settings of one row, or a row's
final fit. Its name is a digest of everything that it is computed from, so that
a comparison that was interrupted, or is run again, fits only what is missing.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.base import Data
from experiments.launcher import figures, files, provenance
from experiments.launcher.options import Config

_NAME_LENGTH = 20  # hex digits: 80 bits, far too many for a collision


class Fitted(NamedTuple):
  """The outcome of a fit.

  Attributes:
    facts: JSON data, such as metrics, sizes and rates.
    arrays: by name, such as the logits of the test rows.
  """

  facts: dict[str, Any]
  arrays: dict[str, np.ndarray]


class Cell(NamedTuple):
  """One fit, done or not.

  Attributes:
    kind: `tune` or `final`, followed by `trees` for the trees.
    inputs: JSON data, everything besides the data set that `fit` depends on.
    fit: does the work.
  """

  kind: str
  inputs: Any
  fit: Callable[[], Fitted]


class Store:
  """The folder of the finished cells.

  Args:
    folder: where they are kept; created when needed.
    data: JSON data that identifies the rows, see `identify`.
    before_writing: called before each write; raises if the folder is lost.
    shared: JSON data that is kept with each cell: what all rows of its
      comparison share, see `folder.refuse_other`.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    data: dict[str, Any],
    before_writing: Callable[[], None] = lambda: None,
    shared: Mapping[str, Any] = MappingProxyType({}),
  ):
    self._folder = folder
    self._data = data
    self._before_writing = before_writing
    self._shared = dict(shared)

  def load(self, cell: Cell) -> Fitted | None:
    """Returns what was saved; None if it is missing or damaged."""
    path = self._path(cell)
    try:
      saved = _read_json(path.with_suffix('.json'))
      facts, digest = saved['facts'], saved['digest']
      if saved['identity'] != self._identity(cell) or digest != _digest(facts):
        return None
      facts = figures.from_json(facts)
      if saved['arrays'] is None:
        return Fitted(facts, {})
      content = path.with_suffix('.npz').read_bytes()
      if hashlib.sha256(content).hexdigest() != saved['arrays']:
        return None
      with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Fitted(facts, dict(arrays))
    except (OSError, ValueError, KeyError, TypeError):
      return None

  def save(self, cell: Cell, fitted: Fitted) -> None:
    """Writes the arrays first: a cell exists once its JSON does."""
    self._before_writing()
    path = self._path(cell)
    path.parent.mkdir(exist_ok=True)
    digest = None
    if fitted.arrays:
      buffer = io.BytesIO()
      arrays: Any = fitted.arrays
      np.savez_compressed(buffer, **arrays)
      files.write_bytes(path.with_suffix('.npz'), buffer.getvalue())
      digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    files.write_json(
      path.with_suffix('.json'),
      {
        'identity': self._identity(cell),
        'facts': fitted.facts,
        'digest': _digest(figures.to_json(fitted.facts)),
        'arrays': digest,
        'shared': self._shared,
        **provenance.environment(),
      },
    )

  def get(self, cell: Cell) -> Fitted:
    """Returns what was saved; fits and saves it if need be."""
    fitted = self.load(cell)
    if fitted is None:
      fitted = cell.fit()
      self.save(cell, fitted)
    return fitted

  def environment(self, cell: Cell) -> dict[str, Any]:
    """Returns the versions, device and commit of a finished cell's fit."""
    saved = _read_json(self._path(cell).with_suffix('.json'))
    return {name: saved[name] for name in ('versions', 'device', 'commit')}

  def _identity(self, cell: Cell) -> dict[str, Any]:
    identity = {'kind': cell.kind, 'what': cell.inputs, 'data': self._data}
    return json.loads(json.dumps(identity))  # tuples become lists, as on disk

  def _path(self, cell: Cell) -> pathlib.Path:
    return self._folder / _digest(self._identity(cell))[:_NAME_LENGTH]


def identify(config: Config, data: Data) -> dict[str, Any]:
  """Returns what identifies the rows: files, tasks and split.

  Args:
    config: fields that all rows of a comparison share.
    data: the encoded rows.
  """
  facts = data.facts
  return {
    'dataset': facts['dataset'],
    'files': {split: file['sha256'] for split, file in facts['files'].items()},
    'tasks': [task.name for task in data.tasks],
    'validation': config.validation,
    'split_seed': config.split_seed,
    'rows': facts['rows'],
  }


def _read_json(path: pathlib.Path) -> Any:
  return json.loads(path.read_text(encoding='utf-8'))


def _digest(data: Any) -> str:
  text = json.dumps(data, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
