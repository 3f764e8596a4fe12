"""The flags of a study.

Cheap to import (no JAX), so that --help answers at once.
"""

from typing import Any

from absl import flags

from experiments.comparison import options as comparing
from experiments.launcher import fields, options, sections
from experiments.launcher.options import Config

# What flags that are not given mean here. Features are standard normal: bins
# are for real tables.
DEFAULTS: dict[str, Any] = {'num_seeds': 30, 'num_bins': 0}
_TEXTS = {
  'num_seeds': 'draws on which the best setting is trained and scored.',
  **comparing.texts('runs/study', 'study'),
}
# Flags that are for rows that are read, not generated, or for single runs.
UNUSED = (
  'dataset', 'data_dir', 'tasks', 'validation', 'split_seed', 'num_rows',
  'interpolate', 'margin', *fields.of(sections.Table), *comparing.MEANINGLESS,
)  # fmt: skip
_COMPARING = (
  'row', 'setting', 'baseline', 'tuning_seeds', 'max_minutes', 'publish_to',
)  # fmt: skip
# What the text of --problem has in place of each of --values.
FACTOR = '@'


def define_flags() -> None:
  """Defines all flags of a study; --help shows those that it uses."""
  options.define_flags(DEFAULTS, _TEXTS)
  comparing.define_flags('Study')
  comparing.define_rows('Study')
  for name in (*fields.of(Config), *_COMPARING):
    if name not in UNUSED:
      flags.declare_key_flag(name)
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
