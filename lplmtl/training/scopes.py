"""What a balancer acts on, and where gradients are compared."""

from typing import Any

import jax

from lplmtl import types
from lplmtl.training import gradients
from lplmtl.types import Aggregator, Balancer, PyTree


def acting(
  balancer: Balancer | Aggregator, model: Any, params: PyTree
) -> PyTree:
  """What the weights act on: a pytree of bools, or None for everything.

  Raises:
    ScopeError: the model does not offer it.
    ValueError: an unknown scope.
  """
  scope = balancer.scope
  if scope not in types.SCOPES:
    raise ValueError(
      f"a balancer's scope must be in {types.SCOPES}, found {scope!r}"
    )
  if scope == 'representation':
    offers = all(hasattr(model, name) for name in ('represent', 'predict'))
    if not balancer.needs_gramian:
      raise gradients.ScopeError(
        "scope='representation' is for balancers with a Gramian; found an "
        "aggregator or a loss weighting: take scope='shared'"
      )
    if not offers:
      raise gradients.ScopeError(
        "scope='representation' needs a model with represent(features) and "
        'predict(representation, features), such as SharedBottom or MMoE; '
        f'found {type(model).__name__}: take another scope'
      )
  return None if scope == 'all' else gradients.shared_leaves(model, params)


def counting(
  balancer: Balancer | Aggregator, acts: PyTree, moves: PyTree
) -> PyTree:
  """What is in scope and moves: a pytree of bools, or None for everything.

  Args:
    balancer: whose scope.
    acts: from `acting`.
    moves: see `lplmtl.training.frozen.moving`.

  Raises:
    ScopeError: nothing is.
  """
  if acts is None or moves is None:
    return moves if acts is None else acts
  counts = jax.tree.map(lambda a, b: a and b, acts, moves)
  if balancer.scope != 'representation' and not any(jax.tree.leaves(counts)):
    raise gradients.ScopeError(
      'the optimizer freezes every shared parameter, so that there are no '
      'gradients to compare: take a balancer that weights losses'
    )
  return counts
