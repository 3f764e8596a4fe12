"""The table that compares them: architectures, balancers and trees.

    python -m experiments.compare --flagfile=experiments/flags/NAME.flags

Each `--row` is tuned on the same `--setting`s by validation AUC, then trained
with as many fresh seeds as `--num_seeds` says and scored on the test rows.
Every finished fit is kept: the same command goes on where it stopped, and
another `--baseline` only makes another table.
"""

import dataclasses
import pathlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags, logging

from experiments import options
from experiments.errors import InputError
from experiments.options import Config

TREES = 'trees'

options.define_flags()
flags.adopt_module_key_flags(options)
flags.DEFINE_multi_string(
  'row', [],
  'Compare: a row of the table, once for each: an architecture and fields of '
  'its own, such as "sple top=identity balancer=equal"; or trees.',
)  # fmt: skip
flags.DEFINE_multi_string(
  'setting', [],
  'Compare: a setting that every row tries, once for each, such as '
  '"dropout=0.2 expert_widths=32,32 bottom_widths=128".',
)  # fmt: skip
flags.DEFINE_multi_string(
  'tree_setting', [],
  'Compare: a setting that the trees try, such as "num_leaves=31 '
  'learning_rate=0.05".',
)  # fmt: skip
flags.DEFINE_integer(
  'tuning_seeds', 3, 'Compare: seeds of each setting.', lower_bound=1
)
flags.DEFINE_string(
  'baseline', 'ple', 'Compare: the row from which differences are taken.'
)
flags.DEFINE_string(
  'single', 'single_task', 'Compare: the row that MTL gain is relative to.'
)
flags.DEFINE_float(
  'margin', 0.002, 'Compare: differences of AUC inside it count as none.',
  lower_bound=0.0,
)  # fmt: skip
flags.DEFINE_float(
  'max_minutes', 0.0,
  'Compare: start no fit after so many minutes; 0 for no limit.',
  lower_bound=0.0,
)  # fmt: skip
# What a row or a setting may not change: the data, and where things go.
FIXED = (
  'dataset', 'data_dir', 'tasks', 'validation', 'split_seed', 'num_rows',
  'architecture', 'num_seeds', 'seed', 'cpu_devices', 'compilation_cache',
  'out_dir', 'resume', 'overwrite', 'save_every_steps', 'save_every_seconds',
  'num_checkpoints', 'eval_only',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is compared with what.

  Attributes:
    base: fields that all rows share; `num_seeds` and `seed` are those of the
      last fits.
    rows: `{name: fields of its own}`, `architecture` among them; None for the
      trees.
    settings: `{name: fields}` that every row tries.
    tree_settings: `{name: LightGBM's parameters}` that the trees try.
    tuning_seeds: seeds of each setting.
    baseline: the row that others are compared with.
    single: the row that MTL gain is relative to.
    margin: of equivalence, in AUC.
    max_minutes: after which no fit starts; 0 for no limit.
  """

  base: Config
  rows: Mapping[str, Mapping[str, Any] | None]
  settings: Mapping[str, Mapping[str, Any]]
  tree_settings: Mapping[str, Mapping[str, Any]]
  tuning_seeds: int = 3
  baseline: str = 'ple'
  single: str = 'single_task'
  margin: float = 0.002
  max_minutes: float = 0.0

  def __post_init__(self) -> None:
    if not self.rows:
      raise InputError('nothing to compare: give each row by a --row')
    if self.baseline not in self.rows:
      raise InputError(
        f'--baseline={self.baseline} is not in the table; its rows are '
        f'{", ".join(self.rows)}'
      )
    if self.base.num_seeds < 2:
      raise InputError(
        '--num_seeds must be at least 2, as intervals tell how seeds differ; '
        f'found {self.base.num_seeds}'
      )
    if TREES in self.rows and not self.tree_settings:
      raise InputError('the row `trees` needs a --tree_setting')

  def tuned(self, row: str) -> dict[str, Config]:
    """`{setting: Config}` of a row of networks, for tuning."""
    own = self.rows[row] or {}
    base = dataclasses.replace(self.base, num_seeds=self.tuning_seeds)
    return {
      name: dataclasses.replace(base, **{**fields, **own})
      for name, fields in (self.settings or {'': {}}).items()
    }

  def chosen(self, row: str, setting: str) -> Config:
    """The Config of a row's last fit: seeds that no tuning has seen."""
    return dataclasses.replace(
      self.tuned(row)[setting],
      num_seeds=self.base.num_seeds,
      seed=self.base.seed + self.tuning_seeds,
    )


def parse_row(text: str) -> tuple[str, dict[str, Any] | None]:
  """`'sple top=identity'` as a name and fields."""
  architecture, _, rest = ' '.join(text.split()).partition(' ')
  if architecture == TREES and not rest:
    return TREES, None
  fields = options.parse_fields(rest, '--row', FIXED)
  return ' '.join(text.split()), {'architecture': architecture, **fields}


def from_flags(values: flags.FlagValues) -> Plan:
  """The Plan that parsed flags ask for."""
  from experiments import trees

  rows = [parse_row(text) for text in values.row]
  names = [name for name, _ in rows]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f'--row={name} is given twice: once is enough')
  return Plan(
    base=options.from_flags(values),
    rows=dict(rows),
    settings={
      ' '.join(text.split()): options.parse_fields(text, '--setting', FIXED)
      for text in values.setting
    },
    tree_settings={
      ' '.join(text.split()): trees.parse(text) for text in values.tree_setting
    },
    tuning_seeds=values.tuning_seeds,
    baseline=' '.join(values.baseline.split()),
    single=' '.join(values.single.split()),
    margin=values.margin,
    max_minutes=values.max_minutes,
  )


