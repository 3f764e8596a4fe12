"""Classes: their values in the user's own dtype, and how often they occur.

NumPy only.
"""

from collections.abc import Sequence
from typing import Any

from lplmtl import columns as raw
from lplmtl.tabular import checks, facts, hints, kinds
from lplmtl.tabular.facts import Facts
from lplmtl.tabular.schema import Class, Schema, label_columns
from lplmtl.vocabulary import BOOLEANS

# Yes in languages whose no would otherwise be the positive class, as it comes
# later in sorted order (ja, nein), and in some where it would not.
_YES = (
  'true', 'yes', 'y', 't', '1',
  'ja', 'oui', 'si', 'sí', 'sì', 'sim', 'tak', 'ano', 'da', 'да',
)  # fmt: skip


def find(found: Facts) -> tuple[Class, ...]:
  """Returns the distinct values in the user's own dtype, sorted."""
  texts = [found.text(i) for i in range(len(found.values))]
  if not found.holds_texts:
    if found.nature == 'boolean' or {*texts} <= {'True', 'False'}:
      return tuple(text == 'True' for text in sorted(texts))
    if found.values.dtype.kind in 'iu':  # beyond 2^53, floats would be others
      return tuple(sorted(found.values.tolist()))
    if found.numbers is not None:
      numbers = sorted(found.numbers.tolist())
      return tuple(int(x) if x.is_integer() else x for x in numbers)
  if all(map(facts.is_number, texts)):
    return tuple(sorted(texts, key=lambda text: (float(text), text)))
  return tuple(sorted(texts))


def match(value: Any, classes: Sequence[Class]) -> Class | None:
  """Returns the class that a value means, if it is any of them.

  Values are compared in canonical form (`1.0` is 1); for true and false, in any
  spelling.
  """
  return lookup(classes).get(raw.canonical(raw.text_of(value)))


def lookup(classes: Sequence[Class]) -> dict[str, Class]:
  """Returns `{canonical text: class}`."""
  known: dict[str, Class] = {}
  for value in classes:
    if isinstance(value, bool):
      spellings = [text for text, v in BOOLEANS.items() if v == str(value)]
      known |= dict.fromkeys(spellings, value)
    known[raw.canonical(str(value))] = value
  return known


def positive(classes: Sequence[Class]) -> tuple[Class, bool]:
  """Returns True, 1, yes and the like, or else the last class in their order.

  Not the rarer one, which could be another one in another sample of rows.

  Returns:
    `(class, whether it says yes)`.
  """
  words = [value for value in classes if str(value).lower() in _YES]
  return (words[0], True) if len(words) == 1 else (classes[-1], False)


def count(classes: Sequence[Class], found: Facts, name: str = '') -> list[int]:
  """Returns the number of rows of each class.

  Raises:
    ValueError: `name` is given, and a row has a value that is no class.
  """
  known = lookup(classes)
  counts = dict.fromkeys(classes, 0)
  for i, n in enumerate(found.counts.tolist()):
    value = known.get(found.text(i))
    if value is not None:
      counts[value] += n
    elif name:
      raise ValueError(
        f'target {name!r} has {kinds.show(found, i)} in {n} '
        f'row{"s" * (n > 1)}, which is not one of its classes '
        f'{hints.listed(classes)}: add it to them, or name it in missing'
      )
  return list(counts.values())


def class_balance(schema: Schema, frame: Any) -> list[dict[str, Any]]:
  """Returns the rows and the share of each class: data for a table.

  Args:
    schema: a schema with classes.
    frame: rows with labels.

  Returns:
    A list of `{'target', 'class', 'rows', 'share', 'positive'}`: the share
    among the rows that have a label, and whether it is the class whose
    probability is predicted; of a multi-label target, one entry per label.
  """
  columns = checks.columns_of(frame)
  balance = []
  for name, target in schema.targets.items():
    for column in label_columns(name, target):
      if not target.classes:
        continue
      found = facts.of(columns, column, schema.missing, None)
      counts = count(target.classes, found)
      shown = target.classes
      if target.kind == 'multilabel':
        counts, shown = counts[-1:], (column,)
      for value, n in zip(shown, counts, strict=True):
        share = n / found.num_known if found.num_known else float('nan')
        balance.append(
          {
            'target': name,
            'class': value,
            'rows': n,
            'share': share,
            'positive': target.kind == 'binary' and value == target.positive,
          }
        )
  return balance
