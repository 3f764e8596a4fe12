"""Pure functions of training: the first state, a step, a chunk of steps.

Everything that happens between two visits to the host is one pure function, so
that it can be jitted, scanned and spread over seeds.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lplmtl import _alike, prng, sparse
from lplmtl.layers import modules
from lplmtl.training import (
  balanced,
  batches,
  finite,
  frozen,
  lazy,
  merged,
  optimizers,
  packed,
)
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
  """All that a training step reads and writes.

  Attributes:
    step: scalar int32, how many steps have been taken.
    params: the model's parameters.
    opt_state: the optimiser's state.
    balancer_state: the balancer's state, learned loss weights included.
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
  params: PyTree | None = None,
) -> TrainState:
  """Returns the state before the first step; works under jit and vmap.

  Args:
    key: scalar random key; the argument to map over for several seeds.
    model: see `lplmtl.types.Model`.
    tasks: T tasks.
    optimizer: any optax transformation.
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    features: pytree of `[B, ...]`; only shapes and dtypes matter.
    params: the parameters to start from, of the model's structure; None draws
      them.

  Raises:
    ValueError: the model has no parameters, or variables of other collections.
  """
  params_key, balancer_key, run_key = jax.random.split(key, 3)
  params_key = prng.row_key(params_key)

  def draw(key: Array) -> Any:
    return model.init({'params': key}, features)

  is_large = len(tasks) > _alike.FEW
  variables = merged.run(draw, params_key) if is_large else draw(params_key)
  modules.check_collections(variables, model)
  drawn = variables.get('params')
  if not jax.tree.leaves(drawn):
    raise ValueError(f'{type(model).__name__} has no parameters to train')
  params = drawn if params is None else params
  balancer_state = balanced.init(
    balancer_key, model, tasks, balancer, params,
    _moving(sparse.plain(optimizer), balancer, params),
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
  num_microbatches: int = 1,
  axis_name: str | None = None,
  skip_nonfinite: bool = False,
  num_parts: int | None = None,
) -> Step:
  """Returns a pure training step.

  Its gradient is that of `sum_k w_k L_k + penalty`, with the balancer's weights
  w held constant, and the penalty, if any, from the model's aux. Parameters
  that the optimiser freezes do not count when a balancer compares gradients
  (see `lplmtl.training.frozen.moving`).

  Args:
    model: see `lplmtl.types.Model`.
    tasks: T tasks, those of the model.
    optimizer: any optax transformation, or that of `sparse.lazy`; one that
      takes the loss as `value` receives the sum of the weighted losses (see
      `optimizers.update`).
    balancer: see `lplmtl.types.Balancer` and `Aggregator`.
    num_microbatches: a divisor of B; the microbatches run one after another.
    axis_name: the mapped axis over which the rows of a batch are spread.
      Neither this nor microbatches change the step, except by rounding (see
      `lplmtl.training.balanced.gradient`).
    skip_nonfinite: whether a step with non-finite losses or a non-finite new
      state leaves the state unchanged, except for its `step`.
    num_parts: the former name of `num_microbatches`, kept for one more release.

  Returns:
    `(state, batch) -> (state, metrics)`, scan-safe. The metrics are `losses`
    and `weights`, `[T]` float32; `present`, `[T]` bool; `residual`, scalar
    float32 (see `lplmtl.training.balanced.gradient`); `skipped`, scalar bool.
  """
  if num_parts is not None:
    _warn_of_num_parts()
    num_microbatches = num_parts
  if isinstance(optimizer, sparse.Lazy):
    return lazy.make_step(model, optimizer, axis_name, functools.partial(
      make_train_step, tasks=tasks, optimizer=optimizer.optimizer,
      balancer=balancer, num_microbatches=num_microbatches,
      axis_name=axis_name, skip_nonfinite=skip_nonfinite,
    ))  # fmt: skip
  balance = functools.partial(balanced.gradient, model, tasks, balancer)

  def step(
    state: TrainState, batch: Batch
  ) -> tuple[TrainState, dict[str, Array]]:
    key = jax.random.fold_in(state.key, state.step)
    divided = Rows(batch, key, num_microbatches, axis_name)
    gradient, balancer_state, metrics = balance(
      state.balancer_state,
      state.params,
      divided,
      _moving(optimizer, balancer, state.params),
    )
    loss = jnp.sum(metrics['weights'] * metrics['losses'])
    updates, opt_state = optimizers.update(
      optimizer, gradient, state.opt_state, state.params, loss
    )
    params = optax.apply_updates(state.params, updates)
    if balancer.after is not None:
      losses_after = balanced.losses_at(model, tasks, params, divided)
      balancer_state = balanced.state_after(
        balancer.after, balancer_state, metrics, losses_after
      )
    new_state = TrainState(
      state.step + 1, params, opt_state, balancer_state, state.key
    )
    if not skip_nonfinite:
      return new_state, {**metrics, 'skipped': jnp.array(False)}
    good = finite.is_finite(metrics['losses'])
    good &= finite.is_finite(new_state, state)
    return _select(good, new_state, state), {**metrics, 'skipped': ~good}

  return step


