"""What the outputs of a model are, for a reader of its C header.

Of models of a table, whose schema names the classes and the units.
"""

from lplmtl.tabular import targets
from lplmtl.tabular.schema import Schema, Target, label_columns


def of(schema: Schema | None) -> dict[str, str]:
  """Returns `{target: a note}` on outputs that are predictions."""
  found = {}
  for name, target in (schema.targets if schema else {}).items():
    if target.kind == 'count':
      found[name] = 'the expected count'
    elif target.kind == 'regression':
      found[name] = 'in its own unit'
    else:
      classes = _classes(name, target)
      noun = 'probability' if len(classes) == 1 else 'probabilities'
      found[name] = f'the {noun} of {", ".join(classes)}'
  return found


def _classes(name: str, target: Target) -> list[str]:
  """Returns what each output is about, in order."""
  if target.kind == 'multilabel':
    return [repr(column) for column in label_columns(name, target)]
  classes = targets.ordered_classes(target)
  return [repr(one) for one in classes[target.kind == 'binary' :]]
