"""How fast training and scoring are, alone or beside a PyTorch twin.

    python -m experiments.throughput --architectures=mmoe,ple --rival=pytorch

Every contestant is a persistent process; they take turns, in an order that is
reversed each time, so that a machine whose speed drifts does not favour one.
Figures are medians over the turns, ratios are taken within a turn. With
`--epochs`, whole processes are timed instead, from the start to the exit.
"""

import os
import sys
import tempfile
from typing import Any

from absl import flags

from experiments import datasets
from experiments.benchmark import out as throughput_out
from experiments.benchmark.turns import Config, processes, rates
from experiments.launcher import frame, output, parsing
from experiments.launcher.errors import InputError

MEASURES = ('train', 'score', 'latency', 'products')

flags.DEFINE_list(
  'architectures', ['mmoe', 'ple'], 'File names of lplmtl/architectures.'
)
flags.DEFINE_list('batch_sizes', ['256', '1024'], 'Rows of a training step.')
flags.DEFINE_list('precisions', ['float32'], 'Ours: float32, bfloat16 or both.')
flags.DEFINE_list(
  'balancers', ['equal'], 'Ours: names of lplmtl.balancing, one or several.'
)
flags.DEFINE_enum(
  'rival', 'none', ['none', 'pytorch'],
  'Whom to measure against (extra bench), in both precisions.',
)  # fmt: skip
flags.DEFINE_list(
  'measures', [*MEASURES],
  'What is timed: training, scoring a table, one row at a time, and, beside '
  'training, its matrix products by themselves.',
)  # fmt: skip
flags.DEFINE_integer(
  'alternations', 5, 'Turns of each.', lower_bound=2, upper_bound=100_000
)
flags.DEFINE_integer(
  'threads', 1, 'Cores of each contestant.', lower_bound=1, upper_bound=10_000
)
flags.DEFINE_integer(
  'num_seeds', 1, 'Ours: models at once.', lower_bound=1, upper_bound=10_000
)
flags.DEFINE_integer(
  'devices', 1,
  'Ours: host devices, for seeds or the rows of a batch. On an accelerator all '
  'of its devices are taken.',
  lower_bound=1, upper_bound=256,
)  # fmt: skip
flags.DEFINE_integer(
  'epochs', 0,
  'Time whole processes of so many epochs (cold and warm compilation cache), '
  'not rates; 0 for rates.',
  lower_bound=0, upper_bound=1_000_000,
)  # fmt: skip
flags.DEFINE_enum(
  'dataset', 'sample', ['sample', 'census', 'census66k'], 'As for census.'
)
flags.DEFINE_string('data_dir', None, 'As for census.')
flags.DEFINE_integer(
  'num_rows', 99_762, 'Rows of the generated sample.',
  lower_bound=1, upper_bound=1_000_000_000,
)  # fmt: skip
SIZES = {
  'expert_width': (64, 'Units of an expert.'),
  'tower_width': (32, 'Units of a tower.'),
  'bottom_width': (128, 'Units of the trunk.'),
  'num_experts': (8, 'Experts of mmoe.'),
  'num_specific': (2, 'Experts a level, each task.'),
  'num_shared': (2, 'Shared experts a level.'),
  'embed_dim': (4, 'Width of a category embedding.'),
}
for _name, (_value, _text) in SIZES.items():
  flags.DEFINE_integer(
    _name, _value, _text, lower_bound=1, upper_bound=1_000_000
  )
flags.DEFINE_integer(
  'num_tasks',
  2,
  'From three on: the two tasks again, with a tenth of the labels wrong.',
  lower_bound=1,
  upper_bound=10_000,
)
flags.DEFINE_string('out', '', 'JSON file for the figures; none by default.')


def run(config: Config, options: Any) -> list[Config]:
  """Measures every architecture at every batch size; prints as it goes."""
  from experiments.benchmark import tables as throughput_tables
  from experiments.launcher import display

  console = display.make_console(width=120)
  measure = processes if options.epochs else rates
  measured = []
  for architecture in options.architectures:
    for batch_size in parsing.parse_counts(
      '--batch_sizes', options.batch_sizes
    ):
      setting = {'architecture': architecture, 'batch_size': batch_size}
      found = measure({**config, **setting}, options, console)
      title = f'{architecture}, batch {batch_size}, cores {options.threads}'
      if options.epochs:
        title += f', {options.epochs} epochs'
      console.print(throughput_tables.make(title, found))
      measured.append({**setting, **found})
  return measured


