"""Folders that are whole or not there: Orbax, a rename, and checksums.

All files that the library reads and writes go through here. Orbax notices no
flipped bit, and answers damage with hundreds of lines from its background
threads; so every file is compared with its checksum before Orbax opens any.
"""

import contextlib
import hashlib
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from lplmtl.types import PyTree

CHECKSUMS = 'SHA256SUMS'
ARRAYS, META = 'arrays', 'meta'


class CheckpointError(ValueError):
  """A folder that cannot be written, or holds nothing whole."""


def check_name(directory: pathlib.Path) -> None:
  """Raises a ValueError for a path that Orbax would take for a pattern."""
  if set('[]') & set(str(directory)):
    raise ValueError(
      f'a saved folder cannot have brackets in its path, found {directory}: '
      'Orbax takes them for a pattern'
    )


def check_path(directory: pathlib.Path) -> None:
  """Raises a ValueError where no model folder can be (re)written."""
  check_name(directory)
  is_ours = (directory / CHECKSUMS).is_file()
  is_empty = directory.is_dir() and not any(directory.iterdir())
  if directory.exists() and not is_ours and not is_empty:
    raise ValueError(
      f'{directory} is there and is no whole model folder: remove it or choose '
      'another name'
    )


def write(
  directory: pathlib.Path, arrays: PyTree, meta: Mapping[str, Any]
) -> None:
  """Writes a folder; the new one is whole before an older one goes.

  Args:
    directory: absolute; missing parents are made.
    arrays: pytree of NumPy arrays.
    meta: JSON data.

  Raises:
    CheckpointError: it cannot be written; an older folder is still there.
  """
  part, old = _part(directory), _old(directory)
  try:
    _tidy(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    _check_space(directory.parent, arrays)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
      checkpointer.save(
        part,
        ocp.args.Composite(
          **{
            ARRAYS: ocp.args.StandardSave(arrays),
            META: ocp.args.JsonSave(dict(meta)),
          }
        ),
      )
    (part / CHECKSUMS).write_text(_checksums(part))
    if directory.exists():
      directory.rename(old)
    part.rename(directory)
  except Exception as error:  # Orbax and TensorStore raise many kinds
    with contextlib.suppress(OSError):
      _tidy(directory)
    raise CheckpointError(
      f'cannot write {directory}: {_first_line(error)}'
    ) from error
  _tidy(directory)


def _part(directory: pathlib.Path) -> pathlib.Path:
  return directory.with_name(f'.{directory.name}.part')


def _old(directory: pathlib.Path) -> pathlib.Path:
  return directory.with_name(f'.{directory.name}.old')


def _tidy(directory: pathlib.Path) -> None:
  """Removes what a write has left beside a folder.

  One that broke off between its two renames left the older folder only there:
  that goes back to its place.
  """
  if _old(directory).exists() and not directory.exists():
    _old(directory).rename(directory)
  for path in directory.parent.glob(f'.{directory.name}.*'):
    shutil.rmtree(path, ignore_errors=True)


def _check_space(parent: pathlib.Path, arrays: PyTree) -> None:
  """So that a full disk is told of in one line, before anything is written."""
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) + 2**18
  free = shutil.disk_usage(parent).free
  if free < needed:
    raise OSError(
      f'no space left: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free'
    )


def _first_line(error: Exception) -> str:
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return str(error).strip().split('\n')[0] or type(error).__name__


def read(directory: pathlib.Path) -> tuple[PyTree, dict[str, Any]]:
  """Reads what `write` wrote.

  Args:
    directory: absolute.

  Returns:
    (arrays, meta): nested dicts and lists of NumPy arrays, and JSON data.

  Raises:
    CheckpointError: not such a folder, or a damaged one.
  """
  verify(directory)
  try:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
      found = checkpointer.restore(
        directory,
        ocp.args.Composite(
          **{
            ARRAYS: ocp.args.StandardRestore(),
            META: ocp.args.JsonRestore(),
          }
        ),
      )
  except Exception as error:
    raise CheckpointError(
      f'{directory} cannot be read: {_first_line(error)}'
    ) from error
  return jax.device_get(found[ARRAYS]), found[META]


def verify(directory: pathlib.Path) -> None:
  """Compares every file with its checksum.

  Raises:
    CheckpointError: names the first file that is missing or has changed.
  """
  path = directory / CHECKSUMS
  try:
    if not path.is_file():
      raise CheckpointError(
        f'{directory} is damaged: expected {CHECKSUMS} in it, found none'
      )
    text, actual = path.read_text(errors='replace'), _checksums(directory)
  except OSError as error:
    raise CheckpointError(
      f'{directory} cannot be read: {_first_line(error)}'
    ) from error
  if text == actual:
    return
  expected, found = _parse(text), _parse(actual)
  changed = {
    name
    for name in expected.keys() | found.keys()
    if expected.get(name) != found.get(name)
  }
  raise CheckpointError(
    f'{directory} is damaged: {min(changed, default=CHECKSUMS)} is missing '
    'or has changed since it was saved'
  )


def _parse(text: str) -> dict[str, str]:
  """`{file: checksum}`."""
  lines = [line.split('  ', 1) for line in text.splitlines() if '  ' in line]
  return {name: sha for sha, name in lines}


def _checksums(directory: pathlib.Path) -> str:
  """What `sha256sum` prints for every file below a folder."""
  files = sorted(p for p in directory.rglob('*') if p.is_file())
  return ''.join(
    f'{hashlib.sha256(path.read_bytes()).hexdigest()}  '
    f'{path.relative_to(directory).as_posix()}\n'
    for path in files
    if path.name != CHECKSUMS
  )
