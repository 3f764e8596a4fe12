"""Saved models: parameters, configuration and encoder tables in one folder."""

import dataclasses
import importlib
import json
import os
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl import folders, storage
from lplmtl.storage import CheckpointError
from lplmtl.tables import Tables
from lplmtl.types import PyTree, Task

FORMAT = 1
KIND = 'model'  # of folder
# Where the modules and functions of a saved model may come from. Nothing else
# is ever looked up: a model file is data, not code.
_MODULES = (
  'lplmtl.architectures',
  'lplmtl.encoder',
  'lplmtl.experts',
  'lplmtl.losses',
  'lplmtl.metrics',
  'lplmtl.types',
  'flax.linen',
  'jax.nn',
)


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
      dtypes, tuples of these, or named functions of `jax.nn` and `lplmtl`.
      NumPy's numbers become Python's.
    params: its parameters.
    tables: the encoder tables, if the model reads encoded columns.
    num_seeds: S, if every leaf of `params` leads with an axis of S seeds.
    extra: more JSON data to keep beside it.
    modules: your own Python modules that hold classes or functions which the
      model uses; name them to `load` too.

  Raises:
    ValueError: a field of the model that cannot be written as data, anything
      that would not come back as it is, or a path that cannot be a model
      folder.
    CheckpointError: the folder cannot be written.
  """
  directory = storage.absolute(directory)
  storage.check_path(directory, KIND)
  lookup = _lookup(modules)
  meta = {
    'format': FORMAT,
    'model': _to_data(model, lookup),
    'tables': None if tables is None else _plain(tables.to_json()),
    'num_seeds': None if num_seeds is None else int(num_seeds),
    'extra': _plain(dict(extra or {})),
  }
  _check_read_back(meta, lookup)
  _check_params(params)
  # As plain arrays: those spread over devices could be read on as many only.
  arrays = jax.tree.map(
    lambda x: x if hasattr(x, 'dtype') else np.asarray(x),
    jax.device_get(params),
  )
  storage.write(directory, arrays, meta, KIND)


def _check_read_back(meta: dict[str, Any], lookup: Mapping[str, Any]) -> None:
  """Raises a ValueError for metadata that `load` would not give back."""
  try:
    found = json.loads(json.dumps(meta))
    model = _from_data(found['model'], lookup)
    tables = found['tables']
    if tables is not None:
      tables = Tables.from_json(tables).to_json()
  except Exception as error:
    raise ValueError(
      f'cannot save this model, as it could not be loaded: {error}'
    ) from error
  for name, old, new in (
    ('model', meta['model'], _to_data(model, lookup)),
    ('tables', meta['tables'], tables),
    ('extra', meta['extra'], found['extra']),
  ):
    if repr(old) != repr(new):  # a NaN equals itself, 1 is no '1'
      raise ValueError(
        f'cannot save this {name}, as it would come back as another (keys must '
        f'be strings): expected {old!r:.300}, found {new!r:.300}'
      )


def _check_params(params: PyTree) -> None:
  """Raises a ValueError for parameters that `load` would not give back."""
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
    if not is_named:
      raise ValueError(
        'params must be nested dicts with strings as keys, or lists, of '
        f'arrays; found {name}'
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
    CheckpointError: not a model folder, a damaged one, or one of a release
      that has what this one has not.
  """
  directory = storage.absolute(directory)
  meta, params = _read(directory)
  try:
    model = _from_data(meta['model'], _lookup(modules))
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
  if not 0 <= seed < num_seeds:
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
  directory = storage.absolute(directory)
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
  params, meta = storage.read(directory)
  if meta.get('format') != FORMAT:
    raise CheckpointError(
      f'the model in {directory} has format {meta.get("format")!r:.50}, and '
      f'this release reads format {FORMAT}'
    )
  try:
    return meta, jax.tree.map(jnp.asarray, params)
  except Exception as error:
    raise _misfit(directory, error) from error


