"""Predicts with an exported model: raw rows in, predictions out. NumPy only.

    model = load('model.npz')
    predict(model, {'city': ['Oslo', None], 'age': [30, float('nan')]})

A copy of this file lies beside every model in the `numpy` form.
"""

import datetime
import json
import math
import re
from typing import Any

import numpy as np

Model = dict[str, Any]

_UTC = datetime.timezone.utc  # noqa: UP017  (UTC needs Python 3.11)
MISSING = {'', 'None', 'nan', 'NaN', 'NaT', '<NA>'}
_SCIENTIFIC = re.compile(r'-?\d(?:\.\d*[1-9])?e[+-]\d\d+')
_TIME = re.compile(
  r'(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?([+-]\d\d:\d\d)?'
)


def load(path: Any) -> Model:
  """Returns the model in a file; raises ValueError if it holds none."""
  try:
    with open(path, 'rb') as opened, np.load(opened) as file:
      model = json.loads(file['model'].tobytes())
      numbers = {dtype: file[dtype] for dtype in file.files if dtype != 'model'}
  except OSError:
    raise
  except Exception as error:  # zipfile and zlib have their own
    raise ValueError(
      f'{path}: expected a model that lplmtl.export wrote, such as model.npz'
    ) from error
  constants = []
  for dtype, shape in model['constants']:  # one after the other in their array
    size = math.prod(shape)
    constants.append(numbers[dtype][:size].reshape(shape))
    numbers[dtype] = numbers[dtype][size:]
  return model | {'constants': constants}


def predict(model: Model, columns: Any) -> dict[str, np.ndarray]:
  """Returns `{task: [N, K]}` for raw columns `{name: [N] values}`.

  A missing value is None, NaN or an empty text. A model without tables takes
  the array that it was trained on, `[N, D]`.
  """
  if model['encoding']:
    columns = encode(model['encoding'], columns)
  return run(model, columns)


def run(
  model: Model, features: Any, operations: Any = None
) -> dict[str, np.ndarray]:
  """Returns `{task: [N, K]}` for encoded rows: an array, or a dict of them.

  Other `operations` than OPS, by the same names, may add in another order.
  """
  operations = operations or OPS
  if not isinstance(features, dict):
    features = {'': features}
  # A program describes one row. Here, its values have an axis of rows in front.
  values = []
  for name, shape in model['inputs'].items():
    x = np.asarray(features[name])
    if not x.ndim or [*x.shape[1:]] != [*shape]:
      expected = ', '.join(['N', *map(str, shape)])
      of = f'{name!r}: ' if name else ''
      raise ValueError(f'{of}expected [{expected}], found {x.shape}')
    values.append(x[:, None])
  values += model['constants']
  with np.errstate(all='ignore'):
    for kind, operands, options in model['ops']:
      values.append(operations[kind](*[values[i] for i in operands], **options))
  rows = (len(next(iter(features.values()))),)
  return {
    task: np.broadcast_to(values[i], rows + values[i].shape[-2:])[:, 0]
    for task, i in model['outputs'].items()
  }


def _reshape(x: Any, rank: int, shape: Any) -> Any:
  return x.reshape((*x.shape[: x.ndim - rank], *shape))


def _transpose(x: Any, axes: Any) -> Any:
  rows = range(x.ndim - len(axes))
  return x.transpose(*rows, *(axis + x.ndim for axis in axes))


def _broadcast(x: Any, shape: Any) -> Any:
  return np.broadcast_to(x, (*x.shape[: x.ndim - len(shape)], *shape))


def _concatenate(*parts: Any, axis: int, rank: int) -> Any:
  rows = max((x.shape[: x.ndim - rank] for x in parts), key=len)
  shapes = [(*rows, *x.shape[-rank:]) for x in parts]
  return np.concatenate(list(map(np.broadcast_to, parts, shapes)), axis)


def _slice(x: Any, axis: int, start: int, stop: int, step: int) -> Any:
  return x[(..., slice(start, stop, step), *[slice(None)] * (-axis - 1))]


def _matmul(x: Any, y: Any) -> Any:
  if y.ndim > 2:
    return x @ y
  product = x.reshape(-1, len(y)) @ y  # one, of all rows
  return product.reshape(*x.shape[:-1], *y.shape[1:])


def _reduction(reduce: Any) -> Any:
  return lambda x, axis: reduce(x, axis=tuple(axis))


