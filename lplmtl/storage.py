"""Folders of arrays and JSON data that are whole or not there, by Orbax.

Orbax notices no flipped bit, and answers damage with hundreds of lines from its
background threads; so every file is compared with its checksum before Orbax
opens any.
"""

import contextlib
import logging
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from lplmtl import files, folders
from lplmtl.types import PyTree

_INODES = 64  # files and folders that one folder takes, at most
_PATIENCE = 10.0  # seconds for a thread to end after an error


class CheckpointError(ValueError):
  """A folder that cannot be written, or holds nothing whole."""


def absolute(path: str | pathlib.Path) -> pathlib.Path:
  """A path with `~` expanded.

  Raises:
    ValueError: no path that a folder can be saved at.
  """
  try:
    directory = pathlib.Path(path).expanduser().absolute()
  except RuntimeError as error:
    raise ValueError(f'cannot expand {path}: {error}') from error
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


def check_path(directory: pathlib.Path, kind: str) -> None:
  """Raises a ValueError where no folder of a kind can be (re)written."""
  check_name(directory)
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
    _quiet(),
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """For what Orbax's threads log of an error that is raised as well.

  They may go on after it: until they have ended, nothing can be tidied.
  """

  def is_wanted(record: logging.LogRecord) -> bool:
    is_error = record.levelno >= logging.ERROR
    return not (is_error and f'{os.sep}orbax{os.sep}' in record.pathname)

  logger = logging.getLogger('absl')
  logger.addFilter(is_wanted)
  before = set(threading.enumerate())
  try:
    yield
  except Exception:
    for thread in set(threading.enumerate()) - before:
      if type(thread).__module__.startswith('orbax'):
        thread.join(_PATIENCE)
    raise
  finally:
    logger.removeFilter(is_wanted)


def _check_space(parent: pathlib.Path, arrays: PyTree) -> None:
  """So that a full disk is told of in one line, before anything is written."""
  needed = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays)) + 2**18
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
      _quiet(),
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
