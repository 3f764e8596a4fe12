"""The plan of a comparison: rows, settings and seeds, as the flags ask."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from experiments.comparison import boosting
from experiments.comparison import options as comparing
from experiments.launcher import build, options, sections, unused
from experiments.launcher import fields as settings
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config

TREES, SINGLE = 'trees', 'single_task'
# From what a row of networks may learn in place of the labels; see `taught`.
TEACHERS = (TREES, 'best')
_TEACHER = 'teacher='
# What rows and settings must share: the data, the seeds, where things go.
FIXED = (
  'dataset', 'data_dir', 'tasks', 'validation', 'split_seed', 'num_rows',
  'interpolate', 'num_seeds', 'seed', 'cpu_devices', 'compilation_cache',
  'out_dir', 'overwrite', *settings.of(sections.Table),
  *comparing.MEANINGLESS,
)  # fmt: skip
# Where no --tree_setting is given: half LightGBM's learning rate, as validation
# rows decide on the number of trees; samples of rows and columns, without which
# all seeds would grow the same trees, and worse ones; and its own 31 leaves,
# few leaves, or few leaves with cautious categories. Trees of 31 leaves overfit
# small tables: of 8,000 rows of `lplmtl.data.customers`, test AUC (two tasks),
# accuracy and R² were .749, .863, .665, .725 with the first, .764, .866, .663,
# .739 with the second, .762, .864, .671, .725 with the third.
_TREES = (
  'learning_rate=0.05 feature_fraction=0.8 bagging_fraction=0.8 bagging_freq=1'
)
TREE_SETTINGS = (
  f'num_leaves=31 {_TREES}',
  f'num_leaves=7 {_TREES}',
  f'num_leaves=7 cat_smooth=50 min_data_per_group=200 {_TREES}',
)
MIN_SEEDS = 3  # two give a standard deviation, but a meaningless one


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is compared with what.

  Attributes:
    base: fields that all rows share; `num_seeds` and `seed` are those of the
      final fits.
    rows: `{name: fields of its own}`, `architecture` among them; None for
      trees.
    settings: `{name: fields}` that every row tries.
    tree_settings: `{name: LightGBM parameters}` that the trees try.
    tuning_seeds: seeds per setting.
    baseline: the row from which differences are taken.
    single: the row to which MTL gain is relative; empty for none.
    margin: of equivalence, in the unit of each task's primary metric; None for
      `quality.MARGINS`.
    max_minutes: after which no fit starts; 0 for no limit.
    given: fields of `base` that were asked for explicitly.
    taught: `{row: its teacher}`, one of TEACHERS.
    tree_rows: `{row of trees: LightGBM parameters of its own}`.
  """

  base: Config
  rows: Mapping[str, Mapping[str, Any] | None]
  settings: Mapping[str, Mapping[str, Any]]
  tree_settings: Mapping[str, Mapping[str, Any]]
  tuning_seeds: int
  baseline: str
  single: str = ''
  margin: float | None = None
  max_minutes: float = 0.0
  given: frozenset[str] = frozenset()
  taught: Mapping[str, str] = dataclasses.field(default_factory=dict)
  tree_rows: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=dict
  )

  def __post_init__(self) -> None:
    for flag, name in (('baseline', self.baseline), ('single', self.single)):
      if name not in self.rows and (name or flag == 'baseline'):
        raise InputError(
          f'--{flag}={name} is not in the table; its rows are '
          f'{", ".join(self.rows)}'
        )
    if self.base.num_seeds < MIN_SEEDS:
      raise InputError(
        f'--num_seeds must be at least {MIN_SEEDS}, preferably 5, because '
        'the intervals measure how seeds differ; found '
        f'{self.base.num_seeds}'
      )
    if self.margin is not None and not 0 <= self.margin < 1:
      raise InputError(
        '--margin must be a difference in a metric, from 0 to 1; found '
        f'{self.margin}'
      )

  def tuning_configs(self, row: str) -> dict[str, Config]:
    """Returns `{setting: Config}`, what a row of networks tries.

    Settings that differ only in fields that the row fixes, or does not take,
    count once: loss weights make one setting for every balancer but `static`.
    """
    row_fields = self.rows[row] or {}
    base = dataclasses.replace(self.base, num_seeds=self.tuning_seeds)
    configs: dict[str, Config] = {}
    effects: list[dict[str, Any]] = []
    for name, fields in (self.settings or {'': {}}).items():
      config = dataclasses.replace(base, **{**fields, **row_fields})
      ignored = unused.ignored(config)
      effect = {k: v for k, v in config.to_json().items() if k not in ignored}
      if effect not in effects:
        configs[name] = config
        effects.append(effect)
    return configs

  def tree_configs(self, row: str) -> dict[str, dict[str, Any]]:
    """Returns `{setting: LightGBM parameters}`, what a row of trees tries.

    Settings that differ only in parameters that the row fixes count once.
    """
    own = self.tree_rows.get(row, {})
    configs: dict[str, dict[str, Any]] = {}
    for name, parameters in self.tree_settings.items():
      config = {**parameters, **own}
      if config not in configs.values():
        configs[name] = config
    return configs

  def fitting(self, num_train: int) -> 'Plan':
    """Returns the Plan for a number of training rows."""
    base = build.fit_batch_size(self.base, num_train)
    return dataclasses.replace(self, base=base)

  def shared(self) -> dict[str, Any]:
    """Returns what all rows share, as JSON data; more seeds are no change."""
    own = ('architecture', 'num_seeds')
    return {
      'settings': '; '.join(self.settings),
      'tree_settings': '; '.join(self.tree_settings),
      'tuning_seeds': self.tuning_seeds,
      **{k: v for k, v in self.base.identity().items() if k not in own},
    }

  def final_config(self, row: str, setting: str) -> Config:
    """Returns the Config of a row's final fit, with seeds unused in tuning."""
    return dataclasses.replace(
      self.tuning_configs(row)[setting],
      num_seeds=self.base.num_seeds,
      seed=self.base.seed + self.tuning_seeds,
    )