OPS: dict[str, Any] = {
  name: getattr(np, name)
  for name in (
    'add', 'subtract', 'multiply', 'divide', 'maximum', 'minimum', 'power',
    'negative', 'absolute', 'sign', 'floor', 'ceil', 'sqrt', 'exp', 'log',
    'expm1', 'log1p', 'tanh', 'sin', 'cos', 'isfinite', 'less', 'less_equal',
    'equal', 'not_equal', 'logical_and', 'logical_or', 'logical_not', 'where',
    'cumsum', 'sort',
  )
} | {
  'sum': _reduction(np.sum),
  'prod': _reduction(np.prod),
  'max': _reduction(np.max),
  'min': _reduction(np.min),
  # Of whole numbers, rounded towards 0.
  'quotient': lambda x, y: (x - np.fmod(x, y)) // y,
  'remainder': np.fmod,
  'logistic': lambda x: (np.tanh(x / 2) + 1) / 2,
  'erf': np.vectorize(math.erf, otypes=[np.float32]),
  'astype': lambda x, dtype: x.astype(dtype),
  'gather': lambda table, ids: table[ids],
  'matmul': _matmul,
  'reshape': _reshape,
  'transpose': _transpose,
  'broadcast': _broadcast,
  'concatenate': _concatenate,
  'slice': _slice,
}  # fmt: skip


def encode(encoding: Any, columns: Any) -> dict[str, np.ndarray]:
  """Returns the arrays that a program reads, for raw columns."""
  absent = [name for name in encoding['columns'] if not _has(columns, name)]
  if absent:
    raise ValueError(f'columns {absent} are missing')
  counts = {len(columns[name]) for name in encoding['columns']}
  if len(counts) != 1:
    raise ValueError(f'columns must have as many rows each, found {counts}')
  missing = set(encoding['missing'])
  numbers = missing_numbers(missing)
  categories: list[Any] = []
  numeric: list[Any] = []
  flags: list[Any] = []
  positions: list[Any] = []
  for column in encoding['categories']:
    ids, unseen = column['ids'], column['unseen']
    texts = map(text_of, columns[column['name']])
    found = [ids[t] if t in ids else ids.get(canonical(t)) for t in texts]
    categories.append([unseen if i is None else i for i in found])
  dates = encoding['dates']
  times = {d['name']: read_dates(d, columns[d['name']], missing) for d in dates}
  for column in encoding['numbers']:
    if 'part' in column:
      x = _part(times[column['date']], column['part'])
    else:
      raw = columns[column['name']]
      x = np.array([_number(v, missing, numbers) for v in raw])
    is_missing, fill = np.isnan(x), column['fill']
    if is_missing.any() and fill is None:
      raise ValueError(f'{column["name"]!r}: found a missing number')
    x = np.where(is_missing, 0 if fill is None else fill, x)
    scaled = np.sign(x) * np.log1p(np.abs(x)) if column['log'] else x
    scaled = (scaled - column['mean']) / column['std']
    if column['is_scaled']:
      if not (np.abs(scaled) <= encoding['furthest']).all():
        raise ValueError(f'{column["name"]!r}: a number is too large')
      numeric.append(scaled)
    if column['flag']:
      flags.append(is_missing)
    if column['knots']:
      knots = column['knots']
      positions.append(np.interp(scaled, knots, range(len(knots))))
    if column['edges']:
      categories.append(np.searchsorted(column['edges'], x, side='right'))
  flags += [np.isnat(times[date['name']][0]) for date in dates if date['flag']]
  numeric += flags + positions
  n = counts.pop()
  features = {
    'categories': np.array(categories, np.int32).reshape(len(categories), n).T,
    'numeric': np.array(numeric, np.float32).reshape(len(numeric), n).T,
  }
  hashed = [
    [
      _buckets(_known(text_of(value), missing), column['size'])
      for value in columns[column['name']]
    ]
    for column in encoding['hashed']
  ]
  if hashed:
    shape = len(hashed), n, 2
    features['hashed'] = np.array(hashed, np.int32).reshape(shape)
    features['hashed'] = features['hashed'].swapaxes(0, 1)
  return features


def _has(columns: Any, name: Any) -> bool:
  try:
    columns[name]
  except (KeyError, ValueError):  # the latter of a structured array
    return False
  return True


