"""The small networks of a frontier, as model folders: to export, to predict.

A cell keeps its networks among its arrays, and the folders are made from the
cells: one that is lost is made again without training.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.comparison.rows import Finished
from experiments.frontier import knees
from experiments.frontier.options import NET
from experiments.launcher import provenance, run_folder
from experiments.launcher.errors import InputError
from lplmtl import blueprint, checkpoint
from lplmtl.compression import leaves, recoding
from lplmtl.storage import folders, pytrees
from lplmtl.tables import Tables
from lplmtl.types import PyTree

_PARAMETER, _REST = 'parameter: ', 'model: JSON'


class Kept(NamedTuple):
  """Networks of S seeds, with what encodes their inputs.

  Attributes:
    model: see `checkpoint.save`.
    params: `[S, ...]`.
    tables: of its encoder.
  """

  model: Any
  params: PyTree
  tables: Tables


def to_arrays(kept: Kept) -> dict[str, np.ndarray]:
  """Returns networks as arrays of a cell."""
  rest = {
    'model': blueprint.to_data(kept.model, blueprint.known_names(())),
    'tables': blueprint.plain(kept.tables.to_json()),
  }
  named = leaves.names(kept.params)
  return {
    _REST: np.frombuffer(json.dumps(rest).encode(), np.uint8),
    **{_PARAMETER + name: np.asarray(leaf) for name, leaf in named.items()},
  }


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Kept | None:
  """Returns the networks of a cell; None if it keeps none."""
  if _REST not in arrays:
    return None
  rest = json.loads(arrays[_REST].tobytes())
  model = blueprint.from_data(rest['model'], blueprint.known_names(()))
  tables = Tables.from_json(rest['tables'])
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), recoding.one_row(tables)
  )
  params = leaves.map_named(
    lambda name, _: arrays[_PARAMETER + name], shapes['params']
  )
  return Kept(model, params, tables)


def folder_of(directory: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the model folder of a row, such as `models/net_1024`."""
  return directory / run_folder.MODELS / name.replace(' ', '_')


def check(directory: pathlib.Path, names: Iterable[str]) -> None:
  """Raises InputError if a row's folder exists, but is no model of ours.

  Args:
    directory: of the frontier.
    names: of the rows that keep networks.
  """
  parent = directory / run_folder.MODELS
  try:
    if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
      raise ValueError(f'{parent} is not a folder: move it away')
    for name in names:
      pytrees.check_path(folder_of(directory, name).absolute(), checkpoint.KIND)
  except ValueError as error:
    raise InputError(f'--out_dir={directory}: {error}') from error


def write(
  directory: pathlib.Path,
  names: Sequence[str],
  finished: Sequence[Finished],
  extra: Mapping[str, Any],
  note: Callable[[str], None],
) -> list[str]:
  """Writes the model folders of finished rows.

  An older folder of a row that is not finished is removed: it may be of other
  data.

  Args:
    directory: of the frontier.
    names: of all rows that keep networks.
    finished: rows of any kind.
    extra: JSON data to keep with each model.
    note: called with a line if a row's networks were not kept.

  Returns:
    The names of the rows that have a folder now.

  Raises:
    CheckpointError: a folder cannot be written.
  """
  by_name = {row.name: row for row in finished}
  written = []
  for name in names:
    path = folder_of(directory, name)
    row = by_name.get(name)
    kept = from_arrays(row.scores) if row else None
    if kept:
      num_seeds = len(jax.tree.leaves(kept.params)[0])
      checkpoint.save(path, *kept, num_seeds=num_seeds, extra=extra)
      written.append(name)
      continue
    _remove(path)
    if row:
      note(
        f'{name} has no model folder: an earlier version fitted it and kept no '
        'model; --overwrite fits everything anew'
      )
  return written


def clear(directory: pathlib.Path) -> None:
  """Removes all model folders that a frontier has written."""
  for path in (directory / run_folder.MODELS).glob(f'{NET}_*'):
    _remove(path)
  if folders.is_empty(directory / run_folder.MODELS):
    (directory / run_folder.MODELS).rmdir()


def next_command(
  directory: pathlib.Path, written: Sequence[str], results: Mapping[str, Any]
) -> str:
  """Returns the line that exports one of the models.

  That is the smallest that is equivalent to the baseline, else the one at the
  knee, else the largest.

  Args:
    directory: of the frontier.
    written: what `write` returned, at least one.
    results: of the frontier.
  """
  best = knees.smallest_equivalent(results['rows']).get(NET)
  choices = best or '', results['knees'].get(NET, ''), written[-1]
  path = folder_of(directory, next(x for x in choices if x in written))
  export = str(pathlib.Path(sys.argv[0]).with_name('export.py'))
  command = [export, f'--model={path}', '--format=packed', '--to=dist']
  return (
    f'models are in {path.parent}; as C: {provenance.command_line(command)}'
  )


def _remove(path: pathlib.Path) -> None:
  if folders.is_own(path, checkpoint.KIND):
    folders.remove(path)
