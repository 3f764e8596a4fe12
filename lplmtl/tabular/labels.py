"""What is predicted: the kinds of targets, their classes and their scale.

NumPy only.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl.columns import Column
from lplmtl.tabular import checks, class_values, facts, hints, kinds, leaks
from lplmtl.tabular.facts import Facts
from lplmtl.tabular.schema import Class, Schema, Target, label_columns

# Whole numbers with at most so many values are taken for classes, such as the
# ten digits; with more, errors are better measured by their distance.
_MAX_CLASSES = 10
# Classes that occur fewer times than this on average are no classes.
_MIN_ROWS = 2
_MIN_LABELS = 20  # below, few rows per class may be all there are
# The remark beside a positive class that nobody has chosen.
BY_ORDER = 'the positive class is the last in order; name another in positive'


def infer_target(found: Facts) -> Target:
  """Returns what a target is, by its values in all training rows.

  Two values are `binary`; texts are `multiclass`; whole numbers with at most
  ten values are `multiclass`; other numbers are `regression`.

  Raises:
    ValueError: the values are dates or durations.
  """
  if found.nature in ('time', 'other'):
    raise ValueError(
      f'target {found.name!r} must hold classes or numbers, found times: make '
      'them numbers in one unit, such as days since a date'
    )
  numbers = None if found.has_codes else found.numbers
  if len(found.values) <= 2:
    return Target('binary')
  if numbers is None:
    return Target('multiclass')
  is_whole = np.isfinite(numbers).all() and (numbers % 1 == 0).all()
  if is_whole and len(numbers) <= _MAX_CLASSES:
    reason = f'{len(numbers)} whole numbers are taken for classes'
    return Target('multiclass', reason=reason)
  reason = f'{len(numbers)} whole numbers are too many for classes'
  return Target('regression', reason=reason if is_whole else '')


def complete(
  schema: Schema,
  frame: Any,
  positive: Mapping[str, Class] | None = None,
) -> Schema:
  """Fills in what a schema does not say of its targets, and checks the rest.

  Args:
    schema: a schema, perhaps edited by hand.
    frame: training rows.
    positive: `{target: class}`, the positive classes of binary targets.

  Returns:
    The schema with all classes, positive classes, means and standard
    deviations.

  Raises:
    ValueError: the schema does not fit the rows, or the labels leave nothing to
      learn.

  Warns:
    UserWarning: a class occurs once or never, or an input is a target in
      disguise (see `leaks.warn`).
  """
  columns = checks.columns_of(frame)
  checks.check_schema(schema, columns)
  checks.check_known('positive', positive or (), schema.targets, 'target')
  targets = {
    name: _complete(name, target, columns, schema, positive or {})
    for name, target in schema.targets.items()
  }
  schema = dataclasses.replace(schema, targets=targets)
  checks.check_outputs(schema)
  leaks.warn(schema, columns)
  return schema


def _complete(
  name: str,
  target: Target,
  columns: Mapping[Any, Column],
  schema: Schema,
  positive: Mapping[str, Class],
) -> Target:
  found = [
    facts.of(columns, column, schema.missing, None)
    for column in label_columns(name, target)
  ]
  if not any(one.num_known for one in found):
    raise ValueError(
      f'target {name!r} has no label in any of the '
      f'{found[0].num_rows} training rows'
    )
  if name in positive and target.kind != 'binary':
    raise ValueError(
      f'positive names {name!r}, which is not a binary target but {target.kind}'
    )
  if target.kind == 'multilabel':
    return _with_labels(name, target, found)
  if target.kind in ('regression', 'count'):
    return _with_scale(name, target, found[0])
  column = columns[found[0].name]
  return _with_classes(name, target, found[0], column, positive.get(name))


def _with_classes(
  name: str,
  target: Target,
  found: Facts,
  column: Column,
  positive: Class | None,
) -> Target:
  classes = target.classes or _ordered(name, target, found, column)
  if target.kind == 'binary' and len(classes) > 2:
    raise ValueError(
      f'binary target {name!r} must have two classes, found {len(classes)}: '
      f'{hints.listed(classes)}; name the others in missing, or make it '
      'multiclass'
    )
  if target.kind == 'ordinal' and len(classes) < 3:
    raise ValueError(
      f'ordinal target {name!r} must have three classes or more, found '
      f'{len(classes)}: two classes are binary'
    )
  counts = class_values.count(classes, found, name)
  if sum(n > 0 for n in counts) < 2:
    (only,) = (c for c, n in zip(classes, counts, strict=True) if n)
    raise ValueError(
      f'target {name!r} must have two classes or more in the training rows, '
      f'found {hints.quoted(only)} only'
    )
  n = found.num_known
  if n >= _MIN_LABELS and n < _MIN_ROWS * len(classes):
    raise ValueError(
      f'target {name!r} has {len(classes)} different values in {n} rows, too '
      f'many for classes, such as {hints.listed(classes, 3)}: {_cure(found)}'
    )
  _warn_of_rare(name, classes, counts)
  if target.kind != 'binary':
    return dataclasses.replace(target, classes=classes)
  wanted = target.positive if positive is None else positive
  if wanted is None:
    mark, says_yes = class_values.positive(classes)
    reason = target.reason if says_yes else target.reason or BY_ORDER
    return dataclasses.replace(
      target, classes=classes, positive=mark, reason=reason
    )
  chosen = class_values.match(wanted, classes)
  if chosen is None:
    raise ValueError(
      f'the positive class of target {name!r} must be one of '
      f'{hints.listed(classes)}; found {hints.quoted(wanted)}'
    )
  was_changed = positive is not None or chosen != classes[-1]
  reason = '' if was_changed and target.reason == BY_ORDER else target.reason
  return dataclasses.replace(
    target, classes=classes, positive=chosen, reason=reason
  )


def _cure(found: Facts) -> str:
  """Returns what to do about a target with too many values for classes."""
  remark = kinds.written_numbers(found)
  if remark:
    return remark
  if found.numbers is not None:
    return 'numbers are a regression'
  if any(map(facts.is_number, found.values)):
    return 'numbers are a regression, and texts between them belong in missing'
  return 'a class must occur in several rows, unlike an identifier or a text'


def _ordered(
  name: str, target: Target, found: Facts, column: Column
) -> tuple[Class, ...]:
  """Returns the classes of the rows, those of an ordinal target in order."""
  classes = class_values.find(found)
  if target.kind != 'ordinal':
    return classes
  dtype: Any = getattr(column, 'dtype', None)
  if getattr(dtype, 'ordered', False):
    known = class_values.lookup(classes)
    texts = (raw.canonical(str(value)) for value in dtype.categories)
    return tuple(known[text] for text in texts if text in known)
  if any(isinstance(value, str) for value in classes) and not all(
    facts.is_number(str(value)) for value in classes
  ):
    raise ValueError(
      f'ordinal target {name!r} needs its classes in order, found '
      f'{hints.listed(classes)}: give them as classes, lowest first, as in '
      "Target('ordinal', classes=('low', 'high'))"
    )
  return classes


def _warn_of_rare(
  name: str, classes: Sequence[Class], counts: Sequence[int]
) -> None:
  for n, what in ((0, 'in no training row'), (1, 'in one training row only')):
    rare = [c for c, count in zip(classes, counts, strict=True) if count == n]
    if rare:
      is_one = len(rare) == 1
      verb = 'occurs' if is_one else 'occur, each'
      scores = (
        'it is rarely predicted, and its scores'
        if is_one
        else 'they are rarely predicted, and their scores'
      )
      warnings.warn(
        f'target {name!r}: {hints.listed(rare)} {verb} {what}, too few to '
        f'learn from: {scores} say nothing',
        stacklevel=4,
      )


def _with_scale(name: str, target: Target, found: Facts) -> Target:
  checks.check_numbers(found, f'target {name!r}')
  values = found.numbers
  assert values is not None
  if not np.isfinite(values).all():
    raise ValueError(f'target {name!r} must hold finite numbers, found inf')
  if len(values) < 2:
    raise ValueError(
      f'target {name!r} must vary, but each of the {found.num_known} rows with '
      f'a label has {kinds.show(found, 0)}'
    )
  if target.kind == 'count':
    bad = np.flatnonzero((values < 0) | (values % 1 != 0))
    if len(bad):
      raise ValueError(
        f'target {name!r} must hold counts (0, 1, 2, ...), found '
        f'{kinds.show(found, int(bad[0]))}; other numbers are a regression'
      )
  if target.mean is not None and (target.kind == 'count' or target.std):
    return target
  order = np.argsort(values)  # the same sum, whatever the order of the rows
  values, counts = values[order], found.counts[order]
  with np.errstate(all='ignore'):
    mean = float(np.average(values, weights=counts))
    variance = np.average((values - mean) ** 2, weights=counts)
  if not 0 < variance < np.inf:
    raise ValueError(
      f'target {name!r} must hold numbers that can be scaled, found '
      f'{values[0]:g} to {values[-1]:g}'
    )
  if target.kind == 'count':
    return dataclasses.replace(target, mean=mean)
  return dataclasses.replace(target, mean=mean, std=float(np.sqrt(variance)))


def _with_labels(name: str, target: Target, found: Sequence[Facts]) -> Target:
  if len(found) < 2:
    raise ValueError(
      f'multilabel target {name!r} needs its columns, two or more, as in '
      "('multilabel', ('red', 'green'))"
    )
  columns = [one.name for one in found]
  if len({*columns}) < len(columns):
    raise ValueError(
      f'the columns of multilabel target {name!r} must differ, found '
      f'{hints.listed(columns)}'
    )
  every = {value for one in found for value in class_values.find(one)}
  classes = target.classes or tuple(sorted(every, key=str))
  if len(classes) != 2:
    # A mark or nothing is a common way to write labels.
    blank = '; a blank is a missing label: write another value there'
    raise ValueError(
      f'the columns of multilabel target {name!r} must hold the same two '
      f'values, such as 0 and 1; found {hints.listed(classes) or "none"}'
      f'{blank if len(classes) == 1 else ""}'
    )
  for one in found:
    if min(class_values.count(classes, one, name)) == 0:
      warnings.warn(
        f'target {name!r}: column {one.name!r} has the same value in all '
        'training rows, so that nothing can be learned about it',
        stacklevel=4,
      )
  mark, _ = class_values.positive(classes)
  ordered = tuple(sorted(classes, key=lambda value: value == mark))
  return dataclasses.replace(target, classes=ordered)
