"""What kind of input a column is: the rules, and the numbers in them.

NumPy only. Each rule errs on the side of keeping a column.
"""

import itertools
import re

import numpy as np

from lplmtl.tabular import facts, formats, hints
from lplmtl.tabular.facts import Facts
from lplmtl.tabular.schema import Input
from lplmtl.vocabulary import BOOLEANS

# Below this many values, all of them may well be different by chance.
_MIN_VALUES = 20
# The share of distinct values among all from which texts identify a row: most
# values then occur once, and a vocabulary learned from them is of no use. In
# names of people it is about .7 and more, in zip codes far less.
_IDENTIFIER_SHARE = 0.95
# Texts that differ in at least every second row, and are that long on average,
# are sentences. Names of products and places have three words at most.
_TEXT_SHARE, _TEXT_LENGTH, _TEXT_WORDS = 0.5, 50, 4.0
_READ = 200  # characters of a text: one book makes no column of texts
# Whole numbers that are all different and fill at least half of the range from
# the smallest to the largest count rows: training rows are a sample of these.
_DENSITY = 0.5
_ID_NAME = re.compile(r'(.*[^a-z])?(id|uuid|guid)', re.IGNORECASE)
_ID_CAMEL = re.compile(r'.*[a-z](Id|ID)')
# Beyond this skewness (that of an exponential distribution is 2), a few rows
# are ten and more standard deviations out. The logarithm must at least halve
# it.
_SKEWNESS = 3.0
# Numbers with few texts between them: so many of the rows are numbers, and so
# few different texts are not.
_NUMBER_SHARE, _MAX_WORDS = 0.9, 5
# From here on the user is told of numbers among the texts.
_SOME_NUMBERS = 0.5
# Numbers that stand for a missing value, if they are extreme and far from at
# least three others: next to a few values, they may be values themselves.
_SENTINELS = (-1, -9, -99, -999, -9999, -99999, 99, 999, 9999, 99999, 999999)
_MIN_SENTINEL = 4
_CURRENCY = r'(?:[$€£¥]|EUR|USD|GBP|CHF|JPY|Euro|Fr\.|kr\.?|zł)'
_WRITTEN = re.compile(
  rf"[-+(]?\s?{_CURRENCY}?\s?[-+]?\d[\d.,'’\s]*(?:{_CURRENCY}|%)?\)?"
)


def infer(found: Facts) -> Input:
  """Returns what a column is."""
  if not found.num_known:
    return Input('constant', reason='no row has a value')
  if len(found.values) == 1:
    if not found.num_missing:
      return Input('constant', reason=f'every row has {show(found, 0)}')
    # What matters is whether there is a value.
    return Input('category')
  if found.nature == 'other':
    dtype = found.values.dtype
    return Input(
      'ignored', reason=f'{dtype} values: make them numbers in one unit'
    )
  if found.nature == 'time':
    return Input('date')
  if found.numbers is not None and not found.has_codes:
    return _number(found, found.numbers)
  return _text(found)


def confirm(inferred: Input, share: float) -> Input:
  """Returns what was inferred from a sample, unless too few values differ.

  Args:
    inferred: texts or identifiers.
    share: of distinct values among all rows.
  """
  least = _TEXT_SHARE if inferred.kind == 'text' else _IDENTIFIER_SHARE
  return inferred if share >= least else Input('category')


def number(found: Facts) -> Input:
  """Returns a number, with its logarithm if the column asks for it."""
  if found.numbers is None or len(found.values) < 2:
    return Input('number')
  reason = _sentinel(found.numbers, found.counts) or _digits(found.numbers)
  return Input(
    'number', log=is_skewed(found.numbers, found.counts), reason=reason
  )


def date(found: Facts, format: str | None = None) -> Input:
  """Returns a date in a format, which is found if it is not given.

  Raises:
    ValueError: the texts are not dates in any of the formats known.
  """
  if found.nature == 'time' or format is not None or not len(found.values):
    return Input('date', format=format or '')
  texts = [found.text(i) for i in range(len(found.values))]
  form = formats.find(texts) or _compact(texts)
  if form is None:
    raise ValueError(
      f'column {found.name!r} must hold dates, found {show(found, 0)} and the '
      'like in no known format: give it, as in '
      f"dates={{{found.name!r}: '%d/%m/%Y'}}, or make it a category"
    )
  return Input('date', format=form[0], reason=form[1])


def is_skewed(values: np.ndarray, counts: np.ndarray) -> bool:
  """Returns whether amounts are better told apart by their logarithm."""
  if not (np.isfinite(values).all() and values.min() >= 0):
    return False
  before = _skewness(values, counts)
  after = _skewness(np.log1p(values), counts)
  return before > _SKEWNESS and abs(after) < before / 2


def show(found: Facts, i: int) -> str:
  """Returns value i for a message, however long it is."""
  return hints.quoted(found.text(i))


def _number(found: Facts, values: np.ndarray) -> Input:
  if len(values) == 2 and set(values.tolist()) == {0.0, 1.0}:
    return Input('boolean')
  n = found.num_known
  with np.errstate(invalid='ignore'):  # infinity is no whole number
    is_whole = bool((values % 1 == 0).all())
  if is_whole and len(values) == n >= _MIN_VALUES:
    # In a sample, this cannot be told; all rows are then looked at.
    span = values.max() - values.min() + 1
    is_dense = found.is_sample or n >= _DENSITY * span
    if is_dense and not found.num_missing:
      return Input('identifier', reason='whole numbers that count the rows')
    name = str(found.name)
    if _ID_NAME.fullmatch(name) or _ID_CAMEL.fullmatch(name):
      return Input('identifier', reason='all different, and called an id')
  return number(found)


