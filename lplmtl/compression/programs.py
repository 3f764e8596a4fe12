"""Compiled functions of models, kept from one seed to the next."""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax

# One model needs six: two for its sensitivities, one to round its parameters,
# two to prune units, one to prune weights.
_MAX_PROGRAMS = 16


def of(function: Callable[..., Any], *fixed: Any) -> Callable[..., Any]:
  """Returns a compiled `function(*fixed, ...)`, the same for equal arguments.

  `jax.jit` of a function made anew compiles anew. Seeds of one model, whose
  parameters are arguments, so share a program.

  Args:
    function: of a module; one made anew is never found again.
    fixed: its first arguments, such as a model.
  """
  try:
    return _kept(function, *fixed)
  except TypeError:  # a model that holds arrays has no hash
    return jax.jit(functools.partial(function, *fixed))


@functools.lru_cache(_MAX_PROGRAMS)
def _kept(function: Callable[..., Any], *fixed: Hashable) -> Callable[..., Any]:
  return jax.jit(functools.partial(function, *fixed))
