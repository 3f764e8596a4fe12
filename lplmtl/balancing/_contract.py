"""The checks around every method, and what its functions may rely on.

The file of a method holds its equations; `balancer` and `aggregator` put the
same checks in front of every method.
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
  """Makes a Balancer from unchecked functions.

  The functions receive `losses`, `[T]` float32, `present`, `[T]` bool or None,
  their own state for T tasks and, if they need it, `gramian`, `[T, T]` float32
  or wider. No gradient flows through any of these. The update of a Gramian
  method is jitted, so that a loop that is not jitted does not compile its
  solver again in every step; its weights are NaN if the Gramian is not finite.

  Args:
    init: `(key, num_tasks) -> state`.
    update: `(losses, state, present) -> (weights, state)`; for a Gramian method
      `(losses, state, gramian, present)`.
    needs_losses: see `Balancer`.
    needs_gramian: see `Balancer`.
    scope: see `Balancer`.
    after: `(losses_before, losses_after, state, present) -> state`.

  Raises:
    ValueError: the scope is unknown. The functions of the returned Balancer
      also raise it, for mismatched arguments and for unknown keywords.
  """
  check_scope(scope)
  like = functools.cache(
    lambda num_tasks: jax.eval_shape(lambda: init(_any_key(), num_tasks))
  )

  def checked_init(key: Array, num_tasks: int) -> PyTree:
    _arguments.check_whole('num_tasks', num_tasks)
    return init(key, num_tasks)

  return Balancer(
    checked_init,
    _checked_update(update, like, needs_gramian),
    needs_losses,
    needs_gramian,
    scope,
    None if after is None else _checked_after(after, like),
  )


def stateless(key: Array, num_tasks: int) -> tuple[()]:
  """`Balancer.init` of methods without a state."""
  del key, num_tasks
  return ()


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
    # In full precision: accelerators use less by default.
    with jax.default_matmul_precision('highest'):
      weights, state = update(losses, state, gramian, present)
    # The solvers' comparisons would turn NaN into weights that look usable.
    is_finite = jnp.isfinite(gramian).all()
    return jnp.where(is_finite, weights, jnp.nan), state

  return weigh


def _checked_after(after: Callable[..., PyTree], like: Any) -> Any:
  def checked(
    losses_before: Any,
    losses_after: Any,
    state: PyTree,
    *,
    present: Any = None,
    **unknown: Any,
  ) -> PyTree:
    _refuse('after', unknown, 'present')
    losses_before = _arguments.as_losses(losses_before)
    losses_after = _arguments.as_losses(losses_after)
    if losses_before.shape != losses_after.shape:
      raise ValueError(
        'the losses before and after a step must belong to the same tasks; '
        f'found shapes {losses_before.shape} and {losses_after.shape}'
      )
    present = _arguments.as_present(present, losses_before)
    num_tasks = len(losses_before)
    _check_state(state, like(num_tasks), num_tasks)
    return after(losses_before, losses_after, state, present)

  return checked


def aggregator(
  init: Callable[[Array, PyTree, int], PyTree],
  update: Callable[..., tuple[PyTree, Array, PyTree]],
  scope: Any = 'shared',
) -> Aggregator:
  """Makes an Aggregator from unchecked functions; see `balancer`.

  Args:
    init: `(key, params, num_tasks) -> state`.
    update: `(gradients, losses, state, present) -> (gradient, weights, state)`.
    scope: `all` or `shared`.

  Raises:
    ValueError: as for `balancer`.
  """
  check_scope(scope, ('all', 'shared'))

  @functools.cache
  def like(num_tasks: int, structure: Any, leaves: tuple[Any, ...]) -> PyTree:
    params = jax.tree.unflatten(structure, leaves)
    return jax.eval_shape(lambda p: init(_any_key(), p, num_tasks), params)

  def checked_init(key: Array, params: PyTree, num_tasks: int) -> PyTree:
    _arguments.check_whole('num_tasks', num_tasks)
    return init(key, params, num_tasks)

  def checked_update(
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
    shapes = tuple(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in leaves)
    _check_state(state, like(len(losses), structure, shapes), len(losses))
    gradients = jax.lax.stop_gradient(gradients)
    return update(gradients, losses, state, present)

  return Aggregator(checked_init, checked_update, scope)


def check_scope(scope: Any, known: tuple[str, ...] = SCOPES) -> None:
  """Raises ValueError unless `scope` is a known one."""
  if scope not in known:
    raise ValueError(
      f"a balancer's scope must be one of {known}, found {scope!r}"
    )


def _any_key() -> Array:
  """Returns a key for `init` where only shapes and dtypes matter."""
  return jax.random.key(0)


def _refuse(function: str, unknown: dict[str, Any], known: str) -> None:
  if unknown:
    raise ValueError(
      f'{function} accepts the keywords {known}; found {", ".join(unknown)}'
    )


def _check_state(state: PyTree, like: PyTree, num_tasks: int) -> None:
  """Rejects a state that belongs to another method or number of tasks.

  A stateless method returns the state it is given, so it accepts any.
  """
  if not jax.tree.leaves(like):
    return
  problem = _structure_problem(state, like) or _leaf_problem(state, like)
  if problem:
    raise ValueError(
      f'the state does not fit this method and the {num_tasks} tasks of the '
      f'losses: {problem}; create it by init with num_tasks={num_tasks}'
    )


def _structure_problem(state: PyTree, like: PyTree) -> str:
  structure: Any = jax.tree.structure(like)
  if structure == jax.tree.structure(state):
    return ''
  return f'expected {_kind(like)}, found {_kind(state)}'


def _leaf_problem(state: PyTree, like: PyTree) -> str:
  leaves = jax.tree_util.tree_flatten_with_path(state)[0]
  for (path, leaf), wanted in zip(leaves, jax.tree.leaves(like), strict=True):
    name = f'state{jax.tree_util.keystr(path)}'
    if np.shape(leaf) != wanted.shape:
      return (
        f'{name} must have the shape {wanted.shape}, found {np.shape(leaf)}'
      )
    if _numbers(leaf) != _numbers(wanted):
      return f'{name} must hold {_numbers(wanted)}, found {_numbers(leaf)}'
  return ''


def _numbers(leaf: Any) -> str:
  """Names the kind of an array's numbers; float64 states are fine."""
  dtype = leaf.dtype if hasattr(leaf, 'dtype') else np.asarray(leaf).dtype
  kinds: tuple[Any, ...] = (
    jnp.floating, jnp.signedinteger, jnp.unsignedinteger, jnp.bool_,
  )  # fmt: skip
  names = ('floats', 'integers', 'unsigned integers', 'bools')
  for kind, name in zip(kinds, names, strict=True):
    if jnp.issubdtype(dtype, kind):
      return name
  return str(dtype)


def _kind(tree: PyTree) -> str:
  count = len(jax.tree.leaves(tree))
  return f'a {type(tree).__name__} of {count} arrays'
