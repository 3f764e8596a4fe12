"""The `web` form: one page that scores rows in a browser.

It holds the C form as WebAssembly, a form for a raw row, and a place for a
table. Nothing is loaded and nothing is sent, which the page itself makes the
browser enforce (a Content-Security-Policy).
"""

import base64
import hashlib
import html
import json
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lplmtl.compression import device_tables
from lplmtl.compression.packing import Packed
from lplmtl.export import (
  c99,
  c_csv,
  c_packed,
  c_packed_rows,
  c_rows,
  rows,
  web_fields,
  web_module,
)
from lplmtl.export.meanings import Meaning
from lplmtl.export.program import Program
from lplmtl.storage import files
from lplmtl.tables import Tables

PAGE = 'index.html'
_PARTS = pathlib.Path(__file__).parent / 'web'
_MOST_NAMED = 4  # tasks in the title


class Output(NamedTuple):
  """What the outputs of a task are.

  Attributes:
    kind: see `meanings.Meaning`.
    labels: of the classes, or of the decisions, in order; empty for numbers.
    columns: the names of the predictions in a table of them, in order.
    unit: of a number.
  """

  kind: str
  labels: tuple[str, ...] = ()
  columns: tuple[str, ...] = ()
  unit: str = ''


class Page(NamedTuple):
  """A page.

  Attributes:
    content: of the file.
    num_module_bytes: of the WebAssembly in it.
  """

  content: bytes
  num_module_bytes: int


def of_program(
  program: Program,
  tables: Tables,
  outputs: Mapping[str, Output],
  names: Sequence[Any] = (),
) -> Page:
  """Returns a page that predicts as the C of `c99` does.

  Args:
    program: what to run.
    tables: those that the model was trained with.
    outputs: `{task: what its outputs are}`; fields that are left empty get
      names with numbers.
    names: the columns of the tables in the order of the fields; the order of
      training if there are none.

  Raises:
    ValueError: as for `c99.write`; or `names` are not the columns, or `outputs`
      not those of the program.
    web_module.CompilerError: see there.
  """
  names = _checked_names(tables, names)
  sizes = {task: x.shape[1] for task, x in program.outputs.items()}
  described = _outputs(sizes, outputs)
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    c99.write(folder, program, tables)
    c_csv.write(folder, tables, names)
    module = web_module.compiled(folder)
  fields = web_fields.of(tables, names, web_fields.unseen(tables))
  members = [field.column for field in c_rows.fields(rows.to_data(tables))]
  places = [names.index(name) for name in members]
  return _page(module, fields, places, described)


def of_packed(
  packed: Packed,
  columns: Mapping[Any, Any],
  outputs: Mapping[str, Output],
  meanings: Mapping[str, Meaning],
  names: Sequence[Any] = (),
) -> Page:
  """Returns a page that predicts as the C of `c_packed` does.

  Args:
    packed: see `c_packed.write`.
    columns: any raw rows, at least one.
    outputs: see `of_program`.
    meanings: see `c_packed.write`.
    names: see `of_program`.

  Raises:
    ValueError: as for `c_packed.write` and `of_program`.
    web_module.CompilerError: see there.
  """
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    c_packed.write(folder, packed, columns, meanings=meanings)
    found = c_packed.predict(packed, columns, meanings)
    sizes = {task: x.shape[1] for task, x in found.items()}
    described = _outputs(sizes, outputs)
    tables = device_tables.checked(packed.tables)
    names = _checked_names(tables, names)
    c_csv.write(folder, tables, names, is_packed=True)
    module = web_module.compiled(folder)
  others = web_fields.unseen_hash(tables, packed.hash_bits)
  fields = web_fields.of(tables, names, others)
  members = [names.index(name) for _, name in c_packed_rows.members(tables)]
  return _page(module, fields, members, described)


