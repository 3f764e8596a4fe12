"""What the columns and targets of a table are, inferred from training rows.

NumPy only. The rules for columns are in `kinds.py`, those for targets in
`labels.py`.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lplmtl.columns import Column
from lplmtl.tabular import checks, facts, kinds, labels
from lplmtl.tabular.facts import Facts
from lplmtl.tabular.schema import (
  Given,
  Input,
  InputKind,
  Schema,
  Target,
  label_columns,
)

# Columns with a part of their own are no inputs, unless they are asked for.
_ROLES = ('weight', 'split', 'time', 'group')


@dataclasses.dataclass(frozen=True)
class Options(Given):
  """What the user knows better than the rules, with the fields of `Given`.

  The columns that `weight`, `task_weights`, `split`, `time` and `group` name
  are inputs only if they are named here as well.

  Attributes:
    categories: the columns that are categories.
    numbers: the columns that are numbers.
    dates: the columns that are dates, or `{column: format}`, the formats as for
      `datetime.strptime`; None where it is to be found.
    booleans: the columns that are true or false, in some form.
    ignore: the columns that are left out.
    positive: `{target: class}`, the positive classes of binary targets.
  """

  categories: Collection[Any] = ()
  numbers: Collection[Any] = ()
  dates: Collection[Any] | Mapping[Any, str | None] = ()
  booleans: Collection[Any] = ()
  ignore: Collection[Any] = ()
  positive: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def before_split(options: Options) -> Schema:
  """Returns what a split needs to know, before any row is looked at."""
  formats = options.dates if isinstance(options.dates, Mapping) else {}
  form = formats.get(options.time)
  inputs = {} if form is None else {options.time: Input('date', format=form)}
  return Schema(inputs, {}, **options.given)


def infer(frame: Any, targets: Any, options: Options | None = None) -> Schema:
  """Infers a schema from training rows.

  The kind of a target that is only named follows from its values: two of them
  are `binary`, texts `multiclass`, whole numbers with few values `multiclass`,
  too, and all other numbers `regression` (see `labels.infer_target`). `count`,
  `ordinal` and `multilabel` are never guessed.

  Args:
    frame: training rows: a DataFrame, or a dict of columns.
    targets: a name, names, or `{name: kind}`, where the kind may also be a pair
      of the kind and its columns, or a `Target`.
    options: what is known beforehand.

  Returns:
    The schema, complete with the classes, means and standard deviations of the
    targets.

  Raises:
    ValueError: a name is not a column, two roles exclude each other, or a
      column is not what it is said to be.

  Example:
    >>> frame = {'city': ['Oslo', 'Rome'] * 9, 'age': range(18),
    ...          'paid': ['no', 'no', 'yes'] * 6}
    >>> schema = infer(frame, 'paid')
    >>> {name: column.kind for name, column in schema.inputs.items()}
    {'city': 'category', 'age': 'number'}
    >>> schema.targets['paid'].kind, schema.targets['paid'].positive
    ('binary', 'yes')
  """
  options = options or Options()
  _check_positive(options.positive, targets)
  columns = checks.columns_of(frame)
  checks.check_filled(columns)
  asked = targets_of(targets)
  for name, target in asked.items():
    names = label_columns(name, target)
    checks.check_known(f'target {name!r}', names, columns)
  labelled = {c for n, t in asked.items() for c in label_columns(n, t)}
  found = {
    name: target
    or labels.infer_target(facts.of(columns, name, options.missing, None))
    for name, target in asked.items()
  }
  schema = Schema(_inputs(columns, labelled, options), found, **options.given)
  checks.check_inputs(schema)
  return labels.complete(schema, columns, options.positive)


def _inputs(
  columns: Mapping[Any, Column], labelled: set[Any], options: Options
) -> dict[Any, Input]:
  """Returns what the columns without labels are."""
  chosen = _chosen(options, columns)
  for name in labelled & set(chosen):
    raise ValueError(
      f'column {name!r} holds labels and cannot be an input ({chosen[name]}) '
      'as well; the kind of a target is given with the targets'
    )
  roles = set(_roles(options, columns).values())
  return {
    name: _input(name, columns, chosen.get(name), options)
    for name in columns
    if name not in labelled and (name in chosen or name not in roles)
  }


def _check_positive(positive: Any, targets: Any) -> None:
  if not isinstance(positive, Mapping):
    name = targets if isinstance(targets, str) else next(iter(targets), 'churn')
    raise ValueError(
      'positive must be a dict from targets to their positive classes, such as '
      f'{{{name!r}: {positive!r}}}; found {positive!r}'
    )


def targets_of(targets: Any) -> dict[str, Target | None]:
  """Returns `{name: Target}`, or None where its kind is to be inferred."""
  if isinstance(targets, str):
    targets = (targets,)
  if not isinstance(targets, Mapping):
    targets = dict.fromkeys(targets)
  if not targets:
    raise ValueError('expected at least one target, found none')
  asked: dict[str, Target | None] = {}
  for name, kind in targets.items():
    if isinstance(kind, tuple | list):
      kind = _with_columns(name, kind)
    elif not (kind is None or isinstance(kind, Target)):
      kind = Target(kind)
    asked[name] = kind
  return asked


def _with_columns(name: str, pair: Sequence[Any]) -> Target:
  """Returns a target that is given as a kind and its columns."""
  is_pair = len(pair) == 2 and not isinstance(pair[1], str)
  if not is_pair or not isinstance(pair[1], Sequence):
    raise ValueError(
      f'target {name!r} must be a kind, or a pair of a kind and a list of '
      f"columns, as in ('multilabel', ('red', 'green')); found {pair!r}"
    )
  return Target(pair[0], columns=tuple(pair[1]))


def _roles(options: Options, columns: Mapping[Any, Column]) -> dict[str, Any]:
  """Returns `{role: column}` of the columns with a part of their own."""
  roles = {
    role: getattr(options, role)
    for role in _ROLES
    if getattr(options, role) != ''
  }
  for name, column in options.task_weights.items():
    roles[f'task_weights of {name}'] = column
  for role, column in roles.items():
    checks.check_known(role, (column,), columns)
  return roles


def _chosen(
  options: Options, columns: Mapping[Any, Column]
) -> dict[Any, InputKind]:
  """Returns `{column: kind}` as the user wants them."""
  wanted: dict[InputKind, tuple[str, Collection[Any]]] = {
    'category': ('categories', options.categories),
    'number': ('numbers', options.numbers),
    'date': ('dates', options.dates),
    'boolean': ('booleans', options.booleans),
    'ignored': ('ignore', options.ignore),
  }
  chosen: dict[Any, InputKind] = {}
  for kind, (option, names) in wanted.items():
    if isinstance(names, str):
      raise ValueError(f'{option} must be names of columns, found {names!r}')
    checks.check_known(option, names, columns)
    for name in names:
      if name in chosen:
        raise ValueError(
          f'column {name!r} cannot be both {chosen[name]} and {kind}'
        )
      chosen[name] = kind
  return chosen


def _input(
  name: Any,
  columns: Mapping[Any, Column],
  kind: InputKind | None,
  options: Options,
) -> Input:
  if kind == 'ignored':
    return Input('ignored', reason='as asked')
  found = facts.of(columns, name, options.missing)
  if kind is not None:
    return _as_asked(found, kind, options)
  inferred = kinds.infer(found)
  # Numbers, dates and categories are read in full later on; what is left out,
  # or is true or false, must be so in the other rows as well.
  if not found.is_sample or inferred.kind in ('category', 'number', 'date'):
    return inferred
  if found.numbers is None and inferred.kind in ('text', 'identifier'):
    return kinds.confirm(inferred, facts.share_distinct(columns[name]))
  return kinds.infer(facts.of(columns, name, options.missing, None))


def _as_asked(found: Facts, kind: InputKind, options: Options) -> Input:
  if kind == 'number':
    checks.check_numbers(found)
    return kinds.number(found)
  if kind == 'date':
    formats = options.dates
    known = formats.get(found.name) if isinstance(formats, Mapping) else None
    return kinds.date(found, known)
  if kind == 'boolean':
    checks.check_booleans(found)
  return Input(kind)
