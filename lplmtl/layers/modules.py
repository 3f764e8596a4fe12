"""Calls and copies Linen modules of the user's choice."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from lplmtl.types import Array, PyTree

# The names under which modules take the training flag, and its value during
# training.
_FLAGS = {
  'train': True,
  'training': True,
  'deterministic': False,
  'use_running_average': False,
}
# Collections that a model can do without: `sow` and `perturb` have no effect
# when theirs is missing.
_HARMLESS = {'params', 'intermediates', 'perturbations'}


def call(module: nn.Module, *inputs: Any, train: bool, **named: Any) -> Any:
  """Applies a bound module and passes it the training flag.

  A parameter of `__call__` named `train` or `training` receives `train`, one
  named `deterministic` or `use_running_average` the opposite, unless the module
  has a field of that name that is set. The flag is passed by position if it
  directly follows the inputs (`nn.remat` with `static_argnums` requires that),
  by name otherwise, and not at all if it equals the parameter's default. A
  `**kwargs` receives nothing. `nn.Sequential` does not forward flags, so its
  layers are called one by one.

  Raises:
    ValueError: `module` is not a Linen module or, during initialisation, it has
      collections other than `params`.
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
  """Calls a part of a model that must map `[B, ...]` to `[B, ...]`.

  The check matters because an output with another leading axis, such as 1,
  could silently broadcast over the batch.

  Args:
    module: bound.
    x: `[B, ...]`, or a pytree with such leaves.
    train: see `call`.

  Raises:
    ValueError: the output is not a single array or has a different number of
      rows; and as for `call`.
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
  """Does what `nn.Sequential` does; layers may also be functions."""
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
  """Returns the arguments that a module takes in addition to its inputs."""
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
        f'{type(module).__name__} takes {name!r} only by position, after '
        'other parameters: put it right after the input, or take it by name'
      )
    elif parameter.default is not value:
      kwargs[name] = value
  return args, kwargs


def init(module: nn.Module, key: Array, x: Any) -> PyTree:
  """Initialises an unbound module; returns `{}` if it has no parameters."""
  return fresh(module).init(key, x, method=_predict).get('params', {})


def output_shape(module: nn.Module, x: Any) -> Any:
  """Returns the shape and dtype of a module's output."""

  def output(x: Any) -> Any:
    key = jax.random.key(0)
    return fresh(module).init_with_output(key, x, method=_predict)[0]

  return jax.eval_shape(output, x)


def _predict(module: nn.Module, x: Any) -> Any:
  return map_rows(module, x, train=False)


def check_collections(variables: Mapping[str, Any], module: Any) -> None:
  """Rejects a model, or part of one, that has variables besides its parameters.

  Raises:
    ValueError: there are variables in a collection other than `params`.
  """
  others = sorted(k for k, v in variables.items() if v and k not in _HARMLESS)
  if others:
    raise ValueError(
      'models and their parts may only have parameters, found the collections '
      f'{others} in {type(module).__name__}: use nn.LayerNorm or nn.GroupNorm '
      'instead of nn.BatchNorm, whose statistics would depend on how a batch '
      'is split into microbatches and over devices'
    )


def check_module(value: Any) -> None:
  """Raises ValueError unless `value` is an instance of a Linen module."""
  if not isinstance(value, nn.Module) or not callable(value):
    raise ValueError(
      'expected a Linen module (not its class), such as lplmtl.MLP((64,)); '
      f'found {value!r}'
    )


def optional(module: nn.Module | None) -> nn.Module | None:
  """Returns `fresh(module)`, or None for None."""
  return None if module is None else fresh(module)


def fresh(module: nn.Module) -> nn.Module:
  """Returns an unbound copy of a template: each use has its own parameters."""
  check_module(module)
  return module if module.scope is None else module.unbind()[0]
