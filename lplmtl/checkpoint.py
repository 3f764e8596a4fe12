"""Saved models: parameters, configuration and encoder tables in one folder."""

import dataclasses
import importlib
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lplmtl import storage
from lplmtl.storage import CheckpointError
from lplmtl.tables import Tables
from lplmtl.types import PyTree, Task

FORMAT = 1
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

  The new folder is whole before the old one goes.

  Args:
    directory: the folder; missing parents are made. What is there and is no
      model folder is left alone.
    model: a Linen module whose fields are modules, tasks, numbers, strings,
      dtypes, tuples of these, or named functions of `jax.nn` and `lplmtl`.
    params: its parameters.
    tables: the encoder tables, if the model reads encoded columns.
    num_seeds: S, if every leaf of `params` leads with an axis of S seeds.
    extra: more JSON data to keep beside it.
    modules: your own Python modules that hold classes or functions which the
      model uses; name them to `load` too.

  Raises:
    ValueError: a field of the model that cannot be written as data, or a path
      that cannot be a model folder.
    CheckpointError: the folder cannot be written.
  """
  directory = pathlib.Path(directory).absolute()
  storage.check_path(directory)
  meta = {
    'format': FORMAT,
    'model': _to_data(model, _lookup(modules)),
    'tables': None if tables is None else tables.to_json(),
    'num_seeds': num_seeds,
    'extra': dict(extra or {}),
  }
  # As plain arrays: those spread over devices could be read on as many only.
  storage.write(directory, jax.device_get(params), meta)


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
    CheckpointError: not a model folder, or a damaged one.
  """
  meta, params = _read(directory)
  try:
    model = _from_data(meta['model'], _lookup(modules))
  except TypeError as error:
    raise CheckpointError(
      f'the model in {directory} does not fit this release: {error}'
    ) from error
  tables = None if meta['tables'] is None else Tables.from_json(meta['tables'])
  if seed is not None:
    num_seeds = meta['num_seeds'] or 0
    if not 0 <= seed < num_seeds:
      raise CheckpointError(
        f'the model in {directory} was saved with {num_seeds or "no"} seeds; '
        f'found seed={seed}'
      )
    params = jax.tree.map(lambda x: x[seed], params)
  return model, params, tables


def load_extra(directory: str | pathlib.Path) -> dict[str, Any]:
  """The `extra` data of a model folder; raises as `load`."""
  return _read(directory)[0]['extra']


def _read(directory: str | pathlib.Path) -> tuple[dict[str, Any], PyTree]:
  directory = pathlib.Path(directory).absolute()
  if not (directory / storage.CHECKSUMS).is_file():
    raise CheckpointError(
      f'expected a model folder, found none at {directory}: train one first, '
      'or check the path'
    )
  params, meta = storage.read(directory)
  if meta['format'] != FORMAT:
    raise CheckpointError(
      f'the model in {directory} has format {meta["format"]}, and this release '
      f'reads format {FORMAT}'
    )
  return meta, jax.tree.map(jnp.asarray, params)


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
  if not callable(value) or isinstance(value, type):
    return {'dtype': jnp.dtype(value).name}
  return {'function': _name_of(value, lookup)}


def _name_of(value: Any, lookup: Mapping[str, Any]) -> str:
  for name, known in lookup.items():
    if known is value:
      return name
  raise ValueError(
    f'cannot save {value!r}: expected a class or function from '
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
    return jnp.dtype(data['dtype'])
  name = data.get('class') or data['function']
  if name not in lookup:
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
