"""Checks of arguments that several modules share.

Checks that only `fit` needs are in `lplmtl/training/checks.py`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import errors

from lplmtl.types import PyTree

# What Linen raises for parameters that are missing or have other shapes.
_MISFITS = (
  errors.ScopeParamShapeError,
  errors.ScopeParamNotFoundError,
  errors.ScopeCollectionNotFound,
  errors.ApplyScopeInvalidVariablesTypeError,
)


def is_whole_number(value: Any, least: int = 1) -> bool:
  """Returns whether `value` is a Python or NumPy int, at least `least`."""
  # bool is a subclass of int, but num_experts=True is a mistake.
  is_int = isinstance(value, int | np.integer) and not isinstance(value, bool)
  return is_int and bool(value >= least)


def num_rows(features: PyTree) -> int:
  """Returns N for a pytree of `[N, ...]`.

  Raises:
    ValueError: `features` holds no array, or holds a scalar.
  """
  leaves = jax.tree.leaves(features)
  if not leaves or not getattr(leaves[0], 'ndim', 0):
    kind = type(leaves[0]).__name__ if leaves else 'nothing'
    raise ValueError(f'features must be arrays of shape [N, ...], found {kind}')
  return leaves[0].shape[0]


def check_keywords(update: Callable[..., Any], names: Iterable[str]) -> None:
  """Raises ValueError unless `update` accepts all `names` as keywords."""
  try:
    parameters = inspect.signature(update).parameters
  except (TypeError, ValueError):  # no signature to read: it may accept them
    return
  kinds = [parameter.kind for parameter in parameters.values()]
  missing = [name for name in names if name not in parameters]
  if missing and inspect.Parameter.VAR_KEYWORD not in kinds:
    raise ValueError(
      "a balancer's update is called with the keywords "
      f'{", ".join(names)}; found {inspect.signature(update)}: add '
      f'{missing[0]}=None, or **extra'
    )


def check_call(model: Any, params: Any, chunk_size: Any = 1) -> None:
  """Checks the arguments of a function that applies a trained model.

  Raises:
    ValueError: `model` is a class or has no `apply`, `params` is a state or a
      dict of variables, or `chunk_size` is not a whole number.
  """
  if isinstance(model, type) or not hasattr(model, 'apply'):
    raise ValueError(
      'expected a model, such as lplmtl.PLE(tasks), before its parameters; '
      f'found {getattr(model, "__name__", type(model).__name__)}'
    )
  if hasattr(params, 'params'):
    kind = type(params).__name__
    raise ValueError(
      f'params must be parameters, found {kind}: use its .params'
    )
  check_params(params)
  if not hasattr(chunk_size, '__index__'):
    raise ValueError(f'chunk_size must be a whole number, found {chunk_size!r}')


def check_params(params: Any) -> None:
  """Raises ValueError for the variables `{'params': ...}` that `init` returns.

  Such a dict is itself a pytree of arrays, and would fail much later.
  """
  is_dict = isinstance(params, Mapping) and list(params) == ['params']
  if is_dict and isinstance(params['params'], Mapping):
    raise ValueError(
      "params must be the parameters themselves, found {'params': ...}: pass "
      "variables['params']"
    )


def apply_trained(model: Any, params: Any, features: PyTree) -> tuple[Any, Any]:
  """Returns `model_outputs` of rows.

  Raises:
    ValueError: as there, or the parameters are not those of the model, for one
      seed and features of this width.
  """
  try:
    outputs = model.apply({'params': params}, features)
  except _MISFITS as error:
    shapes = ', '.join(str(leaf.shape) for leaf in jax.tree.leaves(features))
    found = str(error).partition(' (http')[0]  # Flax adds an address
    raise ValueError(
      'the parameters must be those of this model, of one seed, for features '
      f'as wide as in training; with features of {shapes}, {found}'
    ) from error
  return model_outputs(outputs)


def model_outputs(outputs: Any) -> tuple[Any, Any]:
  """Returns `(predictions, aux)`, as `model.apply` returned them.

  Raises:
    ValueError: `outputs` is not a pair of dicts, or the penalty in `aux` is not
      a scalar.
  """
  is_pair = isinstance(outputs, tuple) and len(outputs) == 2
  if not is_pair or not all(isinstance(part, Mapping) for part in outputs):
    kinds = type(outputs).__name__
    if isinstance(outputs, tuple):
      kinds = f'({", ".join(type(part).__name__ for part in outputs)})'
    raise ValueError(
      'a model must return ({task: predictions [B, ..., K]}, aux), two dicts; '
      f'found {kinds}'
    )
  shape = getattr(outputs[1].get('penalty'), 'shape', ())
  if shape:
    raise ValueError(
      f"aux['penalty'] of a model must be a scalar, found shape {shape}"
    )
  return outputs
