"""Folders of arrays and JSON data that are whole or not there, by Orbax.

Orbax notices no flipped bit, and answers damage with hundreds of lines from its
background threads; so every file is compared with its checksum before Orbax
opens any.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from lplmtl.storage import files, folders, quiet
from lplmtl.storage.errors import CheckpointError
from lplmtl.types import PyTree

_MORE = 512  # bytes beside each array
_NO_RESERVING = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_INODES = 64  # files and folders that one folder takes, at most


def absolute(path: str | pathlib.Path) -> pathlib.Path:
  """A path with `~` expanded.

  Raises:
    ValueError: no path that a folder can be saved at.
  """
  try:
    directory = pathlib.Path(path).expanduser().absolute()
  except RuntimeError as error:
    raise ValueError(f'cannot expand {path}: {error}') from error
  except TypeError as error:
    raise ValueError(
      'the path of a folder must be a string or a pathlib.Path, found '
      f'{" ".join(repr(path).split()):.100}'
    ) from error
  check_name(directory)
  return directory


def check_name(directory: pathlib.Path) -> None:
  """Raises a ValueError for a path that Orbax cannot write to."""
  if set('[]') & set(str(directory)):
    raise ValueError(
      f'a saved folder cannot have brackets in its path, found {directory}: '
      'Orbax takes them for a pattern'
    )
  try:
    is_text = '\0' not in str(directory).encode('utf-8').decode('utf-8')
  except UnicodeEncodeError:
    is_text = False
  if not is_text:
    raise ValueError(
      'a saved folder must have a path in UTF-8, found '
      f'{os.fsencode(directory)!r}: choose another name'
    )


def check_outside(directory: pathlib.Path) -> None:
  """Raises a ValueError for a saved folder, or a path in one.

  What is added to a saved folder counts as damage.
  """
  real = pathlib.Path(os.path.realpath(directory))
  for folder in (real, *real.parents):
    kind = folders.kind_of(folder)
    if kind is not None:
      raise ValueError(
        f'nothing can be kept at {directory}: {folder} is a saved {kind}, '
        'which would count as damaged; choose another folder'
      )


def check_path(directory: pathlib.Path, kind: str) -> None:
  """Raises a ValueError where no folder of a kind can be (re)written."""
  check_name(directory)
  check_outside(directory.parent)
  try:
    if not os.path.lexists(directory) or folders.is_empty(directory):
      return
    is_own = folders.is_own(directory, kind)
  except OSError as error:
    raise CheckpointError(
      f'{directory} cannot be read: {_first_line(error)}'
    ) from error
  if not is_own:
    raise ValueError(
      f'{directory} is there and is no {kind} folder that was written here, or '
      'holds more than that: move it away or choose another name'
    )


def write(
  directory: pathlib.Path, arrays: PyTree, meta: Mapping[str, Any], kind: str
) -> None:
  """Writes a folder; the new one is whole, on the disk, before an older goes.

  Args:
    directory: from `absolute`; missing parents are made.
    arrays: pytree of NumPy arrays.
    meta: JSON data.
    kind: `model` or `checkpoint`, as `folders.is_own` knows it again.

  Raises:
    CheckpointError: it cannot be written; an older folder is still there.
  """
  try:
    check_path(directory, kind)
    _tidy(directory)
    files.make_folder(directory.parent)
    _check_space(directory.parent, arrays)
    with folders.replacing(directory) as new:
      _save(new, arrays, meta)
      folders.seal(new, kind)
  except Exception as error:  # Orbax and TensorStore raise many kinds
    with contextlib.suppress(OSError):
      _tidy(directory)
    raise CheckpointError(
      f'cannot write {directory}: {_first_line(error)}'
    ) from error


def _tidy(directory: pathlib.Path) -> None:
  folders.tidy(directory.parent, re.escape(directory.name))


def _save(new: pathlib.Path, arrays: PyTree, meta: Mapping[str, Any]) -> None:
  with (
    quiet.orbax(),
    ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer,
  ):
    checkpointer.save(
      new,
      ocp.args.Composite(
        **{
          folders.ARRAYS: ocp.args.StandardSave(arrays),
          folders.META: ocp.args.JsonSave(dict(meta)),
        }
      ),
    )


def _check_space(parent: pathlib.Path, arrays: PyTree) -> None:
  """So that a full disk is told of in one line, before anything is written."""
  leaves = jax.tree.leaves(arrays)
  needed = sum(leaf.nbytes for leaf in leaves) + _MORE * len(leaves) + 2**18
  free = shutil.disk_usage(parent).free
  if free < needed:
    raise OSError(
      f'no space left: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free'
    )
  if hasattr(os, 'statvfs'):
    found = os.statvfs(parent)
    if found.f_files and found.f_favail < _INODES:  # some count none
      raise OSError(
        f'no space left: {_INODES} files needed, {found.f_favail} can be made'
      )
  if hasattr(os, 'posix_fallocate'):
    with tempfile.TemporaryFile(dir=parent) as file:
      try:  # a quota shows here alone
        os.posix_fallocate(file.fileno(), 0, needed)
      except OSError as error:
        if error.errno not in _NO_RESERVING:
          raise


def _first_line(error: Exception) -> str:
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return str(error).strip().split('\n')[0] or type(error).__name__


def read(directory: pathlib.Path) -> tuple[PyTree, dict[str, Any]]:
  """Reads what `write` wrote.

  Args:
    directory: from `absolute`.

  Returns:
    (arrays, meta): nested dicts and lists of NumPy arrays, and JSON data.

  Raises:
    CheckpointError: not such a folder, or a damaged one.
  """
  verify(directory)
  try:
    with (
      quiet.orbax(),
      ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer,
    ):
      found = checkpointer.restore(
        directory,
        ocp.args.Composite(
          **{
            folders.ARRAYS: ocp.args.StandardRestore(),
            folders.META: ocp.args.JsonRestore(),
          }
        ),
      )
    arrays, meta = jax.device_get(found[folders.ARRAYS]), found[folders.META]
    if not isinstance(meta, dict):
      raise TypeError(f'expected a dict as metadata, found {meta!r:.50}')
  except Exception as error:
    raise CheckpointError(
      f'{directory} cannot be read: {_first_line(error)}'
    ) from error
  return arrays, meta


def verify(directory: pathlib.Path) -> None:
  """Compares every file with its size and its checksum.

  Raises:
    CheckpointError: names the first file that is missing or has changed.
  """
  try:
    found = folders.damage(directory)
  except OSError as error:
    where = f' ({error.filename})' if error.filename else ''
    raise CheckpointError(
      f'{directory} cannot be read: {_first_line(error)}{where}'
    ) from error
  if found is not None:
    raise CheckpointError(f'{directory} is damaged: {found} since it was saved')
