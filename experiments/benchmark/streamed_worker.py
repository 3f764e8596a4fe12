"""A process that trains on rows in memory, or on rows that are read in chunks.

Its argument is its configuration, as JSON; it answers each request, a line of
standard input, with a line of JSON:

- `rate`: rows, wall and CPU seconds of some steps after the first ones;
- `auc`: the test AUC of each seed after some epochs;
- `digest`: a digest of the parameters after some epochs, with checkpoints, so
  that a process that was killed goes on.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lplmtl
from experiments.benchmark import anonymous, streamed_rows
from lplmtl import balancing, data, resume, training
from lplmtl.training.progress import Progress

LEARNING_RATE = 1e-3


class Done(Exception):  # noqa: N818, not an error
  """Enough steps have been timed."""


class Meter:
  """A keeper that keeps nothing, but times the steps of a call of `fit`."""

  def __init__(self, first: int, last: int):
    self._marks = first, last
    self.times: list[tuple[float, float]] = []

  def restore(self, like: Progress) -> None:
    """Starts afresh."""

  def next_pause(self, progress: Progress) -> int:
    """Returns the next step at which the clock is read, or the last one."""
    ahead = (m - progress.total_steps for m in self._marks)
    wanted = progress.step + min((n for n in ahead if n > 0), default=1)
    return min(wanted, progress.num_steps)

  def save_if_due(self, progress: Progress) -> None:
    """Reads the clock; ends the call at the last mark."""
    if progress.total_steps in self._marks:
      self.times.append((time.perf_counter(), time.process_time()))
    if progress.total_steps == self._marks[1]:
      raise Done


class Reader:
  """A source whose chunks are read on given cores."""

  def __init__(self, source: Any, cores: set[int]):
    self._source, self._cores = source, cores

  def __getattr__(self, name: str) -> Any:
    return getattr(self._source, name)

  def chunk(
    self, epoch: int, number: int, shards: Sequence[int]
  ) -> lplmtl.Batch:
    """Reads a chunk; the thread that calls stays on these cores."""
    os.sched_setaffinity(0, self._cores)
    return self._source.chunk(epoch, number, shards)


def pin(threads: int, reads_apart: bool) -> set[int]:
  """Pins this process to its last cores, with a host device for each.

  Returns:
    The cores to read on: those before them, or the same ones.
  """
  if not hasattr(os, 'sched_setaffinity'):  # only on Linux
    return set()
  cores = sorted(os.sched_getaffinity(0))
  own = cores[-threads:]
  os.sched_setaffinity(0, set(own))
  jax.config.update('jax_num_cpu_devices', len(own))
  return set(cores[:-threads] if reads_apart else own)


class Worker:
  """Rows in one form, and a model."""

  def __init__(
    self, config: dict[str, Any], cores: set[int], peak: anonymous.Peak
  ):
    self.config, self.peak = config, peak
    folder = pathlib.Path(config['folder'])
    files = data.ArrowFiles(folder / 'files')
    # A sample is enough: generated columns have the same values everywhere.
    some = (files.read(i) for i in range(min(8, len(files.rows))))
    self.encode = streamed_rows.Encoder(some)
    chunk_rows = config['chunk_rows']
    self.data: Any
    if config['form'] == streamed_rows.PARQUET:
      self.data = data.ArrowSource(files, self.encode, chunk_rows=chunk_rows)
    else:
      self.data = data.Encoded(folder / 'rows', chunk_rows=chunk_rows)
      if config['form'] == streamed_rows.MEMORY:
        self.data = _whole(self.data, config['rows_in_memory'])
    if cores and config['form'] != streamed_rows.MEMORY:
      self.data = Reader(self.data, cores)
    widths = lplmtl.MLP((config['width'],))
    self.model = lplmtl.PLE(
      streamed_rows.TODO, levels=(widths, widths),
      encoder=lplmtl.TabularEncoder(self.encode.tables.num_categories),
    )  # fmt: skip

  def fit(
    self, keeper: Any = None, num_seeds: int = 1, **options: Any
  ) -> training.FitResult:
    """Trains; see `lplmtl.fit`."""
    keys = jnp.arange(num_seeds)
    return lplmtl.fit(
      jax.vmap(jax.random.key)(keys), self.model, optax.adam(LEARNING_RATE),
      balancing.uncertainty(), self.data, keeper=keeper,
      batch_size=self.config['batch_size'], **options,
    )  # fmt: skip

  def rate(self) -> dict[str, float]:
    """Times steps, from the second chunk on."""
    first, steps = self.config['first_steps'], self.config['steps']
    meter = Meter(first, first + steps)
    with contextlib.suppress(Done):
      self.fit(meter, num_epochs=1000)
    (start, cpu), (end, cpu_end) = meter.times
    return {
      'rows': steps * self.config['batch_size'], 'seconds': end - start,
      'cpu': cpu_end - cpu, 'anonymous': self.peak.most,
    }  # fmt: skip

  def auc(self) -> list[dict[str, float]]:
    """Returns the AUC of each task for each seed."""
    num_seeds = self.config['num_seeds']
    result = self.fit(num_seeds=num_seeds, num_epochs=self.config['epochs'])
    rows = streamed_rows.fresh_rows(self.encode, self.config['test_rows'])
    evaluate = jax.jit(lplmtl.make_eval_step(self.model, streamed_rows.TODO))
    found = []
    for seed in range(num_seeds):
      params = jax.tree.map(lambda x, i=seed: x[i], result.params)
      scores = jax.device_get(evaluate(params, rows))
      found.append({name: float(x['auc']) for name, x in scores.items()})
    return found

  def digest(self) -> dict[str, Any]:
    """Trains with checkpoints; a process that was killed before goes on."""
    notes: list[str] = []
    folder = self.config['checkpoints']
    with resume.Checkpoints(
      folder, every_seconds=1.0, on_note=notes.append
    ) as keeper:
      result = self.fit(keeper, num_epochs=self.config['epochs'])
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(result.params)):
      digest.update(np.ascontiguousarray(leaf).tobytes())
    resumed = [note for note in notes if note.startswith('resuming')]
    return {'sha256': digest.hexdigest(), 'resumed': resumed}


def _whole(source: data.Encoded, most: int) -> lplmtl.Batch:
  """Returns the first rows of a source, in memory."""
  found, count = [], 0
  for batch in source.scan(range(source.num_shards)):
    found.append(batch)
    count += len(batch.labels['click'])
    if count >= most:
      break
  return jax.tree.map(lambda *x: np.concatenate(x)[:most], *found)


def main() -> None:
  """Answers requests until there are no more."""
  config = json.loads(sys.argv[1])
  cores = pin(config['threads'], config['reads_apart'])
  with anonymous.watched() as peak:
    worker = Worker(config, cores, peak)
    print(json.dumps('ready'), flush=True)
    for line in sys.stdin:
      print(json.dumps(getattr(worker, line.strip())()), flush=True)


if __name__ == '__main__':
  main()
