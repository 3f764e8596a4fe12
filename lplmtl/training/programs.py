"""The three programs of a training run, spread over seeds and devices."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lplmtl.training import (
  checks,
  evaluation,
  microbatch,
  parallel,
  scanning,
  sharding,
  steps,
)
from lplmtl.types import (
  Aggregator,
  Array,
  Balancer,
  Batch,
  Model,
  PyTree,
  Task,
)

# Or a function that makes it from the hyperparams of one seed.
ModelOrMaker: TypeAlias = Model | Callable[[Any], Model]
OptimizerOrMaker: TypeAlias = (
  optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]
)
BalancerOrMaker = Balancer | Aggregator | Callable[[Any], Balancer | Aggregator]

# LLVM takes longer to optimise random draws than they take to run, and these
# run only once. So do scores of few rows: for 80,000 (those of all seeds
# counted), an SPLE takes 1.2 s to compile in place of 2.2, and 0.3 to run in
# place of 0.15. What multiplies matrices is not compiled, and as fast.
_UNOPTIMIZED = {'xla_backend_optimization_level': 0}
_FEW_ROWS = 100_000


class Programs(NamedTuple):
  """Jitted functions; states, metrics and row numbers have a leading S axis.

  Attributes:
    init: `(keys [S], hyperparams, features, start) -> state`, which reads only
      the shapes of the features; `start` are parameters with a leading S axis,
      or None.
    run_chunk: `(state, hyperparams, data, rows [S, N, B], first, last) ->
      (state, metrics, is_finite [S])`: the steps from `first` to before `last`
      (see `steps.train_chunk`), and whether the new state is finite wherever
      the old one was.
    evaluate: `(params, hyperparams, validation) -> {task: {metric: [S]}}`.
  """

  init: Any
  run_chunk: Any
  evaluate: Any


def make(
  method: tuple[ModelOrMaker, OptimizerOrMaker, BalancerOrMaker],
  tasks: Sequence[Task],
  *,
  num_seeds: int,
  batch_size: int,
  mesh: Mesh,
  skip_nonfinite: bool = False,
  is_chunk: bool = False,
) -> Programs:
  """Makes the programs; each compiles when it is first called.

  Args:
    method: model, optimizer and balancer, see `fit`.
    tasks: T tasks.
    num_seeds: S, padded as `parallel.over_seeds` expects.
    batch_size: B.
    mesh: from `parallel.make_mesh`.
    skip_nonfinite: see `lplmtl.training.steps.make_train_step`.
    is_chunk: see `parallel.over_rows`.
  """
  split = parallel.splits_rows(mesh)
  num_microbatches = microbatch.count_microbatches(
    batch_size // mesh.size if split else batch_size,
    parallel.rows_at_a_time(mesh),
  )
  build_all = functools.partial(build, method)

  def init(
    key: Array, hyperparams: PyTree, features: PyTree, start: PyTree
  ) -> steps.TrainState:
    model, optimizer, balancer = build_all(hyperparams)
    return steps.init_state(
      key, model, tasks, optimizer, balancer, features, start
    )

  def run_chunk(
    parts: sharding.Parts,
    state: steps.TrainState,
    hyperparams: PyTree,
    data: Batch,
    rows: Array,
    first: Array,
    last: Array,
  ) -> Any:
    model, optimizer, balancer = build_all(hyperparams)
    if parts:
      optimizer = optimizer.with_parts(parts)
    step = steps.make_train_step(
      model, tasks, optimizer, balancer, num_microbatches=num_microbatches,
      axis_name=parallel.DATA if split else None,
      skip_nonfinite=skip_nonfinite,
    )  # fmt: skip
    new, metrics, is_finite = steps.run_chunk(
      step, state, data, rows, first, last, [task.name for task in tasks]
    )
    return new, metrics, sharding.agreed(is_finite) if parts else is_finite

  spread = functools.partial(
    parallel.over_seeds, num_seeds=num_seeds, mesh=mesh
  )

  def chunk(parts: sharding.Parts) -> Any:
    run = functools.partial(run_chunk, parts)
    return spread(run, in_axes=(0, 0, None, 0, None, None), updates=True)

  made = spread(init, in_axes=(0, 0, None, 0)), chunk
  init_all, run_all, home = sharding.spread(
    made, method[1], build_all, mesh, is_chunk
  )
  everywhere = parallel.everywhere(mesh)
  return Programs(
    jax.jit(
      init_all,
      out_shardings=home,
      compiler_options=_UNOPTIMIZED if parallel.on_cpu(mesh) else None,
    ),
    jax.jit(run_all, out_shardings=(home, everywhere, everywhere)),
    make_evaluate(method[0], tasks, method[1], num_seeds=num_seeds, mesh=mesh),
  )


def make_evaluate(
  model: ModelOrMaker,
  tasks: Sequence[Task],
  optimizer: Any = None,
  *,
  num_seeds: int,
  mesh: Mesh,
) -> Any:
  """Makes only the program that evaluates; see `Programs` and `make`."""

  def evaluate(params: PyTree, hyperparams: PyTree, rows: Batch) -> Any:
    (built,) = build((model,), hyperparams)
    of_rows, over_table = sharding.for_rows(
      built, optimizer, params, rows.features, mesh
    )
    return evaluation.make_eval_step(of_rows, tasks, over_table)(params, rows)

  return jax.jit(
    parallel.over_seeds(evaluate, num_seeds, (0, 0, None), mesh),
    out_shardings=parallel.everywhere(mesh),
  )


def make_scores(
  model: Model,
  tasks: Sequence[Task],
  *,
  num_rows: int,
  num_seeds: int,
  mesh: Mesh,
) -> Any:
  """Makes what evaluates a trained model once, and tells which experts it uses.

  One program for both: another one for the gates would run the model twice, and
  take longer to compile than to run.

  Args:
    model: see `make`, as are the others.
    tasks: likewise.
    num_rows: N.
    num_seeds: likewise.
    mesh: likewise.

  Returns:
    `(params, rows) -> (metrics, usage)`, both `[S, ...]`: see `Programs` and
    `lplmtl.inspection.usage`.
  """
  over_table = functools.partial(parallel.over_table, mesh=mesh)
  predict = functools.partial(evaluation.predict_with_gates, model)

  def evaluate(params: PyTree, rows: Batch) -> Any:
    predictions, sums = over_table(predict)(params, rows.features)
    usage = jax.tree.map(lambda x: x.sum(axis=0) / num_rows, sums)
    return evaluation.make_score(tasks)(predictions, rows), usage

  is_brief = parallel.on_cpu(mesh) and num_rows * num_seeds <= _FEW_ROWS
  return jax.jit(
    parallel.over_seeds(evaluate, num_seeds, (0, None), mesh),
    out_shardings=parallel.everywhere(mesh),
    compiler_options=_UNOPTIMIZED if is_brief else None,
  )


def make_scan(
  model: ModelOrMaker,
  tasks: Sequence[Task],
  optimizer: Any = None,
  *,
  num_seeds: int,
  mesh: Mesh,
) -> scanning.Scan:
  """Makes what evaluates the rows of a source; see `make`."""

  def predict(params: PyTree, hyperparams: PyTree, features: PyTree) -> Any:
    (built,) = build((model,), hyperparams)
    of_rows, over_table = sharding.for_rows(
      built, optimizer, params, features, mesh
    )
    return over_table(evaluation.predictor(of_rows))(params, features)

  spread = functools.partial(
    parallel.over_seeds, num_seeds=num_seeds, mesh=mesh
  )
  everywhere = parallel.everywhere(mesh)
  return scanning.Scan(
    jax.jit(spread(predict, in_axes=(0, 0, None)), out_shardings=everywhere),
    jax.jit(
      spread(evaluation.make_score(tasks), in_axes=(0, None)),
      out_shardings=everywhere,
    ),
  )


def model_tasks(model: ModelOrMaker, hyperparams: PyTree) -> tuple[Task, ...]:
  """Returns the tasks of a model, or of the one that a function makes.

  Args:
    model: see `fit`.
    hyperparams: pytree of `[S]` or scalars.

  Raises:
    ValueError: the model has no tasks, or `tasks` is something else.
  """
  tasks: list[Task] = []

  def read(settings: PyTree) -> None:
    (built,) = build((model,), settings)
    checks.check_model_tasks(built)
    tasks.extend(built.tasks)

  if hasattr(model, 'init'):
    read(None)
  else:  # traced, as in the programs, so that it sees the same settings
    jax.eval_shape(
      read,
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((), jnp.result_type(x)), hyperparams
      ),
    )
  return tuple(tasks)


def build(makers: tuple[Any, ...], hyperparams: PyTree) -> tuple[Any, ...]:
  """Calls the makers that are functions of one seed's settings.

  Args:
    makers: models, optimisers and balancers, or functions that make one.
    hyperparams: the settings, scalars.

  Raises:
    ValueError: a function returns something else, or reads a setting that does
      not exist.
  """
  try:
    parts = tuple(
      maker if hasattr(maker, 'init') else maker(hyperparams)
      for maker in makers
    )
  except KeyError as error:
    known = list(hyperparams) if isinstance(hyperparams, Mapping) else 'nothing'
    raise ValueError(
      f'a function of hyperparams reads {error}, but hyperparams hold {known}'
    ) from error
  for part, maker in zip(parts, makers, strict=True):
    if part is not maker and getattr(part, 'sharded', False):
      raise ValueError(
        'sparse.lazy(sharded=True) must be passed as it is, found one that a '
        'function of hyperparams returns'
      )
    if not hasattr(part, 'init'):
      raise ValueError(
        'a function of hyperparams must return a model, an optimizer or a '
        f'balancer, found {part!r}'
      )
  return parts
