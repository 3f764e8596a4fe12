"""One call for every kind of method, in your own training loop."""

from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.balancing import _arguments, coordinates
from lplmtl.types import Aggregator, Array, Balancer, PyTree


def first_state(
  method: Balancer | Aggregator,
  key: Array,
  params: PyTree,
  num_tasks: int,
  *,
  shared: PyTree = None,
) -> PyTree:
  """Returns the state of any method before the first step.

  Args:
    method: a `Balancer` or an `Aggregator`.
    key: random key.
    params: the parameters.
    num_tasks: T.
    shared: as in `balance`.

  Raises:
    ValueError: `method` is neither, or `shared` does not fit.
  """
  _check_method(method)
  if isinstance(method, Aggregator):
    _arguments.check_shared(shared, params)
    return method.init(key, coordinates.chosen(params, shared), num_tasks)
  return method.init(key, num_tasks)


def balance(
  method: Balancer | Aggregator,
  gradients: PyTree,
  losses: Any,
  state: PyTree,
  *,
  shared: PyTree = None,
  present: Array | None = None,
) -> tuple[PyTree, Array, PyTree]:
  """Combines the task gradients into one, with any method.

  If `method.after` is not None, also call `state = method.after(losses,
  losses_after, state)` once the step is taken.

  Args:
    method: a `Balancer` or an `Aggregator`.
    gradients: pytree of the task gradients, each leaf with a leading T axis;
      for several devices see `gramian`.
    losses: `[T]`.
    state: the method's state.
    shared: pytree of bools like the parameters, True where the method acts, as
      `lplmtl.shared_leaves` returns it; the other parameters get the plain sum
      of the gradients. None for all. The method's own `scope` has no effect.
    present: `[T]` bool, True for tasks with a label; None for all.

  Returns:
    (gradient, weights `[T]`, state).

  Raises:
    ValueError: `gradients` is a list or a leaf lacks the leading T axis;
      `shared` does not fit; or `method` is neither a Balancer nor an
      Aggregator, or its `update` does not accept the keywords.

  Example:
    >>> from lplmtl import balancing
    >>> gradients = {'w': jnp.array([[1.0, 0.0], [0.0, 2.0]])}  # T leads
    >>> losses, method = jnp.ones(2), balancing.equal()
    >>> state = first_state(method, jax.random.key(0), {'w': jnp.ones(2)}, 2)
    >>> gradient, weights, state = balance(method, gradients, losses, state)
    >>> gradient['w'].tolist()
    [1.0, 2.0]
  """
  _check_method(method)
  _arguments.check_no_list(gradients)
  if isinstance(method, Aggregator):
    _checks.check_keywords(method.update, ('present',))
    _arguments.check_shared(shared, gradients)
    gradient, weights, state = method.update(
      coordinates.chosen(gradients, shared), losses, state, present=present
    )
    if shared is not None:
      plain = coordinates.combine(jnp.ones_like(weights), gradients)
      # `gradient` has None for the leaves that are not shared.
      gradient = jax.tree.map(
        lambda acts, new, old: new if acts else old, shared, gradient, plain
      )
    return gradient, weights, state
  extra: dict[str, Any] = {'present': present}
  if method.needs_gramian:
    extra['gramian'] = coordinates.gramian(gradients, shared)
  _checks.check_keywords(method.update, extra)
  weights, state = method.update(losses, state, **extra)
  return coordinates.combine(weights, gradients, shared), weights, state


def _check_method(method: Any) -> None:
  if not hasattr(method, 'init') or not hasattr(method, 'update'):
    name = getattr(method, '__name__', 'mgda')
    raise ValueError(
      'method must be a lplmtl.Balancer or lplmtl.Aggregator, such as '
      f'balancing.{name}(); found {method!r}'
    )
