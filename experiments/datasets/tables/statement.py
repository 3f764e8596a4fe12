"""What is known of a table: said to people, and kept with a run."""

import hashlib
import json
from typing import Any

from experiments.launcher import parsing
from experiments.launcher.options import Config
from lplmtl import tabular
from lplmtl.tabular import schema as schemas


def facts(
  config: Config, found: dict[str, Any], schema: tabular.Schema
) -> dict[str, Any]:
  """Returns the facts of a data set; see `base.Data`.

  Args:
    config: names the table.
    found: `{flag: facts}`; see `reader.Table`.
    schema: complete.
  """
  name = parsing.stem(config.data)
  content = json.dumps(schema.to_json(), sort_keys=True).encode()
  digest = hashlib.sha256(content).hexdigest()
  what = ' and '.join(
    f'{facts["file"]} ({facts["rows"]:,} rows, {facts["format"]})'
    for facts in found.values()
  )
  return {
    'dataset': name,
    'statement': what,
    # The schema identifies a run as the files do.
    'files': {**found, 'schema': {'file': 'schema.json', 'sha256': digest}},
    'targets': _targets(schema),
  }


def _targets(schema: tabular.Schema) -> dict[str, Any]:
  """Returns names of classes and units, for tables and pictures."""
  targets: dict[str, Any] = schema.to_json()['targets']
  for name, target in schema.targets.items():
    columns = list(schemas.label_columns(name, target))
    targets[name] = {**targets[name], 'columns': columns}
  return targets
