"""Saved models: parameters, configuration and encoder tables in one folder."""

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
from lplmtl.storage.pytrees import CheckpointError
from lplmtl.tables import Tables
from lplmtl.types import PyTree

FORMAT = 1
KIND = 'model'  # of folder


def save(
  directory: str | pathlib.Path,
  model: nn.Module,
  params: PyTree,
  tables: Tables | None = None,
  *,
  num_seeds: int | None = None,
  extra: Mapping[str, Any] | None = None,
  modules: tuple[ModuleType, ...] = (),
) -> None:
  """Writes a model folder; an older model there is replaced.

  The new folder is whole, and on the disk, before the old one goes.

  Args:
    directory: the folder; missing parents are made, `~` is the home folder.
      What is there and is no model folder is left alone, and so is one that
      holds anything else.
    model: a Linen module whose fields are modules, tasks, numbers, strings,
      dtypes, tuples of these, named functions of `jax.nn` and `lplmtl`, or
      whatever is the default of its class. NumPy's numbers become Python's.
    params: its parameters, `variables['params']`.
    tables: the encoder tables, if the model reads encoded columns.
    num_seeds: S, if every leaf of `params` leads with an axis of S seeds.
    extra: more JSON data to keep beside it.
    modules: your own Python modules that hold classes or functions which the
      model uses; name them to `load` too.

  Raises:
    ValueError: a field of the model that cannot be written as data, anything
      that would not come back as it is, parameters without the axis of seeds,
      or a path that cannot be a model folder.
    CheckpointError: the folder cannot be written.
  """
  directory = pytrees.absolute(directory)
  _check_types(model, tables, extra)
  if num_seeds is not None:
    num_seeds = _whole('num_seeds', num_seeds, 1)
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
  # As plain arrays: those spread over devices could be read on as many only.
  arrays = jax.tree.map(
    lambda x: x if hasattr(x, 'dtype') else np.asarray(x),
    jax.device_get(params),
  )
  pytrees.write(directory, arrays, meta, KIND)


def _check_types(model: Any, tables: Any, extra: Any) -> None:
  """Raises a ValueError for arguments of `save` that are something else."""
  if not isinstance(model, nn.Module):
    raise ValueError(
      'model must be a Linen module (an instance, such as lplmtl.MLP((8,))), '
      f'found {blueprint.one_line(model):.100}'
    )
  if not isinstance(tables, Tables | None):
    raise ValueError(
      'tables must be those of lplmtl.tables.fit, or None; found '
      f'{blueprint.one_line(tables):.100}'
    )
  if not isinstance(extra, Mapping | None):
    raise ValueError(
      "extra must be a dict of JSON data, such as {'note': 1}; found "
      f'{blueprint.one_line(extra):.100}'
    )


def _whole(name: str, value: Any, least: int) -> int:
  """A whole number of any type; raises a ValueError for anything else."""
  try:
    found = None if isinstance(value, bool) else operator.index(value)
  except TypeError:
    found = None
  if found is None or found < least:
    raise ValueError(
      f'{name} must be None or a whole number of at least {least}, found '
      f'{blueprint.one_line(value):.100}'
    )
  return found


def _check_read_back(meta: dict[str, Any], lookup: Mapping[str, Any]) -> None:
  """Raises a ValueError for metadata that `load` would not give back."""
  try:
    found = json.loads(json.dumps(meta))
    model = blueprint.from_data(found['model'], lookup)
    tables = found['tables']
    if tables is not None:
      tables = Tables.from_json(tables).to_json()
  except Exception as error:
    raise ValueError(
      f'cannot save this model, as it could not be loaded: {error}'
    ) from error
  for name, old, new in (
    ('model', meta['model'], blueprint.to_data(model, lookup)),
    ('tables', meta['tables'], tables),
    ('extra', meta['extra'], found['extra']),
  ):
    if repr(old) != repr(new):  # a NaN equals itself, 1 is no '1'
      raise ValueError(
        f'cannot save this {name}, as it would come back as another (keys must '
        f'be strings): expected {old!r:.300}, found {new!r:.300}'
      )


