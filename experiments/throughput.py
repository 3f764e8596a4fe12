"""Measures how fast training and scoring are, alone or beside a PyTorch twin.

    python -m experiments.throughput --architectures=mmoe,ple --rival=pytorch

Every contestant is a persistent process. They take turns, in an order that is
reversed each time, so that a machine whose speed drifts favours none of them.
Figures are medians over the turns; ratios are taken within a turn. With
`--epochs`, whole processes are timed instead, from start to exit.
"""

from absl import flags

from experiments import datasets
from experiments.launcher import frame, options

flags.DEFINE_list(
  'architectures',
  ['mmoe', 'ple'],
  'Architectures, by their file names in lplmtl/architectures.',
)
flags.DEFINE_list('batch_sizes', ['256', '1024'], 'Rows per training step.')
flags.DEFINE_list('precisions', ['float32'], 'Ours: float32, bfloat16 or both.')
flags.DEFINE_list(
  'balancers', ['equal'], 'Ours: one or more functions of lplmtl.balancing.'
)
flags.DEFINE_enum(
  'rival', 'none', ['none', 'pytorch'],
  'What to measure against, in both precisions (needs the extra bench).',
)  # fmt: skip
flags.DEFINE_list(
  'measures', ['train', 'score', 'latency', 'products'],
  'What to time: training, scoring a table, scoring one row at a time, and, '
  'beside training, its matrix products on their own.',
)  # fmt: skip
flags.DEFINE_integer(
  'alternations', 5, 'Turns per contestant.',
  lower_bound=2, upper_bound=100_000,
)  # fmt: skip
flags.DEFINE_integer(
  'threads', 1, 'Cores per contestant.', lower_bound=1, upper_bound=10_000
)
flags.DEFINE_integer(
  'num_seeds', 1, 'Ours: models trained at once.',
  lower_bound=1, upper_bound=10_000,
)  # fmt: skip
flags.DEFINE_integer(
  'devices', 1,
  'Ours: host devices, for seeds or the rows of a batch. Accelerators always '
  'use all of their devices.',
  lower_bound=1, upper_bound=256,
)  # fmt: skip
flags.DEFINE_integer(
  'epochs', 0,
  'Time whole processes of this many epochs (with a cold and a warm '
  'compilation cache) instead of rates; 0 for rates.',
  lower_bound=0, upper_bound=1_000_000,
)  # fmt: skip
flags.DEFINE_enum(
  'dataset',
  'sample',
  ['sample', 'census', 'census66k'],
  'As in experiments.census.',
)
flags.DEFINE_string('data_dir', None, 'As in experiments.census.')
flags.DEFINE_integer(
  'num_rows', 99_762, 'Rows of the generated sample.',
  lower_bound=1, upper_bound=1_000_000_000,
)  # fmt: skip
for _name, _default, _help in (
  ('expert_width', 64, 'Units of an expert.'),
  ('tower_width', 32, 'Units of a tower.'),
  ('bottom_width', 128, 'Units of the trunk.'),
  ('num_experts', 8, 'Experts of mmoe.'),
  ('num_specific', 2, 'Experts per level and task.'),
  ('num_shared', 2, 'Shared experts per level.'),
  ('embed_dim', 4, 'Width of a category embedding.'),
):
  flags.DEFINE_integer(
    _name, _default, _help, lower_bound=1, upper_bound=1_000_000
  )
flags.DEFINE_integer(
  'num_tasks', 2,
  'Tasks; those from the third on repeat the first two, with a tenth of the '
  'labels wrong.',
  lower_bound=1, upper_bound=10_000,
)  # fmt: skip
flags.DEFINE_string('out', '', 'JSON file for the figures; none by default.')


def main(argv: list[str]) -> None:
  """Measures what the flags ask for, and prints a table per model."""
  with frame.command() as ready:
    # JAX takes seconds to import: not for --help.
    from experiments.benchmark import plan, run

    options.refuse_arguments(argv)
    asked = plan.from_flags(flags.FLAGS)
    dataset = datasets.find(asked.data)
    ready()
    run.measure(asked, dataset)


if __name__ == '__main__':
  frame.run(main)
