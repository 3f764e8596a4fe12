"""What each column of a table is, and what is predicted: the schema.

It is plain data: `to_json` is written as `schema.json`, for the user to read,
edit and hand back. `schema.md` in this folder describes the format.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from lplmtl import _tables_checks
from lplmtl.tabular import field_checks

InputKind = Literal[
  'category', 'number', 'date', 'boolean',
  'text', 'identifier', 'constant', 'ignored',
]  # fmt: skip
TargetKind = Literal[
  'binary', 'multiclass', 'ordinal', 'regression', 'count', 'multilabel'
]
Class = str | int | float | bool  # what JSON can keep of a class
INPUT_KINDS = get_args(InputKind)
TARGET_KINDS = get_args(TargetKind)
USED = ('category', 'number', 'date', 'boolean')  # the others are left out
# Texts that mean "missing", beside None, NaN, NaT, NA and blanks: what pandas
# takes for missing in a file, and the question mark of the UCI tables.
DEFAULT_MISSING = ('NA', 'N/A', 'n/a', '#N/A', 'NULL', 'null', '?')
# Of vocabularies and hashed columns: `{name: the least}`.
SIZES = _tables_checks.SIZES


@dataclasses.dataclass(frozen=True)
class Input:
  """What one column is.

  Attributes:
    kind: `category`, `number`, `date` or `boolean`; columns of the kinds
      `text`, `identifier`, `constant` and `ignored` are left out.
    log: for a number, whether its logarithm is taken.
    format: for a date, its `strptime` format, or '' for ISO 8601.
    reason: why it was left out, or how an ambiguity was settled; for readers.
    min_count: for a category, as in `Given`, as are the next two; 0 for the
      table's.
    max_vocabulary: 1 hashes the column in any case.
    num_buckets: of the column, if it is hashed.
  """

  kind: InputKind
  log: bool = False
  format: str = ''
  reason: str = ''
  min_count: int = 0
  max_vocabulary: int = 0
  num_buckets: int = 0

  def __post_init__(self) -> None:
    field_checks.check_kind('an input', self.kind, INPUT_KINDS)
    field_checks.check_types(self, log=bool, format=str, reason=str)
    for name, least in SIZES.items():
      field_checks.check_types(self, **{name: int})
      size = getattr(self, name)
      if size != 0 and size < least:
        raise ValueError(f'{name} must be 0 or at least {least}, found {size}')
    _tables_checks.check_buckets(self.num_buckets)
    owned = (
      ('log', 'number'),
      ('format', 'date'),
      *((n, 'category') for n in SIZES),
    )
    for name, kind in owned:
      if getattr(self, name) and self.kind != kind:
        raise ValueError(f'{name} is for a {kind}, found a {self.kind} with it')
    if self.format and '%' not in self.format:
      raise ValueError(
        "a format of dates must have strptime's codes, such as %d.%m.%Y for "
        f'24.05.2023; found {self.format!r}'
      )


@dataclasses.dataclass(frozen=True)
class Target:
  """What one target is.

  Attributes:
    kind: see `TARGET_KINDS`.
    classes: the classes of a binary, multiclass or ordinal target, in the
      user's own values; of an ordinal target from the lowest to the highest.
    positive: the class of a binary target whose probability is predicted.
    columns: its columns: several for `multilabel`, otherwise one, which is the
      target's name if this is empty.
    unit: the unit of a regression, for tables and pictures.
    mean: mean of a regression or count target over the training rows, by which
      it is standardised or divided for training.
    std: standard deviation of a regression target likewise.
    reason: how the kind was inferred; for readers.
  """

  kind: TargetKind
  classes: tuple[Class, ...] = ()
  positive: Class | None = None
  columns: tuple[Any, ...] = ()
  unit: str = ''
  mean: float | None = None
  std: float | None = None
  reason: str = ''

  def __post_init__(self) -> None:
    field_checks.check_kind('a target', self.kind, TARGET_KINDS)
    field_checks.check_types(
      self, classes=tuple, columns=tuple, unit=str, reason=str
    )
    field_checks.check_types(
      self, mean=float | int | None, std=float | int | None
    )
    if self.std is not None and not 0 < self.std < math.inf:
      raise ValueError(f'std must be above 0, found {self.std!r}')
    least = 0 if self.kind == 'count' else -math.inf
    if self.mean is not None and not least < self.mean < math.inf:
      what = 'finite' if self.kind != 'count' else 'above 0'
      raise ValueError(f'mean must be {what}, found {self.mean!r}')
    if not all(isinstance(value, Class) for value in self.classes):
      raise ValueError(
        'classes must be texts, numbers or booleans, found '
        f'{list(self.classes)}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
  """What is said of a table as a whole: no row tells it.

  Attributes:
    weight: the column of row weights, or ''.
    task_weights: `{target: column}`, the columns of a target's own row weights,
      which multiply the former.
    split: the column that says train, validation or test, or ''.
    time: the column by whose order rows are split, or ''.
    group: the column whose values are never torn apart by a split, or ''.
    missing: texts that mean "missing".
    min_count: how often a category must occur to have an id of its own.
    max_vocabulary: the number of values beyond which a category is hashed.
    num_buckets: the number of buckets of a hashed category.
  """

  weight: str = ''
  task_weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
  split: str = ''
  time: str = ''
  group: str = ''
  missing: tuple[str, ...] = DEFAULT_MISSING
  min_count: int = 1
  max_vocabulary: int = 10_000
  num_buckets: int = 4096

  def __post_init__(self) -> None:
    field_checks.check_texts('missing', self.missing)
    if not isinstance(self.task_weights, Mapping):
      raise ValueError(
        'task_weights must be an object, {"target": "column", ...}; found '
        f'{self.task_weights!r}'
      )
    roles = {n: getattr(self, n) for n in ('weight', 'split', 'time', 'group')}
    for name, column in (roles | dict(self.task_weights)).items():
      if not isinstance(column, str | int):
        raise ValueError(
          f'{name} must be the name of a column, found {column!r}'
        )
    for name, least in SIZES.items():
      field_checks.check_types(self, **{name: int})
      size = getattr(self, name)
      if size < least:
        raise ValueError(f'{name} must be at least {least}, found {size}')
    _tables_checks.check_buckets(self.num_buckets)

  @property
  def given(self) -> dict[str, Any]:
    """The fields of Given, by name."""
    names = [field.name for field in dataclasses.fields(Given)]
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Schema(Given):
  """What the columns of a table are, with the fields of `Given`.

  Attributes:
    inputs: `{column: Input}`, also of those that are left out.
    targets: `{target: Target}`, in the order of tasks.
  """

  inputs: Mapping[Any, Input]
  targets: Mapping[str, Target]

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in self.targets:
      if not isinstance(name, str) or not name:
        raise ValueError(
          f'the name of a target must be a text, found {name!r}: a column '
          "whose name is a number is given as in {'price': ('regression', "
          '(5,))}'
        )

  def names(self, kind: str) -> tuple[Any, ...]:
    """Returns the columns of one kind, in order."""
    return tuple(
      name for name, column in self.inputs.items() if column.kind == kind
    )

  def sizes(self, name: Any) -> dict[str, int]:
    """Returns those of SIZES that a column has of its own."""
    found = {size: getattr(self.inputs[name], size) for size in SIZES}
    return {size: value for size, value in found.items() if value}

  def to_json(self) -> dict[str, Any]:
    """Returns plain data for a JSON file; `from_json` is the inverse."""
    return {
      'inputs': _mapping({k: _plain(v) for k, v in self.inputs.items()}),
      'targets': {k: _plain(v) for k, v in self.targets.items()},
      **self.given,
      'task_weights': dict(self.task_weights),
      'missing': list(self.missing),
    }

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> 'Schema':
    """Rebuilds a schema from the output of `to_json`, perhaps edited.

    Raises:
      ValueError: a field is unknown, or does not hold what it should.
    """
    field_checks.check_names('the schema', data, cls, 'inputs')
    for name in ('inputs', 'targets'):
      if name not in data:
        raise ValueError(f'the schema lacks {name!r}; found {list(data)}')
    inputs, targets = _pairs(data['inputs']), _pairs(data['targets'])
    fields = {
      **data,
      'inputs': {k: _build(f'input {k!r}', Input, v) for k, v in inputs},
      'targets': {k: _build(f'target {k!r}', Target, v) for k, v in targets},
    }
    if 'missing' in data:
      field_checks.check_texts('missing', data['missing'])
      fields['missing'] = tuple(data['missing'])
    return cls(**fields)


def check_is_schema(schema: Any) -> None:
  """Raises ValueError unless it is a Schema."""
  if not isinstance(schema, Schema):
    raise ValueError(
      'schema must be a Schema, such as tabular.infer or Schema.from_json '
      f'returns, found {type(schema).__name__}'
    )


def label_columns(name: str, target: Target | None) -> tuple[Any, ...]:
  """Returns the columns that hold a target's labels."""
  return (target.columns if target else ()) or (name,)


