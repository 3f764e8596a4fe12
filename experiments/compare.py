"""The table that compares them: architectures, balancers and trees.

    python -m experiments.compare --flagfile=experiments/flags/NAME.flags

Each `--row` is tuned on the same `--setting`s by validation AUC (the mean over
the tasks), then trained with as many fresh seeds as `--num_seeds` says and
scored on the test rows. A row's own fields win over a setting's. Every finished
fit is kept: the same command goes on where it stopped, and another `--baseline`
only makes another table.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from experiments import datasets
from experiments.launcher import frame, options, parsing
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

TREES, SINGLE = 'trees', 'single_task'
INTERRUPTED = (
  'interrupted: finished fits are kept, and the same command goes on'
)

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
  'tuning_seeds',
  3,
  'Compare: seeds of each setting.',
  lower_bound=1,
  upper_bound=10_000,
)
flags.DEFINE_string(
  'baseline', '',
  'Compare: the row from which differences are taken; the first by default.',
)  # fmt: skip
flags.DEFINE_string(
  'single', '',
  'Compare: the row that MTL gain is relative to; single_task by default, if '
  'it is in the table.',
)  # fmt: skip
flags.DEFINE_float(
  'margin', 0.002, 'Compare: differences of AUC inside it count as none.',
  lower_bound=0.0,
)  # fmt: skip
flags.DEFINE_float(
  'max_minutes', 0.0,
  'Compare: start no fit after so many minutes; 0 for no limit.',
  lower_bound=0.0,
)  # fmt: skip
# Flags of a single run that mean nothing here.
MEANINGLESS = (
  'architecture', 'resume', 'eval_only', 'save_every_steps',
  'save_every_seconds', 'num_checkpoints',
)  # fmt: skip
# What a row or a setting may not change: the data, and where things go.
FIXED = (
  'dataset', 'data_dir', 'tasks', 'validation', 'split_seed', 'num_rows',
  'num_seeds', 'seed', 'cpu_devices', 'compilation_cache', 'out_dir',
  'overwrite', *MEANINGLESS,
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
    single: the row that MTL gain is relative to; empty for none.
    margin: of equivalence, in AUC.
    max_minutes: after which no fit starts; 0 for no limit.
    given: fields of `base` that were asked for.
  """

  base: Config
  rows: Mapping[str, Mapping[str, Any] | None]
  settings: Mapping[str, Mapping[str, Any]]
  tree_settings: Mapping[str, Mapping[str, Any]]
  tuning_seeds: int
  baseline: str
  single: str = ''
  margin: float = 0.002
  max_minutes: float = 0.0
  given: frozenset[str] = frozenset()

  def __post_init__(self) -> None:
    for flag, name in (('baseline', self.baseline), ('single', self.single)):
      if name not in self.rows and (name or flag == 'baseline'):
        raise InputError(
          f'--{flag}={name} is not in the table; its rows are '
          f'{", ".join(self.rows)}'
        )
    if self.base.num_seeds < 3:
      raise InputError(
        '--num_seeds must be at least 3, better 5 or more, as intervals tell '
        f'how seeds differ; found {self.base.num_seeds}'
      )
    if not 0 <= self.margin < 1:
      raise InputError(
        f'--margin must be a difference of AUCs, found {self.margin}'
      )
    if TREES in self.rows and not self.tree_settings:
      raise InputError('the row `trees` needs a --tree_setting')

  def tuned(self, row: str) -> dict[str, Config]:
    """`{setting: Config}` of a row of networks, for tuning.

    Settings that differ in nothing that the row leaves open count once.
    """
    own = self.rows[row] or {}
    base = dataclasses.replace(self.base, num_seeds=self.tuning_seeds)
    found: dict[str, Config] = {}
    for name, fields in (self.settings or {'': {}}).items():
      config = dataclasses.replace(base, **{**fields, **own})
      if config not in found.values():
        found[name] = config
    return found

  def chosen(self, row: str, setting: str) -> Config:
    """The Config of a row's last fit: seeds that no tuning has seen."""
    return dataclasses.replace(
      self.tuned(row)[setting],
      num_seeds=self.base.num_seeds,
      seed=self.base.seed + self.tuning_seeds,
    )


def parse_row(name: str) -> dict[str, Any] | None:
  """`'sple top=identity'` as fields of a Config; None for the trees."""
  architecture, _, rest = name.partition(' ')
  if not architecture:
    raise InputError('--row must name an architecture, or trees; found nothing')
  if name == TREES:
    return None
  fields = options.parse_fields(rest, f'--row={name}', FIXED)
  return {'architecture': architecture, **fields}


def _by_name(
  flag: str, texts: Sequence[str], parse: Callable[[str], Any]
) -> dict[str, Any]:
  """`{text: what it means}`, each text once, its spaces evened out."""
  names = [' '.join(text.split()) for text in texts]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f'--{flag}={name} is given twice: once is enough')
  return {name: parse(name) for name in names}


