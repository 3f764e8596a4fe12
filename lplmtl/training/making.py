"""From the arguments of `fit` to a `Job`."""

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lplmtl import _checks
from lplmtl.training import (
  agreement,
  arrays,
  checks,
  feed,
  hosts,
  parallel,
  programs,
  scanning,
  values,
)
from lplmtl.training.job import Inputs, Job, Schedule
from lplmtl.training.programs import (
  BalancerOrMaker,
  ModelOrMaker,
  OptimizerOrMaker,
)
from lplmtl.training.scanning import Scanned
from lplmtl.types import Array, Batch, PyTree, Source, Task

# Those of which programs and their numbers depend on the version.
_PACKAGES = 'jax', 'jaxlib', 'flax', 'optax'


def make_job(
  key: Array,
  method: tuple[ModelOrMaker, OptimizerOrMaker, BalancerOrMaker],
  rows: tuple[Batch | Source, Batch | Source | None],
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
  checks.check_arguments(key, *method, hyperparams)
  tasks = programs.model_tasks(method[0], hyperparams)
  source, data, validation = _read(tasks, rows)
  _check_batches(method[0], data, validation)
  checks.check_sizes(
    source or _checks.num_rows(data.features), batch_size, validation,
    **schedule._asdict(),
  )  # fmt: skip
  keys = jnp.atleast_1d(key)
  num_seeds = len(keys)
  split = source.num_shards if source else batch_size
  mesh = parallel.make_mesh(num_seeds, split, devices or jax.devices())
  keys, hyperparams = parallel.fill(
    (keys, jax.tree.map(jnp.atleast_1d, hyperparams)), mesh
  )
  if hosts.spans(mesh):
    _check_alike(
      keys,
      (source or data, validation, rows[1]),
      hyperparams,
      batch_size=batch_size,
      **schedule._asdict(),
    )
    hyperparams = parallel.home(hyperparams, mesh)
  made = make_programs(
    method,
    tasks,
    num_seeds=len(keys),
    batch_size=batch_size,
    mesh=mesh,
    skip_nonfinite=schedule.skip_nonfinite > 0,
    is_chunk=source is not None,
  )
  inputs = Inputs(
    hyperparams=hyperparams,
    feed=_feed(source, data, keys, batch_size, mesh),
    validation=_moved(validation, mesh),
  )
  job = Job(
    model=method[0],
    optimizer=method[1],
    tasks=tasks,
    programs=made,
    inputs=inputs,
    schedule=schedule,
    mesh=mesh,
    num_seeds=num_seeds,
    is_single=key.ndim == 0,
  )
  return job, keys


def _read(
  tasks: Sequence[Task], rows: tuple[Batch | Source, Batch | Source | None]
) -> tuple[Source | None, Batch, Batch | Scanned | None]:
  """Returns the source, if there is one, and the arrays of its example."""
  data, validation = rows
  source: Source | None = None
  if isinstance(data, Batch):
    data = arrays.read_batch(tasks, data, 'data')
  else:
    source = checks.as_source(data, 'data')
    example = arrays.read_columns(tasks, source.example, 'data.example')
    data = values.canonical(example)
  if isinstance(validation, Batch):
    return source, data, arrays.read_batch(tasks, validation, 'validation')
  if validation is None:
    return source, data, None
  rows_of = checks.as_source(validation, 'validation')
  return source, data, scanning.read(rows_of, tasks, 'validation')


def _check_alike(
  keys: Array,
  rows: tuple[Batch | Source, Batch | Scanned | None, Batch | Source | None],
  hyperparams: PyTree,
  **settings: Any,
) -> None:
  """Compares with the other processes what all must have alike.

  Args:
    keys: `[S]` random keys.
    rows: of training and validation, as arrays; the latter also as given.
    hyperparams: see `fit`.
    **settings: other arguments of `fit`.

  Raises:
    HostsError: something differs.
  """
  data, validation, given = rows
  facts = {name: importlib.metadata.version(name) for name in _PACKAGES}
  facts['key'] = agreement.digest(keys)
  facts['hyperparams'] = agreement.digest(hyperparams)
  own = validation if isinstance(validation, Batch) else given
  for name, table in (('data', data), ('validation', own)):
    if isinstance(table, Batch):
      for field, part in table._asdict().items():
        facts[f'{name}.{field}'] = agreement.digest(part)
    else:
      facts[name] = '' if table is None else table.fingerprint
  agreement.check_alike(facts | settings)


def _check_batches(
  model: Any, data: Batch, validation: Batch | Scanned | None
) -> None:
  if isinstance(validation, Scanned):
    validation = validation.example
  checks.check_batches(model, data, validation)


def _moved(
  validation: Batch | Scanned | None, mesh: Mesh
) -> Batch | Scanned | None:
  """Copies rows in memory to every device."""
  if isinstance(validation, Scanned):
    return validation.in_all_processes() if hosts.spans(mesh) else validation
  moved: Batch | None = parallel.replicate(validation, mesh)
  return moved


def _feed(
  source: Source | None, data: Batch, keys: Array, batch_size: int, mesh: Mesh
) -> feed.Feed:
  if source is not None:
    return feed.Streamed(source, data, keys, batch_size, mesh)
  num_rows = _checks.num_rows(data.features)
  data = arrays.fill_up(data, batch_size)
  return feed.Resident(data, keys, num_rows, batch_size, mesh)
