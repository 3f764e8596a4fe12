"""The balanced gradient: one forward pass, one backward pass or T."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lplmtl import _checks, losses
from lplmtl.balancing import coordinates
from lplmtl.training import gradients, returned, scopes
from lplmtl.training.microbatch import Rows
from lplmtl.types import (
  Aggregator,
  Array,
  Balancer,
  Batch,
  Model,
  PyTree,
  Task,
)


def init(
  key: Array,
  model: Model,
  tasks: Sequence[Task],
  balancer: Balancer | Aggregator,
  params: PyTree,
  moves: PyTree = None,
) -> PyTree:
  """Returns the first state of a balancer for a model with these parameters.

  Args:
    key: random key.
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    params: the model's parameters.
    moves: see `gradient`.

  Raises:
    ScopeError: see `gradient`.
  """
  acts = scopes.acting(balancer, model, params)
  if isinstance(balancer, Aggregator):
    counts = scopes.counting(balancer, acts, moves)
    return balancer.init(key, coordinates.chosen(params, counts), len(tasks))
  return balancer.init(key, len(tasks))


def gradient(
  model: Model,
  tasks: Sequence[Task],
  balancer: Balancer | Aggregator,
  balancer_state: PyTree,
  params: PyTree,
  rows: Rows,
  moves: PyTree = None,
) -> tuple[PyTree, PyTree, dict[str, Array]]:
  """Computes the gradient of the balanced loss.

  The activations of a few hundred rows fit in a core's cache, so microbatches
  are faster on a CPU. The gradient is that of the whole batch, however its rows
  are divided: each mean is taken over all of them, and a row's dropout depends
  on its place in the batch. A penalty is averaged over microbatches and
  devices.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    balancer_state: its state.
    params: the model's parameters.
    rows: the rows of the step. Loss weightings that need this step's losses and
      the scope `representation` take all rows at once, not in microbatches.
    moves: pytree of bools like the parameters, False for those that are frozen;
      None if all move. Frozen parameters are left out of a Gramian (except that
      of a representation), and an aggregator does not receive them.

  Returns:
    (gradient, balancer_state, metrics). The metrics are `losses`, `weights` and
    `present`, `[T]` each, and `residual`, which is 0 unless the balancer solves
    a problem.

  Raises:
    ScopeError: the balancer acts on shared parameters, but the model has none,
      does not say which, or they are all frozen; or the balancer acts on a
      representation, which the model does not offer.
    ValueError: the weights are not `[T]`.
  """
  shared = scopes.acting(balancer, model, params)
  totals = rows.total(losses.row_totals(tasks, rows.batch))
  counts = scopes.counting(balancer, shared, moves)
  job = _Job(
    model, tasks, balancer, balancer_state, params, rows, shared, counts, totals
  )
  if isinstance(balancer, Aggregator):
    grads, task_losses, weights, state = _aggregated(job)
  elif balancer.scope == 'representation':
    grads, task_losses, weights, state = _at_representation(job)
  elif balancer.needs_gramian:
    grads, task_losses, weights, state = _by_gramian(job)
  else:
    grads, task_losses, weights, state = _by_losses(job)
  metrics = {
    'losses': task_losses,
    'weights': weights,
    'present': totals > 0,
    'residual': getattr(state, 'residual', jnp.float32(0)),
  }
  return grads, state, metrics


def losses_at(
  model: Model, tasks: Sequence[Task], params: PyTree, rows: Rows
) -> Array:
  """Returns the losses of rows, `[T]`, in a forward pass with their dropout."""
  totals = rows.total(losses.row_totals(tasks, rows.batch))
  return rows.sum_over_microbatches(
    lambda batch, key: gradients.forward(
      model, tasks, params, batch, key=key, totals=totals
    )[0]
  )


def state_after(
  after: Callable[..., PyTree],
  state: PyTree,
  metrics: Mapping[str, Array],
  losses_after: Array,
) -> PyTree:
  """Returns the balancer's state once it has seen the losses after a step.

  Args:
    after: the balancer's `after`.
    state: its state from `gradient`.
    metrics: those of `gradient`.
    losses_after: `[T]`, from `losses_at`.

  Raises:
    ValueError: the new state is not like the old one.
  """
  new = after(
    metrics['losses'], losses_after, state, present=metrics['present']
  )
  returned.check_state(new, state, 'after')
  return new


class _Job(NamedTuple):
  """The arguments of `gradient`, and what is derived from them."""

  model: Any
  tasks: Sequence[Task]
  balancer: Any
  state: PyTree
  params: PyTree
  rows: Rows
  shared: PyTree  # of bools: which leaves the weights act on; None for all
  counts: PyTree  # of bools: which leaves are compared; None for all
  totals: Array  # [T], the sums of the row weights

  def forward(self, batch: Batch, key: Array) -> Any:
    """See `gradients.forward`."""
    return gradients.forward(
      self.model, self.tasks, self.params, batch, key=key, totals=self.totals
    )

  def weigh(self, task_losses: Array, **extra: Any) -> tuple[Array, PyTree]:
    """Calls the balancer: returns its weights and its next state."""
    extra['present'] = self.totals > 0
    _checks.check_keywords(self.balancer.update, extra)
    weights, state = returned.parts(
      self.balancer.update(task_losses, self.state, **extra),
      ('weights', 'state'),
    )
    returned.check_state(state, self.state, 'update')
    return returned.as_weights(weights, task_losses), state


# The gradient, the losses, the weights, the balancer's state.
_Balanced = tuple[PyTree, Array, Array, PyTree]


def _by_losses(job: _Job) -> _Balanced:
  """Pulls back the weighted sum, once."""
  rows = job.rows
  if job.balancer.needs_losses:
    task_losses, pull_back, _ = job.forward(rows.batch, rows.dropout_key())
    task_losses = rows.total(task_losses)
    weights, state = job.weigh(task_losses)
    grads = _pull(pull_back, weights, job.shared, 1 / rows.num_devices)
    return rows.total(grads), task_losses, weights, state

  weights, _ = job.weigh(jnp.zeros(len(job.tasks), jnp.float32))

  def weighted(batch: Batch, key: Array) -> tuple[Array, PyTree]:
    task_losses, pull_back, _ = job.forward(batch, key)
    return task_losses, _pull(pull_back, weights, job.shared, _share(rows))

  task_losses, grads = rows.sum_over_microbatches(weighted)
  return grads, task_losses, weights, job.weigh(task_losses)[1]


def _each_task(job: _Job, keep: PyTree) -> gradients.Each:
  """Pulls back T times.

  Args:
    job: the job.
    keep: the leaves whose T gradients are needed; None for all.
  """
  count = len(job.tasks)
  zeros, share = jnp.zeros(count, jnp.float32), _share(job.rows)

  def pull_all(batch: Batch, key: Array) -> gradients.Each:
    task_losses, pull_back, has_penalty = job.forward(batch, key)
    penalty = pull_back(zeros, share) if has_penalty else None
    each = gradients.each_pulled_back(pull_back, count, keep)
    plain = None
    if keep is not None and gradients.are_stacked(count):
      plain = pull_back(jnp.ones_like(zeros), 0.0)
    return gradients.Each(task_losses, each, plain, penalty)

  return job.rows.sum_over_microbatches(pull_all)


def _by_gramian(job: _Job) -> _Balanced:
  """Pulls back T times; the gradients' inner products give the weights."""
  each = _each_task(job, job.shared)
  products = _products(each.grads, job.counts)
  weights, state = job.weigh(each.losses, gramian=products)
  if isinstance(each.grads, list):
    grads = coordinates.combine_each(weights, each.grads, job.shared)
  else:
    grads = coordinates.combine(weights, each.grads)
    grads = each.outside(job.shared, grads)
  return _plus(grads, each.penalty), each.losses, weights, state


