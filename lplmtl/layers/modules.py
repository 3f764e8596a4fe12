"""Parts of the user's choice: how any Linen module is called and copied."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl.types import Array, PyTree

# What modules call the flag that says whether they are trained, and its value
# in training.
_FLAGS = {
  'train': True,
  'training': True,
  'deterministic': False,
  'use_running_average': False,
}
# Collections that nothing is lost without: `sow` and `perturb` do nothing where
# theirs is missing.
_HARMLESS = {'params', 'intermediates', 'perturbations'}


def call(module: nn.Module, *inputs: Any, train: bool, **named: Any) -> Any:
  """Applies a bound module, and tells it whether it is trained.

  A parameter of `__call__` that is named `train` or `training` is given
  `train`, one named `deterministic` or `use_running_average` its opposite,
  unless a field of the module with that name is set. It is handed over by
  position where it follows the inputs (as `nn.remat` with `static_argnums`
  wants it), by name otherwise, and not at all where that is its default.
  `**kwargs` get nothing. `nn.Sequential` hands on no flag: its layers are
  called one by one.

  Raises:
    ValueError: no Linen module, or, while parameters are made, one with
      collections beside them.
  """
  check_module(module)
  if type(module) is nn.Sequential and module.layers:
    outputs = _call_in_turn(module.layers, inputs, named, train)
  else:
    args, kwargs = _flags(module, len(inputs), train)
    outputs = module(*inputs, *args, **named, **kwargs)
  if module.is_initializing():
    check_collections(module.variables, module)
  return outputs


def map_rows(module: nn.Module, x: Any, *, train: bool) -> Array:
  """`call` of a part of a model, which must map `[B, ...]` to `[B, ...]`.

  Another leading axis, such as 1, could be broadcast over the batch.

  Args:
    module: bound.
    x: `[B, ...]`, or a pytree with such leaves.
    train: see `call`.

  Raises:
    ValueError: an output that is no single array, or has other rows; see
      `call`.
  """
  outputs = call(module, x, train=train)
  shape = getattr(outputs, 'shape', None)
  rows = [np.shape(leaf)[:1] for leaf in jax.tree.leaves(x)]
  if not shape or (any(rows) and shape[:1] not in rows):
    found = type(outputs).__name__ if shape is None else f'the shape {shape}'
    inputs = jax.tree.map(np.shape, x)
    raise ValueError(
      f'{type(module).__name__} must return one array [B, ...] with a row for '
      f'each row of its input; found {found} for an input of shape {inputs}'
    )
  return outputs


def _call_in_turn(
  layers: Sequence[Any],
  inputs: tuple[Any, ...],
  named: dict[str, Any],
  train: bool,
) -> Any:
  """What nn.Sequential does; layers may be functions too."""
  for layer in layers:
    if isinstance(layer, nn.Module):
      outputs = call(layer, *inputs, train=train, **named)
    else:
      outputs = layer(*inputs, **named)
    inputs = outputs if isinstance(outputs, tuple) else (outputs,)
    named = {}
    if isinstance(outputs, dict):
      inputs, named = (), outputs
  return outputs


def _flags(
  module: nn.Module, num_inputs: int, train: bool
) -> tuple[list[Any], dict[str, Any]]:
  """What to call a module with beside its inputs."""
  args: list[Any] = []
  kwargs: dict[str, Any] = {}
  fields = type(module).__dataclass_fields__
  parameters = inspect.signature(module.__call__).parameters.values()
  for i, parameter in enumerate(parameters):
    name = parameter.name
    is_set = name in fields and getattr(module, name) is not None
    if name not in _FLAGS or is_set:
      continue
    value = train if _FLAGS[name] else not train
    is_next = i == num_inputs + len(args)
    if is_next and parameter.kind is not parameter.KEYWORD_ONLY:
      args.append(value)
    elif parameter.kind is parameter.POSITIONAL_ONLY:
      raise ValueError(
        f'{type(module).__name__} takes {name!r} by position only, behind '
        'other parameters: let it follow the input, or take it by name'
      )
    elif parameter.default is not value:
      kwargs[name] = value
  return args, kwargs


def init(module: nn.Module, key: Array, x: Any) -> PyTree:
  """The parameters of an unbound module; `{}` where it has none."""
  return fresh(module).init(key, x, method=_predict).get('params', {})


def output_shape(module: nn.Module, x: Any) -> Any:
  """Shape and dtype of a module's output."""

  def output(x: Any) -> Any:
    key = jax.random.key(0)
    return fresh(module).init_with_output(key, x, method=_predict)[0]

  return jax.eval_shape(output, x)


def _predict(module: nn.Module, x: Any) -> Any:
  return map_rows(module, x, train=False)


def check_collections(variables: Mapping[str, Any], module: Any) -> None:
  """Refuses a model, or a part of one, that keeps more than parameters.

  Raises:
    ValueError: variables in another collection than `params`.
  """
  found = sorted(k for k, v in variables.items() if v and k not in _HARMLESS)
  if found:
    raise ValueError(
      'models and their parts may have parameters only, found the collections '
      f'{found} in {type(module).__name__}: take nn.LayerNorm or nn.GroupNorm '
      'instead of nn.BatchNorm, whose statistics would depend on how a batch '
      'is split over parts and devices'
    )


def check_module(value: Any) -> None:
  """Refuses what is no Linen module, or a class instead of an object."""
  if not isinstance(value, nn.Module) or not callable(value):
    raise ValueError(
      'expected a Linen module (not its class), such as lplmtl.MLP((64,)); '
      f'found {value!r}'
    )


def optional(module: nn.Module | None) -> nn.Module | None:
  """`fresh`, and None for None."""
  return None if module is None else fresh(module)


def fresh(module: nn.Module) -> nn.Module:
  """An unbound copy of a template, so that each use has its own parameters."""
  check_module(module)
  return module if module.scope is None else module.unbind()[0]
