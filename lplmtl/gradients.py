"""From rows to the balanced gradient: one forward pass, one or T back."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from lplmtl import dropout, losses, types
from lplmtl.types import Array, Balancer, Batch, Model, PyTree, Task

PullBack = Callable[..., PyTree]


def forward(
  model: Model,
  tasks: Sequence[Task],
  params: PyTree,
  batch: Batch,
  *,
  key: Array | None,
  totals: Array | None = None,
) -> tuple[Array, PullBack, bool]:
  """Task losses, and the way back from them.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    params: the model's parameters.
    batch: rows.
    key: of the dropout; None for none (`train=False`).
    totals: see `lplmtl.losses.task_losses`.

  Returns:
    (losses, pull_back, has_penalty): `[T]` float32; `(weights [T],
    penalty_weight=1) -> gradient` of `sum_k w_k L_k + penalty_weight *
    penalty`; whether the model has a penalty.
  """

  def run(params: PyTree) -> tuple[Array, Any]:
    rngs = None if key is None else {'dropout': key}
    predictions, aux = model.apply(
      {'params': params}, batch.features, train=key is not None, rngs=rngs
    )
    values, _ = losses.task_losses(tasks, predictions, batch, totals)
    return values, aux.get('penalty')

  (values, penalty), vjp = jax.vjp(run, params)

  def pull_back(weights: Array, penalty_weight: float = 1.0) -> PyTree:
    if penalty is None:
      return vjp((weights, None))[0]
    return vjp((weights, jnp.full_like(penalty, penalty_weight)))[0]

  return values, pull_back, penalty is not None


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
  values, pull_back, _ = forward(model, tasks, params, batch, key=key)
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
  num_parts: int = 1,
  axis_name: str | None = None,
) -> tuple[PyTree, PyTree, dict[str, Array]]:
  """The gradient of the balanced loss.

  What a few hundred rows need stays in a core's cache, so a CPU is faster in
  parts. The gradient is that of the whole batch, over whose rows each mean is
  taken, whatever their parts and wherever they are; dropout too is that of the
  row's place in the batch. A penalty is averaged over parts and devices.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    balancer: see `lplmtl.types.Balancer`.
    balancer_state: its state.
    params: the model's parameters.
    batch: B rows, or with `axis_name` as many as this device holds.
    key: of the dropout.
    num_parts: a divisor of B, how many parts the rows are worked through in. A
      balancer that needs the losses before there is a gradient takes all rows
      at once.
    axis_name: of the mapped axis (`jax.shard_map`) over which the rows of the
      batch are spread, in order; None where they are all here.

  Returns:
    (gradient, balancer_state, metrics), metrics `losses`, `weights`, `present`,
    `[T]` each.

  Raises:
    ValueError: the balancer acts on shared parameters, and the model shares
      none or does not say which; or its weights are not `[T]`.
  """
  shared = _scope(balancer, model, params)
  total = functools.partial(_total, axis_name=axis_name)
  totals = total(losses.row_totals(tasks, batch))
  zeros = jnp.zeros(len(tasks), jnp.float32)
  update = functools.partial(_update, balancer, present=totals > 0)
  go = functools.partial(forward, model, tasks, params, totals=totals)
  in_parts = functools.partial(
    _over_parts, batch=batch, key=key, num_parts=num_parts, axis_name=axis_name
  )
  num_devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
  share = 1 / (num_parts * num_devices)  # of the penalty, for each part

  def each_task(rows: Batch, key: Array) -> tuple[Array, list[PyTree], Any]:
    values, pull_back, has_penalty = go(rows, key=key)
    own = pull_back(zeros, share) if has_penalty else None
    return values, _each(pull_back, len(tasks)), own

  def weighted(rows: Batch, key: Array) -> tuple[Array, PyTree]:
    values, pull_back, _ = go(rows, key=key)
    return values, _pull(pull_back, weights, shared, share)

  if balancer.needs_gramian:
    values, each, own = total(in_parts(each_task))
    weights, balancer_state = update(
      values, balancer_state, gramian=gramian(each, shared)
    )
    gradient = _combine(each, weights, shared)
    if own is not None:
      gradient = jax.tree.map(jnp.add, gradient, own)
  elif balancer.needs_losses:
    key = _place(key, batch, axis_name)
    values, pull_back, _ = go(batch, key=key)
    values = total(values)
    weights, balancer_state = update(values, balancer_state)
    gradient = total(_pull(pull_back, weights, shared, 1 / num_devices))
  else:
    weights, _ = update(zeros, balancer_state)
    values, gradient = total(in_parts(weighted))
    _, balancer_state = update(values, balancer_state)
  metrics = {'losses': values, 'weights': weights, 'present': totals > 0}
  return gradient, balancer_state, metrics


def _total(tree: PyTree, axis_name: str | None) -> PyTree:
  """The sum over devices, in one exchange: on a CPU each costs as a product."""
  if axis_name is None:
    return tree
  flat, unflatten = jax.flatten_util.ravel_pytree(tree)
  return unflatten(jax.lax.psum(flat, axis_name))


def _place(
  key: Array,
  batch: Batch,
  axis_name: str | None,
  part: Any = 0,
  num_parts: int = 1,
) -> Array:
  """The key of the rows that a part of this device's rows are."""
  first: Any = 0
  if axis_name is not None:
    num_rows = types.num_rows(batch.features)
    first = jax.lax.axis_index(axis_name) * num_rows
  return dropout.row_key(key, first + part, num_parts)


