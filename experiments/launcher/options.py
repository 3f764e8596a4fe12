"""A Config: everything that can be set for a training run, and its flags.

Cheap to import (no JAX), so that --help answers at once.
"""

import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from absl import flags

from experiments.launcher import fields, parsing, sections
from experiments.launcher.errors import InputError

_IDENTIFYING = (sections.Data, sections.Model, sections.Optimisation)
_SECTIONS = (
  sections.Data, sections.Table, sections.Model, sections.Optimisation,
  sections.Run,
)  # fmt: skip
# Where the rows are: what they are is identified by their content.
# So are those of `stream`.
_PLACES = frozenset({'data', 'test_data', 'schema', 'index_column', 'stream'})
_CENSUS_PLACES = frozenset({'data_dir', 'num_rows'})
# What flags that are not given mean for a table: the defaults of
# `lplmtl.tabular.Settings`, which were chosen on several tables. Repeated, as
# those import JAX; a test compares them.
TABLE_DEFAULTS: Mapping[str, Any] = MappingProxyType(
  {
    'expert_widths': ((32,), (32,)), 'tower_widths': (32,), 'embed_dim': 8,
    'num_bins': 128, 'interpolate': True, 'num_crosses': 0, 'cross_rank': 32,
    'dropout': 0.1, 'optimizer': 'adamw', 'learning_rate': 8e-3,
    'weight_decay': 1e-4, 'schedule': 'free', 'batch_size': 256, 'epochs': 40,
    'patience': 5, 'balancer': 'equal', 'num_seeds': 3,
  }
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config(
  # Dataclasses inherit the fields of their last base first.
  sections.Run, sections.Optimisation, sections.Model, sections.Table,
  sections.Data,
):  # fmt: skip
  """A training run. Each field is a flag of the same name.

  Raises:
    InputError: a value has a type other than the field's, or is out of bounds.
  """

  def __post_init__(self) -> None:
    for name, setting in fields.of(self).items():
      value = getattr(self, name)
      if value is not None or getattr(type(self), name) is not None:
        # Frozen for everyone else. Stores lists as tuples, and paths expanded.
        object.__setattr__(self, name, setting.check(name, value))
    if self.num_bins == 1:
      raise InputError('num_bins must be 0 or at least 2, found 1')

  @property
  def source(self) -> str:
    """Where the rows come from: `table`, or `census`."""
    return 'table' if self.data else 'census'

  @property
  def run_dir(self) -> pathlib.Path:
    """Where the results go."""
    name = f'{self.dataset}_{self.architecture}_{self.balancer}'
    if self.data:
      name = parsing.stem(self.data)
    return pathlib.Path(self.out_dir or f'runs/{name}')

  def identity(self) -> dict[str, Any]:
    """Returns the fields that change what is computed, as JSON data.

    Those of Table belong to a run on a table only: a run on Census-Income that
    an earlier release began can be resumed.
    """
    data = json.loads(json.dumps(self.to_json()))
    identity = {
      name: data[name]
      for section in _IDENTIFYING
      for name in fields.of(section)
    }
    if self.data:
      names = fields.of(sections.Table).keys() - _PLACES
      identity |= {name: data[name] for name in sorted(names)}
    return identity

  def to_json(self) -> dict[str, Any]:
    """Returns plain data; `from_json` turns it into an equal Config."""
    return dataclasses.asdict(self)

  def effective(self) -> dict[str, Any]:
    """Returns `to_json` without what is for Census-Income, if this is a table.

    `from_json` takes this as well: what is missing has no effect.
    """
    data = self.to_json()
    return {name: data[name] for name in of_tables()} if self.data else data

  @classmethod
  def from_json(cls, data: Any) -> 'Config':
    """The inverse of `to_json`, also after a round trip through a JSON file.

    Fields that are missing, as in data from an older release, take their
    defaults.

    Raises:
      InputError: a field is unknown, as in data from a newer release, or has
        the wrong type.
    """
    if not isinstance(data, dict):
      raise InputError(f'expected a configuration, found {data!r:.50}')
    known = fields.of(cls)
    unknown = [name for name in data if name not in known]
    if unknown:
      raise InputError(
        f'this release has no setting {unknown[0]!r:.50}: a newer one wrote it'
      )
    return cls(**data)


def in_memory(config: Config) -> Config:
  """Returns a Config that reads all rows of a table at once.

  Raises:
    InputError: it asks for chunks, which this command cannot use.
  """
  if config.stream == 'always':
    raise InputError(
      '--stream=always is for a single run (experiments.tabular): this command '
      'needs all rows in memory'
    )
  return dataclasses.replace(config, stream='never')


def cache_dir() -> pathlib.Path | None:
  """Returns `$XDG_CACHE_HOME/lplmtl`, by default `~/.cache/lplmtl`.

  None for a user without a home folder: an id that the system does not know.
  """
  try:
    base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  except RuntimeError:
    return None
  return pathlib.Path(base) / 'lplmtl'


def define_flags(
  defaults: Mapping[str, Any] = MappingProxyType({}),
  texts: Mapping[str, str] = MappingProxyType({}),
) -> None:
  """Defines a flag for each field of Config, once for all commands.

  Args:
    defaults: what --help shows in place of the fields' own defaults; see
      `from_flags`.
    texts: what --help says in place of the fields' own texts.
  """
  if 'architecture' in flags.FLAGS:
    return
  for section in _SECTIONS:
    for name, setting in fields.of(section).items():
      default = defaults.get(name, getattr(section, name))
      setting.define(
        name=name,
        default=None if default is None else setting.show(default),
        help=f'{section.__name__}: {texts.get(name, setting.help)}',
      )


def of_tables() -> list[str]:
  """Returns the fields that may have an effect on a run on a table."""
  return [
    name
    for name, setting in fields.of(Config).items()
    if [*setting.taken_by][:2] != ['source', 'census']
    and name not in _CENSUS_PLACES
  ]


def refuse_arguments(argv: Sequence[str], hint: str = '') -> None:
  """Raises InputError for any argument that is not a flag.

  Args:
    argv: the name of the command, and what is left beside its flags.
    hint: what the command is called with, usually.
  """
  if argv[1:]:
    hint = hint or '--flagfile=FILE reads a file of them'
    raise InputError(
      f'unexpected argument {argv[1]!r}: every setting is a --flag; {hint}'
    )


def from_flags(values: flags.FlagValues) -> Config:
  """Returns the Config that parsed flags ask for.

  Flags that were not given have the defaults of Config, or of a table.
  """
  asked = {name: _from_flag(name, values[name].value) for name in given(values)}
  return Config(**{**_defaults(bool(asked.get('data'))), **asked})


def _defaults(is_table: bool) -> Mapping[str, Any]:
  return TABLE_DEFAULTS if is_table else {}


def given(values: flags.FlagValues) -> frozenset[str]:
  """Returns the fields that were given as flags, even with their defaults."""
  return frozenset(name for name in fields.of(Config) if values[name].present)


def changed(config: Config) -> frozenset[str]:
  """Returns the fields of a Config that differ from their defaults."""
  default = Config(**_defaults(bool(config.data)))
  return frozenset(
    name
    for name in fields.of(Config)
    if getattr(config, name) != getattr(default, name)
  )


def parse_fields(
  text: str, flag: str, fixed: Collection[str]
) -> dict[str, Any]:
  """Parses `'top=identity dropout=0.2'` into fields of a Config.

  Args:
    text: `field=value`, separated by spaces; values are written as for flags.
    flag: where the text comes from, for messages.
    fixed: fields that may not be set.
  """
  known = [name for name in fields.of(Config) if name not in fixed]
  parsed: dict[str, Any] = {}
  for part in text.split():
    name, equals, value = part.partition('=')
    if name in parsed:
      raise InputError(f'{flag} sets {name} twice: once is enough')
    if not equals or name not in known:
      near = difflib.get_close_matches(name, known)
      expected = (
        f'did you mean {" or ".join(near)}? Expected' if near else 'expected'
      )
      raise InputError(
        f'{flag}: {part!r} sets no field; {expected} field=value with one of '
        f'{", ".join(known)}'
      )
    try:
      flag_value = flags.FLAGS[name].parser.parse(value)
    except (ValueError, TypeError) as error:
      raise InputError(f'{flag}: {name}={value}: {error}') from error
    parsed[name] = _from_flag(name, flag_value)
  return parsed


def _from_flag(name: str, value: Any) -> Any:
  """Turns a flag's value into the field's; None stays None."""
  try:
    return value if value is None else fields.of(Config)[name].parse(value)
  except InputError as error:
    raise InputError(f'--{name}: {error}') from error
