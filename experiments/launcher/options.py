"""What can be asked of a training run: one Config, and the flags that fill it.

Light to import (no JAX), so that --help answers at once.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags

from experiments.launcher import parsing
from experiments.launcher.errors import InputError
from experiments.launcher.parsing import Numbers, Widths

# Fields that say where and how to run, not what to compute.
_NO_MATTER = (
  'data_dir', 'skip_nonfinite', 'cpu_devices', 'compilation_cache', 'out_dir',
  'resume', 'overwrite', 'save_every_steps', 'save_every_seconds',
  'num_checkpoints', 'eval_only',
)  # fmt: skip
_PATHS = ('data_dir', 'compilation_cache', 'out_dir')  # where `~` is the home
# What whole numbers may be, such that nothing overflows, hangs or aborts.
_LIMITS = {
  'split_seed': (0, 2_000_000_000),
  'num_rows': (1, 1_000_000_000),
  'embed_dim': (1, 1_000_000),
  'num_bins': (0, 1_000_000),
  'num_crosses': (0, 100),
  'cross_rank': (1, 1_000_000),
  'num_experts': (1, 10_000),
  'num_specific': (0, 10_000),
  'num_shared': (0, 10_000),
  'num_top': (1, 10_000),
  'num_selected': (1, 10_000),
  'batch_size': (1, 1_000_000_000),
  'epochs': (1, 1_000_000),
  'eval_every': (1, 1_000_000),
  'patience': (0, 1_000_000),
  'skip_nonfinite': (0, 1_000_000_000),
  'num_seeds': (1, 10_000),
  'seed': (0, 2_000_000_000),
  # Exchanges among more host devices than this do not end.
  'cpu_devices': (0, 256),
  'save_every_steps': (0, 1_000_000_000),
  'num_checkpoints': (1, 10_000),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """A training run on Census-Income. Each field is a flag of the same name."""

  # Data
  dataset: str = 'census'
  data_dir: str | None = None
  tasks: tuple[str, ...] = ('income', 'marital')
  validation: str = 'tenth'
  split_seed: int = 0
  num_rows: int = 20_000
  # Model
  architecture: str = 'sple'
  embed_dim: int = 4
  num_bins: int = 128
  num_crosses: int = 0
  cross_rank: int = 32
  expert_widths: tuple[Widths, ...] = ((32,), (32,))
  num_experts: int = 8
  num_specific: int = 2
  num_shared: int = 2
  num_top: int = 2
  num_selected: int = 2
  top: str = 'concat'
  soft_sharing: float = 1e-4
  selection_entropy: float = 1e-3
  ranks: Widths = (32, 32, 2)
  bottom_widths: Widths = (128,)
  tower_widths: Widths = (32,)
  dropout: float = 0.2
  compute_dtype: str = 'float32'
  # Optimisation
  balancer: str = 'uncertainty'
  balancer_scope: str | None = None
  loss_weight_learning_rate: float | None = None
  loss_weights: Numbers = ()
  loss_weight_rates: Numbers = ()
  loss_weight_sum: float | None = None
  optimizer: str = 'adam'
  learning_rate: float = 1e-3
  schedule: str = 'constant'
  weight_decay: float = 0.0
  batch_size: int = 256
  epochs: int = 12
  eval_every: int = 1
  patience: int = 0
  skip_nonfinite: int = 0
  # Run
  num_seeds: int = 1
  seed: int = 0
  cpu_devices: int = 0
  compilation_cache: str = ''
  out_dir: str | None = None
  resume: bool = True
  overwrite: bool = False
  save_every_steps: int = 0
  save_every_seconds: float = 60.0
  num_checkpoints: int = 2
  eval_only: bool = False

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f'{field.name} must be finite, found {value}')
    for name, (low, high) in _LIMITS.items():
      value = getattr(self, name)
      if not (isinstance(value, int) and low <= value <= high):
        raise InputError(
          f'{name} must be a whole number from {low} to {high:,}, found '
          f'{value!r}'
        )
    parsing.check_widths(*self.expert_widths)
    parsing.check_widths(self.ranks, self.bottom_widths, self.tower_widths)
    if self.num_bins == 1:
      raise InputError('num_bins must be 0 or at least 2, found 1')
    for name in _PATHS:
      if getattr(self, name):
        object.__setattr__(
          self, name, parsing.expanded(name, getattr(self, name))
        )

  @property
  def run_dir(self) -> pathlib.Path:
    """Where the results go."""
    name = f'{self.dataset}_{self.architecture}_{self.balancer}'
    return pathlib.Path(self.out_dir or f'runs/{name}')

  def identity(self) -> dict[str, Any]:
    """The fields that change what is computed, as plain data."""
    fields = json.loads(json.dumps(self.to_json()))
    return {k: v for k, v in fields.items() if k not in _NO_MATTER}

  def to_json(self) -> dict[str, Any]:
    """Plain data; `from_json` gives an equal Config back."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, data: dict[str, Any]) -> 'Config':
    """The inverse of `to_json`, also after a trip through a JSON file.

    Missing fields, as in data of an older release, take their defaults.

    Raises:
      InputError: a field that is unknown, as in data of a newer release, or of
        another type.
    """
    if not isinstance(data, dict):
      raise InputError(f'expected a configuration, found {data!r:.50}')
    default = cls()
    for name, value in data.items():
      if name not in vars(default):
        raise InputError(
          f'this release knows no setting {name!r:.50}: a newer one wrote it'
        )
      expected = getattr(default, name)
      if expected is not None and not _is_like(value, expected):
        raise InputError(
          f'{name} must be like {expected!r}, found {value!r:.50}'
        )
    return cls(**{name: _as_tuple(value) for name, value in data.items()})