def from_flags(values: flags.FlagValues) -> Plan:
  """Returns the Plan that parsed flags ask for."""
  for name in comparing.MEANINGLESS:
    if values[name].present:
      raise InputError(
        f'--{name} has no effect here: leave it out (rows name their own '
        'architectures, and finished fits are always kept)'
      )
  rows = by_name('row', values.row, parse_row)
  if not rows:
    raise InputError('nothing to compare: name each row with --row')
  default = SINGLE if SINGLE in rows else ''
  base = options.from_flags(values)
  if not values['num_seeds'].present:
    base = dataclasses.replace(base, num_seeds=comparing.NUM_SEEDS)
  tree_settings = values.tree_setting
  taught = {name: teacher for name in rows if (teacher := _teacher(name))}
  tree_rows = {
    name: boosting.parse(name.removeprefix(TREES), f'--row={name}')
    for name, fields in rows.items()
    if fields is None
  }
  if (tree_rows or taught) and not tree_settings:
    tree_settings = TREE_SETTINGS
  return Plan(
    base=base,
    rows=rows,
    settings=by_name('setting', values.setting, parse_setting),
    tree_settings=by_name('tree_setting', tree_settings, boosting.parse),
    tuning_seeds=values.tuning_seeds,
    baseline=_even_spaces(values.baseline) or next(iter(rows)),
    single=_even_spaces(values.single) or default,
    margin=values.margin,
    max_minutes=values.max_minutes,
    given=options.given(values),
    taught=taught,
    tree_rows=tree_rows,
  )


def parse_row(name: str, flag: str = 'row') -> dict[str, Any] | None:
  """Parses `'sple top=identity'` into Config fields; None for trees."""
  or_trees = ', or trees' if flag == 'row' else ''
  architecture, _, rest = name.partition(' ')
  if not architecture:
    raise InputError(
      f'--{flag} must name an architecture{or_trees}; found nothing'
    )
  if architecture == TREES:
    return None
  if flag == 'row' and _teacher(name):
    rest = ' '.join(x for x in rest.split() if not x.startswith(_TEACHER))
  try:
    build.check_names(Config(architecture=architecture))  # it may be mistyped
  except InputError as error:
    raise InputError(f'--{flag}={name}: {error}{or_trees}') from error
  fields = options.parse_fields(rest, f'--{flag}={name}', FIXED)
  return {'architecture': architecture, **fields}


def _teacher(name: str) -> str:
  """Returns the teacher of a row; empty if it has none."""
  given = [x for x in name.split() if x.startswith(_TEACHER)]
  teacher = given[0].removeprefix(_TEACHER) if given else ''
  if len(given) > 1 or (given and teacher not in TEACHERS):
    raise InputError(
      f'--row={name}: expected one {_TEACHER}{" or ".join(TEACHERS)}, found '
      f'{" ".join(given)}'
    )
  return teacher


def parse_setting(name: str) -> dict[str, Any]:
  """Parses `'dropout=0.2 expert_widths=32,32'` into fields of a Config."""
  return options.parse_fields(name, f'--setting={name}', FIXED)


def by_name(
  flag: str, texts: Sequence[str], parse: Callable[[str], Any]
) -> dict[str, Any]:
  """Returns `{text: its meaning}`; refuses a text that is given twice.

  Args:
    flag: that gives the texts.
    texts: with any spaces.
    parse: returns the meaning of a text.
  """
  names = [_even_spaces(text) for text in texts]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f'--{flag}={name} is given twice: once is enough')
  return {name: parse(name) for name in names}


def _even_spaces(text: str) -> str:
  return ' '.join(text.split())
