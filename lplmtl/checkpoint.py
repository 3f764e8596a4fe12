"""Saves models: parameters, configuration and encoder tables in one folder.

A release reads the models of all earlier ones.
"""

import dataclasses
import json
import operator
import os
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import blueprint
from lplmtl.storage import folders, pytrees
from lplmtl.storage.errors import CheckpointError
from lplmtl.tables import Tables
from lplmtl.types import PyTree

# The format of the metadata. Raise it when earlier releases cannot read what
# this one writes, and add a golden model of it (tests/golden/write.py).
# 1: classes are named by a module that imported them; 2: by public names.
FORMAT = 2
KIND = 'model'  # how storage marks the folder


def save(
  directory: str | pathlib.Path,
  model: Any,
  params: PyTree,
  tables: Tables | None = None,
  *,
  num_seeds: int | None = None,
  extra: Mapping[str, Any] | None = None,
  modules: tuple[ModuleType, ...] = (),
) -> None:
  """Writes a model folder, replacing an older model at the same path.

  The older one is removed only once the new one is complete and on the disk.

  Args:
    directory: the folder; missing parents are created, `~` is expanded. A
      folder that is not a model, or that also holds other files, is rejected
      and left unchanged.
    model: a Linen module, or a wrapper around one such as
      `compression.LowRank`, whose fields are modules, tasks, numbers, strings,
      dtypes, public functions (losses, metrics, activations) and frozen
      dataclasses of `lplmtl`, `flax.linen`, `jax.nn` and `modules`, tuples of
      these, or the defaults of its class. NumPy numbers become Python numbers.
    params: its parameters, `variables['params']`.
    tables: the encoder tables, if the model reads encoded columns.
    num_seeds: S, if every leaf of `params` has a leading axis of S seeds.
    extra: further JSON data to keep with the model.
    modules: your own Python modules that define classes or functions that the
      model uses; pass them to `load` as well.

  Raises:
    ValueError: a field of the model cannot be written as data, a value would be
      loaded as a different one, parameters lack the axis of seeds, or the path
      cannot be a model folder.
    CheckpointError: the folder cannot be written.

  Example:
    >>> import lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.MMoE((tasks.binary('click'),), num_experts=2)
    >>> x = jnp.ones((2, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> save('model', model, params)
    >>> loaded, params, tables = load('model')
    >>> loaded.num_experts
    2
  """
  directory = pytrees.absolute(directory)
  _check_types(model, tables, extra)
  if num_seeds is not None:
    num_seeds = _check_whole('num_seeds', num_seeds, 1)
  lookup = blueprint.known_names(modules)
  pytrees.check_path(directory, KIND)
  meta = {
    'format': FORMAT,
    'model': blueprint.to_data(model, lookup),
    'tables': None if tables is None else blueprint.plain(tables.to_json()),
    'num_seeds': num_seeds,
    'extra': blueprint.plain(dict(extra or {})),
  }
  _check_read_back(meta, lookup)
  _check_params(params, num_seeds)
  # As NumPy arrays: Orbax reads arrays that are sharded over devices only on
  # the same number of devices.
  arrays = jax.tree.map(
    lambda x: x if hasattr(x, 'dtype') else np.asarray(x),
    jax.device_get(params),
  )
  pytrees.write(directory, arrays, meta, KIND)


def _check_types(model: Any, tables: Any, extra: Any) -> None:
  """Raises ValueError for arguments of `save` that have the wrong type."""
  if not _is_model(model):
    raise ValueError(
      'model must be a Linen module (an instance, such as lplmtl.MLP((8,))), '
      f'found {blueprint.one_line(model):.100}'
    )
  if not isinstance(tables, Tables | None):
    raise ValueError(
      'tables must be what lplmtl.tables.fit returns, or None; found '
      f'{blueprint.one_line(tables):.100}'
    )
  if not isinstance(extra, Mapping | None):
    raise ValueError(
      "extra must be a dict of JSON data, such as {'note': 1}; found "
      f'{blueprint.one_line(extra):.100}'
    )


def _is_model(value: Any) -> bool:
  """Returns whether a value is a Linen module, or a wrapper around one."""
  inside = getattr(value, 'model', None)
  is_wrapper = dataclasses.is_dataclass(value) and hasattr(value, 'apply')
  return isinstance(value, nn.Module) or (is_wrapper and _is_model(inside))


def _check_whole(name: str, value: Any, least: int) -> int:
  """Returns a whole number of any integer type as an int.

  Raises:
    ValueError: `value` has another type, or is below `least`.
  """
  try:
    number = None if isinstance(value, bool) else operator.index(value)
  except TypeError:
    number = None
  if number is None or number < least:
    raise ValueError(
      f'{name} must be None or a whole number of at least {least}, found '
      f'{blueprint.one_line(value):.100}'
    )
  return number


def _check_read_back(meta: dict[str, Any], lookup: Mapping[str, Any]) -> None:
  """Raises ValueError if `load` would return something other than `meta`."""
  try:
    loaded = json.loads(json.dumps(meta))
    model = blueprint.from_data(loaded['model'], lookup)
    tables = loaded['tables']
    if tables is not None:
      tables = Tables.from_json(tables).to_json()
  except Exception as error:  # constructors may raise any
    raise ValueError(
      f'cannot save this model, because loading it would fail: {error}'
    ) from error
  for name, old, new in (
    ('model', meta['model'], blueprint.to_data(model, lookup)),
    ('tables', meta['tables'], tables),
    ('extra', meta['extra'], loaded['extra']),
  ):
    # By `repr`, where NaN equals itself and the number 1 differs from '1'.
    if repr(old) != repr(new):
      raise ValueError(
        f'cannot save this {name}, because it would be loaded as a different '
        f'one (keys must be strings): expected {old!r:.300}, found {new!r:.300}'
      )