def write(
  folder: pathlib.Path, page: Page, *, name: str = 'model'
) -> list[pathlib.Path]:
  """Writes `index.html`.

  Args:
    folder: must exist.
    page: its content.
    name: of other forms; a page needs none.

  Returns:
    The file.

  Raises:
    OSError: it cannot be written.
  """
  del name
  files.write(folder / PAGE, page.content)
  return [folder / PAGE]


def _page(
  module: bytes,
  fields: list[dict[str, Any]],
  members: list[int],
  outputs: list[dict[str, Any]],
) -> Page:
  data = {
    'fields': fields,
    'members': members,
    'outputs': outputs,
    'longest': web_module.LONGEST,
    'module': base64.b64encode(module).decode(),
  }
  parts = {
    name: (_PARTS / name).read_text()
    for name in ('page.css', 'model.js', 'page.js')
  }
  shown = {
    'TITLE': html.escape(_title([one['name'] for one in outputs])),
    'POLICY': _policy(parts),
    'STYLE': parts['page.css'],
    'MODEL': parts['model.js'],
    'PAGE': parts['page.js'],
    # Inside an element, only < can end it.
    'DATA': json.dumps(data).replace('<', '\\u003c'),
  }
  content = (_PARTS / 'page.html').read_text()
  content = re.sub('<!--([A-Z]+)-->', lambda mark: shown[mark[1]], content)
  return Page(content.encode(), len(module))


def _title(tasks: Sequence[str]) -> str:
  if len(tasks) > _MOST_NAMED:
    rest = len(tasks) - _MOST_NAMED + 1
    tasks = [*tasks[: _MOST_NAMED - 1], f'{rest} more']
  *first, last = tasks
  named = f'{", ".join(first)} and {last}' if first else last
  return f'Predict {named}'


def _policy(parts: Mapping[str, str]) -> str:
  """Returns what the page may do: run its own parts, and nothing else."""
  sources = {}
  for name, text in parts.items():
    digest = hashlib.sha256(text.encode()).digest()
    sources[name] = f"'sha256-{base64.b64encode(digest).decode()}'"
  return (
    f"default-src 'none'; script-src {sources['model.js']} "
    f"{sources['page.js']} 'wasm-unsafe-eval'; "
    f"style-src {sources['page.css']}; base-uri 'none'; form-action 'none'"
  )


def _checked_names(tables: Tables, names: Sequence[Any]) -> list[Any]:
  found = list(names or tables.columns)
  if sorted(map(str, found)) != sorted(map(str, tables.columns)):
    raise ValueError(
      f'names must be the columns {list(tables.columns)}, in any order; found '
      f'{found}'
    )
  return found


def _outputs(
  sizes: Mapping[str, int], outputs: Mapping[str, Output]
) -> list[dict[str, Any]]:
  if set(outputs) != set(sizes):
    raise ValueError(
      f'outputs must be those of the tasks {list(sizes)}; found {list(outputs)}'
    )
  found = [_output(task, size, outputs[task]) for task, size in sizes.items()]
  for one, size in zip(found, sizes.values(), strict=True):
    if {len(one['labels']), len(one['columns'])} != {size}:
      raise ValueError(
        f'task {one["name"]!r} has {size} outputs, which need as many labels '
        f'and columns; found {one["labels"]} and {one["columns"]}'
      )
  return found


def _output(task: str, size: int, given: Output) -> dict[str, Any]:
  """Returns what a page needs to know of a task."""
  if given.kind in ('number', 'count'):
    labels: Sequence[str] = [''] * size
    columns = [task] if size == 1 else [f'{task}_{i}' for i in range(size)]
  else:
    noun = 'label' if given.kind == 'decisions' else 'class'
    labels = given.labels or [f'{noun} {i}' for i in range(size)]
    if size == 1 and not given.labels:
      labels = ['yes']
    ends = [''] if size == 1 else [f'_{label}' for label in labels]
    columns = [f'{task}_probability{end}' for end in ends]
  return {
    'name': task,
    'kind': given.kind,
    'labels': list(labels),
    'columns': list(given.columns or columns),
    'unit': given.unit,
  }