def _over_parts(
  fn: Callable[[Batch, Array], PyTree],
  *,
  batch: Batch,
  key: Array,
  num_parts: int,
  axis_name: str | None,
) -> PyTree:
  """The sum of a function over parts of the rows, one after the other."""
  if num_parts == 1:
    return fn(batch, _place(key, batch, axis_name))
  # Every num_parts-th row, so that a part is a strided view.
  parts = jax.tree.map(
    lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), batch
  )

  def one(part: tuple[Array, Batch]) -> PyTree:
    number, rows = part
    return fn(rows, _place(key, batch, axis_name, number, num_parts))

  numbered = (jnp.arange(num_parts), parts)
  shapes = jax.eval_shape(one, jax.tree.map(lambda x: x[0], numbered))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(
    lambda sums, part: (jax.tree.map(jnp.add, sums, one(part)), None),
    zeros,
    numbered,
  )[0]


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
  rows = [_gather_small(row) for row in rows]
  size = len(rows)
  entries = {}
  for i in range(size):
    for j in range(i, size):
      entries[i, j] = entries[j, i] = sum(
        jnp.vdot(a, b) for a, b in zip(rows[i], rows[j], strict=True)
      )
  flat = jnp.stack([entries[i, j] for i in range(size) for j in range(size)])
  return flat.reshape(size, size)


def _gather_small(leaves: Sequence[Array], limit: int = 8192) -> list[Array]:
  """Joins what is small, where a product costs more to start than to do."""
  leaves = [leaf.astype(jnp.float32) for leaf in leaves]
  small = [leaf.ravel() for leaf in leaves if leaf.size <= limit]
  large = [leaf for leaf in leaves if leaf.size > limit]
  return [*large, jnp.concatenate(small)] if small else large


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
      f'is_shared(path); found {type(model).__name__} without: add it, or '
      "take a balancer with scope='all'"
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


def _update(
  balancer: Balancer, values: Array, state: PyTree, **extra: Any
) -> tuple[Array, PyTree]:
  weights, state = balancer.update(values, state, **extra)
  if jnp.shape(weights) != values.shape:
    raise ValueError(
      f"a balancer's update must return weights of shape {values.shape}, one a "
      f'task; found {jnp.shape(weights)}'
    )
  return weights, state


def _each(pull_back: PullBack, num_tasks: int) -> list[PyTree]:
  """T pull-backs; from three on, one batched program is the faster one."""
  basis = jnp.eye(num_tasks)
  if num_tasks <= 2:
    return [pull_back(row, 0.0) for row in basis]
  stacked = jax.vmap(lambda row: pull_back(row, 0.0))(basis)
  return [jax.tree.map(lambda x, k=k: x[k], stacked) for k in range(num_tasks)]


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
