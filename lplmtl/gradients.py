"""From rows to the balanced gradient: one forward pass, one or T back."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lplmtl import losses
from lplmtl.types import Array, Balancer, Batch, Model, PyTree, Task

PullBack = Callable[..., PyTree]
Balanced = tuple[PyTree, PyTree, dict[str, Array]]


def forward(
  model: Model,
  tasks: Sequence[Task],
  params: PyTree,
  batch: Batch,
  *,
  key: Array | None,
  totals: Array | None = None,
) -> tuple[Array, Array, PullBack, bool]:
  """Task losses, and the way back from them.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    params: the model's parameters.
    batch: rows.
    key: of the dropout; None for none (`train=False`).
    totals: see `lplmtl.losses.task_losses`.

  Returns:
    (losses, present, pull_back, has_penalty): `[T]` float32; `[T]` bool;
    `(weights [T], penalty_weight=1) -> gradient` of `sum_k w_k L_k +
    penalty_weight * penalty`; whether the model has a penalty.
  """

  def fn(params: PyTree) -> tuple[tuple[Array, Any], Array]:
    rngs = None if key is None else {'dropout': key}
    predictions, aux = model.apply(
      {'params': params}, batch.features, train=key is not None, rngs=rngs
    )
    values, present = losses.task_losses(tasks, predictions, batch, totals)
    return (values, aux.get('penalty')), present

  (values, penalty), vjp, present = jax.vjp(fn, params, has_aux=True)

  def pull_back(weights: Array, penalty_weight: float = 1.0) -> PyTree:
    if penalty is None:
      return vjp((weights, None))[0]
    return vjp((weights, jnp.full_like(penalty, penalty_weight)))[0]

  return values, present, pull_back, penalty is not None


def task_gradients(
  model: Model,
  tasks: Sequence[Task],
  params: PyTree,
  batch: Batch,
  *,
  key: Array | None = None,
) -> tuple[Array, PyTree]:
  """Each task's own gradient, for balancing or pruning of your own.

  A penalty of the model takes no part.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    params: the model's parameters.
    batch: rows.
    key: of the dropout; None for none (`train=False`).

  Returns:
    (losses, gradients): `[T]` float32, and a pytree like the parameters, each
    leaf with a leading T.
  """
  values, _, pull_back, _ = forward(model, tasks, params, batch, key=key)
  each = _each(pull_back, len(tasks))
  return values, jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def balanced(
  model: Model,
  tasks: Sequence[Task],
  balancer: Balancer,
  balancer_state: PyTree,
  params: PyTree,
  batch: Batch,
  *,
  key: Array,
) -> Balanced:
  """The gradient of the balanced loss.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    balancer: see `lplmtl.types.Balancer`.
    balancer_state: its state.
    params: the model's parameters.
    batch: rows.
    key: of the dropout.

  Returns:
    (gradient, balancer_state, metrics), metrics `losses`, `weights`, `present`,
    `[T]` each.

  Raises:
    ValueError: the balancer acts on shared parameters, and the model shares
      none or does not say which.
  """
  shared = _scope(balancer, model, params)
  values, present, pull_back, has_penalty = forward(
    model, tasks, params, batch, key=key
  )
  if balancer.needs_gramian:
    each = _each(pull_back, len(tasks))
    weights, balancer_state = balancer.update(
      values, balancer_state, present=present, gramian=gramian(each, shared)
    )
    gradient = _combine(each, weights, shared)
    if has_penalty:
      own = pull_back(jnp.zeros_like(weights))
      gradient = jax.tree.map(jnp.add, gradient, own)
  else:
    weights, balancer_state = balancer.update(
      values, balancer_state, present=present
    )
    gradient = _pull(pull_back, weights, shared)
  metrics = {'losses': values, 'weights': weights, 'present': present}
  return gradient, balancer_state, metrics


def balanced_in_parts(
  model: Model,
  tasks: Sequence[Task],
  balancer: Balancer,
  balancer_state: PyTree,
  params: PyTree,
  batch: Batch,
  *,
  key: Array,
  num_parts: int,
) -> Balanced:
  """As `balanced`, a part of the rows at a time.

  What a few hundred rows need stays in a core's cache: on a CPU, 256 at a time
  train a PLE 1.2 times as fast at a batch of 1024 and 1.5 times at 4096. The
  gradient is that of the whole batch, whose rows each mean is taken over. Each
  part draws its own dropout. A penalty is averaged over the parts.

  Args:
    model: as for `balanced`; so are the next five, but for a balancer whose
      weights come from its state alone.
    tasks: T tasks.
    balancer: see `lplmtl.types.Balancer`.
    balancer_state: its state.
    params: the model's parameters.
    batch: B rows.
    key: of the dropout.
    num_parts: a divisor of B.
  """
  shared = _scope(balancer, model, params)
  totals = losses.row_totals(tasks, batch)
  present = totals > 0
  zeros = jnp.zeros(len(tasks), jnp.float32)
  weights, _ = balancer.update(zeros, balancer_state, present=present)

  def add(sums: PyTree, part: tuple[Array, Batch]) -> tuple[PyTree, None]:
    number, rows = part
    values, _, pull_back, _ = forward(
      model,
      tasks,
      params,
      rows,
      key=jax.random.fold_in(key, number),
      totals=totals,
    )
    gradient = _pull(pull_back, weights, shared, 1 / num_parts)
    return jax.tree.map(jnp.add, sums, (gradient, values)), None

  # Every num_parts-th row: where rows lie apart on several devices, each part
  # then holds some of every device's.
  parts = jax.tree.map(
    lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), batch
  )
  (gradient, values), _ = jax.lax.scan(
    add,
    (jax.tree.map(jnp.zeros_like, params), zeros),
    (jnp.arange(num_parts), parts),
  )
  _, balancer_state = balancer.update(values, balancer_state, present=present)
  metrics = {'losses': values, 'weights': weights, 'present': present}
  return gradient, balancer_state, metrics


def gramian(gradients: Sequence[PyTree], shared: PyTree = None) -> Array:
  """Inner products of gradients, summed leaf by leaf.

  Args:
    gradients: T pytrees like the parameters.
    shared: a pytree of bools, which leaves count; None for all.

  Returns:
    `[T, T]` float32.
  """
  rows = [jax.tree.leaves(gradient) for gradient in gradients]
  if shared is not None:
    chosen = jax.tree.leaves(shared)
    rows = [[x for x, ok in zip(r, chosen, strict=True) if ok] for r in rows]
  size = len(rows)
  entries = {}
  for i in range(size):
    for j in range(i, size):
      entries[i, j] = entries[j, i] = sum(
        jnp.vdot(a.astype(jnp.float32), b.astype(jnp.float32))
        for a, b in zip(rows[i], rows[j], strict=True)
      )
  flat = jnp.stack([entries[i, j] for i in range(size) for j in range(size)])
  return flat.reshape(size, size)


def shared_leaves(model: Any, params: PyTree) -> PyTree:
  """Which parameters receive the gradient of more than one task.

  Args:
    model: has `is_shared(path)`, `path` being the names from the top of the
      parameters down to a leaf.
    params: its parameters.

  Returns:
    A pytree of bools like the parameters.

  Raises:
    ValueError: the model does not say, or shares nothing.
  """
  if not hasattr(model, 'is_shared'):
    raise ValueError(
      'weights for shared parameters need a model with a method '
      f'is_shared(path); found {type(model).__name__} without'
    )
  shared = jax.tree_util.tree_map_with_path(
    lambda path, _: bool(model.is_shared(tuple(part.key for part in path))),
    params,
  )
  if not any(jax.tree.leaves(shared)):
    raise ValueError(
      f'{type(model).__name__} shares no parameters between tasks, so their '
      'gradients cannot be balanced: take a balancer that weights losses'
    )
  return shared


def _scope(balancer: Balancer, model: Model, params: PyTree) -> PyTree:
  """What the weights act on: a pytree of bools, or None for everything."""
  if balancer.scope not in ('all', 'shared'):
    raise ValueError(
      f"a balancer's scope must be 'all' or 'shared', found {balancer.scope!r}"
    )
  return shared_leaves(model, params) if balancer.scope == 'shared' else None


def _each(pull_back: PullBack, num_tasks: int) -> list[PyTree]:
  """T pull-backs: a vmap over them is a slower program."""
  return [pull_back(row, 0.0) for row in jnp.eye(num_tasks)]


def _combine(each: list[PyTree], weights: Array, shared: PyTree) -> PyTree:
  """`sum_k w_k g_k`, where the weights act; `sum_k g_k` elsewhere."""

  def add(acts: bool, *leaves: Array) -> Array:
    factors = weights if acts else jnp.ones_like(weights)
    return sum(
      factor.astype(leaf.dtype) * leaf
      for factor, leaf in zip(factors, leaves, strict=True)
    )

  if shared is None:
    shared = jax.tree.map(lambda _: True, each[0])
  return jax.tree.map(add, shared, *each)


def _pull(
  pull_back: PullBack,
  weights: Array,
  shared: PyTree,
  penalty_weight: float = 1.0,
) -> PyTree:
  """One pull-back; a second, unweighted, for what the weights leave alone."""
  gradient = pull_back(weights, penalty_weight)
  if shared is None:
    return gradient
  plain = pull_back(jnp.ones_like(weights), penalty_weight)
  return jax.tree.map(
    lambda acts, new, old: new if acts else old, shared, gradient, plain
  )
