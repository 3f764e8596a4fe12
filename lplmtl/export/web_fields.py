"""The fields of a page in which a user enters a raw row, as plain data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl import columns, vocabulary
from lplmtl.compression import device_tables, text_hashes
from lplmtl.numeric import Numeric
from lplmtl.tables import Tables

# What may stand for a value that training never saw; most often the first. Of
# packed models, an unseen text may have the hash of a known one.
_OTHERS = ('other', *(f'other {i}' for i in range(2, 100)))
_MAX_LOG = 80.0  # of a hint: exp(80) is 5e34


def of(
  tables: Tables, names: Sequence[Any], others: Mapping[Any, str]
) -> list[dict[str, Any]]:
  """Returns what a page needs to know of each column.

  Args:
    tables: those that the model was trained with.
    names: of all columns, in the order of the fields.
    others: from `unseen` or `unseen_hash`.

  Returns:
    For each column its `name` and `kind`; whether a value is `required`; the
    value at the `start`, an empty text for none; and

    - of a `category`, its known `values`, and the text that stands for any
      `other` one;
    - of a `yes or no` or a `text`, nothing else;
    - of a `number`, `from` and `to`, which hold most values of training;
    - of a `date`, its `format`, empty for ISO 8601, and `has_time`.
  """
  return [
    {'name': str(name), 'required': False, 'start': ''}
    | _field(tables, name, others)
    for name in names
  ]


def _field(
  tables: Tables, name: Any, others: Mapping[Any, str]
) -> dict[str, Any]:
  if name in tables.numerics:  # perhaps a category as well
    return _number(tables.numerics[name])
  if name in tables.booleans:
    return {'kind': 'yes or no'}
  if name in tables.hashed:
    return {'kind': 'text'}
  if name in tables.dates:
    date = tables.dates[name]
    fills = [tables.numerics[f'{name}.{part}'].fill for part in date.parts]
    required = None in fills
    return {
      'kind': 'date',
      'format': date.format,
      'has_time': 'hour' in date.parts,
      'required': required,
      'start': date.origin if required and not date.format else '',
    }
  lost = {columns.MISSING, *tables.missing}
  values = [v for v in tables.vocabularies[name] if v not in lost]
  return {'kind': 'category', 'values': _sorted(values), 'other': others[name]}


def _sorted(values: Sequence[str]) -> list[str]:
  """Returns texts as they are, but numbers by their size."""
  try:
    return sorted(values, key=float)
  except ValueError:
    return list(values)


def _number(scaler: Numeric) -> dict[str, Any]:
  middle, low, high = (
    _unscaled(scaler.mean + distance * scaler.std, scaler.log)
    for distance in (0, -2, 2)
  )
  typical = middle if scaler.fill is None else scaler.fill
  if scaler.edges:  # of which the first may lie above most values
    low, high = min(scaler.edges[0], typical), scaler.edges[-1]
  places = None if scaler.log else 1 - math.floor(math.log10(scaler.std))
  return {
    'kind': 'number',
    'required': scaler.fill is None,
    'start': _short(typical, places),
    'from': _short(low, places),
    'to': _short(high, places),
  }


def _unscaled(value: float, log: bool) -> float:
  if not log:
    return value
  return math.copysign(math.expm1(min(abs(value), _MAX_LOG)), value)


def _short(value: float, places: int | None) -> str:
  """Returns a number with few digits, and without an exponent.

  Args:
    value: the number.
    places: behind the point, or before it if that is below 0; None for three
      digits.

  Example:
    >>> _short(1994.512, 1), _short(1234567.0, None), _short(0.0123456, None)
    ('1994.5', '1230000', '0.0123')
  """
  if places is None:
    places = 2 - math.floor(math.log10(abs(value))) if value else 0
  text = f'{round(value, places):.{max(places, 0)}f}'
  return (text.rstrip('0').rstrip('.') if '.' in text else text) or '0'


def unseen(tables: Tables) -> dict[Any, str]:
  """Returns a text for each category column that training never saw."""
  found = {}
  for name, values in tables.vocabularies.items():
    known = vocabulary.lookup(values, tables.missing, name in tables.booleans)
    found[name] = next((t for t in _OTHERS if t not in known), _OTHERS[0])
  return found


def unseen_hash(tables: Tables, hash_bits: int) -> dict[Any, str]:
  """Returns a text for each category column whose hash is that of no value.

  Args:
    tables: as packed.
    hash_bits: see `packing.pack`.
  """
  hashes = text_hashes.of_texts(_OTHERS)
  found = {}
  for name in tables.vocabularies:
    known = device_tables.category(tables, name, hash_bits)
    bits = 8 * known.hashes.itemsize
    own = text_hashes.seeded(hashes, known.seed, bits)
    is_new = ~np.isin(own, known.hashes)
    found[name] = _OTHERS[int(np.argmax(is_new))]
  return found
