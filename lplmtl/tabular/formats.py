"""How the dates of a column are written.

NumPy only.
"""

import datetime
import itertools
import re
from collections.abc import Sequence

from lplmtl.tabular.facts import MAX_LENGTH

# With a full year, then with two digits of it; by how often they occur. Digits
# alone (20240131) are numbers unless the user says otherwise.
_DAYS = (
  '%m/%d/%Y', '%d/%m/%Y', '%Y/%m/%d', '%d.%m.%Y', '%Y.%m.%d', '%m-%d-%Y',
  '%d-%m-%Y', '%d %b %Y', '%d-%b-%Y', '%b %d, %Y', '%b %d %Y', '%d %B %Y',
  '%B %d, %Y', '%B %d %Y', '%Y-%m', '%Y/%m', '%m/%d/%y', '%d/%m/%y',
  '%d.%m.%y', '%d-%b-%y', '%d. %b %Y', '%d. %B %Y', '%d. %b %y', '%d. %B %y',
  '%d %b %y', '%d %B %y',
)  # fmt: skip
_CLOCKS = (
  '', ' %H:%M', ' %H:%M:%S', ' %H:%M:%S.%f', ' %I:%M %p', ' %I:%M:%S %p',
)  # fmt: skip
_FORMATS = (
  '',
  *(day + clock for day, clock in itertools.product(_DAYS, _CLOCKS)),
  '%Y%m%dT%H%M%S',
)
# Distinct texts tried: the others are read by the format that these show.
_MAX_TEXTS = 10_000
_MIN_DIGITS = 4  # 1/1/24; so, words need not be tried in every format
_ISO = re.compile(r'\d{4}-\d\d-\d\d')
_FIELDS = re.compile(r'\d+')
# The ambiguous pairs, month first: 01/02/2024 is the second of January.
_DAY_FIRST = {
  f'{sign}'.join(('%m', '%d', year)) + clock: f'{sign}'.join(('%d', '%m', year))
  + clock
  for sign in '/-'
  for year in ('%Y', '%y')
  for clock in _CLOCKS
}


def is_date(text: str, format: str) -> bool:
  """Returns whether a text is a date in a format, '' for ISO 8601."""
  if len(text) > MAX_LENGTH:
    return False
  try:
    if format:
      datetime.datetime.strptime(text, format)
      return True
    datetime.datetime.fromisoformat(text)
  except ValueError:
    return False
  # Python also reads 20240131, which is a number unless the user says not.
  return bool(_ISO.match(text))


def find(
  texts: Sequence[str], max_bad: int = 0
) -> tuple[str, str, list[str]] | None:
  """Returns the format in which texts are dates.

  Where the day and the month may be exchanged in every one of them, the one of
  them that never varies is taken for the day (the first of each month);
  otherwise the month comes first, which is how pandas reads them.

  Args:
    texts: distinct texts.
    max_bad: how many of them need not be dates.

  Returns:
    `(format, remark, texts that are no dates)`, the format empty for ISO 8601;
    None if there is no such format.
  """
  formats: list[str] = []
  good: list[str] = []
  bad: list[str] = []
  for text in texts[:_MAX_TEXTS]:
    # A date begins with a number, or with a month and a blank.
    may_fit = text[:1].isdigit() or text.split(' ')[0].rstrip('.').isalpha()
    digits = map(str.isdigit, text[: MAX_LENGTH + 1])
    may_fit = may_fit and sum(digits) >= _MIN_DIGITS
    # What begins like ISO 8601 is written in no other format.
    known = formats or (('',) if _ISO.match(text) else _FORMATS)
    tried = known if may_fit else ()
    fit = [one for one in tried if is_date(text, one)]
    if fit:
      formats = fit
      good.append(text)
    else:
      bad.append(text)
      if len(bad) > max_bad:
        return None
  if not formats:
    return None
  format = formats[0]
  other = _DAY_FIRST.get(format)
  if other not in formats:
    return format, '', bad
  fields = [_FIELDS.findall(text) for text in good]
  firsts, seconds = ({int(field[i]) for field in fields} for i in (0, 1))
  if firsts == {1} and seconds != {1}:
    return other, 'read day first, as the first field is always 1', bad
  return format, 'read month first; day first would fit as well', bad
