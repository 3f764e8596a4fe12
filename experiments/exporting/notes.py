"""What the outputs of a model are, for a reader of its C header.

Of models of a table, whose schema names the classes and the units.
"""

from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema, Target, label_columns


def of(schema: Schema | None) -> dict[str, str]:
  """Returns `{target: a note}` on outputs that are predictions."""
  found = {}
  for name, target in _targets(schema).items():
    if target.kind in ('regression', 'count'):
      is_count = target.kind == 'count'
      found[name] = 'the expected count' if is_count else 'in its own unit'
    else:
      found[name] = _of(_classes(name, target), 'probability', 'probabilities')
  return found


def _targets(schema: Schema | None) -> dict[str, Target]:
  return dict(schema.targets) if schema else {}


def _classes(name: str, target: Target) -> list[str]:
  """Returns what each output is about, in order."""
  if target.kind == 'multilabel':
    return [repr(column) for column in label_columns(name, target)]
  classes = targets.ordered_classes(target)
  return [repr(one) for one in classes[target.kind == 'binary' :]]


def _of(classes: list[str], one: str, many: str) -> str:
  return f'the {one if len(classes) == 1 else many} of {", ".join(classes)}'
