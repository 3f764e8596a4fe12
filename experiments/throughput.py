"""How fast training and scoring are, alone or beside a PyTorch twin.

    python -m experiments.throughput --architectures=mmoe,ple --rival=pytorch

Every contestant is a persistent process; they take turns, in an order that is
reversed each time, so that a machine whose speed drifts does not favour one.
Figures are medians over the turns, ratios are taken within a turn.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

from absl import app, flags

from experiments.errors import InputError

ARCHITECTURES = ('shared_bottom', 'mmoe', 'ple')

flags.DEFINE_list(
  'architectures',
  ['mmoe', 'ple'],
  f'Which: any of {", ".join(ARCHITECTURES)}.',
)
flags.DEFINE_list('batch_sizes', ['256', '1024'], 'Rows of a training step.')
flags.DEFINE_enum(
  'rival', 'none', ['none', 'pytorch'], 'Whom to measure against (extra bench).'
)
flags.DEFINE_integer('alternations', 5, 'Turns of each.', lower_bound=2)
flags.DEFINE_integer(
  'threads', 1, 'Threads of each; 1 pins it to one core.', lower_bound=1
)
flags.DEFINE_integer('num_rows', 99_762, 'Rows of the generated sample.')
flags.DEFINE_integer('expert_width', 64, 'Units of an expert.', lower_bound=1)
flags.DEFINE_integer('tower_width', 32, 'Units of a tower.', lower_bound=1)
flags.DEFINE_integer('bottom_width', 128, 'Units of the trunk.', lower_bound=1)
flags.DEFINE_integer('num_experts', 8, 'Experts of mmoe.', lower_bound=1)
flags.DEFINE_integer('num_specific', 2, 'A level, each task.', lower_bound=1)
flags.DEFINE_integer('num_shared', 2, 'A level.', lower_bound=1)
flags.DEFINE_integer('embed_dim', 4, 'Of a category.', lower_bound=1)
flags.DEFINE_string('out', '', 'JSON file for the figures; none by default.')

CALLS = {'train': 1, 'score': 1, 'latency': 2000, 'square': 3}


class Contestant:
  """A worker process and what it has answered."""

  def __init__(self, name: str, config: dict[str, Any]):
    self.name = name
    environment = dict(os.environ)
    if config['threads'] == 1:
      environment['XLA_FLAGS'] = '--xla_cpu_multi_thread_eigen=false'
    self.process = subprocess.Popen(
      [
        sys.executable,
        '-m',
        'experiments.throughput_worker',
        json.dumps(config),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=environment,
    )
    self.flops = self._answer()

  def ask(self, what: str) -> float:
    """Units a second."""
    assert self.process.stdin is not None
    self.process.stdin.write(f'{what} {CALLS[what]}\n')
    self.process.stdin.flush()
    units, wall, _ = self._answer()
    return units / wall

  def _answer(self) -> Any:
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    if not line:
      raise InputError(f'{self.name} stopped: see what it printed above')
    return json.loads(line)

  def close(self) -> None:
    """Lets the process end."""
    assert self.process.stdin is not None
    self.process.stdin.close()
    self.process.wait()


def compare(config: dict[str, Any], rival: str, turns: int) -> dict[str, Any]:
  """Rates of every contestant, `{contestant: {what: [turns]}}`."""
  wanted = {'lplmtl': {'engine': 'jax', 'dtype': 'float32'}}
  if rival == 'pytorch':
    wanted['torch f32'] = {'engine': 'pytorch', 'dtype': 'float32'}
    wanted['torch bf16'] = {'engine': 'pytorch', 'dtype': 'bfloat16'}
  contestants = [Contestant(n, {**config, **own}) for n, own in wanted.items()]
  rates: dict[str, Any] = {
    c.name: {what: [] for what in CALLS} for c in contestants
  }
  for turn in range(turns):
    for contestant in contestants[:: 1 if turn % 2 == 0 else -1]:
      for what in CALLS:
        rates[contestant.name][what].append(contestant.ask(what))
  for contestant in contestants:
    contestant.close()
  return {'flops_per_example': contestants[0].flops, 'rates': rates}


def summary(found: dict[str, Any]) -> list[tuple[str, ...]]:
  """A row for each contestant: rates, share of the matrix-multiply rate, ratio.

  A training step is counted as three forward passes.
  """
  rows: list[tuple[str, ...]] = []
  ours = found['rates']['lplmtl']
  for name, rates in found['rates'].items():
    middle = {what: statistics.median(values) for what, values in rates.items()}
    share = 3 * found['flops_per_example'] * middle['train'] / middle['square']
    ratios = [a / b for a, b in zip(ours['train'], rates['train'], strict=True)]
    rows.append(
      (
        name,
        f'{middle["train"] / 1e3:.1f}',
        f'{share:.0%} of {middle["square"] / 1e9:.0f} GF/s',
        f'{middle["score"] / 1e3:.0f}',
        f'{1e6 / middle["latency"]:.0f}',
        f'{statistics.median(ratios):.2f} '
        f'[{min(ratios):.2f}..{max(ratios):.2f}]',
      )
    )
  return rows


def run(config: dict[str, Any], options: Any) -> list[dict[str, Any]]:
  """Measures every architecture at every batch size; prints as it goes."""
  from rich import table as rich_table

  from experiments import display

  console = display.make_console()
  measured = []
  for architecture in options.architectures:
    for batch_size in map(int, options.batch_sizes):
      setting = {'architecture': architecture, 'batch_size': batch_size}
      found = compare(
        {**config, **setting}, options.rival, options.alternations
      )
      table = rich_table.Table(
        title=f'{architecture}, batch {batch_size}, threads {options.threads}'
      )
      heads = (
        'contestant', 'train k rows/s', 'matmul share',
        'score k rows/s', 'one row us', 'lplmtl trains x faster',
      )  # fmt: skip
      for head in heads:
        table.add_column(head, justify='left' if head == heads[0] else 'right')
      for row in summary(found):
        table.add_row(*row)
      console.print(table)
      measured.append({**setting, **found})
  return measured


def main(argv: list[str]) -> None:
  """Flags to tables; a user's mistake ends in one line and exit code 1."""
  options = flags.FLAGS
  names = (
    'threads', 'num_rows', 'expert_width', 'tower_width', 'bottom_width',
    'num_experts', 'num_specific', 'num_shared', 'embed_dim',
  )  # fmt: skip
  try:
    if argv[1:]:
      raise InputError(f'unexpected argument {argv[1]!r}')
    unknown = set(options.architectures) - set(ARCHITECTURES)
    if unknown:
      raise InputError(
        f'architectures must be among {", ".join(ARCHITECTURES)}; found '
        f'{", ".join(sorted(unknown))}'
      )
    if not all(
      size.isdigit() and int(size) > 0 for size in options.batch_sizes
    ):
      raise InputError(
        f'batch_sizes must be whole numbers, found {options.batch_sizes}'
      )
    if options.rival == 'pytorch':
      _check_pytorch()
    config = {name: getattr(options, name) for name in names}
    measured = run(config, options)
  except InputError as error:
    sys.exit(f'error: {error}')
  if options.out:
    text = json.dumps({'config': config, 'measured': measured}, indent=2)
    pathlib.Path(options.out).write_text(text + '\n', encoding='utf-8')


def _check_pytorch() -> None:
  import importlib.util

  if importlib.util.find_spec('torch') is None:
    raise InputError(
      "--rival=pytorch needs PyTorch: pip install -e '.[bench]' (a CPU build "
      'will do)'
    )


if __name__ == '__main__':
  app.run(main)
