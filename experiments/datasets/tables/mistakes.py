"""What a command says of mistakes in a table, in words of files and flags."""

import re
from collections.abc import Collection
from typing import Any

from experiments.datasets.tables import flags
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl.tables import RowError
from lplmtl.tabular import hints
from lplmtl.tabular import schema as schemas

# What a column of another kind than these could be read as.
_KINDS = ('numbers', 'dates', 'yes or no')
# The library's words for its arguments, and those of a command.
_FLAGS = (
  (r'^(categories|numbers|dates|booleans|ignore|positive|task_weights)'
   r'(?=(?: of .*)?: there is no)',
   r'--\1'),
  (r'^positive(?= names )', '--positive'),
  (r'^(weight|split|time|group)(?=: there is no)', r'--\1_column'),
  (r"\bdates=\{'(.+)': '(.+?)'\}", r'"--dates=\1:\2"'),
  (r'\bin (numbers|dates|missing)\b', r'in --\1'),
  (r'\(ignore\)', '(--ignore)'),
  (r'\bmake it a category\b', 'make it a category (--categories)'),
  (r"(target '(.+)' needs .*): give them as classes, lowest first, as in .*",
   r'\1: list them in --targets, lowest first, as in '
   r'"--targets=\2:ordinal(low+middle+high)"'),
  (r'give one of the targets another name, as in .*',
   'in schema.json, give one of the targets another name, and its column in '
   'columns'),
)  # fmt: skip
# The same where a schema file takes the place of those flags.
_IN_FILE = (
  (r'^(task_weights|weight|split|time|group)(?=(?: of .*)?: there is no)',
   r'in FILE, \1'),
  (r'\bname (it|the column) in (number|date)s\b',
   r'give \1 the kind \2 in FILE'),
  (r'\bin missing\b', 'in the list missing of FILE'),
  (r'\(ignore\)', '(the kind ignored in FILE)'),
  (r'\bmake it (?:a )?(category|multiclass)\b',
   r'give it the kind \1 in FILE'),
  (r'give them as classes, lowest first, as in Target.*',
   'list its classes, lowest first, in FILE'),
  (r'give one of the targets another name, as in .*',
   'in FILE, give one of the targets another name, and its column in columns'),
)  # fmt: skip


def in_flags(text: str, schema: str = '') -> str:
  """Returns what the library says on one line, in words of a command.

  Args:
    text: what it says.
    schema: the file of --schema, which says what some flags would otherwise;
      '' if there is none.
  """
  text = ' '.join(text.split())
  file = schema.replace('\\', r'\\')  # in a replacement
  for words, ours in _IN_FILE if schema else _FLAGS:
    text = re.sub(words, ours.replace('FILE', file), text)
  return text


def check_names(
  config: Config, columns: Collection[Any], written: str = ''
) -> None:
  """Refuses columns that the table lacks, where a flag gives more than a name.

  Args:
    config: the flags.
    columns: the names that there are.
    written: how the table is written, as `dialect.Dialect` says it.

  Raises:
    InputError: there is no such column, kind of target or format of dates.
  """
  _check_encoding(config, columns, written)
  for text in config.targets:
    name, _, kind = text.rpartition(':')
    is_known = text in columns or kind in schemas.TARGET_KINDS
    if name in columns and not is_known and '(' not in kind:
      raise InputError(
        f'--targets={text}: expected a column, or a column, a colon and one '
        f'of {", ".join(schemas.TARGET_KINDS)}; found {kind!r}'
      )
  for text in config.dates:
    name, _, form = text.partition(':')
    if name in columns and form and '%' not in form and text not in columns:
      raise InputError(
        f'--dates={text}: a format has the codes of strptime, such as '
        f'{name}:%d.%m.%Y for 24.05.2023; found {form!r}'
      )
  if config.index_column and config.index_column not in columns:
    name = config.index_column
    near = hints.nearest(name, columns)
    raise InputError(f'--index_column={name} is not a column{near}')


def _check_encoding(
  config: Config, columns: Collection[Any], written: str
) -> None:
  """Refuses a target whose letters the table may have in another encoding."""
  if config.encoding or 'cp1252' not in written:
    return
  for name, target in flags.targets(config).items():
    for column in schemas.label_columns(name, target):
      if column not in columns and not column.isascii():
        near = hints.nearest(column, columns)
        raise InputError(
          f'target {name!r}: there is no column {column!r}{near}'
          f'{"" if near.endswith("?") else ";"} the table was taken for '
          'cp1252: pass its --encoding, if that is another'
        )


def of_row(
  error: RowError,
  file: str,
  row: int,
  is_new: bool = False,
  schema: str = '',
) -> InputError:
  """Returns what to say about a value that cannot be encoded.

  Args:
    error: about the value.
    file: what to call the file that the row is in.
    row: its number in the file, counted from 0.
    is_new: whether the columns are known from training already.
    schema: the file of --schema, or ''.
  """
  advice = 'correct the row or leave it out'
  if error.complaint.startswith(tuple(f'must hold {k}' for k in _KINDS)):
    advice = (
      f'correct this field or leave it empty; {_advice(error, is_new, schema)}'
    )
  return InputError(
    f'{file}, row {row} (counted from 0): {error.column} {error.complaint}: '
    f'{advice}'
  )


def of_weight(error: RowError, file: str, row: int) -> InputError:
  """Returns what to say about a weight of a row; see `of_row`."""
  return InputError(
    f'{file}, row {row} (counted from 0): the weight {error.column} '
    f'{error.complaint}: correct the row or leave it out'
  )


def _advice(error: RowError, is_new: bool, schema: str) -> str:
  """Returns what to do if the whole column is written so."""
  if is_new:
    return 'if the whole column is so, write it as the training table does'
  name: Any = error.column
  is_date = error.complaint.startswith('must hold dates')
  if schema:
    cure = 'missing names texts without a value'
    if is_date:
      cure = 'format says how dates are written'
    return (
      f'in {schema}, the kind category reads the column as categories, and '
      f'{cure}'
    )
  others = f'--categories={name} reads the column as categories'
  if is_date:
    return f'"--dates={name}:%d/%m/%Y" gives another format, and {others}'
  return f'{others}, and --missing names texts without a value'
