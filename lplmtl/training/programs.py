"""The three programs of a training run, spread over seeds and devices."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lplmtl.training import checks, microbatch, parallel, steps
from lplmtl.types import Array, Batch, PyTree, Task


class Programs(NamedTuple):
  """Jitted functions whose states, metrics and row numbers lead with S.

  Attributes:
    init: `(keys [S], hyperparams, features) -> state`; of the features only
      shapes matter.
    run_chunk: `(state, hyperparams, data, rows [S, N, B], first, last) ->
      (state, metrics, is_finite [S])`: the steps from `first` to before `last`
      (see `steps.train_chunk`), and whether the new state is finite where the
      old one was.
    evaluate: `(params, hyperparams, validation) -> {task: {metric: [S]}}`.
  """

  init: Any
  run_chunk: Any
  evaluate: Any


def make(
  model: Any,
  tasks: Sequence[Task],
  optimizer: Any,
  balancer: Any,
  *,
  num_seeds: int,
  batch_size: int,
  mesh: Mesh,
  skip_nonfinite: bool = False,
) -> Programs:
  """Makes the programs; each compiles when it is first called.

  Args:
    model: see `lplmtl.types.Model`; or a function of one seed's hyperparams.
    tasks: T tasks.
    optimizer: any optax transformation; or a function of hyperparams.
    balancer: see `lplmtl.types.Balancer`; or a function of hyperparams.
    num_seeds: S, as `parallel.over_seeds` wants it.
    batch_size: B.
    mesh: from `parallel.make_mesh`.
    skip_nonfinite: see `lplmtl.training.steps.make_train_step`.
  """
  on_cpu = parallel.on_cpu(mesh)
  split = parallel.splits_rows(mesh)
  num_parts = microbatch.number_of_parts(
    batch_size // mesh.size if split else batch_size,
    parallel.rows_at_a_time(mesh),
  )
  made = functools.partial(build, (model, optimizer, balancer))

  def init(
    key: Array, hyperparams: PyTree, features: PyTree
  ) -> steps.TrainState:
    model, optimizer, balancer = made(hyperparams)
    return steps.init_state(key, model, tasks, optimizer, balancer, features)

  def run_chunk(
    state: steps.TrainState,
    hyperparams: PyTree,
    data: Batch,
    rows: Array,
    first: Array,
    last: Array,
  ) -> Any:
    model, optimizer, balancer = made(hyperparams)
    step = steps.make_train_step(
      model,
      tasks,
      optimizer,
      balancer,
      num_parts=num_parts,
      axis_name=parallel.DATA if split else None,
      skip_nonfinite=skip_nonfinite,
    )
    new, metrics = steps.train_chunk(step, state, data, rows, first, last)
    return new, metrics, steps.is_finite(new, state)

  spread = functools.partial(
    parallel.over_seeds, num_seeds=num_seeds, mesh=mesh
  )
  home, everywhere = parallel.leading(mesh), parallel.everywhere(mesh)
  # Random draws take long to optimise, and these run once.
  hasty = {'xla_backend_optimization_level': 0} if on_cpu else None
  return Programs(
    jax.jit(
      spread(init, in_axes=(0, 0, None)),
      out_shardings=home,
      compiler_options=hasty,
    ),
    jax.jit(
      parallel.over_rows(
        spread(run_chunk, in_axes=(0, 0, None, 0, None, None)), mesh
      ),
      out_shardings=(home, everywhere, everywhere),
    ),
    make_evaluate(model, tasks, num_seeds=num_seeds, mesh=mesh),
  )


def make_evaluate(
  model: Any, tasks: Sequence[Task], *, num_seeds: int, mesh: Mesh
) -> Any:
  """The program that evaluates alone; see `Programs` and `make`."""
  over_table = functools.partial(parallel.over_table, mesh=mesh)

  def evaluate(params: PyTree, hyperparams: PyTree, rows: Batch) -> Any:
    (own,) = build((model,), hyperparams)
    return steps.make_eval_step(own, tasks, over_table)(params, rows)

  return jax.jit(
    parallel.over_seeds(evaluate, num_seeds, (0, 0, None), mesh),
    out_shardings=parallel.everywhere(mesh),
  )


def model_tasks(model: Any, hyperparams: PyTree) -> tuple[Task, ...]:
  """The tasks of a model, or of the one that a function of hyperparams makes.

  Args:
    model: see `lplmtl.types.Model`; or a function of one seed's hyperparams.
    hyperparams: pytree of `[S]` or scalars.

  Raises:
    ValueError: the model has no tasks, or something else in their place.
  """
  found: list[tuple[Task, ...]] = []

  def look(settings: PyTree) -> None:
    (own,) = build((model,), settings)
    checks.check_model_tasks(own)
    found.append(tuple(own.tasks))

  if hasattr(model, 'init'):
    look(None)
  else:  # traced, as everywhere else: the settings are not numbers yet
    jax.eval_shape(
      look,
      jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((), np.asarray(x).dtype), hyperparams
      ),
    )
  return found[0]


def build(made: tuple[Any, ...], hyperparams: PyTree) -> tuple[Any, ...]:
  """Calls those of the parts that are functions of one seed's settings.

  Raises:
    ValueError: one of them returns no such part, or wants a setting that is
      not there.
  """
  try:
    parts = tuple(
      part if hasattr(part, 'init') else part(hyperparams) for part in made
    )
  except KeyError as error:
    known = list(hyperparams) if isinstance(hyperparams, Mapping) else 'no dict'
    raise ValueError(
      f'a function of hyperparams wants {error}, where hyperparams hold {known}'
    ) from error
  for part in parts:
    if not hasattr(part, 'init'):
      raise ValueError(
        'a function of hyperparams must return a model, an optimizer or a '
        f'balancer, found {part!r}'
      )
  return parts