def _sentinel(values: np.ndarray, counts: np.ndarray) -> str:
  """Returns a remark on an extreme number that may mean "missing", or ''."""
  order = np.argsort(values)
  values, counts = values[order], counts[order]
  if len(values) < _MIN_SENTINEL or not np.isfinite(values).all():
    return ''
  for i, gap, rest in (
    (0, values[1] - values[0], values[1:]),
    (-1, values[-1] - values[-2], values[:-1]),
  ):
    is_far = gap > rest[-1] - rest[0] or (values[i] <= -99 and rest[0] >= 0)
    if values[i] in _SENTINELS and counts[i] > 1 and is_far:
      return (
        f'{values[i]:.0f} lies far from the rest: if it means that there is no '
        'value, name it in missing'
      )
  return ''


def _digits(values: np.ndarray) -> str:
  """Returns a remark on numbers that may be dates, or ''."""
  if len(values) < _MIN_VALUES or not np.isfinite(values).all():
    return ''
  days, months, years = values % 100, values // 100 % 100, values // 10_000
  are_dates = (
    (years >= 1900) & (years < 2100) & (months >= 1) & (months <= 12)
    & (days >= 1) & (days <= 31) & (values % 1 == 0)
  )  # fmt: skip
  if not are_dates.all():
    return ''
  return 'may be dates, such as 20240131: to read it so, name it in dates'


def _text(found: Facts) -> Input:
  texts = list(found.values)
  if _are_booleans(texts):
    return Input('boolean')
  form = formats.find(texts, _MAX_WORDS)
  if form is not None and not form[2]:
    return Input('date', format=form[0], reason=form[1])
  if form is not None and _are_few(found, form[2]):
    return Input('category', reason=_but_for('dates', form[2]))
  if found.has_codes and found.numbers is not None:
    return Input('category', reason='codes with leading zeros')
  n = found.num_known
  share = len(texts) / n
  if n >= _MIN_VALUES:
    starts = [text[:_READ] for text in texts]
    length = np.average([len(text) for text in starts], weights=found.counts)
    words = np.average(
      [len(text.split()) for text in starts], weights=found.counts
    )
    if share >= _TEXT_SHARE and (
      length >= _TEXT_LENGTH or words >= _TEXT_WORDS
    ):
      return Input('text', reason=f'long texts, {share:.0%} of them different')
    remark = almost_numbers(found)
    if remark:
      return Input('category', reason=remark)
    if share >= _IDENTIFIER_SHARE:
      return Input('identifier', reason=f'{share:.0%} of the values differ')
  return Input('category', reason=_some_numbers(found))


def _are_booleans(texts: list[str]) -> bool:
  values = {BOOLEANS.get(text) for text in texts[: len(BOOLEANS) + 1]}
  return values == {'True', 'False'}


def almost_numbers(found: Facts) -> str:
  """Returns what could be done about numbers that are not quite such, or ''."""
  others = (text for text in found.values if not facts.is_number(text))
  words = list(itertools.islice(others, _MAX_WORDS + 1))
  if len(words) <= _MAX_WORDS and _are_few(found, words):
    return _but_for('numbers', words)
  return written_numbers(found)


def _some_numbers(found: Facts) -> str:
  """Returns a remark on texts most of which are numbers, or ''."""
  if found.has_codes:
    return ''
  are_texts = np.fromiter(
    (not facts.is_number(text) for text in found.values), bool
  )
  share = 1 - found.counts[are_texts].sum() / found.num_known
  if not _SOME_NUMBERS <= share < 1:
    return ''
  return (
    f'numbers in {int(100 * share)}% of the rows, and texts such as '
    f'{show(found, int(np.argmax(are_texts)))}: if these mean that there is '
    'no value, name the column in numbers, and them in missing'
  )


def written_numbers(found: Facts) -> str:
  """Returns what could be done about numbers such as 1.250,00 EUR, or ''."""
  if found.nature != 'text' or found.numbers is not None or found.has_codes:
    return ''
  if not all(
    len(text) <= facts.MAX_LENGTH and _WRITTEN.fullmatch(text)
    for text in found.values
  ):
    return ''
  i = next(
    i for i, text in enumerate(found.values) if not facts.is_number(text)
  )
  return f'numbers written like {show(found, i)}: convert them to be read so'


def _are_few(found: Facts, words: list[str]) -> bool:
  """Returns whether almost all rows have another value than `words`."""
  few = set(words)
  # Not np.isin, which pads the texts to the length of the longest.
  is_one = np.fromiter((text in few for text in found.values), bool)
  rows = int(found.counts[is_one].sum())
  return rows <= (1 - _NUMBER_SHARE) * found.num_known


def _but_for(what: str, words: list[str]) -> str:
  named = hints.listed(words)
  return (
    f'{what}, but for {named}: to read it so, name the column in {what}, and '
    'these texts in missing'
  )


def _compact(texts: list[str]) -> tuple[str, str, list[str]] | None:
  """Returns the format of digits alone, for a column said to hold dates."""
  for format in ('%Y%m%d', '%Y%m%d%H%M%S'):
    if all(formats.is_date(text, format) for text in texts):
      return format, '', []
  return None


def _skewness(values: np.ndarray, counts: np.ndarray) -> float:
  mean = np.average(values, weights=counts)
  deviations = values - mean
  with np.errstate(over='ignore', invalid='ignore'):
    variance = np.average(deviations**2, weights=counts)
    third = np.average(deviations**3, weights=counts)
    skewness = third / variance**1.5 if variance > 0 else 0.0
  return float(skewness) if np.isfinite(skewness) else 0.0