def cache_dir() -> pathlib.Path | None:
  """`$XDG_CACHE_HOME/lplmtl`, or the same under ~/.cache.

  None for a user without a home: an id that the system does not know.
  """
  try:
    base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  except RuntimeError:
    return None
  return pathlib.Path(base) / 'lplmtl'


def define_flags() -> None:
  """Defines a flag for every field of Config, once for all launchers."""
  if 'architecture' in flags.FLAGS:
    return
  default = Config()
  # Data
  flags.DEFINE_enum(
    'dataset', default.dataset, ['census', 'census66k', 'sample'],
    'Data: UCI Census-Income (KDD), downloaded once; its smaller split made of '
    'the official test rows; or a generated sample, offline.',
  )  # fmt: skip
  flags.DEFINE_string(
    'data_dir', default.data_dir,
    'Data: folder with the official files (.data and .test, plain, .gz, or the '
    'archive as downloaded). Default: $XDG_CACHE_HOME/lplmtl/census-income.',
  )  # fmt: skip
  flags.DEFINE_list(
    'tasks', list(default.tasks), 'Data: any of income, marital, education.'
  )
  flags.DEFINE_enum(
    'validation', default.validation, ['tenth', 'test_half'],
    'Data: validate on a tenth of the training rows, or on half of the test '
    'rows, as the papers do.',
  )  # fmt: skip
  _integer('split_seed', 'Data: seed of the validation split.')
  _integer('num_rows', 'Data: rows of --dataset=sample.')
  # Model
  flags.DEFINE_string(
    'architecture', default.architecture,
    'Model: a file name of lplmtl/architectures, such as shared_bottom, mmoe, '
    'ple, sple; a wrong name lists them all.',
  )  # fmt: skip
  _integer('embed_dim', 'Model: width of a category embedding.')
  _integer(
    'num_bins',
    'Model: at most so many quantile bins of each numeric column, embedded '
    'beside its standardised value; 0 for none.',
  )
  _integer(
    'num_crosses',
    'Model: layers of feature crosses (DCN-V2) on top of the embedded columns.',
  )
  _integer('cross_rank', 'Model: rank of each of them.')
  flags.DEFINE_string(
    'expert_widths', ','.join(map(parsing.widths_text, default.expert_widths)),
    'Model: units of an expert, one entry per extraction level, lowest first, '
    'its layers joined by x (128x64,64). One-level architectures take the '
    'first entry.',
  )  # fmt: skip
  _integer(
    'num_experts',
    'Model: experts of mmoe, omoe, dselect_k (a power of 2), and of each '
    'level of stacked_mmoe.',
  )
  _integer(
    'num_specific',
    'Model: experts of each task alone (cgc, ple, sple, adatt, stem).',
  )
  _integer(
    'num_shared',
    'Model: shared experts a level (cgc, ple, sple, adatt, stem).',
  )
  _integer('num_selected', 'Model: experts that a gate of dselect_k chooses.')
  _float('soft_sharing', 0.0, 'Model: penalty of soft_sharing on distances.')
  _float('selection_entropy', 0.0, "Model: penalty on dselect_k's entropy.")
  flags.DEFINE_string(
    'ranks', parsing.widths_text(default.ranks),
    'Model: ranks of inputs, outputs and tasks in tensor_factorization, joined '
    'by x.',
  )  # fmt: skip
  _integer('num_top', "Model: shared experts of sple's top level.")
  flags.DEFINE_enum(
    'top', default.top, ['concat', 'identity', 'shared'],
    "Model: how a task's own features pass sple's top level.",
  )  # fmt: skip
  flags.DEFINE_string(
    'bottom_widths',
    parsing.widths_text(default.bottom_widths),
    'Model: layers of the shared bottom, joined by x.',
  )
  flags.DEFINE_string(
    'tower_widths',
    parsing.widths_text(default.tower_widths),
    'Model: layers of each tower, joined by x.',
  )
  _float('dropout', 0.0, 'Model: dropout rate in experts and towers.', 0.99)
  flags.DEFINE_enum(
    'compute_dtype', default.compute_dtype, ['float32', 'bfloat16'],
    'Model: precision of the products in experts and towers; parameters, '
    'gates, losses and metrics are float32 either way. bfloat16 is for '
    'accelerators: CPUs are slower with it.',
  )  # fmt: skip
  # Optimisation
  flags.DEFINE_string(
    'balancer', default.balancer,
    'Optimisation: a name of lplmtl.balancing, such as equal, uncertainty, '
    'mgda, cagrad, famo.',
  )  # fmt: skip
  flags.DEFINE_enum(
    'balancer_scope', default.balancer_scope,
    ['all', 'shared', 'representation'],
    'Optimisation: what the balancer acts on: all parameters, those that tasks '
    'share, or the latter by gradients at the shared representation; by '
    'default what the method does.',
  )  # fmt: skip
  _float(
    'loss_weight_learning_rate', 0.0,
    'Optimisation: learning rate of learned loss weights; by default that of '
    'the balancer.',
  )  # fmt: skip
  flags.DEFINE_list(
    'loss_weights', [],
    'Optimisation: a number for each task, the weights of the balancer static, '
    'and those that exponential starts from.',
  )  # fmt: skip
  flags.DEFINE_list(
    'loss_weight_rates', [],
    'Optimisation: a factor for each task, by which the weights of exponential '
    'change with every epoch.',
  )  # fmt: skip
  _float(
    'loss_weight_sum', 0.0,
    'Optimisation: what the weights of any balancer are scaled to sum to, the '
    'number of tasks for instance; by default the method\'s own sum. Not for '
    'aggregators.',
  )  # fmt: skip
  flags.DEFINE_enum(
    'optimizer', default.optimizer, ['adam', 'adamw', 'sgd'],
    'Optimisation: the optax optimiser.',
  )  # fmt: skip
  _float('learning_rate', 0.0, 'Optimisation: its (highest) learning rate.')
  flags.DEFINE_enum(
    'schedule', default.schedule, ['constant', 'cosine'],
    'Optimisation: learning rate over the epochs; cosine ends at 0.',
  )  # fmt: skip
  _float('weight_decay', 0.0, 'Optimisation: of adamw.')
  _integer('batch_size', 'Optimisation: rows a step.')
  _integer('epochs', 'Optimisation: passes over the training rows.')
  _integer('eval_every', 'Optimisation: epochs between validations.')
  _integer(
    'patience',
    'Optimisation: stop after so many validations without improvement; 0 '
    'never stops.',
  )
  _integer(
    'skip_nonfinite',
    'Optimisation: steps with losses or gradients that are not finite which '
    'each seed may skip; one more ends the run.',
  )
  # Run
  _integer('num_seeds', 'Run: models to train at once.')
  _integer('seed', 'Run: the first seed.')
  _integer(
    'cpu_devices',
    'Run: host devices on a CPU, among which the seeds, or the rows of a '
    'batch, are spread; 0 for one a core, where each has work enough.',
  )
  flags.DEFINE_string(
    'compilation_cache',
    default.compilation_cache,
    'Run: folder for compiled programs, "none" for none. Default: '
    '$XDG_CACHE_HOME/lplmtl/jax.',
  )
  flags.DEFINE_string(
    'out_dir', default.out_dir,
    'Run: folder for results, curves and the model. Default: '
    'runs/<dataset>_<architecture>_<balancer>.',
  )  # fmt: skip
  flags.DEFINE_boolean(
    'resume', default.resume,
    'Run: where --out_dir holds a run of the same configuration and data, go '
    'on with it; with --noresume, refuse.',
  )  # fmt: skip
  flags.DEFINE_boolean(
    'overwrite', default.overwrite,
    'Run: remove the run that --out_dir holds, and start afresh.',
  )  # fmt: skip
  _integer(
    'save_every_steps',
    'Run: save the progress after so many steps of an epoch, again and again, '
    'and at its end; 0 to go by time alone.',
  )
  _float('save_every_seconds', 0.0, 'Run: save the progress at least so often.')
  _integer('num_checkpoints', 'Run: how many of the last saves stay.')
  flags.DEFINE_boolean(
    'eval_only', default.eval_only,
    'Run: score the model in --out_dir again, with the configuration it was '
    'trained with; of the other flags only --data_dir counts.',
  )  # fmt: skip


