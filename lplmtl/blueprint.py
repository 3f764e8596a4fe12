"""A model's configuration as JSON data, and a model of such data.

Nothing but named parts is ever looked up, so that data cannot run code.
"""

import dataclasses
import importlib
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.types import Task

# Where the modules and functions of a saved model may come from. Nothing else
# is ever looked up: a model file is data, not code.
MODULES = (
  'lplmtl.architectures',
  'lplmtl.encoder',
  'lplmtl.experts',
  'lplmtl.losses',
  'lplmtl.metrics',
  'lplmtl.types',
  'flax.linen',
  'jax.nn',
)


def known_names(modules: tuple[ModuleType, ...]) -> dict[str, Any]:
  """Every public name a saved model may mention: `{'jax.nn:relu': relu}`.

  Raises:
    ValueError: `modules` are no Python modules.
  """
  if not isinstance(modules, Collection) or not all(
    isinstance(module, ModuleType) for module in modules
  ):
    raise ValueError(
      'modules must be a tuple of Python modules, such as (my_module,) after '
      f'import my_module; found {one_line(modules):.100}'
    )
  known = {
    name: importlib.import_module(
      name.replace('lplmtl.e', 'lplmtl.layers.e')  # where these are now
    )
    for name in MODULES
  } | {module.__name__: module for module in modules}
  return {
    f'{place}:{name}': value
    for place, module in known.items()
    for name, value in vars(module).items()
    if callable(value) and not name.startswith('_')
  }


def one_line(value: Any) -> str:
  """What a value looks like, for a message."""
  return ' '.join(repr(value).split())


def to_data(value: Any, lookup: Mapping[str, Any], where: str = '') -> Any:
  """A module, a task, or a value of one of their fields, as JSON data.

  Args:
    value: what `checkpoint.save` takes as a model, or a part of it.
    lookup: of `known_names`.
    where: the field that holds it, such as `MMoE.expert`.

  Raises:
    ValueError: something that cannot be named or written.
  """
  value = _number(value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, tuple | list):
    return [to_data(v, lookup, f'{where}[{i}]') for i, v in enumerate(value)]
  if isinstance(value, Mapping):
    found = {k: to_data(v, lookup, f'{where}[{k!r}]') for k, v in value.items()}
    return {'dict': found}
  if isinstance(value, nn.Module | Task):
    fields = _fields(value, lookup, where)
    return {'class': _name_of(type(value), lookup, where), 'fields': fields}
  try:
    return {'function': _name_of(value, lookup, where)}
  except ValueError:
    dtype = _dtype(value)
    if dtype is None:
      raise
    return {'dtype': dtype.name}


def _fields(
  value: nn.Module | Task, lookup: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """The fields of a module; a default that cannot be named is left out.

  The class gives it back, as with the initialisers of `nn.Dense`.
  """
  given = () if isinstance(value, Task) else ('parent', 'name')  # by Linen
  found = {}
  for field in dataclasses.fields(value):
    if not field.init or field.name in given:
      continue
    part = getattr(value, field.name)
    here = f'{where}: ' if where else ''
    here += f'{type(value).__name__}.{field.name}'
    try:
      found[field.name] = to_data(part, lookup, here)
    except ValueError:
      if part is not field.default:
        raise
  return found


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


def plain(value: Any) -> Any:
  """JSON data without NumPy's numbers and tuples."""
  if isinstance(value, Mapping):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [plain(v) for v in value]
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


def _name_of(value: Any, lookup: Mapping[str, Any], where: str) -> str:
  for name, known in lookup.items():
    if known is value:
      return name
  place = f' as {where}' if where else ''
  raise ValueError(
    f'cannot save {one_line(value):.200}{place}: expected a class or function '
    f'from {", ".join(MODULES)}, or from one of `modules`: wrap it in a Linen '
    'class of your own, and hand its Python module over in `modules`'
  )


def from_data(data: Any, lookup: Mapping[str, Any]) -> Any:
  """The inverse of `to_data`; constructs the modules.

  Raises:
    ValueError: a name that is not known, or names something else. Data that
      `to_data` did not give may raise anything else.
  """
  if isinstance(data, list):
    return tuple(from_data(v, lookup) for v in data)
  if not isinstance(data, dict):
    return data
  if 'dict' in data:
    return {k: from_data(v, lookup) for k, v in data['dict'].items()}
  if 'dtype' in data:
    dtype = _dtype(data['dtype'])
    if dtype is None:
      raise ValueError(f'expected a dtype, found {data["dtype"]!r:.50}')
    return dtype
  name = data.get('class') or data['function']
  if not isinstance(name, str) or name not in lookup:
    raise ValueError(
      f'the model uses {name!r}, which is not known here: hand its Python '
      'module over in `modules`'
    )
  if 'function' in data:
    return lookup[name]
  cls = lookup[name]
  if not (isinstance(cls, type) and issubclass(cls, nn.Module | Task)):
    raise ValueError(f'expected a Linen module or a task, found {name!r}')
  return cls(**{k: from_data(v, lookup) for k, v in data['fields'].items()})
