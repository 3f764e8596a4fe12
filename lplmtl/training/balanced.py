"""The balanced gradient: one forward pass, one or T back."""

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
  """The first state of a balancer for a model with these parameters.

  For `moves`, see `gradient`.

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
  """The gradient of the balanced loss.

  What a few hundred rows need stays in a core's cache, so a CPU is faster in
  parts. The gradient is that of the whole batch, over whose rows each mean is
  taken, whatever their parts and wherever they are; dropout too is that of the
  row's place in the batch. A penalty is averaged over parts and devices.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    balancer_state: its state.
    params: the model's parameters.
    rows: what to learn from. A balancer that needs the losses before there is
      a gradient takes all rows at once, and so does the `representation`.
    moves: pytree of bools like the parameters, which of them are not frozen;
      None for all. The others take no part in a Gramian (but in that of a
      representation), and an aggregator does not see them.

  Returns:
    (gradient, balancer_state, metrics), metrics `losses`, `weights`, `present`,
    `[T]` each, and `residual`, that of a balancer which solves a problem, else
    0.

  Raises:
    ScopeError: the balancer acts on shared parameters, and the model shares
      none, does not say which or does not move them; or it wants a
      representation, and the model does not offer one.
    ValueError: its weights are not `[T]`.
  """
  shared = scopes.acting(balancer, model, params)
  totals = rows.total(losses.row_totals(tasks, rows.batch))
  counts = scopes.counting(balancer, shared, moves)
  job = _Job(
    model, tasks, balancer, balancer_state, params, rows, shared, counts, totals
  )
  if isinstance(balancer, Aggregator):
    found, values, weights, state = _aggregated(job)
  elif balancer.scope == 'representation':
    found, values, weights, state = _at_representation(job)
  elif balancer.needs_gramian:
    found, values, weights, state = _by_gramian(job)
  else:
    found, values, weights, state = _by_losses(job)
  metrics = {
    'losses': values,
    'weights': weights,
    'present': totals > 0,
    'residual': getattr(state, 'residual', jnp.float32(0)),
  }
  return found, state, metrics


def losses_at(
  model: Model, tasks: Sequence[Task], params: PyTree, rows: Rows
) -> Array:
  """Returns the losses of rows, `[T]`, by a forward pass with their dropout."""
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
    after: that of the balancer.
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
  """What `gradient` was given, and what follows from it."""

  model: Any
  tasks: Sequence[Task]
  balancer: Any
  state: PyTree
  params: PyTree
  rows: Rows
  shared: PyTree  # of bools, what the weights act on; None for all
  counts: PyTree  # of bools, of what gradients are compared; None for all
  totals: Array  # [T], of the weights of the rows

  def forward(self, batch: Batch, key: Array) -> Any:
    """See `gradients.forward`."""
    return gradients.forward(
      self.model, self.tasks, self.params, batch, key=key, totals=self.totals
    )

  def weigh(self, values: Array, **extra: Any) -> tuple[Array, PyTree]:
    """The balancer's weights and its next state."""
    extra['present'] = self.totals > 0
    _checks.check_keywords(self.balancer.update, extra)
    weights, state = returned.parts(
      self.balancer.update(values, self.state, **extra), ('weights', 'state')
    )
    returned.check_state(state, self.state, 'update')
    return returned.as_weights(weights, values), state


# The gradient, the losses, the weights, the balancer's state.
_Found = tuple[PyTree, Array, Array, PyTree]


def _by_losses(job: _Job) -> _Found:
  """One pull-back of the weighted sum."""
  rows = job.rows
  if job.balancer.needs_losses:
    values, pull_back, _ = job.forward(rows.batch, rows.dropout_key())
    values = rows.total(values)
    weights, state = job.weigh(values)
    found = _pull(pull_back, weights, job.shared, 1 / rows.num_devices)
    return rows.total(found), values, weights, state

  weights, _ = job.weigh(jnp.zeros(len(job.tasks), jnp.float32))

  def weighted(batch: Batch, key: Array) -> tuple[Array, PyTree]:
    values, pull_back, _ = job.forward(batch, key)
    return values, _pull(pull_back, weights, job.shared, _share(rows))

  values, found = rows.sum_over_microbatches(weighted)
  return found, values, weights, job.weigh(values)[1]


def _each_task(job: _Job) -> tuple[Array, list[PyTree], PyTree]:
  """Losses, T gradients, and the penalty's gradient or None."""
  zeros, share = jnp.zeros(len(job.tasks), jnp.float32), _share(job.rows)

  def each(batch: Batch, key: Array) -> tuple[Array, list[PyTree], Any]:
    values, pull_back, has_penalty = job.forward(batch, key)
    own = pull_back(zeros, share) if has_penalty else None
    return values, gradients.each_pulled_back(pull_back, len(job.tasks)), own

  return job.rows.sum_over_microbatches(each)


def _by_gramian(job: _Job) -> _Found:
  """T pull-backs, whose inner products tell the weights."""
  values, each, penalty = _each_task(job)
  products = coordinates.products_of(each, job.counts)
  weights, state = job.weigh(values, gramian=products)
  found = coordinates.combine_each(weights, each, job.shared)
  return _plus(found, penalty), values, weights, state


def _aggregated(job: _Job) -> _Found:
  """T pull-backs, stacked for an aggregator."""
  values, each, penalty = _each_task(job)
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
  stacked = coordinates.chosen(stacked, job.counts)
  _checks.check_keywords(job.balancer.update, ('present',))
  found, weights, state = returned.parts(
    job.balancer.update(stacked, values, job.state, present=job.totals > 0),
    ('gradient', 'weights', 'state'),
  )
  returned.check_state(state, job.state, 'update')
  weights = returned.as_weights(weights, values)
  returned.check_gradient(found, jax.tree.map(lambda x: x[0], stacked))
  if job.counts is not None:
    plain = jax.tree.map(lambda *leaves: sum(leaves), *each)
    # `found` has None where the scope ends.
    found = jax.tree.map(
      lambda acts, new, old: new if acts else old, job.counts, found, plain
    )
  return _plus(found, penalty), values, weights, state


def _at_representation(job: _Job) -> _Found:
  """T pull-backs to the representation, and one through the trunk."""
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
    values, _ = losses.task_losses(tasks, predictions, rows.batch, job.totals)
    return values, aux.get('penalty', jnp.zeros(())) / rows.num_devices

  representation, through_trunk = jax.vjp(represent, job.params)
  (values, penalty), through_head = jax.vjp(head, job.params, representation)
  values = rows.total(values)

  def pull_back(weights: Array, penalty_weight: float) -> PyTree:
    return through_head((weights, jnp.full_like(penalty, penalty_weight)))

  each = gradients.each_pulled_back(
    lambda weights, _: pull_back(weights, 0.0)[1], len(tasks)
  )
  products = rows.total(coordinates.products_of(each))
  weights, state = job.weigh(values, gramian=products)
  acts, cotangent = pull_back(weights, 1.0)
  plain, _ = pull_back(jnp.ones_like(weights), 1.0)
  found = jax.tree.map(
    lambda ok, new, old, trunk: (new if ok else old) + trunk,
    job.shared, acts, plain, through_trunk(cotangent)[0],
  )  # fmt: skip
  return rows.total(found), values, weights, state


def _share(rows: Rows) -> Any:
  """Of the penalty, for each part."""
  return 1 / (rows.num_microbatches * rows.num_devices)


def _plus(found: PyTree, penalty: PyTree) -> PyTree:
  return found if penalty is None else jax.tree.map(jnp.add, found, penalty)


def _pull(
  pull_back: gradients.PullBack,
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