def refuse_arguments(argv: Sequence[str]) -> None:
  """Raises an InputError for what is no flag."""
  if argv[1:]:
    raise InputError(
      f'unexpected argument {argv[1]!r}: every setting is a --flag, and a file '
      'of them is --flagfile=FILE'
    )


def from_flags(values: flags.FlagValues) -> Config:
  """The Config that parsed flags ask for."""
  return Config(
    **{
      field.name: _from_flag(field.name, getattr(values, field.name))
      for field in dataclasses.fields(Config)
    }
  )


def given(values: flags.FlagValues) -> frozenset[str]:
  """The fields of Config that parsed flags name, whatever they say."""
  names = (field.name for field in dataclasses.fields(Config))
  return frozenset(name for name in names if values[name].present)


def changed(config: Config) -> frozenset[str]:
  """The fields of a Config that are not as they are by default."""
  default = Config()
  names = (field.name for field in dataclasses.fields(Config))
  return frozenset(
    n for n in names if getattr(config, n) != getattr(default, n)
  )


def parse_fields(
  text: str, flag: str, fixed: Collection[str]
) -> dict[str, Any]:
  """`'top=identity dropout=0.2'` as fields of a Config.

  Args:
    text: `field=value`, separated by spaces; values as the flags have them.
    flag: where the text comes from, for messages.
    fixed: fields that may not be set.
  """
  known = [f.name for f in dataclasses.fields(Config) if f.name not in fixed]
  found = {}
  for part in text.split():
    name, equals, value = part.partition('=')
    if name in found:
      raise InputError(f'{flag} sets {name} twice: once is enough')
    if not equals or name not in known:
      raise InputError(
        f'{flag} wants field=value with one of {", ".join(known)}; found '
        f'{part!r}'
      )
    try:
      parsed = flags.FLAGS[name].parser.parse(value)
    except (ValueError, TypeError) as error:
      raise InputError(f'{flag}: {name}={value}: {error}') from error
    found[name] = _from_flag(name, parsed)
  return found