def _check_params(params: PyTree, num_seeds: int | None) -> None:
  """Raises a ValueError for parameters that `load` would not give back."""
  if isinstance(params, Mapping) and isinstance(params.get('params'), Mapping):
    raise ValueError(
      "params must be the parameters alone, found {'params': ...}: hand over "
      "variables['params']"
    )
  found = jax.tree_util.tree_flatten_with_path(params)[0]
  if not found:
    raise ValueError('cannot save a model without parameters: found no array')
  taken: set[str] = set()
  for path, leaf in found:
    name = jax.tree_util.keystr(path)
    is_named = all(
      isinstance(getattr(part, 'key', None), str) or hasattr(part, 'idx')
      for part in path
    )
    is_array = hasattr(leaf, 'shape') or isinstance(leaf, int | float | complex)
    if not is_named or not is_array:
      raise ValueError(
        'params must be nested dicts with strings as keys, or lists, of '
        f'arrays; found {name or blueprint.one_line(leaf):.100}'
      )
    stored = jax.tree_util.keystr(path, simple=True, separator='.')
    if stored in taken:
      raise ValueError(f'two parameters would both be stored as {stored}')
    taken.add(stored)
    if not jnp.size(leaf):
      raise ValueError(
        f'cannot save parameters without a number: found shape '
        f'{jnp.shape(leaf)} at {name}'
      )
    if num_seeds is not None and jnp.shape(leaf)[:1] != (num_seeds,):
      raise ValueError(
        f'with num_seeds={num_seeds}, all parameters must lead with an axis of '
        f'{num_seeds} seeds; found shape {jnp.shape(leaf)} at {name}'
      )


def load(
  directory: str | pathlib.Path,
  *,
  seed: int | None = None,
  modules: tuple[ModuleType, ...] = (),
) -> tuple[nn.Module, PyTree, Tables | None]:
  """Reads a model folder: `model.apply({'params': params}, features)`.

  Args:
    directory: what `save` wrote.
    seed: takes one seed of parameters that were saved with `num_seeds`; without
      it they come with their leading S axis.
    modules: as for `save`.

  Returns:
    (model, params, tables).

  Raises:
    ValueError: arguments of another type.
    CheckpointError: not a model folder, a damaged one, or one of a release
      that has what this one has not.
  """
  directory = pytrees.absolute(directory)
  lookup = blueprint.known_names(modules)
  if seed is not None:
    seed = _whole('seed', seed, 0)
  meta, params = _read(directory)
  try:
    model = blueprint.from_data(meta['model'], lookup)
    if not isinstance(model, nn.Module):
      raise TypeError(f'expected a Linen module, found {model!r:.50}')
    found = meta['tables']
    tables = None if found is None else Tables.from_json(found)
    num_seeds = int(meta['num_seeds'] or 0)
  except CheckpointError:
    raise
  except Exception as error:  # of constructors, too
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
      f'the parameters in {directory} should lead with {num_seeds} seeds, '
      f'found lengths {sorted(lengths)}'
    )
  return model, jax.tree.map(lambda x: x[seed], params), tables


def load_extra(directory: str | pathlib.Path) -> dict[str, Any]:
  """The `extra` data of a model folder; raises as `load`."""
  directory = pytrees.absolute(directory)
  extra = _read(directory)[0].get('extra')
  if not isinstance(extra, dict):
    raise _misfit(directory, TypeError(f'extra is {extra!r:.50}'))
  return extra


def _misfit(directory: pathlib.Path, error: Exception) -> CheckpointError:
  if isinstance(error, KeyError):
    error = KeyError(f'{error} is missing')
  reason = ' '.join(str(error).split()) or type(error).__name__
  return CheckpointError(
    f'the model in {directory} does not fit this release: {reason:.500}'
  )


def _read(directory: pathlib.Path) -> tuple[dict[str, Any], PyTree]:
  if not os.path.exists(directory / folders.CHECKSUMS):
    raise CheckpointError(
      f'expected a model folder, found none at {directory}: train one first, '
      'or check the path'
    )
  params, meta = pytrees.read(directory)
  if meta.get('format') != FORMAT:
    raise CheckpointError(
      f'the model in {directory} has format {meta.get("format")!r:.50}, and '
      f'this release reads format {FORMAT}'
    )
  try:
    return meta, jax.tree.map(jnp.asarray, params)
  except Exception as error:
    raise _misfit(directory, error) from error