def _lookup(modules: tuple[ModuleType, ...]) -> dict[str, Any]:
  """Every public name a saved model may mention: `{'jax.nn:relu': relu}`."""
  known = [importlib.import_module(name) for name in _MODULES]
  return {
    f'{module.__name__}:{name}': value
    for module in (*known, *modules)
    for name, value in vars(module).items()
    if callable(value) and not name.startswith('_')
  }


def _to_data(value: Any, lookup: Mapping[str, Any]) -> Any:
  """A module, a task, or a value of one of their fields, as JSON data."""
  value = _number(value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, tuple | list):
    return [_to_data(v, lookup) for v in value]
  if isinstance(value, Mapping):
    return {'dict': {k: _to_data(v, lookup) for k, v in value.items()}}
  if isinstance(value, nn.Module | Task):
    fields = {
      f.name: _to_data(getattr(value, f.name), lookup)
      for f in dataclasses.fields(value)
      if f.init and f.name not in ('parent', 'name')
    }
    if isinstance(value, Task):
      fields['name'] = value.name
    return {'class': _name_of(type(value), lookup), 'fields': fields}
  try:
    return {'function': _name_of(value, lookup)}
  except ValueError:
    dtype = _dtype(value)
    if dtype is None:
      raise
    return {'dtype': dtype.name}


def _number(value: Any) -> Any:
  """NumPy's and JAX's single numbers as Python's."""
  is_array = isinstance(value, np.ndarray | jax.Array) and value.ndim == 0
  if is_array and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
    value = np.asarray(value)[()]
  if isinstance(value, np.generic):
    kinds = (bool, np.bool_), (int, jnp.integer), (float, jnp.floating)
    for kind, family in kinds:
      if jnp.issubdtype(value.dtype, family):
        return kind(value)
  return str(value) if isinstance(value, np.str_) else value


def _plain(value: Any) -> Any:
  """JSON data without NumPy's numbers and tuples."""
  if isinstance(value, Mapping):
    return {k: _plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [_plain(v) for v in value]
  return _number(value)


def _dtype(value: Any) -> np.dtype[Any] | None:
  """A dtype of numbers or bools; None where a value names none."""
  if not (isinstance(value, np.dtype | str) or callable(value)):
    return None
  try:
    dtype = jnp.dtype(value)
  except (TypeError, ValueError):
    return None
  is_number = jnp.issubdtype(dtype, jnp.number) or dtype == np.bool_
  return dtype if is_number else None


def _name_of(value: Any, lookup: Mapping[str, Any]) -> str:
  for name, known in lookup.items():
    if known is value:
      return name
  found = ' '.join(repr(value).split())
  raise ValueError(
    f'cannot save {found:.200}: expected a class or function from '
    f'{", ".join(_MODULES)}, or from one of `modules`'
  )


def _from_data(data: Any, lookup: Mapping[str, Any]) -> Any:
  if isinstance(data, list):
    return tuple(_from_data(v, lookup) for v in data)
  if not isinstance(data, dict):
    return data
  if 'dict' in data:
    return {k: _from_data(v, lookup) for k, v in data['dict'].items()}
  if 'dtype' in data:
    dtype = _dtype(data['dtype'])
    if dtype is None:
      raise CheckpointError(f'expected a dtype, found {data["dtype"]!r:.50}')
    return dtype
  name = data.get('class') or data['function']
  if not isinstance(name, str) or name not in lookup:
    raise CheckpointError(
      f'the model uses {name!r}, which is not known here: hand its Python '
      'module over in `modules`'
    )
  if 'function' in data:
    return lookup[name]
  cls = lookup[name]
  if not (isinstance(cls, type) and issubclass(cls, nn.Module | Task)):
    raise CheckpointError(f'expected a Linen module or a task, found {name!r}')
  return cls(**{k: _from_data(v, lookup) for k, v in data['fields'].items()})
