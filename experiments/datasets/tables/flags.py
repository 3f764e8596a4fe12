"""What the flags of a table say about its columns."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl import tabular
from lplmtl.tabular import schema as schemas

# What a schema.json says instead.
_IN_SCHEMA = (
  'targets', 'categories', 'numbers', 'dates', 'booleans', 'ignore',
  'positive', 'weight_column', 'task_weights', 'split_column', 'time_column',
  'group_column', 'missing', 'min_count', 'max_vocabulary', 'num_buckets',
)  # fmt: skip
_KIND = re.compile(
  rf'(?P<name>.+):(?P<kind>{"|".join(schemas.TARGET_KINDS)})'
  r'(?:\((?P<listed>.+)\))?'
)


def check(config: Config) -> None:
  """Refuses what is wrong whatever the table holds.

  Raises:
    InputError: nothing to predict, a malformed flag, or one that repeats what
      the schema says.
  """
  if config.schema:
    for name in _IN_SCHEMA:
      if getattr(config, name) != getattr(Config, name):
        raise InputError(
          f'--schema={config.schema} already says what --{name} would: leave '
          'the flag out, or edit the file'
        )
    return
  if not config.targets:
    raise InputError(
      '--targets must name the columns to predict, such as '
      '--targets=churn,value; found none'
    )
  targets(config)
  options(config)


def targets(config: Config) -> dict[str, schemas.Target | None]:
  """Returns `{target: what the flag says of it}`; None for a mere name.

  Raises:
    InputError: --targets is malformed.
  """
  found: dict[str, schemas.Target | None] = {}
  for text in config.targets:
    match = _KIND.fullmatch(text)
    name = match['name'] if match else text
    if not name or name in found:
      raise InputError(
        f'--targets must name each target once, found {text!r}'
        f'{" again" if name else ""}'
      )
    found[name] = None
    if match:
      found[name] = _target(text, match)
    elif any(f':{kind}(' in text for kind in ('multilabel', 'ordinal')):
      raise _malformed(text)  # cut at a comma inside the brackets
  return found


def _target(text: str, match: re.Match[str]) -> schemas.Target:
  """Returns what `name:kind`, or `name:kind(a+b)`, says."""
  kind = cast(schemas.TargetKind, match['kind'])
  listed = tuple(match['listed'].split('+')) if match['listed'] else ()
  if kind == 'ordinal' and len(listed) != 1:
    return schemas.Target(kind, classes=listed)
  if (kind == 'multilabel') != (len(listed) > 1):
    raise _malformed(text)
  return schemas.Target(kind, columns=listed)


def _malformed(text: str) -> InputError:
  return InputError(
    f'--targets: {text!r} must be a name and a kind, such as value:regression; '
    'multilabel lists its columns, as in topics:multilabel(sports+politics), '
    'and ordinal may list its classes, lowest first, as in '
    'rating:ordinal(poor+fair+good)'
  )


def options(config: Config) -> tabular.Options:
  """Returns what the flags say of the other columns.

  Raises:
    InputError: a flag names a target that --targets does not, or one as the
      names of the rows.
  """
  names = targets(config)
  if config.index_column in names:
    raise InputError(
      f'--index_column={config.index_column} is a target, which cannot name '
      'the rows as well: name another column'
    )
  ignored = (*config.ignore, config.index_column)
  dates: dict[str, str | None] = {}
  for text in config.dates:
    name, _, form = text.partition(':') if ':%' in text else (text, '', '')
    dates[name] = form or None
  return tabular.Options(
    categories=config.categories,
    numbers=config.numbers,
    dates=dates,
    booleans=config.booleans,
    ignore=tuple(name for name in ignored if name),
    positive=_by_target('positive', config.positive, names),
    weight=config.weight_column,
    task_weights=_by_target('task_weights', config.task_weights, names),
    split=config.split_column,
    time=config.time_column,
    group=config.group_column,
    missing=(*schemas.DEFAULT_MISSING, *config.missing),
    min_count=config.min_count,
    max_vocabulary=config.max_vocabulary,
    num_buckets=config.num_buckets,
  )


def _by_target(
  flag: str, texts: Sequence[str], names: Mapping[str, Any]
) -> dict[str, str]:
  """Parses `['churn:yes']` into `{'churn': 'yes'}`."""
  found = {}
  for text in texts:
    # A name, or a value, may itself have a colon.
    owners = [name for name in names if text.startswith(f'{name}:')]
    if not owners:
      raise InputError(
        f'--{flag} must be a target, a colon and a value, such as '
        f'{next(iter(names))}:..., with a target among {", ".join(names)}; '
        f'found {text!r}'
      )
    owner = max(owners, key=len)
    found[owner] = text[len(owner) + 1 :]
  return found
