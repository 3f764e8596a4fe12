"""A table that tells what each column was taken for.

NumPy only.
"""

from typing import Any

import numpy as np

from lplmtl.tabular import checks, facts, hints
from lplmtl.tabular.schema import Schema, label_columns


def describe(schema: Schema, frame: Any) -> list[dict[str, Any]]:
  """Describes the columns of a table: data for a printed table.

  Long columns are described by evenly spaced rows (`facts.MAX_ROWS`), and
  may then have more values than are counted.

  Args:
    schema: what the columns are.
    frame: rows, such as those of training.

  Returns:
    One dict per column, in the order of the table: `column`; `kind`, that of an
    input or `target (binary)`, `weight`, `split` and the like; `missing`, the
    share of rows without a value; `distinct`, the number of values; `sampled`,
    whether that is of some rows only; `example`, the most frequent value, cut
    where it is long; `note`, why the column is left out, which class of a
    target is the positive one, or what else there is to know.

  Example:
    >>> from lplmtl.tabular.schema import Input
    >>> schema = Schema({'city': Input('category')}, {})
    >>> describe(schema, {'city': ['Oslo', 'Rome', 'Oslo', None]})
    [{'column': 'city', 'kind': 'category', 'missing': 0.25, 'distinct': 2, \
'sampled': False, 'example': 'Oslo', 'note': ''}]
  """
  columns = checks.columns_of(frame)
  roles = _roles(schema)
  rows = []
  for name in columns:
    found = facts.of(columns, name, schema.missing)
    kind, note = roles.get(name, ('ignored', 'not in the schema'))
    if kind == 'category':
      sizes = schema.given | schema.sizes(name)
      if len(found.values) > sizes['max_vocabulary']:
        note = (
          f'more than {sizes["max_vocabulary"]:,} values: hashed into '
          f'{sizes["num_buckets"]:,} buckets'
        )
    best = int(np.argmax(found.counts)) if len(found.counts) else None
    rows.append(
      {
        'column': name,
        'kind': kind,
        'missing': found.num_missing / max(found.num_rows, 1),
        'distinct': len(found.values),
        'sampled': found.is_sample,
        'example': '' if best is None else hints.cut(found.text(best)),
        'note': note,
      }
    )
  return rows


def _roles(schema: Schema) -> dict[Any, tuple[str, str]]:
  """Returns `{column: (kind, note)}`."""
  roles: dict[Any, tuple[str, str]] = {}
  for role in ('weight', 'split', 'time', 'group'):
    roles[getattr(schema, role)] = (role, '')
  for name, column in schema.task_weights.items():
    roles[column] = ('weight', f'of target {name}')
  for name, one in schema.inputs.items():
    notes = [one.reason]
    if one.log:
      notes.append('its logarithm is used')
    if one.kind == 'date' and one.format:
      notes.append(f'written {one.format}')
    if name in roles:
      notes.append(f'{roles[name][0]} as well')
    roles[name] = (one.kind, '; '.join(filter(None, notes)))
  for name, target in schema.targets.items():
    for column in label_columns(name, target):
      notes = [target.reason] if column == name else [f'of target {name}']
      if target.kind == 'binary' and target.positive is not None:
        notes = [f'positive: {hints.quoted(target.positive)}', *notes]
      note = '; '.join(filter(None, notes))
      roles[column] = (f'target ({target.kind})', note)
  return roles
