"""Measures the parts of a step on several processes; predicts more of them."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmark import out, scaled_model, streamed_rows
from experiments.benchmark.scaled_model import Line
from experiments.launcher import display, output, processes, provenance
from experiments.launcher.display import Console, TextTable
from experiments.launcher.errors import InputError
from lplmtl import data
from lplmtl.training import parallel

_WORKER = 'benchmark.scaled_worker'
# Bytes that are added up, from a message's latency to a large model.
MESSAGES = (2**12, 2**16, 2**18, 2**20, 2**22)
_DEVICES = (8, 64, 512)
_TICK = 0.1  # seconds between two looks at the processes


class Asked(NamedTuple):
  """What is measured and predicted.

  Attributes:
    processes: how many train together, in increasing order, from 1.
    batch_sizes: rows of a step, over all processes.
    worker: what all workers have in common.
    rows_to_read: how many rows are written and read.
    rows_per_device: of a predicted step.
    times_as_fast: predicted devices, relative to a core of this machine.
    look_ups: of a row, in tables that devices hold in parts.
    embed_width: of these tables' embeddings.
    memory: bytes of a device.
    out: JSON file for the figures, or None.
  """

  processes: tuple[int, ...]
  batch_sizes: tuple[int, ...]
  worker: dict[str, Any]
  rows_to_read: int
  rows_per_device: int
  times_as_fast: tuple[int, ...]
  look_ups: int
  embed_width: int
  memory: float
  out: pathlib.Path | None


def measure(asked: Asked) -> None:
  """Measures the parts, checks their sum, and prints what more devices do.

  Raises:
    InputError: a process failed, or figures cannot be written.
  """
  if asked.out is not None:
    out.check(asked.out)
  console = display.make_console()
  with display.steps(console, len(asked.processes) + 1) as done:
    reading = _read(asked.rows_to_read)
    done('rows of both forms have been read')
    found: dict[int, dict[str, Any]] = {}
    for count in asked.processes:
      found[count] = _run(asked, count)
      done(f'{count} process{"es" * (count > 1)} trained')
  alone = {int(b): t for b, t in found[1]['steps'].items()}
  compute = scaled_model.fit_line(alone)
  gradient = found[1]['parameters'] * scaled_model.FLOAT
  checked = _check(asked, found, compute, gradient)
  console.print(_check_table(checked).to_rich())
  console.print(
    f'One core: {compute.fixed * 1e3:.2f} ms a step and '
    f'{1 / compute.slope:,.0f} rows/s. Rows are read at '
    + ' and '.join(f'{x:,.0f} rows/s ({n})' for n, x in reading.items())
    + f' a core. A gradient has {gradient:,} bytes.',
    soft_wrap=True,
  )
  _plan(asked, compute, gradient, reading, console)
  if asked.out is None:
    output.refuse_loss()
    return
  measured = {
    'processes': found, 'reading': reading, 'compute': compute._asdict(),
    'checked': [line._asdict() for line in checked],
  }  # fmt: skip
  facts = {
    'asked': {**asked._asdict(), 'out': ''}, 'command': sys.argv,
    **provenance.environment(),
  }  # fmt: skip
  out.write(asked.out, {'measured': measured, **facts})


class Checked(NamedTuple):
  """A step that was predicted from its parts, and measured.

  Attributes:
    processes: that trained together.
    batch_size: of all.
    compute: predicted seconds without the exchange.
    exchange: predicted seconds of the exchange.
    step: measured seconds.
  """

  processes: int
  batch_size: int
  compute: float
  exchange: float
  step: float


def _check(
  asked: Asked,
  found: Mapping[int, Mapping[str, Any]],
  compute: Line,
  gradient: int,
) -> list[Checked]:
  """Predicts the steps that were measured.

  Processes that share a core take turns on it.
  """
  checked = []
  for count in asked.processes:
    exchange = 0.0
    if count > 1:
      times = {int(n): t for n, t in found[count]['exchanges'].items()}
      exchange = scaled_model.between(times, gradient)
    sharing = max(1.0, count / parallel.num_cores())
    for batch_size in asked.batch_sizes:
      own = sharing * compute.seconds(batch_size / count)
      step = found[count]['steps'][str(batch_size)]
      checked.append(Checked(count, batch_size, own, exchange, step))
  return checked


def _check_table(checked: Sequence[Checked]) -> TextTable:
  rows = [
    [
      str(line.processes), f'{line.batch_size:,}', f'{1e3 * line.compute:.2f}',
      f'{1e3 * line.exchange:.2f}',
      f'{1e3 * (line.compute + line.exchange):.2f}', f'{1e3 * line.step:.2f}',
      f'{(line.compute + line.exchange) / line.step:.2f}',
    ]
    for line in checked
  ]  # fmt: skip
  head = (
    'processes', 'batch size', 'compute', 'exchange', 'predicted', 'measured',
    'ratio',
  )  # fmt: skip
  title = f'A step here, ms ({parallel.num_cores()} cores)'
  return TextTable(title, head, rows)


def _plan(
  asked: Asked,
  compute: Line,
  gradient: int,
  reading: Mapping[str, float],
  console: Console,
) -> None:
  """Prints the predictions for more devices than there are here."""
  steps = [
    scaled_model.predict(
      network, count, speed, compute, asked.rows_per_device, gradient
    )
    for speed in asked.times_as_fast
    for network in scaled_model.NETWORKS
    for count in _DEVICES
  ]
  rows = [
    [
      step.network, str(step.devices),
      'a core' if step.speed == 1 else f'{step.speed} cores',
      f'{step.sent / 1e6:.2f}', f'{1e3 * step.seconds:.2f}',
      f'{100 * step.exchange / step.seconds:.0f} %',
      f'{step.rows_per_second / 1e6:.1f}',
      *(
        f'{step.rows_of_a_host / rate:.1f}'
        for rate in reading.values()
      ),
    ]
    for step in steps
  ]  # fmt: skip
  head = (
    'network', 'devices', 'each as', 'MB sent', 'step, ms', 'exchange',
    'M rows/s', *(f'cores to read {name}' for name in reading),
  )  # fmt: skip
  title = (
    f'Predicted for {asked.rows_per_device:,} rows a device, '
    f'{scaled_model.DEVICES_OF_A_HOST} devices a host'
  )
  console.print(TextTable(title, head, rows, left=head[:1]).to_rich())
  tables = []
  for network in scaled_model.NETWORKS:
    for count in _DEVICES:
      moved = scaled_model.table_bytes(
        count * asked.rows_per_device, asked.look_ups, asked.embed_width
      )
      largest = scaled_model.largest_table(
        count * asked.memory, asked.embed_width
      )
      seconds = network.all_reduce(moved, network.ends(count))
      tables.append(
        [
          network.name, str(count), f'{largest / 1e6:,.0f}',
          f'{moved / 1e6:,.0f}', f'{1e3 * seconds:,.2f}',
        ]
      )  # fmt: skip
  head = ('network', 'devices', 'M embeddings', 'MB added up', 'ms a step')
  title = (
    f'Tables in parts: {asked.look_ups} look-ups a row, width '
    f'{asked.embed_width}, Adam, {asked.memory / 1e9:.0f} GB a device'
  )
  console.print(TextTable(title, head, tables, left=head[:1]).to_rich())


def _read(num_rows: int) -> dict[str, float]:
  """Returns the rows that a core reads per second, in each form of files."""
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    streamed_rows.write_parquet(folder / 'files', num_rows)
    raw = data.ArrowFiles(folder / 'files')
    encode = streamed_rows.Encoder(raw.pieces())
    pieces = map(encode, raw.pieces())
    data.write_rows(folder / 'rows', pieces, streamed_rows.TODO)
    rates = {}
    for name, make in (
      ('encoded', lambda: data.Encoded(folder / 'rows')),
      ('Parquet', lambda: data.ArrowSource(raw, encode)),
    ):
      # A source of Parquet reads its first group as it is made.
      start, count, source = time.process_time(), 0, make()
      for number in range(source.num_chunks):
        batch = source.chunk(0, number, range(source.num_shards))
        count += len(next(iter(batch.labels.values())))
      rates[name] = count / (time.process_time() - start)
  return rates


def _run(asked: Asked, count: int) -> dict[str, Any]:
  """Lets processes measure; returns what the first one has found.

  Raises:
    InputError: one of them failed.
  """
  sizes = set(asked.batch_sizes)
  if count == 1:  # what each of several processes will compute
    sizes |= {b // p for b in asked.batch_sizes for p in asked.processes}
  config = {
    **asked.worker, 'processes': count, 'port': processes.free_port(),
    'batch_sizes': sorted(sizes), 'messages': MESSAGES if count > 1 else (),
  }  # fmt: skip
  flags = os.environ.get('XLA_FLAGS', '')
  single = f'{flags} --xla_cpu_multi_thread_eigen=false'
  running = [
    subprocess.Popen(
      [sys.executable, '-m', 'lplmtl', _WORKER,
       json.dumps({**config, 'number': number})],
      stdout=subprocess.PIPE if number == 0 else subprocess.DEVNULL,
      text=True, env={**os.environ, 'XLA_FLAGS': single},
    )
    for number in range(count)
  ]  # fmt: skip
  try:
    while None in (codes := [process.poll() for process in running]):
      if any(codes):
        break
      time.sleep(_TICK)
  finally:
    for process in running:
      process.kill()
      process.wait()
  if any(codes):
    raise InputError(
      f'one of {count} processes stopped: see what it printed above'
    )
  assert running[0].stdout is not None
  with running[0].stdout as lines:  # the last one; Gloo prints others
    found: dict[str, Any] = json.loads(lines.read().splitlines()[-1])
  return found