def output_columns(name: str, target: Target) -> tuple[str, ...]:
  """Returns the columns of a target's predictions, in order."""
  if target.kind in ('regression', 'count'):
    return (name,)
  if target.kind == 'binary':
    return name, f'{name}_probability'
  if target.kind == 'multilabel':
    columns = [str(column) for column in label_columns(name, target)]
    return *columns, *(f'{column}_probability' for column in columns)
  return name, *(f'{name}_probability_{value}' for value in target.classes)


def _plain(value: Any) -> dict[str, Any]:
  """Returns the fields that differ from their defaults, as plain data."""
  fields = {}
  for field in dataclasses.fields(value):
    one = getattr(value, field.name)
    if field.default is dataclasses.MISSING or one != field.default:
      fields[field.name] = list(one) if isinstance(one, tuple) else one
  return fields


def _build(what: str, cls: Any, fields: Any) -> Any:
  field_checks.check_names(what, fields, cls)
  if 'kind' not in fields:
    raise ValueError(f'{what} lacks its kind; found {dict(fields)}')
  try:
    return cls(
      **{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    )
  except ValueError as error:
    raise ValueError(f'{what}: {error}') from None


def _mapping(columns: dict[Any, Any]) -> Any:
  """Returns a dict, or pairs if a name is an integer: JSON keys are strings."""
  if all(isinstance(name, str) for name in columns):
    return columns
  return [[name, value] for name, value in columns.items()]


def _pairs(columns: Any) -> list[tuple[Any, Any]]:
  if isinstance(columns, Mapping):
    return list(columns.items())
  is_list = isinstance(columns, list | tuple)
  if not is_list or not all(_is_pair(one) for one in columns):
    raise ValueError(
      'inputs and targets must be objects, {"name": {"kind": ...}, ...}; found '
      f'{type(columns).__name__}'
    )
  return [(name, value) for name, value in columns]


def _is_pair(value: Any) -> bool:
  is_pair = isinstance(value, list | tuple) and len(value) == 2
  return is_pair and isinstance(value[0], str | int)