def _from_flag(name: str, value: Any) -> Any:
  """A flag's value as the field of a Config."""
  parse: dict[str, Callable[[Any], Any]] = {
    'tasks': tuple,
    'expert_widths': parsing.parse_levels,
    'ranks': parsing.parse_widths,
    'bottom_widths': parsing.parse_widths,
    'tower_widths': parsing.parse_widths,
    'loss_weights': parsing.parse_numbers,
    'loss_weight_rates': parsing.parse_numbers,
  }
  try:
    return parse.get(name, lambda value: value)(value)
  except InputError as error:
    raise InputError(f'--{name}: {error}') from error


def _integer(name: str, text: str) -> None:
  low, high = _LIMITS[name]
  flags.DEFINE_integer(
    name, getattr(Config, name), text, lower_bound=low, upper_bound=high
  )


def _float(name: str, lower: float, text: str, upper: float = 1e9) -> None:
  flags.DEFINE_float(
    name, getattr(Config, name), text, lower_bound=lower, upper_bound=upper
  )


def _is_like(value: Any, expected: Any) -> bool:
  """Whether a value of JSON has the type of another one."""
  if isinstance(expected, tuple):
    return isinstance(value, list | tuple)
  kinds = (int, float) if type(expected) is float else (type(expected),)
  return type(value) in kinds


def _as_tuple(value: Any) -> Any:
  if isinstance(value, list | tuple):
    return tuple(_as_tuple(v) for v in value)
  return value