def from_flags(values: flags.FlagValues) -> Plan:
  """The Plan that parsed flags ask for."""
  from experiments.comparison import trees

  for name in MEANINGLESS:
    if values[name].present:
      raise InputError(
        f'--{name} does nothing here: leave it out (rows name their own '
        'architectures, and finished fits are always kept)'
      )
  rows = _by_name('row', values.row, parse_row)
  if not rows:
    raise InputError('nothing to compare: give each row by a --row')
  default = SINGLE if SINGLE in rows else ''
  return Plan(
    base=options.from_flags(values),
    rows=rows,
    settings=_by_name(
      'setting',
      values.setting,
      lambda text: options.parse_fields(text, f'--setting={text}', FIXED),
    ),
    tree_settings=_by_name('tree_setting', values.tree_setting, trees.parse),
    tuning_seeds=values.tuning_seeds,
    baseline=' '.join(values.baseline.split()) or next(iter(rows)),
    single=' '.join(values.single.split()) or default,
    margin=values.margin,
    max_minutes=values.max_minutes,
    given=options.given(values),
  )


def run(plan: Plan, folder: pathlib.Path) -> dict[str, Any]:
  """Fits what is missing, prints and writes the table.

  Args:
    plan: what to compare.
    folder: of the fits, the tables and the pictures.

  Returns:
    What is written to comparison.json.

  Raises:
    InputError: a mistake in the plan or the files, a row that cannot be
      fitted, or not even the baseline, which comes first, is finished.
  """
  from experiments.comparison import folder as compare_folder
  from experiments.launcher import run_folder

  check(plan)
  with run_folder.claim(folder) as claim:
    names = (run_folder.RESULTS, run_folder.MODEL, run_folder.CHECKPOINTS)
    run_folder.refuse(folder, names, 'a single run')
    compare_folder.check(folder)
    try:
      return _run(plan, folder, claim.check)
    except OSError as error:
      raise InputError(
        f'cannot write to --out_dir={folder} ({error.strerror or error}): make '
        'room and start the same command again; finished fits are kept'
      ) from error


def check(plan: Plan) -> None:
  """Refuses what cannot be fitted, before anything is."""
  from experiments.comparison import trees
  from experiments.launcher import unused

  every: list[Config] = []
  tasks = datasets.find(plan.base).make_tasks(plan.base)
  for name, own in plan.rows.items():
    if own is None:
      trees.check(plan.tree_settings, tasks)
      continue
    configs = list(plan.tuned(name).values())
    unused.refuse(configs, own, f'--row={name}: ')
    every += configs
  common = {name for fields in plan.settings.values() for name in fields}
  unused.refuse(every, common | plan.given | options.changed(plan.base))


def _run(
  plan: Plan, folder: pathlib.Path, before_writing: Callable[[], None]
) -> dict[str, Any]:
  from experiments.comparison import cells as compare_cells
  from experiments.comparison import folder as compare_folder
  from experiments.comparison import tables as compare_tables
  from experiments.launcher import display
  from lplmtl import training

  start = time.monotonic()
  console = display.make_console(140)
  if plan.base.overwrite:
    compare_folder.clear(folder)
  source = datasets.find(plan.base).load(plan.base, console)
  cells = compare_cells.Cells(plan, source, folder, console, before_writing)
  console.print(f'data: {cells.facts["statement"]}', soft_wrap=True)

  def is_late() -> bool:
    spent = time.monotonic() - start
    return 0 < plan.max_minutes * 60 <= spent

  is_whole, failed = True, []
  for name in sorted(plan.rows, key=lambda name: name != plan.baseline):
    try:
      is_whole = cells.row(name, is_late)
    except training.NonFiniteError as error:
      failed.append(f'row {name} cannot be fitted: {error}')
      console.print(failed[-1], soft_wrap=True)
    if not is_whole or (failed and name == plan.baseline):
      break
  finished = [name for name in plan.rows if cells.is_finished(name)]
  if plan.baseline not in finished:
    raise InputError(
      failed[0]
      if failed
      else f'the baseline, {plan.baseline}, was not finished within '
      f'{plan.max_minutes:g} minutes: start the same command again, which goes '
      'on where this one stopped'
    )
  results = compare_tables.results(plan, cells, finished)
  before_writing()
  compare_tables.write(folder, results)
  for table in compare_tables.tables(results):
    console.print(table.to_rich())
  console.print(compare_tables.notes(results), soft_wrap=True)
  console.print(f'written to {folder}', soft_wrap=True)
  if not is_whole:
    console.print(
      f'stopped after {plan.max_minutes:g} minutes with {len(finished)} of '
      f'{len(plan.rows)} rows: the same command goes on',
      soft_wrap=True,
    )
  if failed:
    raise InputError('; '.join(failed))
  return results


def main(argv: Sequence[str]) -> None:
  """Flags, Plan, run; a user's mistake ends in one line and exit code 1."""
  with frame.command(INTERRUPTED) as heed_signals:
    options.refuse_arguments(argv)
    plan = from_flags(flags.FLAGS)
    from experiments.launcher import build as runner

    runner.start(plan.base)
    heed_signals()
    run(plan, parsing.path('--out_dir', plan.base.out_dir or 'runs/comparison'))


if __name__ == '__main__':
  frame.run(main)
