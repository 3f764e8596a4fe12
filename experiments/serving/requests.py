"""The body of a request: JSON to rows, each mistake one line."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.serving.models import Served
from lplmtl.columns import RowError
from lplmtl.tabular import hints

Row = Mapping[str, Any]
EXAMPLE = '{"rows": [{"age": 33, "city": "Oslo"}]}'
_VALUES = (str, int, float, bool, type(None))
_JSON_NAMES = {list: 'a list', dict: 'an object', type(None): 'null'}


class Refused(Exception):  # noqa: N818, not always an error of ours
  """A request that gets no predictions.

  Attributes:
    status: of HTTP.
    text: one line for the client.
    headers: of the response.
  """

  def __init__(self, status: int, text: str, **headers: str):
    super().__init__(text)
    self.status, self.text = status, text
    self.headers = {k.replace('_', '-'): v for k, v in headers.items()}


def parse(content: bytes, max_rows: int) -> list[Row]:
  """Returns the rows of a body, `{"rows": [{column: value, ...}, ...]}`.

  Raises:
    Refused: it is not JSON (400), has another form (422), or more than
      `max_rows` rows (413).
  """
  try:
    data = json.loads(content, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:
    raise Refused(
      400, f'the body must be JSON, such as {EXAMPLE}: {error}'
    ) from error
  if not isinstance(data, dict) or data.keys() != {'rows'}:
    found = f'the keys {list(data)}' if isinstance(data, dict) else _name(data)
    raise Refused(
      422, f'the body must be an object like {EXAMPLE}; found {found:.200}'
    )
  rows = data['rows']
  if not isinstance(rows, list):
    raise Refused(422, f'"rows" must be a list of objects; found {_name(rows)}')
  if len(rows) > max_rows:
    raise Refused(
      413,
      f'a request may have {max_rows:,} rows, found {len(rows):,}: send '
      'several requests',
    )
  for i, row in enumerate(rows):
    if not isinstance(row, dict):
      raise Refused(
        422,
        f'row {i} (counted from 0) must be an object, {{column: value, ...}}; '
        f'found {_name(row)}',
      )
  return rows


def check(served: Served, rows: Sequence[Row]) -> None:
  """Checks that rows have the columns that a model reads.

  Further columns of the table that it was trained on are passed over, such as
  identifiers and targets.

  Raises:
    Refused: a column is absent or unknown, or a value is a list or an object.
  """
  needed, known = served.needed, served.known
  for i, row in enumerate(rows):
    if not needed <= row.keys() <= known:
      raise Refused(
        422, f'row {i} (counted from 0) {_names(row, needed, known)}'
      )
    for name, value in row.items():
      if type(value) not in _VALUES:
        raise Refused(
          422,
          f'column {hints.quoted(name)} must hold a text, a number, true, '
          f'false or null; found {_name(value)} in row {i} (counted from 0)',
        )


def columns_of(served: Served, rows: Sequence[Row]) -> dict[Any, list[Any]]:
  """Returns the columns that a model reads, of rows that were checked."""
  return {
    name: [row[str(name)] for row in rows] for name in served.tables.columns
  }


def explain(error: ValueError, rows: Sequence[Row]) -> Refused:
  """Returns what to say about values that cannot be encoded."""
  if not isinstance(error, RowError):
    return Refused(422, str(error))
  complaint = error.complaint
  if rows[error.row][str(error.column)] is None:
    complaint = 'must not be null, as no row of training lacked it; found null'
  return Refused(
    422,
    f'column {hints.quoted(error.column)} {complaint} in row {error.row} '
    '(counted from 0)',
  )


def _names(row: Row, needed: frozenset[str], known: frozenset[str]) -> str:
  absent = sorted(needed - row.keys())
  new = sorted(row.keys() - known)
  if new:
    near = hints.nearest(new[0], absent or sorted(needed))
    return (
      f'has a column {hints.quoted(new[0])} that the model does not know{near}'
    )
  plural = 's' * (len(absent) > 1)
  return (
    f'lacks the column{plural} {hints.listed(absent)}: send null where a value '
    'is not known'
  )


def _name(value: Any) -> str:
  return _JSON_NAMES.get(type(value)) or f'{value!r:.60}'


def _refuse_constant(name: str) -> None:
  raise ValueError(f'found {name}, which JSON does not have: write null')