def _products(each: list[PyTree] | PyTree, counts: PyTree = None) -> Array:
  if isinstance(each, list):
    return coordinates.products_of(each, counts)
  return coordinates.products(coordinates.chosen(each, counts))


def _aggregated(job: _Job) -> _Balanced:
  """Pulls back T times, and stacks the gradients for an aggregator."""
  each = _each_task(job, job.counts)
  stacked = each.grads
  if isinstance(stacked, list):
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *stacked)
  stacked = coordinates.chosen(stacked, job.counts)
  _checks.check_keywords(job.balancer.update, ('present',))
  grads, weights, state = returned.parts(
    job.balancer.update(
      stacked, each.losses, job.state, present=job.totals > 0
    ),
    ('gradient', 'weights', 'state'),
  )
  returned.check_state(state, job.state, 'update')
  weights = returned.as_weights(weights, each.losses)
  returned.check_gradient(grads, jax.tree.map(lambda x: x[0], stacked))
  # An aggregator's gradient is None outside its scope.
  grads = each.outside(job.counts, grads)
  return _plus(grads, each.penalty), each.losses, weights, state


def _at_representation(job: _Job) -> _Balanced:
  """Pulls back T times to the representation, and once through the trunk."""
  rows, tasks = job.rows, job.tasks
  apply = functools.partial(
    job.model.apply, train=True, rngs={'dropout': rows.dropout_key()}
  )
  features = rows.batch.features

  def represent(params: PyTree) -> PyTree:
    return apply({'params': params}, features, method='represent')

  def head(params: PyTree, representation: PyTree) -> Any:
    predictions, aux = apply(
      {'params': params}, representation, features, method='predict'
    )
    task_losses, _ = losses.task_losses(
      tasks, predictions, rows.batch, job.totals
    )
    return task_losses, aux.get('penalty', jnp.zeros(())) / rows.num_devices

  representation, through_trunk = jax.vjp(represent, job.params)
  (task_losses, penalty), through_head = jax.vjp(
    head, job.params, representation
  )
  task_losses = rows.total(task_losses)

  def pull_back(weights: Array, penalty_weight: float) -> PyTree:
    return through_head((weights, jnp.full_like(penalty, penalty_weight)))

  task_grads = gradients.each_pulled_back(
    lambda weights, _: pull_back(weights, 0.0)[1], len(tasks)
  )
  products = rows.total(_products(task_grads))
  weights, state = job.weigh(task_losses, gramian=products)
  acts, cotangent = pull_back(weights, 1.0)
  plain, _ = pull_back(jnp.ones_like(weights), 1.0)
  grads = jax.tree.map(
    lambda ok, new, old, trunk: (new if ok else old) + trunk,
    job.shared, acts, plain, through_trunk(cotangent)[0],
  )  # fmt: skip
  return rows.total(grads), task_losses, weights, state


def _share(rows: Rows) -> Any:
  """Returns the weight of the penalty in each microbatch of each device."""
  return 1 / (rows.num_microbatches * rows.num_devices)


def _plus(grads: PyTree, penalty: PyTree) -> PyTree:
  return grads if penalty is None else jax.tree.map(jnp.add, grads, penalty)


def _pull(
  pull_back: gradients.PullBack,
  weights: Array,
  shared: PyTree,
  penalty_weight: float = 1.0,
) -> PyTree:
  """Pulls back once, and again without weights for leaves outside the scope."""
  gradient = pull_back(weights, penalty_weight)
  if shared is None:
    return gradient
  plain = pull_back(jnp.ones_like(weights), penalty_weight)
  return jax.tree.map(
    lambda acts, new, old: new if acts else old, shared, gradient, plain
  )
