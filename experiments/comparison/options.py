"""The flags of the commands that compare several rows.

Cheap to import (no JAX), so that --help answers at once.
"""

from absl import flags


def define_flags() -> None:
  """Defines the flags once, for all commands."""
  if 'setting' in flags.FLAGS:
    return
  flags.DEFINE_multi_string(
    'setting', [],
    'Compare: a setting that every row tries (repeat the flag), such as '
    '"dropout=0.2 expert_widths=32,32 bottom_widths=128". Default: one, as the '
    'flags say, so that nothing is tuned.',
  )  # fmt: skip
  flags.DEFINE_integer(
    'tuning_seeds', 3,
    'Compare: seeds per setting, if there are several. --num_seeds, here 5 by '
    'default, is the number of fresh ones with which the best is trained.',
    lower_bound=1, upper_bound=10_000,
  )  # fmt: skip
  flags.DEFINE_float(
    'margin', None,
    'Compare: a row is equivalent to the baseline if its interval lies within '
    "± this on every task, in the unit of the task's primary metric. Default: "
    '0.002 for AUC, 0.005 for accuracy, 0.01 for R², D² and kappa.',
    lower_bound=0.0,
  )  # fmt: skip
  flags.DEFINE_float(
    'max_minutes', 0.0,
    'Compare: no fit starts after this many minutes; 0 for no limit.',
    lower_bound=0.0,
  )  # fmt: skip
  flags.DEFINE_string(
    'publish_to', '',
    'Compare: folder of published comparisons, such as experiments/results, '
    'to which the figures, the pictures and the tables of its .md files are '
    'written once all rows are finished. `compare` without a --row only '
    'regenerates the tables from the figures that the folder holds.',
  )  # fmt: skip


def define_rows() -> None:
  """Defines the flags of the commands whose rows are named one by one."""
  if 'row' in flags.FLAGS:
    return
  flags.DEFINE_multi_string(
    'row', [],
    'Compare: a row of the table (repeat the flag): an architecture and fields '
    'of its own, such as "sple top=identity balancer=equal"; for compare also '
    '"trees", "trees max_depth=2", and "sple teacher=best", which learns from '
    'trees and networks.',
  )  # fmt: skip
  flags.DEFINE_string(
    'baseline', '',
    'Compare: the row from which differences are taken. Default: the first.',
  )  # fmt: skip