def run(plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
  """Fits what is missing, prints and writes the table.

  Args:
    plan: what to compare.
    folder: of the fits, the tables and the pictures.

  Returns:
    What is written to comparison.json.

  Raises:
    InputError: a mistake in the plan or the files, or not even the baseline,
      which comes first, is finished.
  """
  from experiments import run_folder

  check(plan)
  with run_folder.claim(folder):
    return _run(plan, folder)


def check(plan: Plan) -> None:
  """Refuses what cannot be fitted, before anything is."""
  from experiments import runner, trees

  for name, own in plan.rows.items():
    if own is None:
      trees.check()
      continue
    for config in plan.tuned(name).values():
      runner.check_names(config)


def _run(plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
  from experiments import compare_cells, compare_tables, display

  start = time.monotonic()
  console = display.make_console(120)
  cells = compare_cells.Cells(plan, folder, console)
  console.print(f'data: {cells.facts["statement"]}', soft_wrap=True)

  def is_late() -> bool:
    spent = time.monotonic() - start
    return 0 < plan.max_minutes * 60 <= spent

  is_whole = True
  for name in sorted(plan.rows, key=lambda name: name != plan.baseline):
    if not cells.row(name, is_late):
      is_whole = False
      break
  finished = [name for name in plan.rows if cells.is_finished(name)]
  if plan.baseline not in finished:
    raise InputError(
      f'the baseline, {plan.baseline}, is not finished: start the same command '
      'again, which goes on where this one stopped'
    )
  results = compare_tables.results(plan, cells, finished)
  compare_tables.write(folder, results)
  for table in compare_tables.tables(results):
    console.print(table.to_rich())
  console.print(f'written to {folder}', soft_wrap=True)
  if not is_whole:
    console.print(
      f'stopped after {plan.max_minutes:g} minutes with {len(finished)} of '
      f'{len(plan.rows)} rows: the same command goes on',
      soft_wrap=True,
    )
  return results


def main(argv: Sequence[str]) -> None:
  """Flags, Plan, run; a user's mistake ends in one line and exit code 1."""
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.FATAL)
  try:
    if argv[1:]:
      raise InputError(
        f'unexpected argument {argv[1]!r}: every setting is a --flag, and a '
        'file of them is --flagfile=FILE'
      )
    plan = from_flags(flags.FLAGS)
    from experiments import runner
  except InputError as error:
    sys.exit(f'error: {error}')
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)
  runner.start(plan.base)
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    run(plan, pathlib.Path(plan.base.out_dir or 'runs/comparison'))
  except KeyboardInterrupt:
    print(
      'interrupted: finished fits are kept, and the same command goes on',
      file=sys.stderr,
    )
    sys.exit(128 + signal.SIGINT)
  except runner.USER_ERRORS as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  app.run(main)
