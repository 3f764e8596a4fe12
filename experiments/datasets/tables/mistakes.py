"""What a command says of mistakes in a table, in words of files and flags."""

import re
from collections.abc import Collection
from typing import Any

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
  (r'give them as classes, lowest first, as in Target.*',
   'in schema.json, give it the kind ordinal and list its classes, lowest '
   'first (a run that takes it as multiclass writes a schema.json to edit)'),
  (r'give one of the targets another name, as in .*',
   'in schema.json, give one of the targets another name, and its column in '
   'columns'),
)  # fmt: skip


def in_flags(text: str) -> str:
  """Returns what the library says on one line, with the names of flags."""
  text = ' '.join(text.split())
  for words, flag in _FLAGS:
    text = re.sub(words, flag, text)
  return text


def check_names(config: Config, columns: Collection[Any]) -> None:
  """Refuses columns that the table lacks, where a flag gives more than a name.

  Raises:
    InputError: there is no such column, kind of target or format of dates.
  """
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


def of_row(
  error: RowError, file: str, row: int, is_new: bool = False
) -> InputError:
  """Returns what to say about a value that cannot be encoded.

  Args:
    error: about the value.
    file: what to call the table.
    row: its number in the table, counted from 0, as in predictions.
    is_new: whether the columns are known from training already.
  """
  advice = 'correct the row or leave it out'
  if error.complaint.startswith(tuple(f'must hold {k}' for k in _KINDS)):
    advice = f'correct this field or leave it empty; {_advice(error, is_new)}'
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


def _advice(error: RowError, is_new: bool) -> str:
  """Returns what to do if the whole column is written so."""
  if is_new:
    return 'if the whole column is so, write it as the training table does'
  name: Any = error.column
  others = f'--categories={name} reads the column as categories'
  if error.complaint.startswith('must hold dates'):
    return f'"--dates={name}:%d/%m/%Y" gives another format, and {others}'
  return f'{others}, and --missing names texts without a value'
