"""Folders of runs on a table: undefined metrics, tables and targets that change."""

import csv
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest

from experiments import report, tabular
from experiments.comparison import cells
from experiments.launcher import earlier, figures, files, run_folder
from experiments.launcher import run as runs
from experiments.launcher.errors import InputError
from experiments.launcher.options import Config
from experiments.reporting import contents
from lplmtl import resume
from lplmtl.storage import pytrees, saves
from lplmtl.tabular import schema as schemas
from tests import launching, test_tabular_command

TINY = (*test_tabular_command.TINY, '--compilation_cache=none')
NAN = math.nan


def _tabular(*arguments):
  return launching.launch(tabular.main, *arguments)


def _strict(text):
  """Parses JSON as other readers do: without NaN and infinity."""

  def refuse(constant):
    raise AssertionError(f'{constant} is not JSON')

  return json.loads(text, parse_constant=refuse)


def _table(path, num_rows=200):
  """Writes rows of which those for testing are of one class of `rare`."""
  rng = np.random.default_rng(0)
  age = rng.normal(size=num_rows).round(2)
  split = np.resize(['train'] * 8 + ['validation', 'test'], num_rows)
  rare = np.where((age > 0) & (split != 'test'), 'yes', 'no')
  with open(path, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['age', 'rare', 'value', 'split'])
    value = (50 + 9 * age + rng.normal(size=num_rows)).round(1)
    writer.writerows(zip(age, rare, value, split, strict=True))
  return path


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder and the arguments of a run with an undefined test AUC."""
  folder = tmp_path_factory.mktemp('undefined')
  table = _table(folder / 'a.csv')
  arguments = (
    f'--data={table}', '--targets=rare,value', '--split_column=split', *TINY,
  )  # fmt: skip
  assert _tabular(*arguments, f'--out_dir={folder / "run"}') == 0
  return folder / 'run', arguments


@pytest.mark.slow
def test_undefined_metrics_are_null(finished, tmp_path, capsys):
  run, arguments = finished
  results = _strict((run / 'results.json').read_text())
  assert results['test']['rare']['auc']['mean'] is None
  assert results['predictions']['rare']['auc'] is None
  assert results['test']['value']['r2']['mean'] is not None
  for line in (run / 'history.jsonl').read_text().splitlines():
    _strict(line)
  capsys.readouterr()
  assert _tabular(*arguments, f'--out_dir={run}') == 0  # it is finished
  shown = capsys.readouterr().out
  assert re.search(r'test AUC +│ undefined', shown), shown
  assert 'nan' not in shown
  made = (f'--report_dir={tmp_path}', str(run))
  assert launching.launch(report.main, *made) == 0
  assert 'undefined' in (tmp_path / 'report.md').read_text()


@pytest.mark.slow
def test_a_history_with_undefined_metrics_is_drawn(finished, tmp_path):
  run = shutil.copytree(finished[0], tmp_path / 'run')
  path = run / 'history.jsonl'
  records = [_strict(line) for line in path.read_text().splitlines()]
  for record in records:
    record['validation']['rare']['auc'] = [NAN]
  files.write_json_lines(path, records)
  assert 'null' in path.read_text()
  (read,) = contents.read([run]).runs
  (auc,) = read.history[-1]['validation']['rare']['auc']
  assert np.isnan(auc)
  made = (f'--report_dir={tmp_path / "page"}', str(run))
  assert launching.launch(report.main, *made) == 0


def test_undefined_figures_survive_json(tmp_path):
  made = {
    'test': {'churn': {'auc': {'mean': NAN, 'std': NAN, 'per_seed': [NAN, 1]}}},
    'interval': {'low': -math.inf, 'estimate': NAN},
    'scores': {'as given': {'churn': [NAN, 0.5]}, 'diverged': None},
    'mtl_gain': None,
  }
  files.write_json(tmp_path / 'a.json', made)
  _strict((tmp_path / 'a.json').read_text())
  read = files.read_json(tmp_path / 'a.json')
  assert np.isnan(read['test']['churn']['auc']['mean'])
  assert np.isnan(read['interval']['low'])
  assert np.isnan(read['scores']['as given']['churn'][0])
  assert read['scores']['diverged'] is None and read['mtl_gain'] is None
  assert figures.to_json(read) == figures.to_json(made)


@pytest.mark.parametrize('is_old', [False, True])
def test_cells_with_undefined_metrics_are_not_fitted_again(is_old, tmp_path):
  """Cells of an older release have NaN in their JSON, and a digest of that."""
  facts = {'scores': {'': {'churn': [NAN, 0.5]}}}
  cell = cells.Cell('tune', {'row': 'sple'}, lambda: None)
  store = cells.Store(tmp_path / 'cells', {})
  store.save(cell, cells.Fitted(facts, {}))
  (path,) = (tmp_path / 'cells').iterdir()
  saved = _strict(path.read_text())
  if is_old:
    old = {**saved, 'facts': facts, 'digest': cells._digest(facts)}
    path.write_text(json.dumps(old))
  read = store.load(cell).facts
  np.testing.assert_array_equal(read['scores']['']['churn'], [NAN, 0.5])


@pytest.mark.slow
def test_a_saved_model_scores_in_the_units_of_the_table(finished, capsys):
  run, arguments = finished
  results = files.read_json(run / 'results.json')
  assert _tabular(arguments[0], '--eval_only', f'--out_dir={run}') == 0
  mae = results['predictions']['value']['mae']
  shown = capsys.readouterr().out
  assert f'mean absolute error {mae:.4g}' in shown
  assert 'rare AUC undefined' in shown


@pytest.mark.slow
def test_a_table_that_has_changed_is_called_by_name(finished, tmp_path, capsys):
  _, arguments = finished
  table = _table(tmp_path / 'a.csv', 220)
  run = shutil.copytree(finished[0], tmp_path / 'run')
  rest = (*arguments[1:], f'--out_dir={run}')

  def error(*more):
    assert _tabular(f'--data={table}', *rest, *more) == 1
    line = capsys.readouterr().err
    assert line.count('\n') == 1 and not re.search('[0-9a-f]{20}', line), line
    return line

  # Means of targets differ, too, but that follows from the rows.
  assert 'differs in a.csv (200 rows, now 220): choose' in error()
  # The same run, had it been stopped.
  results = files.read_json(run / 'results.json')
  config = Config.from_json(results['config'])
  meta = {
    'format': resume.FORMAT,
    'run': run_folder.identity(config, results['data']),
    'history': [],
    'environment': {'rows': {'data': 200}},
  }
  step = saves.path(run / 'checkpoints', 3)
  pytrees.write(step, {'w': np.zeros(3)}, meta, saves.KIND)
  for name in ('results.json', 'history.jsonl'):
    (run / name).unlink()
  schema = (run / 'schema.json').read_bytes()
  line = error()
  assert 'unfinished run' in line and 'a.csv (200 rows, now 220)' in line
  table.write_text(_table(tmp_path / 'a.csv').read_text().replace('yes', 'Yes'))
  assert 'differs in the content of a.csv: to resume it' in error()
  assert 'columns (split)' in error('--ignore=split', '--split_column=')
  assert 'columns (rare): ' in error('--targets=value')
  assert (run / 'schema.json').read_bytes() == schema


def test_a_former_target_that_becomes_an_input_is_named(
  finished, tmp_path, monkeypatch, capsys
):
  def stop(*_):
    raise InputError('training begins')

  monkeypatch.setattr(runs, '_train', stop)
  run = shutil.copytree(finished[0], tmp_path / 'run')
  (data, _, *rest) = finished[1]
  arguments = (data, '--targets=rare', *rest, f'--out_dir={run}', '--overwrite')
  assert _tabular(*arguments) == 1
  shown = capsys.readouterr()
  assert 'training begins' in shown.err
  (line,) = re.findall('note: .*targets.*', shown.out)
  assert 'value' in line and '--ignore=value' in line


def test_columns_of_a_former_multilabel_target_are_inputs():
  topics = schemas.Target('multilabel', (0, 1), 1, ('a', 'b'))
  old = schemas.Schema({}, {'topics': topics, 'c': schemas.Target('count')})
  new = schemas.Schema(
    {
      'a': schemas.Input('boolean'), 'c': schemas.Input('ignored'),
      'd': schemas.Input('number'),
    }, {},
  )  # fmt: skip
  assert earlier.former_targets(old, new) == ['a']


@pytest.mark.parametrize(
  'table, complaint',
  [
    ('age,value\n1,2\n', "b.csv: the table lacks the columns 'rare', 'split'"),
    ('age,rare,split\n1,no,a\n', "b.csv: target 'value'"),
    (None, 'holds the rows of --data'),
  ],
)
def test_a_second_table_that_is_not_for_testing(
  table, complaint, tmp_path, capsys
):
  data, other = _table(tmp_path / 'a.csv'), tmp_path / 'b.csv'
  other.write_bytes(table.encode() if table else data.read_bytes())
  arguments = (
    f'--data={data}',
    f'--test_data={other}',
    '--targets=value',
  )
  assert _tabular(*arguments, f'--out_dir={tmp_path / "run"}', *TINY) == 1
  error = capsys.readouterr().err
  assert complaint in error and error.count('\n') == 1, error


@pytest.mark.parametrize(
  'column, complaint',
  [
    (
      'split',
      'row 1 (counted from 0): the weight split must hold numbers; found',
    ),
    (
      'gaps',
      'the weight gaps must hold finite numbers; found nan: correct the row',
    ),
  ],
)
def test_weights_that_are_none(column, complaint, tmp_path, capsys):
  """No flag for inputs helps here."""
  table = _table(tmp_path / 'a.csv')
  head, *lines = table.read_text().splitlines()
  rows = [f'{line},{"" if i % 3 else 2}' for i, line in enumerate(lines)]
  table.write_text('\n'.join([f'{head},gaps', *rows]))
  run = f'--out_dir={tmp_path / "run"}'
  arguments = (
    f'--data={table}',
    '--targets=value',
    f'--weight_column={column}',
  )
  assert _tabular(*arguments, run, *TINY) == 1
  error = capsys.readouterr().err
  assert complaint in error and '--categories' not in error, error


def test_a_missing_logger_is_noticed_before_a_run_is_removed(
  finished, monkeypatch, capsys
):
  run, arguments = finished
  monkeypatch.setitem(sys.modules, 'mlflow', None)
  more = (f'--out_dir={run}', '--overwrite', '--log_to=mlflow')
  assert _tabular(*arguments, *more) == 1
  assert 'lplmtl[mlflow]' in capsys.readouterr().err
  assert (run / 'results.json').exists() and (run / 'model').exists()
