"""The folder of a run: what it holds, and what may be replaced in it."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.launcher import drawing, earlier, figures
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from lplmtl.storage import files, folders, pytrees, saves
from lplmtl.tabular.schema import Schema

RESULTS, HISTORY = 'results.json', 'history.jsonl'
CURVES, GATES = 'curves.png', 'gates.png'
OUTCOMES = 'outcomes.png'
SCHEMA, PREDICTIONS = 'schema.json', 'test_predictions.csv'
MODEL, CHECKPOINTS = 'model', 'checkpoints'
MODELS = 'models'  # those of a frontier
# Encoded rows of a table that is streamed, in a folder for each split, and what
# they are.
ROWS, ROWS_NOTE = 'rows', 'rows_of.json'
COMPARISON, CELLS = 'comparison.json', 'cells'
FRONTIER = 'frontier.json'
STUDY = 'study.json'
_REMOVED = (RESULTS, HISTORY, CURVES, GATES, OUTCOMES, PREDICTIONS)
TRUTH = '_truth'  # ends the name of a column of true values in PREDICTIONS
_LONGEST_HEADER = 2**20  # bytes: enough for 10,000 names
ELSEWHERE = 'move it away, or choose another --out_dir'


def refuse(folder: pathlib.Path, names: Sequence[str], what: str) -> None:
  """Keeps runs and comparisons apart.

  Raises:
    InputError: the folder holds one of these files.
  """
  there = [name for name in names if os.path.lexists(folder / name)]
  if there:
    raise InputError(
      f'--out_dir={folder} holds {what} ({there[0]}): choose another folder'
    )


def model_of(folder: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the model of a run, or the model folder itself.

  Raises:
    InputError: `--model` names a file, an unfinished run, or several models.
  """
  if folder.is_file():
    raise InputError(
      f'--model={folder} is a file: name the folder of a run, or the model '
      'folder in it'
    )
  if (folder / MODEL).is_dir():
    return folder / MODEL
  if several := sorted((folder / MODELS).glob('[!.]*')):
    raise InputError(
      f'--model={folder} has models of several sizes: name one of them, such '
      f'as --model={several[-1]}'
    )
  if (folder / CELLS).is_dir() and not (folder / MODEL).exists():
    raise InputError(
      f'--model={folder} is a comparison, a study or an unfinished frontier, '
      'and holds no model: the same command as before resumes a frontier and '
      'writes its models; census and tabular train single ones'
    )
  started = (SCHEMA, CHECKPOINTS)
  is_started = any((folder / name).exists() for name in started)
  if is_started and not (folder / RESULTS).exists():
    raise InputError(
      f'--model={folder} is a run that is not finished: the same command as '
      'before resumes it, and then writes the model'
    )
  return folder


def check(folder: pathlib.Path) -> None:
  """Refuses files that a run would replace or remove but has not written.

  Called before training, so that no work is lost.

  Raises:
    InputError: a file has the name of one that runs write, but no run wrote it.
  """
  kept = folder / CHECKPOINTS
  if os.path.lexists(kept) and (kept.is_symlink() or not kept.is_dir()):
    raise InputError(f'{kept} exists, but is not a folder: {ELSEWHERE}')
  try:
    strangers = saves.strangers(kept)
    pytrees.check_path((folder / MODEL).absolute(), 'model')
  except (OSError, ValueError) as error:
    raise InputError(f'--out_dir={folder}: {error}') from error
  if strangers:
    raise InputError(
      f'{strangers[0]} is not the checkpoint of a run, or holds other files: '
      f'{ELSEWHERE}'
    )
  _check_rows(folder / ROWS)
  for name, is_own in (
    (RESULTS, _is_results),
    (HISTORY, _is_history),
    (CURVES, _is_picture),
    (GATES, _is_picture),
    (OUTCOMES, _is_picture),
    (SCHEMA, _is_schema),
    (PREDICTIONS, _is_predictions),
  ):
    path = folder / name
    if os.path.lexists(path) and not (_is_empty(path) or is_own(path)):
      raise InputError(f'{path} was not written by a run: {ELSEWHERE}')


def _check_rows(rows: pathlib.Path) -> None:
  if not os.path.lexists(rows):
    return
  is_folder = rows.is_dir() and not rows.is_symlink()
  strangers = [rows] if not is_folder else [
    path for path in rows.iterdir()
    if path.name != ROWS_NOTE
    and not path.name.endswith('.part')
    and not folders.is_own(path, folders.ROWS)
  ]  # fmt: skip
  if strangers:
    raise InputError(
      f'{strangers[0]} does not hold rows that a run encoded: {ELSEWHERE}'
    )


def _is_empty(path: pathlib.Path) -> bool:
  is_file = path.is_file() and not path.is_symlink()
  return path.stat().st_size == 0 if is_file else folders.is_empty(path)


def _is_results(path: pathlib.Path) -> bool:
  try:
    files.check_regular(path)
    data = files.read_json(path)
    names = {'architecture', 'balancer'}
    return names <= data['config'].keys() and {'test', 'title'} <= data.keys()
  except (OSError, ValueError, TypeError, KeyError, AttributeError):
    return False


def _is_history(path: pathlib.Path) -> bool:
  try:
    files.check_regular(path)
    lines = [json.loads(line) for line in files.read(path).splitlines()]
    return all({'epoch', 'losses'} <= line.keys() for line in lines)
  except (OSError, ValueError, AttributeError, RecursionError):
    return False


