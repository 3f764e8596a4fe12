"""The flags of a study.

Cheap to import (no JAX), so that --help answers at once.
"""

from absl import flags

NUM_DRAWS = 30
# What the text of --problem has in place of each of --values.
FACTOR = '@'


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string(
    'problem', f'correlation={FACTOR}',
    'Study: the problem, as field=value separated by spaces; '
    f'{FACTOR} stands for one of --values. Fields: tasks, correlation, '
    'clusters, features (of lplmtl.data.related); kind, sines, noise, scale, '
    'labels (one value, or one per task, separated by commas; labels=0 keeps '
    'all); rows (10,000), validation_rows (2,000), test_rows (20,000). '
    'Defaults: two regressions, correlation .9, 100 features, 4 sines, noise '
    '.1. If the first word is digits, pairs of overlaid digits: offset, '
    'channels, rows, validation_rows, test_rows.',
  )  # fmt: skip
  flags.DEFINE_list(
    'values', ['0', '0.5', '0.9', '1'], 'Study: the values of the factor.'
  )
  flags.DEFINE_string(
    'factor', '', 'Study: what varies, for the axis of the picture.'
  )
  flags.DEFINE_list(
    'regret_of',
    [],
    'Study: the tasks whose mean regret is shown, such as task_2. Default: '
    'all.',
  )
  flags.DEFINE_integer(
    'workers', 1,
    'Study: processes that fit at the same time, each on its share of the '
    'cores (Linux). As many as there are cores is fastest; rounding differs '
    'from that of one process.',
    lower_bound=1,
  )  # fmt: skip