def write_rows(options: Any, path: str) -> int:
  """Encodes the data once, for all contestants; returns the training rows."""
  import numpy as np

  from experiments.launcher import display
  from experiments.launcher.options import Config

  config = Config(
    dataset=options.dataset,
    data_dir=options.data_dir,
    num_rows=options.num_rows,
    tasks=('income', 'marital'),
  )
  source = datasets.find(config).load(config, display.make_console())
  data = source.encode(0)
  pair = np.stack(list(data.train.labels.values()), axis=1)
  labels = pair[:, np.arange(options.num_tasks) % 2]
  wrong = np.random.default_rng(0).uniform(size=labels.shape) < 0.1
  labels[:, 2:] ^= wrong[:, 2:]
  np.savez(
    path,
    labels=labels,
    num_categories=data.tables.num_categories,
    **data.train.features,
  )
  return len(labels)


def check(options: Any) -> None:
  """Refuses what cannot be measured, before anything is."""
  from experiments.launcher import build as runner
  from lplmtl.training import parallel

  cores = parallel.num_cores()
  if options.threads > cores:
    raise InputError(
      f'--threads={options.threads} is more than the {cores} cores here'
    )
  if options.out:
    throughput_out.check(parsing.path('--out', options.out))
  known = runner.architecture_names()
  if options.rival == 'pytorch':
    _check_pytorch()
    known = ('mmoe', 'ple', 'shared_bottom')
    if set(options.architectures) - set(known):
      raise InputError(
        f'the twin of --rival=pytorch knows {", ".join(known)} alone; found '
        f'--architectures={",".join(options.architectures)}'
      )
  for flag, allowed in (
    ('architectures', known),
    ('precisions', ('float32', 'bfloat16')),
    ('balancers', runner.balancer_names()),
    ('measures', MEASURES),
  ):
    given = getattr(options, flag)
    if not given or set(given) - set(allowed):
      raise InputError(
        f'{flag} must be among {", ".join(allowed)}; found '
        f'{", ".join(given) or "none"}'
      )
  if options.epochs and flags.FLAGS['measures'].present:
    raise InputError(
      '--epochs times whole processes, --measures parts of them: take one'
    )
  if 'products' in options.measures and 'train' not in options.measures:
    raise InputError(
      'products are measured against training: take measures=train,products'
    )
  parsing.parse_counts('--batch_sizes', options.batch_sizes)


def _check_pytorch() -> None:
  import importlib.util

  if importlib.util.find_spec('torch') is None:
    raise InputError(
      "--rival=pytorch needs PyTorch: pip install -e '.[bench]' (a CPU build "
      'will do)'
    )


def main(argv: list[str]) -> None:
  """Flags to tables; a user's mistake ends in one line and exit code 1."""
  with frame.command() as heed_signals:
    heed_signals()
    _main(argv)


def _main(argv: list[str]) -> None:
  options = flags.FLAGS
  names = ('threads', 'num_seeds', 'devices', 'epochs', *SIZES)
  config = {name: getattr(options, name) for name in names}
  if argv[1:]:
    raise InputError(f'unexpected argument {argv[1]!r}')
  check(options)
  from experiments.launcher import provenance

  with tempfile.TemporaryDirectory() as scratch:
    path = os.path.join(scratch, 'rows.npz')
    num_rows = write_rows(options, path)
    largest = max(parsing.parse_counts('--batch_sizes', options.batch_sizes))
    if largest > num_rows:
      raise InputError(
        f'batch_sizes go up to {largest}, found {num_rows} training rows'
      )
    places = {'scratch': scratch, 'data': path}
    measured = run({**config, **places}, options)
  if not options.out:
    output.refuse_loss()
    return
  facts = {'config': config, 'command': sys.argv, **provenance.environment()}
  out = parsing.path('--out', options.out)
  throughput_out.write(out, {'measured': measured, **facts})


if __name__ == '__main__':
  frame.run(main)