def _is_schema(path: pathlib.Path) -> bool:
  try:
    files.check_regular(path)
    return {'inputs', 'targets'} <= files.read_json(path).keys()
  except (OSError, ValueError, AttributeError):
    return False


def _is_predictions(path: pathlib.Path) -> bool:
  """Whether the header is that of a file of predictions beside the truth."""
  try:
    with files.open_regular(path) as file:
      header = file.readline(_LONGEST_HEADER)
    return not path.is_symlink() and TRUTH.encode() in header
  except OSError:
    return False


def _is_picture(path: pathlib.Path) -> bool:
  """Whether a run drew a picture: it has our mark or is beside our results.

  Releases before the mark existed drew pictures without one.
  """
  if path.is_symlink():
    return False
  if drawing.is_own(path):
    return True
  try:
    with files.open_regular(path) as file:
      is_plot = b'Software\0Matplotlib' in file.read(256)
  except OSError:
    return False
  return is_plot and _is_results(path.with_name(RESULTS))


def identity(config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what distinguishes a run from all others, as JSON data."""
  return {
    **config.identity(),
    'data': {split: file['sha256'] for split, file in facts['files'].items()},
  }


def finished(
  folder: pathlib.Path,
  config: Config,
  facts: Mapping[str, Any],
  schema: Schema | None = None,
) -> dict[str, Any] | None:
  """Returns the results of a run if the folder holds them; otherwise None.

  Args:
    folder: of the run.
    config: that of the new run.
    facts: about its rows.
    schema: of its table, to say which columns have changed.

  Raises:
    InputError: the folder holds another run, finished or not, or any run while
      `resume` is off.
  """
  path = folder / RESULTS
  if not config.resume and (path.exists() or (folder / CHECKPOINTS).exists()):
    raise InputError(
      f'--out_dir={folder} already holds a run: resume it with --resume, start '
      'over with --overwrite, or choose another folder'
    )
  run = identity(config, facts)
  if not path.exists():
    _check_unfinished(folder, run, facts, schema)
    return None
  try:
    results: dict[str, Any] = figures.from_json(files.read_json(path))
    old = Config.from_json(results['config'])
    was = identity(old, results['data'])
    known = earlier.about(results['data'])
  except (OSError, ValueError, TypeError, KeyError, InputError) as error:
    raise InputError(
      f'{path} is not what this release writes ({error!r}): start over with '
      '--overwrite, or choose another --out_dir'
    ) from error
  schemas = earlier.schema_of_model(folder / MODEL), schema
  different = earlier.differences(was, run, facts, known, schemas)
  if different:
    raise InputError(
      f'--out_dir={folder} holds another run, which differs in '
      f'{", ".join(different)}: choose another --out_dir, or replace that run '
      'with --overwrite'
    )
  lost = [name for name in (MODEL, HISTORY) if not (folder / name).exists()]
  if lost:
    raise InputError(
      f'--out_dir={folder} holds a finished run whose {lost[0]} is missing: '
      'train it again with --overwrite, or choose another folder'
    )
  try:
    pytrees.verify(folder / MODEL)
  except pytrees.CheckpointError as error:
    raise InputError(
      f'--out_dir={folder} holds a finished run, but {error}: train it again '
      'with --overwrite, or choose another folder'
    ) from error
  return results


def _check_unfinished(
  folder: pathlib.Path,
  run: Mapping[str, Any],
  facts: Mapping[str, Any],
  schema: Schema | None,
) -> None:
  """Refuses checkpoints of another run, before its schema is replaced."""
  found = earlier.unfinished(folder / CHECKPOINTS)
  if not found:
    return
  schemas = earlier.schema_of_file(folder / SCHEMA), schema
  known = found['environment']
  different = earlier.differences(found['run'], run, facts, known, schemas)
  if different:
    raise InputError(
      f'--out_dir={folder} holds an unfinished run, which differs in '
      f'{", ".join(different)}: to resume it, give what it was started with; '
      'to start over, --overwrite, or choose another --out_dir'
    )


def clear(folder: pathlib.Path) -> None:
  """Removes what a run has written, results first; raises as `check` does.

  The schema stays until another replaces it, because its owner may have edited
  it; so do encoded rows, which may be those of the run that begins.
  """
  check(folder)
  files.tidy(folder, (*_REMOVED, SCHEMA))
  for name in _REMOVED:
    if (folder / name).is_dir():
      (folder / name).rmdir()  # empty, or `check` would have raised
    else:
      (folder / name).unlink(missing_ok=True)
  saves.clear(folder / CHECKPOINTS)
  folders.remove(folder / MODEL)


def clear_rows(folder: pathlib.Path) -> None:
  """Removes encoded rows that a run has written, and nothing else."""
  rows = folder / ROWS
  if not rows.is_dir() or rows.is_symlink():
    return
  (rows / ROWS_NOTE).unlink(missing_ok=True)
  files.tidy(rows, (ROWS_NOTE,))
  folders.tidy(rows, '[a-z]+')
  for path in list(rows.iterdir()):
    if folders.is_own(path, folders.ROWS):
      folders.remove(path)
  if folders.is_empty(rows):
    rows.rmdir()