def _check_params(params: PyTree, num_seeds: int | None) -> None:
  """Raises ValueError for parameters that `load` could not return as given."""
  if isinstance(params, Mapping) and isinstance(params.get('params'), Mapping):
    raise ValueError(
      "params must be the parameters only, found {'params': ...}: pass "
      "variables['params']"
    )
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  if not leaves:
    raise ValueError('cannot save a model without parameters: found no array')
  stored_names: set[str] = set()
  for path, leaf in leaves:
    name = jax.tree_util.keystr(path)
    is_named = all(
      isinstance(getattr(part, 'key', None), str) or hasattr(part, 'idx')
      for part in path
    )
    is_array = hasattr(leaf, 'shape') or isinstance(leaf, int | float | complex)
    if not is_named or not is_array:
      raise ValueError(
        'params must be nested dicts with string keys, or lists, of arrays; '
        f'found {name or blueprint.one_line(leaf):.100}'
      )
    # Orbax joins the keys with dots: {'a.b': x} and {'a': {'b': y}} collide.
    stored = jax.tree_util.keystr(path, simple=True, separator='.')
    if stored in stored_names:
      raise ValueError(f'two parameters would both be stored as {stored}')
    stored_names.add(stored)
    if not jnp.size(leaf):  # Orbax does not write empty arrays
      raise ValueError(
        f'cannot save empty parameters: found shape {jnp.shape(leaf)} at {name}'
      )
    if num_seeds is not None and jnp.shape(leaf)[:1] != (num_seeds,):
      raise ValueError(
        f'with num_seeds={num_seeds}, all parameters must have a leading axis '
        f'of {num_seeds} seeds; found shape {jnp.shape(leaf)} at {name}'
      )


def load(
  directory: str | pathlib.Path,
  *,
  seed: int | None = None,
  modules: tuple[ModuleType, ...] = (),
) -> tuple[Any, PyTree, Tables | None]:
  """Reads a model folder: `model.apply({'params': params}, features)`.

  Args:
    directory: a folder that `save` wrote, in this release or an earlier one.
    seed: selects one seed of parameters that were saved with `num_seeds`; None
      returns them with their leading S axis.
    modules: as for `save`.

  Returns:
    (model, params, tables).

  Raises:
    ValueError: an argument has the wrong type.
    CheckpointError: the folder is not a model, is damaged, was written by a
      newer release, or uses something that this release lacks.
  """
  directory = pytrees.absolute(directory)
  lookup = blueprint.known_names(modules)
  if seed is not None:
    seed = _check_whole('seed', seed, 0)
  meta, params = _read(directory)
  try:
    model = blueprint.from_data(meta['model'], lookup)
    if not _is_model(model):
      raise TypeError(f'expected a Linen module, found {model!r:.50}')
    encoded = meta['tables']
    tables = None if encoded is None else Tables.from_json(encoded)
    num_seeds = int(meta['num_seeds'] or 0)
  except Exception as error:  # constructors may raise any
    raise _misfit(directory, error) from error
  if seed is None:
    return model, params, tables
  if seed >= num_seeds:
    raise CheckpointError(
      f'the model in {directory} was saved with {num_seeds or "no"} seeds; '
      f'found seed={seed}'
    )
  lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(params)}
  if lengths - {(num_seeds,)}:
    raise CheckpointError(
      f'all parameters in {directory} should have a leading axis of '
      f'{num_seeds} seeds; found {sorted(lengths)}'
    )
  return model, jax.tree.map(lambda x: x[seed], params), tables


def load_extra(directory: str | pathlib.Path) -> dict[str, Any]:
  """Returns the `extra` data of a model folder.

  Raises:
    ValueError, CheckpointError: as for `load`.
  """
  directory = pytrees.absolute(directory)
  extra = _read(directory)[0].get('extra')
  if not isinstance(extra, dict):
    raise _misfit(directory, TypeError(f'extra is {extra!r:.50}'))
  return extra


def num_seeds(directory: str | pathlib.Path) -> int:
  """Returns S of a model folder, 0 if its parameters have no axis of seeds.

  Raises:
    ValueError, CheckpointError: as for `load`.
  """
  directory = pytrees.absolute(directory)
  try:
    return int(_read(directory)[0].get('num_seeds') or 0)
  except TypeError as error:
    raise _misfit(directory, error) from error


def _misfit(directory: pathlib.Path, error: Exception) -> CheckpointError:
  if isinstance(error, KeyError):
    error = KeyError(f'{error} is missing')
  reason = ' '.join(str(error).split()) or type(error).__name__
  return CheckpointError(
    f'this release cannot load the model in {directory}: {reason:.500}'
  )


def _read(directory: pathlib.Path) -> tuple[dict[str, Any], PyTree]:
  if not os.path.exists(directory / folders.CHECKSUMS):
    raise CheckpointError(
      f'expected a model folder, found none at {directory}: train one first, '
      'or check the path'
    )
  params, meta = pytrees.read(directory)
  _check_format(directory, meta.get('format'))
  try:
    return meta, jax.tree.map(jnp.asarray, params)
  except Exception as error:
    raise _misfit(directory, error) from error


def _check_format(directory: pathlib.Path, number: Any) -> None:
  is_number = isinstance(number, int) and not isinstance(number, bool)
  if is_number and 1 <= number <= FORMAT:
    return
  if is_number and number > FORMAT:
    raise CheckpointError(
      f'the model in {directory} was written by a newer release (format '
      f'{number!r:.50}; this one reads up to {FORMAT}): update lplmtl'
    )
  raise CheckpointError(
    f'the model in {directory} must have a format number from 1 to {FORMAT}, '
    f'found {number!r:.50}: save it again'
  )
