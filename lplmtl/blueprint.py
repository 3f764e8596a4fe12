"""Converts a model's configuration to JSON data and back.

A model file is data: reading one looks names up in the lists below and in the
modules that the caller passes, and nowhere else, so that a file cannot run
code. The names are public ones, which do not depend on the file that defines a
class: moving a class leaves saved models readable.
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

# What a model file may name, by public module, together with the architectures
# and chains of `lplmtl.architectures`. Each object is listed once. Linen's
# transformations (`nn.remat`, `nn.jit`), base classes and helpers are left out:
# they are code about modules, not values of their fields.
NAMES = {
  'lplmtl': 'Task MLP Experts TabularEncoder ImageEncoder CrossNetwork'.split(),
  'lplmtl.compression': (
    'Distilled HardMetric LowRank Quantized Scheme SoftClasses SoftDecisions '
    'SoftNumber'
  ).split(),
  'lplmtl.losses': (
    'binary_cross_entropy softmax_cross_entropy half_squared_error '
    'squared_error half_poisson_deviance multilabel_cross_entropy '
    'ordinal_cross_entropy Focal Huber'
  ).split(),
  'lplmtl.metrics': (
    'roc_auc average_precision log_loss calibration_error accuracy r2 '
    'macro_roc_auc macro_average_precision mean_absolute_error poisson_d2 '
    'ordinal_accuracy quadratic_kappa'
  ).split(),
  'flax.linen': (
    # Layers.
    'BatchApply BatchNorm Bidirectional Conv ConvLSTMCell ConvLocal '
    'ConvTranspose Dense DenseGeneral Dropout Einsum Embed '
    'Fp8DirectDotGeneralOp Fp8DotGeneralOp Fp8Einsum GRUCell GroupNorm '
    'InstanceNorm LSTMCell LayerNorm MGUCell MultiHeadAttention '
    'MultiHeadDotProductAttention NANOOFp8DotGeneralOp OptimizedLSTMCell PReLU '
    'RMSNorm RNN SelfAttention Sequential SimpleCell SpectralNorm WeightNorm '
    # Activations.
    'celu elu gelu glu hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid '
    'log_softmax logsumexp one_hot relu relu6 selu sigmoid silu soft_sign '
    'softmax softplus standardize tanh '
    # Other functions that fields of layers hold.
    'avg_pool dot_product_attention dot_product_attention_weights max_pool '
    'ones ones_init pool zeros zeros_init'
  ).split(),
  'jax.nn': (  # those that Linen does not export
    'dot_product_attention identity log1mexp logmeanexp mish '
    'scaled_dot_general scaled_matmul sparse_plus sparse_sigmoid squareplus'
  ).split(),
}

# Format 1 named whichever of these modules was the first to import a class:
# its `lplmtl.losses:Task` is `lplmtl:Task` today.
_FORMAT_1_MODULES = [
  f'lplmtl.{name}'
  for name in 'architectures encoder experts losses metrics types'.split()
]

# Names in model files of earlier formats, and the present names. An entry stays
# for good, and its old name is never given to anything else.
RENAMED = {
  'flax.linen:Fp8DotGeneral': 'flax.linen:Fp8DirectDotGeneralOp',
  'flax.linen:hard_swish': 'flax.linen:hard_silu',
  'flax.linen:normalize': 'flax.linen:standardize',
  'flax.linen:swish': 'flax.linen:silu',
}

# Fields that a class no longer has: the present name, or None for a field that
# is ignored. Here, too, an entry stays for good.
MOVED_FIELDS: dict[str, dict[str, str | None]] = {
  # No method needs it, because a regression's loss is half the squared error.
  'lplmtl:Task': {'is_regression': None},
}


def known_names(modules: tuple[ModuleType, ...]) -> dict[str, Any]:
  """Returns everything that a model file may name: `{'flax.linen:relu': relu}`.

  Public names come first, then those of the user's modules, then the names of
  earlier formats; a model is saved with the first name of each object.

  Args:
    modules: the user's own Python modules, of which every public class and
      function may be named.

  Raises:
    ValueError: `modules` is not a tuple of Python modules.
  """
  if not isinstance(modules, Collection) or not all(
    isinstance(module, ModuleType) for module in modules
  ):
    raise ValueError(
      'modules must be a tuple of Python modules, such as (my_module,) after '
      f'import my_module; found {one_line(modules):.100}'
    )
  public = _public()
  own = {
    f'{module.__name__}:{name}': value
    for module in modules
    for name, value in vars(module).items()
    if callable(value) and not name.startswith('_')
  }
  renamed = {old: public[new] for old, new in RENAMED.items() if new in public}
  old = {
    name: value
    for public_name, value in {**public, **renamed}.items()
    for name in _format_1_names(public_name)
    if name not in public  # jax.nn and Linen each have a dot_product_attention
  }
  return {**public, **own, **renamed, **old}


def _public() -> dict[str, Any]:
  # Looked up when needed: `lplmtl` imports the modules that import this one.
  architectures = importlib.import_module('lplmtl.architectures')
  models = (*architectures.ARCHITECTURES, *architectures.CHAINS)
  public = {f'lplmtl:{model.__name__}': model for model in models}
  for module_name, names in NAMES.items():
    module = importlib.import_module(module_name)
    for name in names:
      # Flax and JAX drop functions over the years, and add new ones.
      if hasattr(module, name):
        public[f'{module_name}:{name}'] = getattr(module, name)
  return public


def _format_1_names(public_name: str) -> list[str]:
  module, name = public_name.split(':')
  if module == 'lplmtl':
    return [f'{old}:{name}' for old in _FORMAT_1_MODULES]
  # Most functions of jax.nn are exported by Linen, too.
  return [f'jax.nn:{name}'] if module == 'flax.linen' else []


def one_line(value: Any) -> str:
  """Returns the value's `repr` on one line, for a message."""
  return ' '.join(repr(value).split())


