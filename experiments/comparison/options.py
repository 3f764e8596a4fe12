"""The flags of the commands that compare several rows.

Cheap to import (no JAX), so that --help answers at once.
"""

from absl import flags

# Where no --num_seeds is given: few, but enough for an interval.
NUM_SEEDS = 5
# Flags of a single run that mean nothing here.
MEANINGLESS = (
  'architecture', 'resume', 'eval_only', 'save_every_steps',
  'save_every_seconds', 'num_checkpoints', 'log_to',
)  # fmt: skip


def texts(default: str, what: str, also: str = '') -> dict[str, str]:
  """Returns what --help says of flags of single runs, in place of their texts.

  Args:
    default: of --out_dir.
    what: the folder holds, such as `comparison`.
    also: what it holds beside fits, tables and pictures.
  """
  return {
    'out_dir': f'folder for the fits, the tables{also} and the pictures. '
    f'Default: {default}.',
    'overwrite': f'remove the {what} that --out_dir holds, and start over.',
  }


def define_flags(section: str = 'Compare') -> None:
  """Defines the flags once, for all commands.

  Args:
    section: what --help shows them under.
  """
  if 'setting' in flags.FLAGS:
    return
  flags.DEFINE_multi_string(
    'setting', [],
    f'{section}: a setting that every row tries (repeat the flag), such as '
    '"dropout=0.2 expert_widths=32,32 bottom_widths=128". Default: one, as the '
    'flags say, so that nothing is tuned.',
  )  # fmt: skip
  flags.DEFINE_integer(
    'tuning_seeds', 3,
    f'{section}: seeds per setting, if there are several. --num_seeds is the '
    'number of fresh ones with which the best is trained.',
    lower_bound=1, upper_bound=10_000,
  )  # fmt: skip
  flags.DEFINE_float(
    'margin', None,
    f'{section}: a row is equivalent to the baseline if its interval lies '
    "within ± this on every task, in the unit of the task's primary metric. "
    'Default: 0.002 for AUC, 0.005 for accuracy, 0.01 for R², D² and kappa.',
    lower_bound=0.0,
  )  # fmt: skip
  flags.DEFINE_float(
    'max_minutes', 0.0,
    f'{section}: no fit starts after this many minutes; 0 for no limit.',
    lower_bound=0.0,
  )  # fmt: skip
  flags.DEFINE_string(
    'publish_to', '',
    f'{section}: folder of published results, such as experiments/results, to '
    'which the figures, the pictures and the tables of its .md files are '
    'written once all rows are finished.',
  )  # fmt: skip


def define_rows(section: str = 'Compare', also: str = '') -> None:
  """Defines the flags of the commands whose rows are named one by one.

  Args:
    section: what --help shows them under.
    also: what else may be a row.
  """
  if 'row' in flags.FLAGS:
    return
  flags.DEFINE_multi_string(
    'row', [],
    f'{section}: a row of the table (repeat the flag): an architecture and '
    f'fields of its own, such as "sple top=identity balancer=equal"{also}.',
  )  # fmt: skip
  flags.DEFINE_string(
    'baseline', '',
    f'{section}: the row from which differences are taken. Default: the first.',
  )  # fmt: skip
