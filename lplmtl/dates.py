"""Dates: read in one format, and made the numbers that a network can use.

NumPy only. All times are UTC.
"""

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lplmtl import _tables_checks
from lplmtl import columns as raw
from lplmtl.columns import Column, Factor, RowError

PARTS = ('days', 'year', 'month', 'weekday', 'hour')
_UNIT = 'datetime64[us]'  # what Python's own datetime holds
_MISSING = np.datetime64('NaT', 'us')
_HOUR, _DAY = 3_600_000_000, 86_400_000_000  # of these units
_EXAMPLE = '2026-01-31 (ISO 8601)'
# What most programs write: a day, perhaps with a time and part of a second. 0
# stands for any digit, and a blank may stand for T.
_ISO = b'0000-00-00T00:00:00.000000'
_ISO_SIZES = (10, 16, 19, 23, 26)
_BLOCK = 1 << 14  # texts at a time, which fit in a processor's cache
_FEW = 128  # texts, or fewer, that are read faster one by one


@dataclasses.dataclass(frozen=True)
class Date:
  """How a column of dates becomes numbers.

  Attributes:
    format: how texts are written, as for `datetime.strptime`; empty for ISO
      8601.
    parts: those of PARTS that vary in the training rows.
    origin: the first date in the training rows, from which `days` counts, in
      ISO 8601.
    flag: whether a further column tells which dates were missing.
  """

  format: str
  parts: tuple[str, ...]
  origin: str
  flag: bool = False

  def numbers(self, times: np.ndarray) -> dict[str, np.ndarray]:
    """Returns its parts, each `[N]` float64 with NaN where a time is missing.

    `days` has a fraction, Monday is `weekday` 0, and an hour has no fraction.

    Args:
      times: `[N]` datetime64, from `read`.
    """
    return dict(self.each(times))

  def each(self, times: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Returns the same one by one, which takes less memory."""
    return _numbers(times, self.parts, self.origin)


def fit(name: Any, times: np.ndarray, format: str) -> Date:
  """Finds the origin and the parts that vary in training rows.

  Args:
    name: of the column, for messages.
    times: `[N]` datetime64, from `read`.
    format: see Date.

  Raises:
    ValueError: there are no rows.
  """
  _tables_checks.check_rows(name, times)
  known = times[~np.isnat(times)]
  flag = len(known) < len(times)
  if not len(known):
    return Date(format, (), '1970-01-01', flag)
  origin = str(known.min().astype('datetime64[D]'))
  numbers = _numbers(known, PARTS, origin)
  parts = tuple(part for part, values in numbers if np.ptp(values) > 0)
  return Date(format, parts, origin, flag)


def check_present(name: Any, times: np.ndarray | Factor) -> None:
  """Raises RowError if a time that `parse` returned is missing."""
  values = times.values if isinstance(times, Factor) else times
  if np.isnat(values).any():
    row = int(np.argmax(np.isnat(raw.spread(times))))
    raise RowError(name, row, 'must hold dates; found a missing one')


def _numbers(
  times: np.ndarray, parts: Sequence[str], origin: str
) -> Iterator[tuple[str, np.ndarray]]:
  is_missing = np.isnat(times)
  since = np.where(is_missing, 0, times.astype(_UNIT).astype(np.int64))
  days = since // _DAY
  # A look-up by the day takes a tenth of the time to find its year or month.
  every, place = days, slice(None)
  first, last = days.min(initial=0), days.max(initial=0)
  if last - first < len(days):
    every, place = np.arange(first, last + 1), days - first
  months = every.astype('datetime64[D]').astype('datetime64[M]')
  months = months.astype(np.int64)

  def find(part: str) -> np.ndarray:
    if part == 'days':
      return (times - np.datetime64(origin)) / np.timedelta64(1, 'D')
    if part == 'hour':
      return (since - days * _DAY) // _HOUR
    if part == 'year':
      return (1970 + months // 12)[place]
    if part == 'month':
      return (1 + months % 12)[place]
    return ((3 + every) % 7)[place]  # day 0, 1970-01-01, was a Thursday

  for part in parts:
    yield part, np.where(is_missing, np.nan, find(part))


def read(
  name: Any,
  column: Column,
  format: str,
  missing: frozenset[str] = frozenset(),
) -> np.ndarray:
  """Returns a column of dates as `[N]` datetime64[us], NaT where missing.

  Arguments and errors are those of `parse`.
  """
  return raw.spread(parse(name, column, format, missing))


def parse(
  name: Any,
  column: Column,
  format: str,
  missing: frozenset[str] = frozenset(),
) -> np.ndarray | Factor:
  """Returns a column of dates as `[N]` datetime64[us], or a Factor as one of
  these.

  Missing dates are NaT, and values that no row has are left out. A column of
  times is taken as it is. Of any other column, each distinct text
  is read once; times in an object column are ISO 8601, whatever the format.

  Args:
    name: of the column, for messages.
    column: Factor or `[N]`.
    format: see Date.
    missing: canonical texts that stand for a missing date.

  Raises:
    ValueError: the column is not `[N]`; RowError if a text is not a date in
      this format.
  """
  column = raw.plain(column)
  codes = None
  if isinstance(column, Factor):
    codes, column = raw.used_values(name, column)
  # A list as objects: as times, those in another zone would warn.
  array = np.asanyarray(column, None if hasattr(column, 'dtype') else object)
  raw.check_shape(name, array)
  if array.dtype.kind == 'M':
    times = np.ma.filled(array.astype(_UNIT, copy=False), _MISSING)
  else:
    codes, times = _read_texts(name, array, codes, format, missing)
  sentinels = [_parse(text, format) for text in missing]
  lost = np.array([time for time in sentinels if time], _UNIT)
  if len(lost):
    times = np.where(np.isin(times, lost), _MISSING, times)
  return _column(codes, times)


def _column(
  codes: np.ndarray | None, values: np.ndarray
) -> np.ndarray | Factor:
  return values if codes is None else Factor(codes, values)


def _read_texts(
  name: Any,
  array: Any,
  codes: np.ndarray | None,
  format: str,
  missing: frozenset[str],
) -> tuple[np.ndarray | None, np.ndarray]:
  """Reads values that are not an array of times.

  Args:
    name: of the column, for messages.
    array: `[V]` values.
    codes: `[N]`, the value of each row; None if each row has its own.
    format: see Date.
    missing: as for `parse`.

  Returns:
    Codes like those given, and their datetime64.
  """
  is_time = np.zeros(len(array), bool)
  if array.dtype == object and format:
    is_time = np.array([_is_time(value) for value in array], bool)
  if is_time.any():  # their texts are in ISO 8601
    no_value: Any = None
    as_times = np.where(is_time, array, no_value)
    as_texts = np.where(is_time, no_value, array)
    iso = read(name, _column(codes, as_times), '', missing)
    times = read(name, _column(codes, as_texts), format, missing)
    return None, np.where(np.isnat(times), iso, times)
  if array.dtype.kind == 'S':
    texts: Any = array  # to look for equal ones would take longer
  else:
    value_codes, texts = raw.texts_of(name, array)
    if codes is None:
      codes = value_codes
    elif not np.array_equal(value_codes, np.arange(len(texts))):
      codes = value_codes[codes]  # else they are the same, and need no memory
  found, is_bad = _parse_all(texts, format, missing)
  if is_bad.any():
    bad_rows = is_bad if codes is None else is_bad[codes]
    row = int(np.argmax(bad_rows))
    text = raw.text_of(texts[row if codes is None else codes[row]])
    form = f'in the format {format}' if format else f'like {_EXAMPLE}'
    complaint = f'must hold dates {form}; found {text!r:.60}'
    others = raw.first_of(bad_rows)
    cure = 'if all are written so, train with their format, or with categories'
    raise RowError(name, row, complaint + others, cure if others else '')
  return codes, found


def _parse_all(
  texts: np.ndarray | Sequence[str], format: str, missing: frozenset[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `[V]` datetime64, and which texts are neither date nor missing."""
  times, is_read = np.full(len(texts), _MISSING), np.zeros(len(texts), bool)
  if not format and len(texts) > _FEW:
    _read_iso(texts, times, is_read)
  is_bad = np.zeros(len(texts), bool)
  for i in np.flatnonzero(~is_read).tolist():
    text = raw.text_of(texts[i])
    time = _parse(text.strip(), format)
    if time is None:
      canonical = raw.canonical(text)  # 20260131.0 is 20260131
      time = _parse(canonical, format)
      is_missing = canonical == raw.MISSING or canonical in missing
      is_bad[i] = time is None and not is_missing
    if time is not None:
      times[i] = time
  return times, is_bad


def _read_iso(
  texts: np.ndarray | Sequence[str], times: np.ndarray, is_read: np.ndarray
) -> None:
  """Reads the texts that are written like _ISO: all at once, so much faster.

  Args:
    texts: `[V]` texts, or an array of bytes.
    times: `[V]`, into which the times are written.
    is_read: `[V]`, into which is written which texts were read.
  """
  sizes = (
    np.char.str_len(texts)
    if isinstance(texts, np.ndarray)
    else np.fromiter(map(len, texts), np.int64, len(texts))
  )
  for size in _ISO_SIZES:
    every = np.flatnonzero(sizes == size)
    for rows in np.split(every, range(_BLOCK, len(every), _BLOCK)):
      if isinstance(texts, np.ndarray):
        some = np.ascontiguousarray(texts[rows]).view(np.uint8)
        letters = some.reshape(-1, texts.itemsize)[:, :size]
      else:
        joined = ''.join([texts[row] for row in rows.tolist()])
        # Other letters become question marks, one each.
        content = joined.encode('ascii', 'replace')
        letters = np.frombuffer(content, np.uint8).reshape(-1, size)
      found, is_good = _iso_times(np.ascontiguousarray(letters.T))
      times[rows[is_good]] = found[is_good]
      is_read[rows[is_good]] = True


def _iso_times(letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns `[V]` times of texts `[L, V]`, and which are written like _ISO."""
  form = np.frombuffer(_ISO, np.uint8)[: len(letters), None]
  digits = letters - np.uint8(48)  # below zero wraps around
  is_place = form[:, 0] == 48
  is_good = (digits[is_place] < 10).all(0)
  is_good &= ((letters == form) | ((form == ord('T')) & (letters == ord(' '))))[
    ~is_place
  ].all(0)

  def number(start: int, end: int) -> np.ndarray:
    value = np.zeros(letters.shape[1], np.int32)
    for digit in digits[start:end]:
      value = 10 * value + digit
    return value

  year, month, day = number(0, 4), number(5, 7), number(8, 10)
  hour, minute, second = number(11, 13), number(14, 16), number(17, 19)
  is_good &= (year > 0) & (month > 0) & (month < 13)
  is_good &= (hour < 24) & (minute < 60) & (second < 60)
  months = (12 * (year - 1970) + month - 1).astype('datetime64[M]')
  ends = (months + np.timedelta64(1, 'M')).astype('datetime64[D]')
  num_days = (ends - months.astype('datetime64[D]')).astype(np.int64)
  is_good &= (day > 0) & (day <= num_days)
  seconds = (60 * (60 * hour + minute) + second).astype(np.int64)
  fraction = number(20, 26) * 10 ** (26 - max(len(letters), 20))
  clock = (1_000_000 * seconds + fraction).astype('timedelta64[us]')
  times = months.astype(_UNIT) + (day - 1).astype('timedelta64[D]') + clock
  return times, is_good


def _is_time(value: Any) -> bool:
  return hasattr(value, 'isoformat') or isinstance(value, np.datetime64)


def _parse(text: str, format: str) -> datetime.datetime | None:
  """Returns a time in UTC without a zone, or None."""
  try:
    if format:
      time = datetime.datetime.strptime(text, format)
    else:
      time = datetime.datetime.fromisoformat(text)
    if time.tzinfo is not None:
      time = time.astimezone(datetime.UTC).replace(tzinfo=None)
  except (ValueError, OverflowError):
    return None
  return time