def to_data(value: Any, lookup: Mapping[str, Any], where: str = '') -> Any:
  """Converts a module, a task or a value of one of their fields to JSON data.

  Frozen dataclasses, such as `losses.Huber`, are converted like tasks.

  Args:
    value: a model as `checkpoint.save` takes it, or a part of one.
    lookup: from `known_names`.
    where: the field that holds the value, such as `MMoE.expert`, for messages.

  Raises:
    ValueError: the value, or one inside it, has no name and is not data.
  """
  value = _number(value)
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, tuple | list):
    return [to_data(v, lookup, f'{where}[{i}]') for i, v in enumerate(value)]
  if isinstance(value, Mapping):
    items = {k: to_data(v, lookup, f'{where}[{k!r}]') for k, v in value.items()}
    return {'dict': items}
  if _has_fields(type(value)):
    fields = _fields(value, lookup, where)
    return {'class': _name_of(type(value), lookup, where), 'fields': fields}
  try:
    return {'function': _name_of(value, lookup, where)}
  except ValueError:
    dtype = _dtype(value)
    if dtype is None:
      raise
    return {'dtype': dtype.name}


def _has_fields(kind: Any) -> bool:
  """Returns whether a class is one of modules, or a frozen dataclass.

  The latter are tasks, and functions with parameters, such as `losses.Huber`.
  """
  if not isinstance(kind, type):
    return False
  parameters = getattr(kind, '__dataclass_params__', None)
  return issubclass(kind, nn.Module) or bool(parameters and parameters.frozen)


def _fields(
  value: Any, lookup: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """Returns the fields as JSON data, without defaults that have no name.

  The class supplies these again, such as the initialisers of `nn.Dense`.
  """
  # Linen adds these fields to every module.
  added = ('parent', 'name') if isinstance(value, nn.Module) else ()
  fields = {}
  for field in dataclasses.fields(value):
    if not field.init or field.name in added:
      continue
    part = getattr(value, field.name)
    here = f'{where}: ' if where else ''
    here += f'{type(value).__name__}.{field.name}'
    try:
      fields[field.name] = to_data(part, lookup, here)
    except ValueError:
      if part is not field.default:
        raise
  return fields


def _number(value: Any) -> Any:
  """Converts scalars and strings of NumPy and JAX to Python's."""
  is_array = isinstance(value, np.ndarray | jax.Array) and value.ndim == 0
  if is_array and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
    value = np.asarray(value)[()]
  if isinstance(value, np.generic):
    kinds: Any = (bool, np.bool_), (int, jnp.integer), (float, jnp.floating)
    for kind, family in kinds:
      if jnp.issubdtype(value.dtype, family):
        return kind(value)
  return str(value) if isinstance(value, np.str_) else value


def plain(value: Any) -> Any:
  """Converts tuples and the numbers of NumPy in JSON data to Python's."""
  if isinstance(value, Mapping):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [plain(v) for v in value]
  return _number(value)


def _dtype(value: Any) -> np.dtype[Any] | None:
  """Returns the numeric or boolean dtype that a value names, or None."""
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
    f'cannot save {one_line(value):.200}{place}: expected an architecture, '
    'layer, loss or metric of lplmtl, a layer or activation of flax.linen or '
    'jax.nn, or a class or function from one of `modules`: wrap it in your own '
    'Linen class (a loss with parameters: in a frozen dataclass), and pass its '
    'Python module in `modules`'
  )


def from_data(data: Any, lookup: Mapping[str, Any]) -> Any:
  """Constructs what `to_data` converted, in this format or an earlier one.

  Raises:
    ValueError: a name is unknown, or does not name a class of the expected
      kind. Data that `to_data` did not write may raise any other exception.
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
      f'the model uses {name!r}, which this release does not know: if it is '
      'your own, pass its Python module in `modules`'
    )
  if 'function' in data:
    return lookup[name]
  cls = lookup[name]
  if not _has_fields(cls):
    raise ValueError(
      f'expected a Linen module, a task or a frozen dataclass, found {name!r}'
    )
  moved = MOVED_FIELDS.get(_name_of(cls, lookup, ''), {})
  arguments = {}
  for field, value in data['fields'].items():
    has_field = field in cls.__dataclass_fields__
    current = field if has_field else moved.get(field, field)
    if current is not None:
      arguments[current] = from_data(value, lookup)
  return cls(**arguments)
