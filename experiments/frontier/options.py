"""The flags of a frontier, and the families that it may have.

Cheap to import (no JAX), so that --help answers at once.
"""

from absl import flags

# Where no --dense is given: the mission's network, and what it is made from.
DENSE = ('ple', 'sple')
NET, TREES, DISTILLED_TREES = 'net', 'trees', 'distilled_trees'
DISTILLED_DENSE, ADDITIVE = 'distilled_dense', 'additive'
# What stands on a frontier, unless others are asked for.
FRONTIER = (DISTILLED_DENSE, NET, TREES, DISTILLED_TREES, ADDITIVE)
LEVERS, ROADS = 'levers', 'roads'
FAMILIES = {
  DISTILLED_DENSE: 'the best dense network once more, taught by the teacher',
  NET: 'small networks by lplmtl.compression.compress',
  TREES: 'boosted trees, packed',
  DISTILLED_TREES: 'such trees, taught by the teacher',
  ADDITIVE: 'a weight for each value of a column, as in logistic regression',
  LEVERS: 'net, without one part of the recipe at a time',
  ROADS: 'networks of other architectures drawn small, and a PLE pruned or '
  'factorised to fit',
}
# From 512 bytes, where little is learned, to 64 kB, which is about what a dense
# network of Census-Income takes as int8; 1,434 bytes are 1.4 kB.
BUDGETS = (512, 1024, 1434, 2048, 4096, 8192, 16384, 65536)
NET_STEPS, TUNE_EPOCHS = 14_000, 5


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_multi_string(
    'dense', [],
    'Compress: a dense network (repeat the flag): an architecture and fields '
    'of its own, such as "sple top=identity". Default: '
    f'{", then ".join(DENSE)}.',
  )  # fmt: skip
  flags.DEFINE_list(
    'budgets', list(map(str, BUDGETS)),
    'Compress: the bytes that the models of a family may take.',
  )  # fmt: skip
  meanings = '; '.join(f'{name} ({what})' for name, what in FAMILIES.items())
  flags.DEFINE_list(
    'families', list(FRONTIER),
    'Compress: what is made as small as the budgets; empty for the dense '
    f'networks alone. Any of: {meanings}.',
  )  # fmt: skip
  flags.DEFINE_integer(
    'net_steps', NET_STEPS,
    f'Compress: steps of training a small network (families {NET} and '
    f'{LEVERS}), which underfits for long.',
    lower_bound=1, upper_bound=1_000_000_000,
  )  # fmt: skip
  flags.DEFINE_integer(
    'tune_epochs', TUNE_EPOCHS,
    'Compress: epochs of training after a PLE was made smaller (family '
    f'{ROADS}); networks drawn small are trained for --epochs more.',
    lower_bound=1, upper_bound=1_000_000,
  )  # fmt: skip
