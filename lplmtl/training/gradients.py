"""From rows to the gradients of all tasks, and which parameters are shared."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl import _alike, _checks, losses
from lplmtl.balancing import coordinates
from lplmtl.training import arrays, checks
from lplmtl.types import Array, Batch, Model, PyTree, Task

PullBack = Callable[..., PyTree]


class ScopeError(ValueError):
  """A model does not have what a balancer acts on."""


def forward(
  model: Model,
  tasks: Sequence[Task],
  params: PyTree,
  batch: Batch,
  *,
  key: Array | None,
  totals: Array | None = None,
) -> tuple[Array, PullBack, bool]:
  """Computes the task losses, and returns how to pull gradients back from them.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    params: the model's parameters.
    batch: rows.
    key: the dropout key; None without dropout (`train=False`).
    totals: see `lplmtl.losses.task_losses`.

  Returns:
    (losses, pull_back, has_penalty): `[T]` float32; `(weights [T],
    penalty_weight=1) -> gradient` of `sum_k w_k L_k + penalty_weight *
    penalty`; whether the model has a penalty.
  """

  def run(params: PyTree) -> tuple[Array, Any]:
    rngs = None if key is None else {'dropout': key}
    outputs = model.apply(
      {'params': params}, batch.features, train=key is not None, rngs=rngs
    )
    predictions, aux = _checks.model_outputs(outputs)
    task_losses, _ = losses.task_losses(tasks, predictions, batch, totals)
    return task_losses, aux.get('penalty')

  (task_losses, penalty), vjp = jax.vjp(run, params)

  def pull_back(weights: Array, penalty_weight: float = 1.0) -> PyTree:
    if penalty is None:
      return vjp((weights, None))[0]
    return vjp((weights, jnp.full_like(penalty, penalty_weight)))[0]

  return task_losses, pull_back, penalty is not None


def task_gradients(
  model: Model,
  tasks: Sequence[Task],
  params: PyTree,
  batch: Batch,
  *,
  key: Array | None = None,
) -> tuple[Array, PyTree]:
  """Computes each task's own gradient, for your own balancing or pruning.

  A penalty of the model is left out.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    params: the model's parameters.
    batch: rows; labels may be columns of pandas, as for `fit`.
    key: the dropout key; None without dropout (`train=False`).

  Returns:
    (losses, gradients): `[T]` float32, and a pytree like the parameters, each
    leaf with a leading T axis.

  Raises:
    ValueError: an argument has the wrong type, or labels are not numbers.

  Example:
    >>> import lplmtl
    >>> from lplmtl import data, tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model, rows = lplmtl.SharedBottom(todo), data.clicks(8)
    >>> params = jax.jit(model.init)(jax.random.key(0), rows.features)['params']
    >>> each = jax.jit(lambda params: task_gradients(model, todo, params, rows))
    >>> losses, gradients = each(params)
    >>> gradients['bottom']['layer_0']['kernel'].shape  # [T, D, H]
    (2, 8, 128)
  """
  checks.check_are_tasks(tasks)
  _checks.check_call(model, params)
  batch = arrays.read_labels(batch, 'batch')
  task_losses, pull_back, _ = forward(model, tasks, params, batch, key=key)
  task_grads = each_pulled_back(pull_back, len(tasks))
  if isinstance(task_grads, list):
    task_grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *task_grads)
  return task_losses, task_grads


def shared_leaves(model: Any, params: PyTree) -> PyTree:
  """Returns which parameters receive the gradient of more than one task.

  For use in `lplmtl.balancing.balance`, `gramian` and `combine`.

  Args:
    model: has a method `is_shared(path)`, where `path` is the tuple of names
      from the top of the parameters down to a leaf.
    params: its parameters.

  Returns:
    A pytree of bools like the parameters.

  Raises:
    ScopeError: the model has no such method, or shares nothing.
    ValueError: `params` are variables, `{'params': ...}`.

  Example:
    >>> import lplmtl
    >>> from lplmtl import tasks
    >>> todo = tasks.binary('click'), tasks.binary('buy')
    >>> model = lplmtl.SharedBottom(todo)
    >>> x = jnp.ones((2, 8))
    >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)
    >>> shared = shared_leaves(model, variables['params'])
    >>> {name: all(jax.tree.leaves(shared[name])) for name in sorted(shared)}
    {'bottom': True, 'tower_buy': False, 'tower_click': False}
  """
  _checks.check_params(params)
  if not hasattr(model, 'is_shared'):
    raise ScopeError(
      'weights for shared parameters need a model with a method '
      f'is_shared(path), which {type(model).__name__} lacks: add it, or use a '
      "balancer with scope='all'"
    )
  shared = jax.tree_util.tree_map_with_path(
    lambda path, _: bool(model.is_shared(tuple(part.key for part in path))),
    params,
  )
  if not any(jax.tree.leaves(shared)):
    raise ScopeError(
      f'{type(model).__name__} shares no parameters between tasks, so their '
      'gradients cannot be balanced there: use a balancer that weights '
      "losses, or scope='all'"
    )
  return shared


class Each(NamedTuple):
  """The gradients of all tasks, and what is added to them.

  Attributes:
    losses: `[T]`.
    grads: a list of T gradients, or their stack: see
      `each_pulled_back`.
    plain: the sum of the gradients, if some leaves of the stack are left out.
    penalty: the penalty's gradient, or None.
  """

  losses: Array
  grads: list[PyTree] | PyTree
  plain: PyTree
  penalty: PyTree

  def outside(self, keep: PyTree, new: PyTree) -> PyTree:
    """Returns the new gradient, the plain one where `keep` is False."""
    if keep is None:
      return new
    plain = self.plain
    if plain is None:
      plain = jax.tree.map(lambda *leaves: sum(leaves), *self.grads)
    return jax.tree.map(
      lambda acts, new, old: new if acts else old, keep, new, plain
    )


def each_pulled_back(
  pull_back: PullBack, num_tasks: int, keep: PyTree = None
) -> list[PyTree] | PyTree:
  """Pulls back the gradient of each task: T pull-backs.

  On a CPU they run one after another: batched, their activations would not fit
  in a core's cache (with ten tasks, a step would take 12.1 times as long as a
  plain one, instead of 7.4 times). Accelerators run all of them at once.

  Args:
    pull_back: from `forward`.
    num_tasks: T.
    keep: pytree of bools like a gradient, False for the leaves to leave out if
      the gradients are stacked; None for all leaves.

  Returns:
    A list of T gradients; or, of more than a few, their stack (see
    `are_stacked`), with None for the leaves that are left out.
  """
  basis = jnp.eye(num_tasks, dtype=jnp.float32)
  if num_tasks <= 2:  # unrolled: a loop would take longer to compile
    return [pull_back(row, 0.0) for row in basis]

  def one(row: Array) -> PyTree:
    gradient = pull_back(row, 0.0)
    is_kept = keep if are_stacked(num_tasks) else None
    return coordinates.chosen(gradient, is_kept)

  stacked = jax.lax.platform_dependent(
    basis, cpu=functools.partial(jax.lax.map, one), default=jax.vmap(one)
  )
  if are_stacked(num_tasks):
    return stacked
  return [jax.tree.map(lambda x, k=k: x[k], stacked) for k in range(num_tasks)]


def are_stacked(num_tasks: int) -> bool:
  """Returns whether so many gradients are stacked, instead of separate."""
  return num_tasks > _alike.FEW