def canonical(text: str) -> str:
  """Returns the text by which equal values of any type are known."""
  text = text.strip()
  if text in MISSING:
    return 'nan'
  if _SCIENTIFIC.fullmatch(text) and math.isfinite(float(text)):
    number = float(text)
    return str(int(number) if number.is_integer() else number)
  if re.fullmatch(r'-?(?:0|[1-9]\d*)\.0', text):
    return '0' if text == '-0.0' else text[:-2]
  time = _TIME.fullmatch(text)
  if not time:
    return text
  day, clock, fraction, offset = time.groups()
  if offset:
    try:
      utc = datetime.datetime.fromisoformat(f'{day}T{clock}{offset}')
      day, clock = str(utc.astimezone(_UTC))[:19].split()
    except (ValueError, OverflowError):
      return text
  if fraction and fraction.strip('0'):
    return f'{day}T{clock}.{fraction.rstrip("0")}'
  return day if clock == '00:00:00' else f'{day}T{clock}'


def text_of(value: Any) -> str:
  """Returns a raw value as text."""
  if isinstance(value, bytes):
    return value.decode('utf-8', 'backslashreplace')
  return str(None if value is np.ma.masked else value)


def _known(text: str, missing: Any) -> str:
  text = canonical(text)
  return 'nan' if text in missing else text


def missing_numbers(missing: Any) -> set[float]:
  """Returns the numbers among texts that stand for a missing value."""
  return {x for x in map(float, filter(is_number, missing)) if x == x}


def number_of(value: Any, missing: Any) -> float:
  """Returns a raw number: NaN if it is missing, infinite if it is none."""
  if isinstance(value, (int, float, np.number, np.bool_)):
    return float(value)
  text = text_of(value)
  if is_number(text):
    return float(text)
  words = {'nan': math.nan, 'true': 1.0, 'false': 0.0}
  return words.get(_known(text, missing).lower(), math.inf)


def _number(value: Any, missing: Any, numbers: Any) -> float:
  number = number_of(value, missing)
  if number in numbers:
    return math.nan
  if math.isinf(number):
    raise ValueError(f'expected a finite number, found {text_of(value)!r}')
  return number


def read_dates(date: Any, raw: Any, missing: Any) -> tuple[np.ndarray, Any]:
  """Returns `[N]` dates in UTC, NaT if one is missing, and their origin."""
  lost = [date_of(text, date['format']) for text in missing]
  found = []
  for value in raw:
    is_time = hasattr(value, 'isoformat') or isinstance(value, np.datetime64)
    form, text = '' if is_time else date['format'], text_of(value)
    time = date_of(text.strip(), form) or date_of(canonical(text), form)
    if time is None and (_known(text, missing) != 'nan' or date['is_required']):
      raise ValueError(f'{date["name"]!r}: expected a date, found {text!r}')
    found.append(None if time in lost else time)
  return np.array(found, 'datetime64[us]'), np.datetime64(date['origin'])


def date_of(text: str, form: str) -> Any:
  """Returns a time in UTC without a zone; None if a text is none."""
  try:
    kind = datetime.datetime
    time = kind.strptime(text, form) if form else kind.fromisoformat(text)
    return time.astimezone(_UTC).replace(tzinfo=None) if time.tzinfo else time
  except (ValueError, OverflowError):
    return None


def _part(dates: tuple[np.ndarray, Any], part: str) -> np.ndarray:
  """Returns a part of each date as a number; NaN if the date is missing."""
  times, origin = dates
  known = np.where(np.isnat(times), origin.astype('datetime64[us]'), times)
  days = known.astype('datetime64[D]')
  day, month = days.astype(int), days.astype('datetime64[M]').astype(int)
  parts = {
    'days': (known - origin) / np.timedelta64(1, 'D'),
    'year': 1970 + month // 12,
    'month': 1 + month % 12,
    'weekday': (3 + day) % 7,
    'hour': (known - days) // np.timedelta64(1, 'h'),
  }
  return np.where(np.isnat(times), np.nan, parts[part])


def is_number(text: str) -> bool:
  """Returns whether a text is a number."""
  try:
    float(text)
  except ValueError:
    return False
  return '_' not in text


def _buckets(text: str, size: int) -> tuple[int, int]:
  h, mask = 0xCBF29CE484222325, (1 << 64) - 1
  for byte in text[:256].encode('utf-8', 'surrogatepass')[:256]:
    h = (h ^ byte) * 0x100000001B3 & mask
  for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
    h = (h ^ h >> 33) * factor & mask
  h ^= h >> 33
  return (h >> 32) % size, (h & 0xFFFFFFFF) % size
