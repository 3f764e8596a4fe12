"""What every method looks at before it is called, and what it may count on.

The methods' own files hold their equations; `balancer` and `aggregator` put the
same checks before each of them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lplmtl.balancing import _arguments
from lplmtl.types import SCOPES, Aggregator, Array, Balancer, PyTree, Scope


def balancer(
  init: Callable[[Array, int], PyTree],
  update: Callable[..., tuple[Array, PyTree]],
  *,
  needs_losses: bool = True,
  needs_gramian: bool = False,
  scope: Scope = 'all',
  after: Callable[..., PyTree] | None = None,
) -> Balancer:
  """A Balancer of bare functions.

  They are handed `losses`, `[T]` float32, `present`, `[T]` bool or None, a
  state of theirs for as many tasks and, where they need it, `gramian`, `[T, T]`
  float32 or better; no gradient flows through any. A Gramian method is jitted,
  so that a loop which is not does not compile its solver anew in every step,
  and its weights are NaN where the Gramian is not finite.

  Args:
    init: `(key, num_tasks) -> state`.
    update: `(losses, state, present) -> (weights, state)`; a Gramian method's
      `(losses, state, gramian, present)`.
    needs_losses: see `Balancer`, as for the other arguments.
    needs_gramian: see there.
    scope: see there.
    after: `(losses_before, losses_after, state, present) -> state`.

  Raises:
    ValueError: an unknown scope. The functions of what is returned raise it
      where they are handed something else, or keywords that they do not know.
  """
  check_scope(scope)
  like = functools.cache(
    lambda num_tasks: jax.eval_shape(lambda: init(_any_key(), num_tasks))
  )

  def first(key: Array, num_tasks: int) -> PyTree:
    _arguments.check_whole('num_tasks', num_tasks)
    return init(key, num_tasks)

  return Balancer(
    first,
    _checked_update(update, like, needs_gramian),
    needs_losses,
    needs_gramian,
    scope,
    None if after is None else _checked_after(after, like),
  )


def _checked_update(
  update: Callable[..., Any], like: Any, needs_gramian: bool
) -> Any:
  weigh = _by_gramian(update) if needs_gramian else update

  def checked(
    losses: Any,
    state: PyTree,
    *,
    gramian: Any = None,
    present: Any = None,
    **unknown: Any,
  ) -> tuple[Array, PyTree]:
    _refuse('update', unknown, 'gramian and present')
    losses = _arguments.as_losses(losses)
    present = _arguments.as_present(present, losses)
    _check_state(state, like(len(losses)), len(losses))
    if needs_gramian:
      gramian = _arguments.as_gramian(gramian, losses)
      return weigh(losses, state, gramian, present)
    return weigh(losses, state, present)

  return checked


def _by_gramian(update: Callable[..., Any]) -> Any:
  update = jax.jit(update)

  def weigh(
    losses: Array, state: PyTree, gramian: Array, present: Array | None
  ) -> tuple[Array, PyTree]:
    # In full precision, where accelerators would take less by default.
    with jax.default_matmul_precision('highest'):
      weights, state = update(losses, state, gramian, present)
    is_finite = jnp.isfinite(gramian).all()
    return jnp.where(is_finite, weights, jnp.nan), state

  return weigh


def _checked_after(after: Callable[..., PyTree], like: Any) -> Any:
  def checked(
    before: Any,
    now: Any,
    state: PyTree,
    *,
    present: Any = None,
    **unknown: Any,
  ) -> PyTree:
    _refuse('after', unknown, 'present')
    before, now = _arguments.as_losses(before), _arguments.as_losses(now)
    if before.shape != now.shape:
      raise ValueError(
        'the losses before and after a step must be of the same tasks; found '
        f'shapes {before.shape} and {now.shape}'
      )
    present = _arguments.as_present(present, before)
    _check_state(state, like(len(before)), len(before))
    return after(before, now, state, present)

  return checked


def aggregator(
  init: Callable[[Array, PyTree, int], PyTree],
  update: Callable[..., tuple[PyTree, Array, PyTree]],
  scope: Any = 'shared',
) -> Aggregator:
  """An Aggregator of bare functions; see `balancer`.

  Args:
    init: `(key, params, num_tasks) -> state`.
    update: `(gradients, losses, state, present) -> (gradient, weights, state)`.
    scope: `all` or `shared`.

  Raises:
    ValueError: as `balancer`.
  """
  check_scope(scope, ('all', 'shared'))

  @functools.cache
  def like(num_tasks: int, structure: Any, leaves: tuple[Any, ...]) -> PyTree:
    params = jax.tree.unflatten(structure, leaves)
    return jax.eval_shape(lambda p: init(_any_key(), p, num_tasks), params)

  def first(key: Array, params: PyTree, num_tasks: int) -> PyTree:
    _arguments.check_whole('num_tasks', num_tasks)
    return init(key, params, num_tasks)

  def checked(
    gradients: PyTree,
    losses: Any,
    state: PyTree,
    *,
    present: Any = None,
    **unknown: Any,
  ) -> tuple[PyTree, Array, PyTree]:
    _refuse('update', unknown, 'present')
    losses = _arguments.as_losses(losses)
    present = _arguments.as_present(present, losses)
    _arguments.check_stacked(gradients, len(losses))
    leaves, structure = jax.tree.flatten(gradients)
    own = tuple(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in leaves)
    _check_state(state, like(len(losses), structure, own), len(losses))
    gradients = jax.lax.stop_gradient(gradients)
    return update(gradients, losses, state, present)

  return Aggregator(first, checked, scope)


def check_scope(scope: Any, known: tuple[str, ...] = SCOPES) -> None:
  """Refuses a scope that is none."""
  if scope not in known:
    raise ValueError(f"a balancer's scope must be in {known}, found {scope!r}")


def _any_key() -> Array:
  return jax.random.key(0)


def _refuse(function: str, unknown: dict[str, Any], known: str) -> None:
  if unknown:
    raise ValueError(
      f'{function} takes the keywords {known}; found {", ".join(unknown)}'
    )


def _check_state(state: PyTree, like: PyTree, num_tasks: int) -> None:
  """Refuses a state of another method or number of tasks, by its arrays.

  What has no state of its own hands on whatever it is given.
  """
  if not jax.tree.leaves(like):
    return
  reason = ''
  structure: Any = jax.tree.structure(like)
  if structure != jax.tree.structure(state):
    reason = f'expected {_kind(like)}, found {_kind(state)}'
  else:
    found = jax.tree_util.tree_flatten_with_path(state)[0]
    for (path, leaf), wanted in zip(found, jax.tree.leaves(like), strict=True):
      if np.shape(leaf) != wanted.shape:
        reason = (
          f'state{jax.tree_util.keystr(path)} must have the shape '
          f'{wanted.shape}, found {np.shape(leaf)}'
        )
        break
      if _numbers(leaf) != _numbers(wanted):
        reason = (
          f'state{jax.tree_util.keystr(path)} must hold {_numbers(wanted)}, '
          f'found {_numbers(leaf)}'
        )
        break
  if reason:
    raise ValueError(
      f'the state does not fit this method and the {num_tasks} tasks of the '
      f'losses: {reason}; make it by init, with num_tasks={num_tasks}'
    )


def _numbers(leaf: Any) -> str:
  dtype = leaf.dtype if hasattr(leaf, 'dtype') else np.asarray(leaf).dtype
  kinds = (jnp.floating, jnp.signedinteger, jnp.unsignedinteger, jnp.bool_)
  names = ('floats', 'whole numbers', 'unsigned whole numbers', 'bools')
  for kind, name in zip(kinds, names, strict=True):
    if jnp.issubdtype(dtype, kind):
      return name
  return str(dtype)


def _kind(tree: PyTree) -> str:
  count = len(jax.tree.leaves(tree))
  return f'a {type(tree).__name__} of {count} arrays'
