"""What the arrays of `lplmtl.tables.Tables.encode` hold."""

import functools
from collections.abc import Mapping
from typing import Any

from lplmtl.dates import Date
from lplmtl.numeric import Numeric


class Sizes:
  """The part of Tables that follows from its fields."""

  vocabularies: Mapping[Any, tuple[str, ...]]
  numerics: Mapping[Any, Numeric]
  dates: Mapping[Any, Date]
  hashed: Mapping[Any, int]
  merged: Mapping[Any, tuple[int, ...]]

  @property
  def columns(self) -> tuple[Any, ...]:
    """The names of the raw columns that `encode` reads."""
    names = (*self.vocabularies, *self.hashed, *self.numerics, *self.dates)
    # A column may be a category and a number.
    return tuple(dict.fromkeys(n for n in names if n not in self._parts))

  @property
  def num_categories(self) -> tuple[int, ...]:
    """Vocabulary sizes of the C category columns, with bins last."""
    sizes = [
      max(self.merged.get(name, (len(values),))) + 1
      for name, values in self.vocabularies.items()
    ]
    return (*sizes, *(len(n.edges) + 1 for n in self.binned.values()))

  @property
  def num_ordered(self) -> int:
    """The number of category columns that are bins; these are the last ones."""
    return len(self.binned)

  @property
  def binned(self) -> dict[Any, Numeric]:
    """The numbers, and parts of dates, whose bin is encoded."""
    return {
      name: n
      for name, n in self.numerics.items()
      if n.edges and not n.interpolate
    }

  @property
  def numbers(self) -> tuple[Any, ...]:
    """The columns, and parts of dates, whose scaled number is encoded."""
    return tuple(name for name, n in self.numerics.items() if not n.only_bins)

  @property
  def num_pieces(self) -> tuple[int, ...]:
    """The numbers of bins of the numbers whose position is encoded instead."""
    numbers = self.numerics.values()
    return tuple(len(n.edges) + 1 for n in numbers if n.interpolate)

  @property
  def num_buckets(self) -> tuple[int, ...]:
    """The numbers of buckets of the H hashed columns."""
    return tuple(self.hashed.values())

  @property
  def flags(self) -> dict[Any, int]:
    """`{column: its position}` of the flags of missing values in `numeric`.

    The parts of a date share the flag of the date.
    """
    flagged = [name for name, n in self.numerics.items() if n.flag]
    flagged += [name for name, date in self.dates.items() if date.flag]
    places = {name: len(self.numbers) + i for i, name in enumerate(flagged)}
    parts = {
      part: places[name]
      for part, (name, _) in self._parts.items()
      if name in places
    }
    return {n: p for n, p in places.items() if n not in self.dates} | parts

  @functools.cached_property
  def _parts(self) -> dict[str, tuple[Any, str]]:
    """`{'signup.days': ('signup', 'days')}`."""
    return {
      f'{name}.{part}': (name, part)
      for name, date in self.dates.items()
      for part in date.parts
    }
