"""Which parameters a balancer acts on, and which gradients are compared."""

from typing import Any

import jax

from lplmtl import types
from lplmtl.training import gradients
from lplmtl.types import Aggregator, Balancer, PyTree


def acting(
  balancer: Balancer | Aggregator, model: Any, params: PyTree
) -> PyTree:
  """Returns what the weights act on: a pytree of bools, or None for all leaves.

  Raises:
    ScopeError: the model does not have what the scope requires.
    ValueError: the scope is unknown.
  """
  scope = balancer.scope
  if scope not in types.SCOPES:
    raise ValueError(
      f"a balancer's scope must be one of {types.SCOPES}, found {scope!r}"
    )
  if scope == 'representation':
    offers = all(hasattr(model, name) for name in ('represent', 'predict'))
    if not balancer.needs_gramian:
      raise gradients.ScopeError(
        "scope='representation' is for balancers with a Gramian; found an "
        "aggregator or a loss weighting: use scope='shared'"
      )
    if not offers:
      raise gradients.ScopeError(
        "scope='representation' needs a model with represent(features) and "
        'predict(representation, features), such as SharedBottom or MMoE; '
        f'found {type(model).__name__}: use another scope'
      )
  return None if scope == 'all' else gradients.shared_leaves(model, params)


def counting(
  balancer: Balancer | Aggregator, acts: PyTree, moves: PyTree
) -> PyTree:
  """Returns which leaves are in scope and not frozen; None for all leaves.

  Args:
    balancer: the balancer with the scope.
    acts: from `acting`.
    moves: see `lplmtl.training.frozen.moving`.

  Raises:
    ScopeError: every leaf in scope is frozen.
  """
  if acts is None or moves is None:
    return moves if acts is None else acts
  counts = jax.tree.map(lambda a, b: a and b, acts, moves)
  if balancer.scope != 'representation' and not any(jax.tree.leaves(counts)):
    raise gradients.ScopeError(
      'the optimizer freezes every shared parameter, so there are no '
      'gradients to compare: use a balancer that weights losses'
    )
  return counts