def _select(good: Array, new: TrainState, old: TrainState) -> TrainState:
  """Returns the old state, one step on, unless the step was good."""
  selected = jax.tree.map(lambda x, y: jnp.where(good, x, y), new, old)
  # `step` always advances: otherwise the next step would draw the same dropout.
  return dataclasses.replace(selected, step=new.step)


def _warn_of_num_parts() -> None:
  warnings.warn(
    'num_parts is now called num_microbatches',
    DeprecationWarning,
    stacklevel=3,
  )


def _moving(
  optimizer: optax.GradientTransformation,
  balancer: Balancer | Aggregator,
  params: PyTree,
) -> PyTree | None:
  """Returns which parameters move; None for a balancer of losses only."""
  compares = isinstance(balancer, Aggregator) or balancer.needs_gramian
  return frozen.moving(optimizer, params) if compares else None


def train_chunk(
  step: Step,
  state: TrainState,
  data: Batch,
  indices: Array,
  first: Any = 0,
  last: Any = None,
) -> tuple[TrainState, dict[str, Array]]:
  """Takes steps of an epoch in one loop.

  Args:
    step: from `make_train_step`.
    state: a TrainState.
    data: all rows, as one Batch on the device.
    indices: `[N, B]` int, the rows of each step.
    first: scalar int, the first of the N steps to take.
    last: scalar int, the step to stop before; None for N. If the bounds are
      traced, one program serves every part of an epoch, and the parts together
      give results bit-identical to the whole.

  Returns:
    (state, metrics), metrics with a leading N axis, 0 for steps not taken.

  Raises:
    ValueError: a step changes the structure, a shape or a dtype of the state,
      as a user's own optimiser may.
  """
  return run_chunk(step, state, data, indices, first, last)[:2]


def run_chunk(
  step: Step,
  state: TrainState,
  data: Batch,
  indices: Array,
  first: Any,
  last: Any,
  task_names: Sequence[str] = (),
) -> tuple[TrainState, dict[str, Array], Array]:
  """Does what `train_chunk` does; this is jitted and spread over seeds.

  Args:
    step: as for `train_chunk`, and so are the following.
    state: a TrainState.
    data: all rows.
    indices: the rows of each step.
    first: the first step.
    last: the step to stop before.
    task_names: T names, by which parameters are packed if there are many tasks;
      the labels' by default.

  Returns:
    (state, metrics, is_finite), whether the new state is finite wherever the
    old one was: see `finite.is_finite`.
  """
  names = tuple(task_names or data.labels)
  reader, packing = batches.Reader(data, names), packed.Packing(state, names)
  # Jitted, so that the first trace is the only one.
  step = jax.jit(step)
  traced = []

  def trace() -> None:
    batch = reader.take(indices[0])
    traced.append(jax.make_jaxpr(step, return_shape=True)(state, batch))

  jax.eval_shape(trace)  # so that the batch is not computed
  program, (after, shapes) = traced[0]
  _check_alike(state, after)
  one = packed.over(step, program, packing, reader.packing, shapes)

  def body(i: Array, carry: Any) -> Any:
    state, seen = carry
    state, metrics = one(state, reader.packed(indices[i]))
    return state, jax.tree.map(lambda all, x: all.at[i].set(x), seen, metrics)

  zeros = jax.tree.map(
    lambda x: jnp.zeros((len(indices), *x.shape), x.dtype), shapes
  )
  last = len(indices) if last is None else last
  start = packing.pack(state)
  end, metrics = jax.lax.fori_loop(first, last, body, (start, zeros))
  is_finite = finite.is_finite(finite.joined(end), finite.joined(start))
  return packing.unpack(end), metrics, is_finite


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
        'a step must keep the structure, shapes and dtypes of the state, so '
        f'that steps can be looped over: its {field.name} was {old}, and '
        f'became {new}'
      )
