"""What the columns and targets of a table are, inferred from training rows."""

import dataclasses
import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lplmtl import columns as raw
from lplmtl.columns import Column
from lplmtl.tabular import checks
from lplmtl.tabular import targets as labels
from lplmtl.tabular.schema import (
  DEFAULT_MISSING,
  Class,
  Input,
  InputKind,
  Schema,
  Target,
  TargetKind,
  label_columns,
)

_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
_ISO = re.compile(r'\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?')
_BOOLEANS = {'true', 'false', 'yes', 'no', 'y', 'n', 't', 'f'}
_POSITIVE = {'true', 'yes', 'y', 't', '1'}
_MAX_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Options:
  """What the user knows better than any inference.

  Attributes:
    categories: the columns that are categories.
    numbers: those that are numbers.
    dates: those that are dates: names, or `{name: strptime format}`.
    booleans: those that are yes or no.
    ignore: those that are left out.
    positive: `{target: class}`, the positive class of binary targets.
    weight: as in `Schema`, as are the following ones.
  """

  categories: Collection[Any] = ()
  numbers: Collection[Any] = ()
  dates: Collection[Any] | Mapping[Any, str] = ()
  booleans: Collection[Any] = ()
  ignore: Collection[Any] = ()
  positive: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  weight: str = ''
  task_weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
  split: str = ''
  time: str = ''
  group: str = ''
  missing: tuple[str, ...] = DEFAULT_MISSING
  min_count: int = 1
  max_vocabulary: int = 10_000
  num_buckets: int = 4096


def infer(frame: Any, targets: Any, options: Options | None = None) -> Schema:
  """Infers a schema.

  Args:
    frame: the training rows.
    targets: names of columns, or `{name: kind, (kind, columns) or Target}`.
    options: what is known beforehand.

  Returns:
    A schema.
  """
  options = options or Options()
  columns = checks.columns_of(frame)
  asked = _asked(targets)
  labelled = {
    name: label_columns(name, target) if target else (name,)
    for name, target in asked.items()
  }
  for names in labelled.values():
    checks.check_known('targets', names, columns)
  roles = {
    options.weight, options.split, options.time, options.group,
    *options.task_weights.values(),
    *(column for names in labelled.values() for column in names),
  }  # fmt: skip
  inputs = {
    name: _input(name, column, options)
    for name, column in columns.items()
    if name not in roles
  }
  found = {
    name: target or Target(_target_kind(columns[name], options))
    for name, target in asked.items()
  }
  kept = {
    field.name: getattr(options, field.name)
    for field in dataclasses.fields(Options)
    if field.name in Schema.__dataclass_fields__
  }
  schema = Schema(inputs, found, **kept)
  return complete(schema, frame, options.positive)


def complete(
  schema: Schema, frame: Any, positive: Mapping[str, Any] | None = None
) -> Schema:
  """Fills in what training rows say of targets and `schema` does not."""
  columns = checks.columns_of(frame)
  targets = {}
  for name, target in schema.targets.items():
    (column,) = label_columns(name, target)
    values, _ = _values(columns[column], schema.missing)
    if target.kind in ('binary', 'multiclass'):
      classes = target.classes or _classes(values)
      mark = (positive or {}).get(name, target.positive)
      if target.kind == 'binary' and mark is None:
        mark = _positive(classes)
      target = dataclasses.replace(target, classes=classes, positive=mark)
    elif target.mean is None:
      numbers = raw_numbers(columns[column], schema.missing)
      target = dataclasses.replace(
        target, mean=float(numbers.mean()), std=float(numbers.std()) or 1.0
      )
    targets[name] = target
  return dataclasses.replace(schema, targets=targets)


def describe(schema: Schema, frame: Any) -> list[dict[str, Any]]:
  """Returns one row per column: data for a table."""
  columns = checks.columns_of(frame)
  rows = []
  for name, column in columns.items():
    codes, texts = raw.texts_of(name, column)
    known = np.asarray(
      [not labels.is_missing(t, schema.missing) for t in texts]
    )
    entry = schema.inputs.get(name)
    rows.append(
      {
        'column': name,
        'kind': entry.kind if entry else 'target',
        'missing': 1 - float(known[codes].mean()),
        'distinct': int(known.sum()),
        'example': next(
          (t for t, k in zip(texts, known, strict=True) if k), ''
        ),
        'note': entry.reason if entry else '',
      }
    )
  return rows


def _asked(targets: Any) -> dict[str, Target | None]:
  if isinstance(targets, str):
    targets = (targets,)
  if not isinstance(targets, Mapping):
    return {name: None for name in targets}
  asked: dict[str, Target | None] = {}
  for name, kind in targets.items():
    if isinstance(kind, tuple):
      kind = Target(kind[0], columns=tuple(kind[1]))
    asked[name] = kind if isinstance(kind, Target) else Target(kind)
  return asked


def _values(
  column: Column, missing: tuple[str, ...]
) -> tuple[list[str], np.ndarray]:
  """Returns the distinct texts that are not missing, and their counts."""
  codes, texts = raw.texts_of('', column)
  counts: dict[str, int] = {}
  for text, n in zip(
    texts, np.bincount(codes, minlength=len(texts)).tolist(), strict=True
  ):
    if n and not labels.is_missing(text, missing):
      text = raw.canonical(text)
      counts[text] = counts.get(text, 0) + n
  return list(counts), np.asarray(list(counts.values()))


def raw_numbers(column: Column, missing: tuple[str, ...]) -> np.ndarray:
  codes, texts = raw.texts_of('', column)
  values = np.asarray(
    [np.nan if labels.is_missing(t, missing) else float(t) for t in texts]
  )[codes]
  return values[~np.isnan(values)]


def _input(name: Any, column: Column, options: Options) -> Input:
  chosen: dict[InputKind, Collection[Any]] = {
    'category': options.categories, 'number': options.numbers,
    'date': options.dates, 'boolean': options.booleans,
    'ignored': options.ignore,
  }  # fmt: skip
  for kind, names in chosen.items():
    if name in names:
      return Input(kind)
  values, _ = _values(column, options.missing)
  if all(map(_NUMBER.fullmatch, values)):
    return Input('number')
  if all(map(_ISO.fullmatch, values)):
    return Input('date')
  if {value.lower() for value in values} <= _BOOLEANS:
    return Input('boolean')
  return Input('category')


def _target_kind(column: Column, options: Options) -> TargetKind:
  values, _ = _values(column, options.missing)
  if len(values) == 2:
    return 'binary'
  is_number = all(map(_NUMBER.fullmatch, values))
  is_whole = is_number and all(float(value).is_integer() for value in values)
  if is_number and not (is_whole and len(values) <= _MAX_CLASSES):
    return 'regression'
  return 'multiclass'


def _classes(values: list[str]) -> tuple[Class, ...]:
  if set(values) <= {'True', 'False'}:
    return tuple(value == 'True' for value in sorted(values))
  if all(map(_NUMBER.fullmatch, values)):
    numbers = sorted(map(float, values))
    return tuple(int(x) if x.is_integer() else x for x in numbers)
  return tuple(sorted(values))


def _positive(classes: tuple[Class, ...]) -> Class:
  known = [value for value in classes if str(value).lower() in _POSITIVE]
  return known[0] if len(known) == 1 else classes[-1]
