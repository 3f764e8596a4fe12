"""Pure functions of training: a step, a chunk of steps, an evaluation.

Everything between two visits of the host is one of these, so that it can be
jitted, scanned, and spread over seeds.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lplmtl import _checks, losses, prng
from lplmtl.layers import modules
from lplmtl.training import balanced, frozen, optimizers, returned
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """All that one training step reads and writes.

  Attributes:
    step: scalar int32, how many steps have been taken.
    params: the model's parameters.
    opt_state: the optimiser's state.
    balancer_state: the balancer's state, learned loss weights among it.
    key: the random key of this run; step n uses `fold_in(key, n)`.
  """

  step: Array
  params: PyTree
  opt_state: PyTree
  balancer_state: PyTree
  key: Array


Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def init_state(
  key: Array,
  model: Model,
  tasks: Sequence[Task],
  optimizer: optax.GradientTransformation,
  balancer: Balancer | Aggregator,
  features: PyTree,
) -> TrainState:
  """The state before the first step; fit for jit, and for vmap over keys.

  Args:
    key: scalar random key.
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    optimizer: any optax transformation.
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    features: pytree of `[B, ...]`, of which only shapes and dtypes matter.

  Raises:
    ValueError: a model that keeps more than parameters, or has none.
  """
  params_key, balancer_key, run_key = jax.random.split(key, 3)
  params_key = prng.row_key(params_key)
  variables = model.init({'params': params_key}, features)
  modules.check_collections(variables, model)
  params = variables.get('params')
  if not jax.tree.leaves(params):
    raise ValueError(f'{type(model).__name__} has no parameters to train')
  balancer_state = balanced.init(
    balancer_key, model, tasks, balancer, params,
    _moving(optimizer, balancer, params),
  )  # fmt: skip
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    balancer_state=balancer_state,
    key=run_key,
  )


def make_train_step(
  model: Model,
  tasks: Sequence[Task],
  optimizer: optax.GradientTransformation,
  balancer: Balancer | Aggregator,
  *,
  num_parts: int = 1,
  axis_name: str | None = None,
  skip_nonfinite: bool = False,
) -> Step:
  """A pure training step.

  The gradient is that of `sum_k w_k L_k + penalty` with the weights w of the
  balancer held constant, and the penalty, if any, from the model's aux.
  Parameters that the optimiser freezes do not count where a balancer compares
  gradients (see `lplmtl.training.frozen.moving`).

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    optimizer: any optax transformation; one that wants the loss as `value` is
      given the sum of the weighted losses (see `optimizers.update`).
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    num_parts: a divisor of B, how many parts the rows are worked through in.
    axis_name: of the mapped axis over which the rows of a batch are spread.
      Neither changes the step but by rounding (see
      `lplmtl.training.balanced.gradient`).
    skip_nonfinite: whether a step whose losses or whose new state are not
      finite leaves the state as it was, but for its `step`.

  Returns:
    `(state, batch) -> (state, metrics)`, scan-safe; metrics are `losses` and
    `weights`, `[T]` float32, `present`, `[T]` bool, `residual`, scalar float32
    (see `lplmtl.training.balanced.gradient`), and `skipped`, scalar bool.
  """
  balance = functools.partial(balanced.gradient, model, tasks, balancer)
  after = balancer.after

  def step(
    state: TrainState, batch: Batch
  ) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(state.key, state.step)
    rows = Rows(batch, key, num_parts, axis_name)
    gradient, balancer_state, metrics = balance(
      state.balancer_state,
      state.params,
      rows,
      _moving(optimizer, balancer, state.params),
    )
    loss = jnp.sum(metrics['weights'] * metrics['losses'])
    updates, opt_state = optimizers.update(
      optimizer, gradient, state.opt_state, state.params, loss
    )
    params = optax.apply_updates(state.params, updates)
    if after is not None:
      before = balancer_state
      balancer_state = after(
        metrics['losses'],
        balanced.losses_at(model, tasks, params, rows),
        before,
        present=metrics['present'],
      )
      returned.check_state(balancer_state, before, 'after')
    new_state = TrainState(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      balancer_state=balancer_state,
      key=state.key,
    )
    if not skip_nonfinite:
      return new_state, {**metrics, 'skipped': jnp.array(False)}
    good = is_finite(metrics['losses']) & is_finite(new_state, state)
    kept = jax.tree.map(
      lambda new, old: jnp.where(good, new, old), new_state, state
    )
    kept = dataclasses.replace(kept, step=new_state.step)
    return kept, {**metrics, 'skipped': ~good}

  return step


def _moving(
  optimizer: optax.GradientTransformation,
  balancer: Balancer | Aggregator,
  params: PyTree,
) -> PyTree | None:
  """Which parameters move, for a balancer that looks at gradients."""
  looks = isinstance(balancer, Aggregator) or balancer.needs_gramian
  return frozen.moving(optimizer, params) if looks else None


def train_chunk(
  step: Step,
  state: TrainState,
  data: Batch,
  indices: Array,
  first: Any = 0,
  last: Any = None,
) -> tuple[TrainState, dict[str, Array]]:
  """Steps of an epoch as one loop; what is jitted and spread over seeds.

  Args:
    step: from `make_train_step`.
    state: a TrainState.
    data: all rows, as one Batch on the device.
    indices: `[N, B]` int, the rows of each step.
    first: scalar int, the first of the N steps to take, and
    last: where to stop, None for N. They may be traced: one program then serves
      every part of an epoch, and the parts give the bits of the whole.

  Returns:
    (state, metrics), metrics with a leading N axis, 0 for steps not taken.

  Raises:
    ValueError: a step changes the structure, a shape or a dtype of the state,
      as an optimiser of one's own may.
  """
  # Jitted, so that asking for the shapes traces nothing twice.
  step = jax.jit(step)

  def take(i: Any) -> Batch:
    return jax.tree.map(lambda x: x[indices[i]], data)

  def body(i: Array, carry: Any) -> Any:
    state, seen = carry
    state, found = step(state, take(i))
    return state, jax.tree.map(lambda all, x: all.at[i].set(x), seen, found)

  after, shapes = jax.eval_shape(lambda: step(state, take(0)))
  _check_alike(state, after)
  zeros = jax.tree.map(
    lambda x: jnp.zeros((len(indices), *x.shape), x.dtype), shapes
  )
  last = len(indices) if last is None else last
  return jax.lax.fori_loop(first, last, body, (state, zeros))


def _check_alike(before: TrainState, after: TrainState) -> None:
  for field in dataclasses.fields(TrainState):
    old, new = (
      jax.tree.map(
        lambda x: (x.shape, str(x.dtype)), getattr(state, field.name)
      )
      for state in (before, after)
    )
    if old != new:
      raise ValueError(
        'a step must leave the structure, shapes and dtypes of the state as '
        f'they are, for a loop over steps: its {field.name} was {old}, and '
        f'became {new}'
      )


def is_finite(tree: PyTree, before: PyTree = None) -> Array:
  """Scalar bool: no number in a pytree is infinite or NaN.

  Args:
    tree: of arrays.
    before: the tree of a step before; what was not finite then is none of this
      one's doing, such as the best loss so far of an optimiser, inf at first.
  """
  leaves = jax.tree.leaves(tree)
  good = [
    jnp.isfinite(x) if old is None else jnp.isfinite(x) | ~jnp.isfinite(old)
    for x, old in zip(
      leaves,
      [None] * len(leaves) if before is None else jax.tree.leaves(before),
      strict=True,
    )
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.stack([x.all() for x in good]).all()


def predict(
  model: Model, params: PyTree, features: PyTree, *, chunk_size: int = 1024
) -> dict[str, Array]:
  """Predictions for a whole table, in chunks that fit the cache.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    features: pytree of `[N, ...]`.
    chunk_size: rows at a time.

  Returns:
    `{task: [N, ..., K]}`.

  Raises:
    ValueError: no rows, or something else than a model and its parameters.

  Example:
    >>> import lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> x = jnp.ones((3, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> predict(model, params, x)['click'].shape  # [N, K]
    (3, 1)
  """
  _checks.check_call(model, params, chunk_size)
  features = jax.tree.map(jnp.asarray, features)
  count = _checks.num_rows(features)
  if not count or chunk_size < 1:
    raise ValueError(
      'expected at least one row to predict, and chunks of at least one; found '
      f'{count} rows and a chunk_size of {chunk_size}'
    )

  def score(rows: PyTree) -> dict[str, Array]:
    return _checks.model_outputs(model.apply({'params': params}, rows))[0]

  if count <= chunk_size:
    return score(features)
  num_chunks = -(-count // chunk_size)
  # The last chunk repeats the last row, so that no column is padded (copied).
  rows = jnp.minimum(jnp.arange(num_chunks * chunk_size), count - 1)

  chunks = jax.lax.map(
    lambda chunk: score(jax.tree.map(lambda x: x[chunk], features)),
    rows.reshape(num_chunks, chunk_size),
  )
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], chunks)


def make_predictor(
  model: Model, params: PyTree, *, chunk_size: int = 1024
) -> Callable[[PyTree], dict[str, Array]]:
  """A compiled `features -> predictions`, for parameters that stay.

  They become part of the program, so that what depends on them alone is
  computed once: scoring a single row takes a third to a half of the time.

  Args:
    model: see `lplmtl.types.Model`.
    params: its parameters.
    chunk_size: rows at a time, as in `predict`.

  Returns:
    `features [N, ...] -> {task: [N, ..., K]}`, jitted: it compiles once for
    each N, and can be lowered and exported. Features are arrays, of a data
    frame `frame.to_numpy('float32')`.

  Raises:
    ValueError: something else than a model and its parameters.

  Example:
    >>> import lplmtl
    >>> from lplmtl import tasks
    >>> model = lplmtl.SharedBottom((tasks.binary('click'),))
    >>> x = jnp.ones((3, 8))
    >>> params = jax.jit(model.init)(jax.random.key(0), x)['params']
    >>> score = make_predictor(model, params)
    >>> score(x)['click'].shape  # [N, K]
    (3, 1)
  """
  _checks.check_call(model, params, chunk_size)
  params = jax.device_get(params)
  return jax.jit(
    lambda features: predict(model, params, features, chunk_size=chunk_size)
  )


def make_eval_step(
  model: Model,
  tasks: Sequence[Task],
  spread: Callable[[Callable], Callable] = lambda predict: predict,
) -> Callable[[PyTree, Batch], dict[str, dict[str, Array]]]:
  """A pure function from parameters and rows to every task's metrics.

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    spread: what to make of `(params, features) -> predictions`, such as one
      that computes them on several devices.

  Returns:
    `(params, batch) -> {task: {metric: scalar}}`: the metrics of each task in
    their order, and `loss`, the mean loss (weighted as in training), NaN where
    no row counts.
  """

  def evaluate(params: PyTree, batch: Batch) -> dict[str, dict[str, Array]]:
    batch = jax.tree.map(jnp.asarray, batch)
    predictions = spread(functools.partial(predict, model))(
      params, batch.features
    )
    values, present = losses.task_losses(tasks, predictions, batch)
    values = jnp.where(present, values, jnp.nan)
    results = {}
    for i, task in enumerate(tasks):
      outputs = predictions[task.name]
      where = (batch.where or {}).get(task.name)
      labels = losses.mask_labels(batch.labels[task.name], where)
      if where is None:
        where = jnp.ones(outputs.shape[0], bool)
      results[task.name] = {
        'loss': values[i],
        **{f: fn(outputs, labels, where) for f, fn in task.metric_fns.items()},
      }
    return results

  return evaluate
