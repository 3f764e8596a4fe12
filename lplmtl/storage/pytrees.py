"""Folders of arrays and JSON data, written by Orbax completely or not at all.

Orbax does not notice a flipped bit, and reports other damage in hundreds of
lines from its background threads. So every file is compared with its checksum
before Orbax opens any.
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

# Upper bounds of what a folder takes on the disk beyond its arrays: bytes of
# metadata per array and in all, and inodes.
_BYTES_PER_ARRAY, _BYTES_PER_FOLDER, _INODES = 512, 2**18, 64
# Errors of file systems that cannot reserve space.
_NO_RESERVING = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def absolute(path: str | pathlib.Path) -> pathlib.Path:
  """Returns an absolute path, with `~` expanded.

  Raises:
    ValueError: a folder cannot be saved there.
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
  """Raises ValueError for a path that Orbax cannot write to."""
  if set('[]') & set(str(directory)):
    raise ValueError(
      f'the path of a saved folder cannot have brackets, found {directory}: '
      'Orbax takes them for a pattern'
    )
  try:
    is_text = '\0' not in str(directory).encode('utf-8').decode('utf-8')
  except UnicodeEncodeError:
    is_text = False
  if not is_text:
    raise ValueError(
      'the path of a saved folder must be UTF-8, found '
      f'{os.fsencode(directory)!r}: choose another name'
    )


def check_outside(directory: pathlib.Path) -> None:
  """Raises ValueError for a saved folder, or a path inside one.

  Anything added to a saved folder counts as damage.
  """
  real = pathlib.Path(os.path.realpath(directory))
  for folder in (real, *real.parents):
    kind = folders.kind_of(folder)
    if kind is not None:
      raise ValueError(
        f'cannot save anything at {directory}: {folder} is a saved {kind}, '
        'which would count as damaged; choose another folder'
      )


def check_path(directory: pathlib.Path, kind: str) -> None:
  """Raises ValueError unless a folder of a kind can be written or replaced."""
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
      f'{directory} exists and is not a {kind} folder that lplmtl wrote, or '
      'holds more than that: move it away or choose another name'
    )


def write(
  directory: pathlib.Path, arrays: PyTree, meta: Mapping[str, Any], kind: str
) -> None:
  """Writes a folder; an older one is removed once the new one is on the disk.

  Args:
    directory: from `absolute`; missing parents are made.
    arrays: pytree of NumPy arrays.
    meta: JSON data.
    kind: `model` or `checkpoint`, for `folders.is_own`.

  Raises:
    CheckpointError: it cannot be written; an older folder is still there.
  """
  if jax.process_index():  # Orbax would leave out the arrays
    raise CheckpointError(
      f'cannot write {directory} in process {jax.process_index()} of '
      f'{jax.process_count()}: only the first one, number 0, can save'
    )
  try:
    check_path(directory, kind)
    _tidy(directory)
    files.make_folder(directory.parent)
    _check_space(directory.parent, arrays)
    with folders.replacing(directory) as new:
      _save(new, arrays, meta)
      folders.seal(new, kind)
  except Exception as error:  # Orbax and TensorStore raise many types
    with contextlib.suppress(OSError):
      _tidy(directory)
    raise CheckpointError(
      f'cannot write {directory}: {_first_line(error)}'
    ) from error


def _tidy(directory: pathlib.Path) -> None:
  folders.tidy(directory.parent, re.escape(directory.name))


def _save(new: pathlib.Path, arrays: PyTree, meta: Mapping[str, Any]) -> None:
  with quiet.orbax(), _checkpointer() as checkpointer:
    checkpointer.save(
      new,
      ocp.args.Composite(
        **{
          folders.ARRAYS: ocp.args.StandardSave(arrays),
          folders.META: ocp.args.JsonSave(dict(meta)),
        }
      ),
    )


def _checkpointer() -> ocp.Checkpointer:
  """Returns Orbax's reader and writer of a folder.

  Where several processes train together, Orbax expects a call in all of them.
  Here each call is one of its own process.
  """
  own = jax.process_index()
  options = ocp.options.MultiprocessingOptions(
    primary_host=own, active_processes={own}, barrier_sync_key_prefix=str(own)
  )
  return ocp.Checkpointer(
    ocp.CompositeCheckpointHandler(
      composite_options=ocp.CompositeOptions(multiprocessing_options=options),
      **{
        folders.ARRAYS: ocp.StandardCheckpointHandler(
          multiprocessing_options=options
        ),
        folders.META: ocp.JsonCheckpointHandler(
          multiprocessing_options=options
        ),
      },
    ),
    multiprocessing_options=options,
  )


def _check_space(parent: pathlib.Path, arrays: PyTree) -> None:
  """Raises OSError, in one line, if the disk is too full for the arrays."""
  leaves = jax.tree.leaves(arrays)
  needed = sum(leaf.nbytes + _BYTES_PER_ARRAY for leaf in leaves)
  needed += _BYTES_PER_FOLDER
  free = shutil.disk_usage(parent).free
  if free < needed:
    raise OSError(
      f'no space left: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free'
    )
  if hasattr(os, 'statvfs'):
    usage = os.statvfs(parent)
    if usage.f_files and usage.f_favail < _INODES:  # 0 files: not counted
      raise OSError(
        f'no space left: {_INODES} files needed, {usage.f_favail} can be made'
      )
  if hasattr(os, 'posix_fallocate'):
    with tempfile.TemporaryFile(dir=parent) as file:
      try:  # the only way to detect a quota
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
    CheckpointError: it is not such a folder, or is damaged.
  """
  verify(directory)
  try:
    with quiet.orbax(), _checkpointer() as checkpointer:
      restored = checkpointer.restore(
        directory,
        ocp.args.Composite(
          **{
            folders.ARRAYS: ocp.args.StandardRestore(),
            folders.META: ocp.args.JsonRestore(),
          }
        ),
      )
    arrays = jax.device_get(restored[folders.ARRAYS])
    meta = restored[folders.META]
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
    damage = folders.damage(directory)
  except OSError as error:
    where = f' ({error.filename})' if error.filename else ''
    raise CheckpointError(
      f'{directory} cannot be read: {_first_line(error)}{where}'
    ) from error
  if damage is not None:
    raise CheckpointError(
      f'{directory} is damaged: {damage} since it was saved'
    )
