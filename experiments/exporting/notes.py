"""What the outputs of a model are, for readers of its header or its page.

Of models of a table, whose schema names the classes and the units.
"""

from collections.abc import Mapping
from typing import Any

from lplmtl.export.meanings import Meaning
from lplmtl.export.web_form import Output
from lplmtl.tables import Tables
from lplmtl.tabular import targets
from lplmtl.tabular.schema import (
  Schema,
  Target,
  label_columns,
  output_columns,
)


def of(schema: Schema | None) -> dict[str, str]:
  """Returns `{target: a note}` on outputs that are predictions."""
  found = {}
  for name, target in (schema.targets if schema else {}).items():
    if target.kind == 'count':
      found[name] = 'the expected count'
    elif target.kind == 'regression':
      found[name] = 'in its own unit'
    else:
      classes = [repr(one) for one in _classes(name, target)]
      noun = 'probability' if len(classes) == 1 else 'probabilities'
      found[name] = f'the {noun} of {", ".join(classes)}'
  return found


def _classes(name: str, target: Target) -> list[Any]:
  """Returns what each output is about, in order."""
  if target.kind in ('regression', 'count'):
    return []
  if target.kind == 'multilabel':
    return list(label_columns(name, target))
  classes = targets.ordered_classes(target)
  return list(classes[target.kind == 'binary' :])


def outputs(
  schema: Schema | None, meanings: Mapping[str, Meaning]
) -> dict[str, Output]:
  """Returns `{task: what its outputs are}`, with names if a schema has them."""
  known = schema.targets if schema else {}
  found = {}
  for task, meaning in meanings.items():
    found[task] = Output(meaning.kind)
    if task in known:
      target = known[task]
      labels = tuple(map(str, _classes(task, target)))
      columns = output_columns(task, target)[-max(len(labels), 1) :]
      found[task] = Output(meaning.kind, labels, columns, target.unit)
  return found


def order(schema: Schema | None, tables: Tables) -> list[Any]:
  """Returns the columns that a model reads as a user's table has them."""
  names = list(schema.inputs) if schema else []
  return sorted(
    tables.columns,
    key=lambda name: names.index(name) if name in names else len(names),
  )
