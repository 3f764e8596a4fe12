"""From the arguments of `fit` to a `Job`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from lplmtl import _checks
from lplmtl.training import arrays, checks, parallel, programs, shuffle
from lplmtl.training.job import Inputs, Job, Schedule
from lplmtl.training.programs import (
  BalancerOrMaker,
  ModelOrMaker,
  OptimizerOrMaker,
)
from lplmtl.types import Array, Batch, PyTree


def make_job(
  key: Array,
  method: tuple[ModelOrMaker, OptimizerOrMaker, BalancerOrMaker],
  rows: tuple[Batch, Batch | None],
  hyperparams: PyTree,
  *,
  batch_size: int,
  schedule: Schedule,
  devices: Sequence[jax.Device] | None,
  make_programs: Callable[..., programs.Programs] = programs.make,
) -> tuple[Job, Array]:
  """Checks the arguments of `fit`, and moves the rows to the devices.

  Args:
    key: see `fit`.
    method: model, optimizer and balancer.
    rows: data and validation.
    hyperparams: see `fit`.
    batch_size: B.
    schedule: see `Schedule`.
    devices: see `fit`.
    make_programs: `programs.make`, or what keeps its results.

  Returns:
    (job, keys), the keys padded to a multiple of the devices.

  Raises:
    ValueError: see `fit`.
  """
  model, optimizer, balancer = method
  checks.check_arguments(key, model, optimizer, balancer, hyperparams)
  data, validation = rows
  tasks = programs.model_tasks(model, hyperparams)
  data = arrays.read_batch(tasks, data, 'data')
  if validation is not None:
    validation = arrays.read_batch(tasks, validation, 'validation')
  checks.check_batches(model, data, validation)
  num_rows = _checks.num_rows(data.features)
  checks.check_sizes(num_rows, batch_size, validation, **schedule._asdict())
  keys = jnp.atleast_1d(key)
  num_seeds = len(keys)
  mesh = parallel.make_mesh(num_seeds, batch_size, devices)
  keys, hyperparams = parallel.fill(
    (keys, jax.tree.map(jnp.atleast_1d, hyperparams)), mesh
  )
  data = arrays.fill_up(data, batch_size)
  data, validation = parallel.replicate((data, validation), mesh)
  made = make_programs(
    model,
    tasks,
    optimizer,
    balancer,
    num_seeds=len(keys),
    batch_size=batch_size,
    mesh=mesh,
    skip_nonfinite=schedule.skip_nonfinite > 0,
  )
  inputs = Inputs(
    hyperparams=hyperparams,
    data=data,
    validation=validation,
    shuffle=shuffle.make_shuffle(keys, num_rows, batch_size),
    num_steps=num_rows // batch_size,
  )
  job = Job(
    model=model,
    tasks=tasks,
    programs=made,
    inputs=inputs,
    schedule=schedule,
    mesh=mesh,
    num_seeds=num_seeds,
    is_single=key.ndim == 0,
  )
  return job, keys
