"""Runs a benchmark: prepares the rows, measures, prints as it goes."""

import os
import sys
import tempfile
from typing import Any

import numpy as np

from experiments.benchmark import out, protocol, tables, turns
from experiments.benchmark.plan import Plan
from experiments.benchmark.protocol import Config
from experiments.datasets.base import Dataset
from experiments.launcher import display, output, provenance
from experiments.launcher.display import Console
from experiments.launcher.errors import InputError

WIDTH = 120  # of the tables, in characters


def measure(plan: Plan, dataset: Dataset) -> None:
  """Measures every architecture at every batch size.

  Args:
    plan: what to measure.
    dataset: the rows to measure on; its first two tasks are used.

  Raises:
    InputError: the rows cannot be used, a contestant failed, or the figures
      cannot be written.
  """
  console = display.make_console(WIDTH)
  with tempfile.TemporaryDirectory() as scratch:
    path = os.path.join(scratch, 'rows.npz')
    _write_rows(plan, dataset, path, console)
    config = {**plan.config, 'scratch': scratch, 'data': path}
    measured = [
      _measure_model(plan, config, architecture, batch_size, console)
      for architecture in plan.architectures
      for batch_size in plan.batch_sizes
    ]
  if plan.out is None:
    output.refuse_loss()
    return
  facts = {
    'config': plan.config,
    'command': sys.argv,
    **provenance.environment(),
  }
  out.write(plan.out, {'measured': measured, **facts})


def _write_rows(
  plan: Plan, dataset: Dataset, path: str, console: Console
) -> None:
  """Encodes the rows once, for all contestants."""
  data = dataset.load(plan.data, console).encode(0)
  num_rows, largest = data.facts['rows']['train'], max(plan.batch_sizes)
  if largest > num_rows:
    raise InputError(
      f'--batch_sizes go up to {largest}, found {num_rows} training rows'
    )
  labels = np.stack([data.train.labels[t.name] for t in data.tasks], axis=1)
  features: Any = data.train.features  # a dict: see `Tables.encode`
  rows = protocol.Rows(features, labels, list(data.tables.num_categories))
  protocol.write_rows(path, rows, plan.num_tasks)


def _measure_model(
  plan: Plan,
  config: Config,
  architecture: str,
  batch_size: int,
  console: Console,
) -> Config:
  model = {'architecture': architecture, 'batch_size': batch_size}
  method = turns.processes if plan.epochs else turns.rates
  measured = method(plan, {**config, **model}, console)
  title = f'{architecture}, batch {batch_size}, cores {config["threads"]}'
  if plan.epochs:
    title += f', {plan.epochs} epochs'
  console.print(tables.make(title, measured))
  return {**model, **measured}
