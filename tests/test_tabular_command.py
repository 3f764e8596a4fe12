"""experiments.tabular: from a file to predictions, and every mistake a line."""

import csv
import json
import pathlib
import re
import shutil
import subprocess
import sys
import types
import weakref

import jax
import numpy as np
import pytest
from absl import flags

from experiments import datasets, tabular
from experiments.datasets.census import sample
from experiments.datasets.tables import memory, outputs, protocol, splits
from experiments.launcher import display, fields, options, sections
from experiments.launcher import files as launcher_files
from experiments.launcher.errors import InputError
from experiments.reporting import contents
from lplmtl import data, tables
from lplmtl import tabular as library
from lplmtl.columns import Factor
from lplmtl.tabular import schema
from tests.launching import launch

ROOT = pathlib.Path(__file__).parent.parent
TINY = (
  '--epochs=2', '--tower_widths=', '--num_bins=4', '--num_crosses=0',
  '--batch_size=64', '--architecture=shared_bottom', '--bottom_widths=4',
  '--num_seeds=1', '--schedule=constant',
)  # fmt: skip
TARGETS = '--targets=churn,segment,value'


def _table(path, num_rows, seed=0, **changes):
  columns = {**data.customers(num_rows, seed=seed), **changes}
  with open(path, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
      writer.writerow('' if x is None or x != x else x for x in row)
  return path


def _tabular(*arguments):
  return launch(tabular.main, *arguments)


def _load(config):
  return datasets.find(config).load(config, display.make_console())


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """The folder of a finished run, its table, and new rows."""
  folder = tmp_path_factory.mktemp('table')
  table = _table(folder / 'customers.csv', 300)
  run = folder / 'run'
  assert _tabular(f'--data={table}', TARGETS, *TINY, f'--out_dir={run}') == 0
  return run, table, _table(folder / 'new.csv', 40, seed=1)


def _rows(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def test_a_run_says_what_it_learned_from(finished, capsys):
  run, table, _ = finished
  results = json.loads((run / 'results.json').read_text())
  assert [next(iter(results['test'][t])) for t in ('churn', 'segment', 'value')] == [
    'auc', 'accuracy', 'r2',
  ]  # fmt: skip
  assert results['data']['rows'] == {'train': 240, 'validation': 30, 'test': 30}
  assert results['data']['targets']['segment']['classes'] == [
    'bargain', 'business', 'loyal', 'new',
  ]  # fmt: skip
  assert 'comma-separated, utf-8' in results['data']['statement']
  schema = library.Schema.from_json(
    json.loads((run / 'schema.json').read_text())
  )
  assert schema.inputs['age'].kind == 'number'
  assert list(schema.targets) == ['churn', 'segment', 'value']
  assert not {'dataset', 'tasks', 'num_rows'} & results['config'].keys()
  # The same command shows the results again, with the table of the columns.
  assert _tabular(f'--data={table}', TARGETS, *TINY, f'--out_dir={run}') == 0
  shown = capsys.readouterr().out
  assert 'this run is already finished' in shown
  for text in ('signup', 'target (regression)', 'bargain', 'yes (positive)'):
    assert text in shown


def test_runs_on_the_same_table_fit_on_one_page(finished, tmp_path):
  run, _, _ = finished
  other = shutil.copytree(run, tmp_path / 'other')
  found = contents.read([run, other])
  assert [one.name for one in found.runs] == ['run', 'other']


def test_runs_that_do_not_fit_on_one_page_say_why(finished, tmp_path):
  run, _, _ = finished
  results = json.loads((run / 'results.json').read_text())
  path = tmp_path / 'results.json'

  def complaint(changed):
    data = {**results['data'], **changed}
    path.write_text(json.dumps({**results, 'data': data}))
    with pytest.raises(InputError) as raised:
      contents.read([run, path])
    return str(raised.value)

  files = results['data']['files']
  schema = {**files['schema'], 'sha256': '0'}
  other = {'files': {**files, 'schema': schema}}
  assert complaint(other).endswith('they differ in their schema.json')
  targets = {'churn': results['data']['targets']['churn']}
  assert complaint({**other, 'targets': targets}).endswith(
    'they differ in their targets, churn, segment, value and churn'
  )
  data = {**files['data'], 'sha256': '0'}
  other = {'files': {'data': data, 'schema': schema}}
  assert complaint(other).endswith('in the content of customers.csv')


def test_metrics_are_those_of_what_is_predicted(finished):
  run, _, _ = finished
  predictions = _rows(run / 'test_predictions.csv')
  metrics = json.loads((run / 'results.json').read_text())['predictions']
  rows = [p for p in predictions if p['value_truth']]
  truth, predicted = (
    np.array([float(p[c]) for p in rows]) for c in ('value_truth', 'value')
  )
  error = np.abs(truth - predicted).mean()
  assert metrics['value']['mae'] == pytest.approx(error, rel=1e-5)
  rows = [p for p in predictions if p['segment_truth']]
  right = np.mean([p['segment'] == p['segment_truth'] for p in rows])
  assert metrics['segment']['accuracy'] == pytest.approx(right, rel=1e-5)


def test_predictions_stand_beside_the_truth(finished):
  run, table, _ = finished
  predictions = _rows(run / 'test_predictions.csv')
  assert len(predictions) == 30
  rows = _rows(table)
  for prediction in predictions:
    row = rows[int(prediction['row'])]
    for target in ('churn', 'segment', 'value'):
      assert prediction[f'{target}_truth'] in (
        row[target],
        row[target].removesuffix('.0'),
      )
  values = np.array([float(p['value']) for p in predictions])
  assert 100 < values.mean() < 2000  # in the unit of the table
  assert {p['segment'] for p in predictions} <= {
    'bargain',
    'business',
    'loyal',
    'new',
  }


def test_every_kind_of_target_stands_beside_its_truth():
  targets = {
    'churn': library.Target('binary', ('no', 'yes'), 'yes'),
    'topics': library.Target('multilabel', ('no', 'yes'), 'yes', ('a', 'b')),
    'calls': library.Target('count', mean=2.0),
  }
  columns = {
    'churn': ['no', 'yes'], 'a': ['no', ''], 'b': ['yes', ''],
    'calls': np.array([3.0, np.nan]), 'id': ['x', 'y'],
  }  # fmt: skip
  factors = {
    k: Factor(np.arange(2), np.array(v, object)) if isinstance(v, list) else v
    for k, v in columns.items()
  }
  schema = library.Schema({}, targets)
  logits = {
    'churn': np.zeros((1, 2, 1)), 'topics': np.ones((1, 2, 2)),
    'calls': np.zeros((1, 2, 1)),
  }  # fmt: skip
  predictor = types.SimpleNamespace(
    schema=schema, predict=lambda _: library.decode(schema, logits)
  )
  part = types.SimpleNamespace(columns=factors, rows=np.arange(2))
  content = outputs.beside_truth(predictor, part, 'id').decode()
  rows = list(csv.DictReader(content.splitlines()))
  assert list(rows[0]) == [
    'id', 'churn_truth', 'churn', 'churn_probability', 'a_truth', 'b_truth',
    'a', 'b', 'a_probability', 'b_probability', 'calls_truth', 'calls',
  ]  # fmt: skip
  assert rows[1]['a_truth'] == rows[1]['calls_truth'] == ''
  assert (rows[0]['calls_truth'], rows[0]['calls']) == ('3', '2')


def test_an_ordinal_target_lists_its_classes(finished):
  _, table, _ = finished
  targets = 'churn', 'plan:ordinal(basic+plus+family+pro)'
  found = _load(options.Config(data=str(table), targets=targets))
  churn, plan = found.tasks
  assert (churn.num_outputs, plan.num_outputs) == (1, 3)
  assert found.facts['targets']['plan']['classes'] == [
    'basic', 'plus', 'family', 'pro',
  ]  # fmt: skip


def test_predicting_gives_what_the_library_gives(finished, tmp_path):
  run, _, new = finished
  out = tmp_path / 'scores.csv'
  assert _tabular(f'--data={new}', f'--model={run}', f'--predict_to={out}') == 0
  found = _rows(out)
  expected = library.load(run / 'model').predict(data.customers(40, seed=1))
  assert [row['row'] for row in found] == [str(i) for i in range(40)]
  assert [row['churn'] for row in found] == list(expected['churn'])
  np.testing.assert_allclose(
    [float(row['value']) for row in found], expected['value'], rtol=1e-8
  )


def test_predicting_without_targets_names_rows_by_a_column(
  finished, tmp_path, capsys
):
  run, _, _ = finished
  columns = data.customers(5, seed=2)
  ids = [f'c{i}' for i in range(5)]
  kept = {
    k: v for k, v in columns.items() if k not in ('churn', 'segment', 'value')
  }
  path = tmp_path / 'a.csv'
  with open(path, 'w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['id', *kept])
    writer.writerows(zip(ids, *kept.values(), strict=True))
  arguments = (
    f'--data={path}',
    f'--model={run / "model"}',
    '--index_column=id',
  )
  assert _tabular(*arguments, '--predict_to=-') == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(',')[0] for line in lines] == ['id', *ids]
  pytest.importorskip('pyarrow')
  assert _tabular(*arguments, f'--predict_to={tmp_path / "a.parquet"}') == 0
  assert (tmp_path / 'a.parquet').read_bytes()[:4] == b'PAR1'


def test_a_saved_model_scores_the_table_again(finished, capsys):
  run, table, _ = finished
  results = json.loads((run / 'results.json').read_text())
  assert _tabular(f'--data={table}', '--eval_only', f'--out_dir={run}') == 0
  shown = capsys.readouterr().out
  assert f'{results["test"]["value"]["r2"]["mean"]:.4f}' in shown
  assert 'other than these' not in shown


def test_a_saved_model_scores_every_row_of_another_table(
  finished, tmp_path, capsys
):
  run, table, new = finished
  score = ('--eval_only', f'--out_dir={run}')
  assert _tabular(f'--data={new}', *score) == 0
  shown = capsys.readouterr().out
  assert re.search(r'caution: .* churn in \d\d test rows', shown)
  assert 'rows: 40 test\n' in shown and 'on files other than these' in shown
  assert 'training rows' not in shown and 'validation' not in shown
  auc = library.load(run / 'model').score(data.customers(40, seed=1))
  # Of one seed, so that there is no mean over others.
  assert f'{auc["churn"]["auc"]:.4f}' in shown
  assert _tabular(f'--data={new}', f'--test_data={table}', *score) == 1
  assert 'leave out --test_data' in capsys.readouterr().err
  # Validation rows stay what they were, whichever rows are for test.
  results = json.loads((run / 'results.json').read_text())
  assert _tabular(f'--data={table}', f'--test_data={new}', *score) == 0
  shown = capsys.readouterr().out
  assert 'rows: 240 train, 30 validation, 40 test' in shown
  (line,) = re.findall('.*validation accuracy.*', shown)
  accuracy = results['validation']['segment']['accuracy']['mean']
  assert f'{accuracy:.4f}' in line


def test_predicting_counts_rows_and_values_never_seen(
  finished, tmp_path, capsys
):
  run, _, _ = finished
  cities = ['Bremen'] * 3 + ['Oslo'] * 2
  new = _table(tmp_path / 'a.csv', 5, seed=2, city=cities)
  arguments = (f'--data={new}', f'--model={run}')
  out = tmp_path / 'out.csv'
  assert _tabular(*arguments, f'--predict_to={out}') == 0
  shown = capsys.readouterr().out
  assert f'5 predictions written to {out}' in shown
  assert re.search('rows hold values that no training row.*city in [35]', shown)
  assert _tabular(*arguments, '--predict_to=-') == 0
  assert 'city in' in capsys.readouterr().err


def test_predictions_are_written_as_the_table_is(finished, tmp_path, capsys):
  run, _, new = finished
  lines = new.read_text().splitlines()[:3]
  path = tmp_path / 'a.csv'
  path.write_text('\n'.join(lines).replace(',', ';').replace('.', ','))
  arguments = (f'--data={path}', f'--model={run}', '--predict_to=-')
  assert _tabular(*arguments, '--decimal=,') == 0
  found = capsys.readouterr().out.splitlines()
  assert found[0].startswith('row;churn;') and len(found) == 3
  values = [line.rpartition(';')[2] for line in found[1:]]
  assert _tabular(*arguments) == 0
  found = capsys.readouterr().out.splitlines()
  plain = [line.rpartition(',')[2] for line in found[1:]]
  assert values == [text.replace('.', ',') for text in plain]
  assert any('.' in text for text in plain)


def test_flags_give_formats_of_dates_and_texts_of_missing_values(tmp_path):
  days = [f'{1 + i % 28:02d}|{1 + i // 28:02d}|24' for i in range(60)]
  ages = ['unknown' if i % 9 == 0 else i % 7 for i in range(60)]
  path = _table(tmp_path / 'a.csv', 60, day=days, age=ages)
  found = _load(
    options.Config(
      data=str(path), targets=('churn',), dates=('day:%d|%m|%y',),
      missing=('unknown',), time_column='day',
    )
  ).encode(0)  # fmt: skip
  inputs = found.extra['schema']['inputs']
  assert inputs['day'] == {'kind': 'date', 'format': '%d|%m|%y'}
  assert inputs['age']['kind'] == 'number'
  # Split by time, read in that format, as only the last rows are in March.
  month = found.tables.numerics['day.month']
  assert month.mean < 2 and 'day.year' not in found.tables.numerics


@pytest.mark.parametrize(
  'column, values, complaint',
  [
    ('part', ['train'] * 59 + ['tset'], "row 59 (counted from 0): part must say train, validation or test, to split the rows by it; found 'tset'"),
    ('zero', [0] * 60, "of the training rows with a label of 'churn' must have a sum above 0 that fits in float32, found 0 ('zero')"),
    ('part', ['train'] * 30 + ['val'] * 15 + ['test'] * 15, "'rare' has no label in the 15 validation rows"),
    ('zero', [1] + [0] * 59, 'weights of the validation rows'),
  ],
)  # fmt: skip
def test_columns_with_a_part_that_they_cannot_play(
  column, values, complaint, tmp_path, capsys
):
  rare = [*range(30), *[''] * 30]
  table = _table(tmp_path / 'a.csv', 60, rare=rare, **{column: values})
  role = {'part': 'split', 'zero': 'weight'}[column]
  run = f'--out_dir={tmp_path / "run"}'
  arguments = (
    f'--data={table}',
    '--targets=churn,rare' if role == 'split' else '--targets=churn',
    f'--{role}_column={column}',
  )
  assert _tabular(*arguments, run, *TINY) == 1
  error = capsys.readouterr().err
  assert complaint in error and error.count('\n') == 1, error


def test_an_edited_schema_is_handed_back(finished, tmp_path, capsys):
  run, table, _ = finished
  schema = json.loads((run / 'schema.json').read_text())
  schema['inputs']['visits'] = {'kind': 'category'}
  schema['targets'].pop('segment')
  edited = tmp_path / 'schema.json'
  edited.write_text(json.dumps(schema))
  found = _load(options.Config(data=str(table), schema=str(edited))).encode(0)
  assert [task.name for task in found.tasks] == ['churn', 'value']
  assert 'visits' in found.tables.vocabularies
  assert found.extra['schema']['inputs']['visits'] == {'kind': 'category'}
  out = f'--out_dir={tmp_path / "run"}'
  arguments = (f'--data={table}', f'--schema={edited}', out, *TINY)
  for edit, complaint in (
    ({'inputs': {'visit': {'kind': 'number'}}}, "'visit'"),
    ({'inputs': {'age': {'kind': 'integer'}}}, "'integer'"),
    ({'surprise': 1}, 'surprise'),
  ):
    edited.write_text(json.dumps({**schema, **edit}))
    assert _tabular(*arguments) == 1
    error = capsys.readouterr().err
    assert complaint in error and error.count('\n') == 1
  edited.write_text('[1]')
  assert _tabular(*arguments) == 1
  assert 'fields such as "inputs", found [1]' in capsys.readouterr().err
  edited.write_text('{')
  assert _tabular(*arguments) == 1
  assert 'cannot be read' in capsys.readouterr().err
  assert _tabular(*arguments, '--categories=visits') == 1
  assert 'already says what --categories would' in capsys.readouterr().err


@pytest.mark.parametrize(
  'edit, complaint',
  [
    ({'inputs': {'agee': {'kind': 'number'}}}, '(the kind ignored in {})'),
    ({'inputs': {'plan': {'kind': 'number'}}}, 'in {}, the kind category'),
    ({'inputs': {'plan': {'kind': 'date'}}}, 'in {}, the kind category'),
    ({'weight': 'agee'}, 'in {}, weight: there is no column'),
    ({'targets': {'city': {'kind': 'regression'}}}, 'kind multiclass in {}'),
    ({'targets': {'plan': {'kind': 'ordinal'}}}, 'lowest first, in {}'),
    ({'inputs': {}}, 'the inputs of the schema are empty'),
  ],
)
def test_mistakes_in_a_schema_name_its_file(edit, complaint, tmp_path, capsys):
  table, file = _table(tmp_path / 'a.csv', 60), tmp_path / 'edited.json'
  schema = {
    'inputs': {'age': {'kind': 'number'}},
    'targets': {'churn': {'kind': 'binary'}},
  }
  file.write_text(json.dumps({**schema, **edit}))
  run = f'--out_dir={tmp_path / "run"}'
  assert _tabular(f'--data={table}', f'--schema={file}', run, *TINY) == 1
  error = capsys.readouterr().err
  assert complaint.format(file) in error and error.count('\n') == 1, error
  assert '--' not in error


def test_a_target_in_another_encoding(tmp_path, capsys):
  path = tmp_path / 'a.csv'
  rows = ''.join(f'{i},{i % 2}\n' for i in range(40))
  path.write_bytes(f'a,größe\n{rows}'.encode('mac_roman'))
  arguments = (f'--data={path}', '--targets=größe', f'--out_dir={tmp_path}/run')
  assert _tabular(*arguments, *TINY) == 1
  error = capsys.readouterr().err
  assert 'pass its --encoding' in error and error.count('\n') == 1, error


def test_a_schema_shows_letters_as_they_are(tmp_path):
  schema = library.infer({'größe': ['s', 'l'] * 9, 'y': range(18)}, 'y')
  path = tmp_path / 'schema.json'
  launcher_files.write_json(path, schema.to_json(), ensure_ascii=False)
  assert 'größe' in path.read_text(encoding='utf-8')
  assert library.Schema.from_json(launcher_files.read_json(path)) == schema


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    ([], '--targets must name the columns to predict'),
    (['--targets=chrun'], "did you mean 'churn'"),
    (['--targets=churn:regresion'], "one of binary, multiclass"),
    (['--targets=churn,churn'], "found 'churn' again"),
    (['--targets=topics:multilabel'], 'topics:multilabel(sports+politics)'),
    (['--targets=topics:multilabel(a,b)'], 'topics:multilabel(sports+politics)'),
    (['--targets=churn', '--positive=yes'], "found 'yes'"),
    (['--targets=value', '--positive=value:yes'], "--positive names 'value', which is not a binary target"),
    (['--targets=churn', '--positive=churn:maybe'], "found 'maybe'"),
    (['--targets=churn', '--categories=cty'], "did you mean 'city'"),
    (['--targets=churn', '--numbers=plan'], "make it a category (--categories)"),
    (['--targets=churn', '--dates=city'], '"--dates=city:%d/%m/%Y"'),
    (['--targets=churn', '--dates=signup:DD.MM.YYYY'], 'codes of strptime'),
    (['--targets=churn', '--index_column=Age'], "did you mean 'age'"),
    (['--targets=churn', '--index_column=churn'], '--index_column=churn is a target'),
    (['--targets=churn', '--task_weights=churn:agee'], "--task_weights of churn: there is no column 'agee'"),
    (['--targets=churn,plan:ordinal'], '"--targets=plan:ordinal(low+middle+high)"'),
    (['--targets=plan:ordinal(a'], 'rating:ordinal(poor+fair+good)'),
    (['--targets=plan:ordinal(basic+plus+pro)'], "'family' in "),
    (['--schema=nowhere.json'], 'nowhere.json: no such file'),
    (['--targets=churn', '--dates=city:%d.%m.%Y'], '--categories=city'),
    (['--targets=churn', '--tasks=income'], '--tasks is for Census-Income'),
    (['train', '--targets=churn'], 'to train, give --data and --targets'),
    (['--targets=churn', '--dataset=sample'], '--dataset is for Census-Income'),
    (['--targets=churn', '--model=x'], '--model and --predict_to belong together'),
    (['--targets=empty'], "target 'empty' has no label"),
    (['--targets=one'], "must have two classes or more"),
    (['--targets=city:binary'], 'two classes'),
    (['--targets=churn', '--group_column=grp'], "error: --group_column: there is no column 'grp'"),
    (['--targets=churn', '--data=nowhere.csv'], 'no such file or folder'),
    (['--targets=churn', '--test_data=nowhere.csv'], '--test_data=nowhere.csv: no such'),
    (['--targets=churn', '--weight_column=plan'], "plan"),
  ],
  ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)  # fmt: skip
def test_mistakes_end_in_one_line(arguments, complaint, tmp_path, capsys):
  table = _table(tmp_path / 'a.csv', 60, empty=[''] * 60, one=['x'] * 60)
  run = tmp_path / 'run'
  assert _tabular(f'--data={table}', f'--out_dir={run}', *TINY, *arguments) == 1
  error = capsys.readouterr().err
  assert complaint in error and error.count('\n') == 1, error
  assert not run.exists()


def test_a_changed_column_is_named(finished, capsys):
  run, table, _ = finished
  arguments = (f'--data={table}', TARGETS, *TINY, f'--out_dir={run}')
  assert _tabular(*arguments, '--ignore=city') == 1
  error = capsys.readouterr().err
  assert 'columns (city)' in error and 'data.schema' not in error, error


@pytest.mark.parametrize(
  'content, what',
  [
    (b'\x89PNG\r\n', 'a picture'),
    (b'[\n{"age": 1}]', 'found JSON'),
    (b'\xef\xbb\xbf<!DOCTYPE html>', 'a web page'),
  ],
)
def test_other_files_are_called_by_name(content, what, tmp_path):
  path = tmp_path / 'a.csv'
  path.write_bytes(content)
  with pytest.raises(InputError, match=what):
    _load(options.Config(data=str(path), targets=('age',)))


def test_ten_rows_are_too_few(tmp_path, capsys):
  table = _table(tmp_path / 'a.csv', 10)
  assert (
    _tabular(f'--data={table}', TARGETS, f'--out_dir={tmp_path / "run"}') == 1
  )
  assert '10 rows are too few' in capsys.readouterr().err


@pytest.mark.filterwarnings('default')
def test_a_target_in_disguise_is_named(tmp_path, capsys):
  """In a line, with the other tables, before training."""
  churn = data.customers(80)['churn']
  copy = [{'yes': 'left', 'no': 'stays'}.get(x, '') for x in churn]
  table = _table(tmp_path / 'a.csv', 80, state=copy)
  found = _load(options.Config(data=str(table), targets=('churn',)))
  assert [task.name for task in found.tasks] == ['churn']
  (line,) = re.findall('note: .*state.*', capsys.readouterr().out)
  assert 'churn' in line


def test_a_table_without_rows_gets_a_header(finished, tmp_path, capsys):
  run, table, _ = finished
  path, out = tmp_path / 'a.csv', tmp_path / 'out.csv'
  path.write_text(table.read_text().split('\n')[0] + '\n')
  assert (
    _tabular(f'--data={path}', f'--model={run}', f'--predict_to={out}') == 0
  )
  assert out.read_text().startswith('row,churn,') and not _rows(out)
  assert 'no rows' in capsys.readouterr().out


@pytest.mark.parametrize(
  'change, complaint',
  [
    (lambda rows: [row[1:] for row in rows], 'lacks'),
    (
      lambda rows: [rows[0], ['x'] * len(rows[0])],
      'row 0 (counted from 0): signup must hold dates',
    ),
  ],
)
def test_new_tables_that_do_not_fit(
  change, complaint, finished, tmp_path, capsys
):
  run, _, new = finished
  with open(new, newline='') as file:
    rows = change(list(csv.reader(file)))
  path, out = tmp_path / 'a.csv', tmp_path / 'out.csv'
  with open(path, 'w', newline='') as file:
    csv.writer(file).writerows(rows)
  assert (
    _tabular(f'--data={path}', f'--model={run}', f'--predict_to={out}') == 1
  )
  error = capsys.readouterr().err
  assert complaint in error and error.count('\n') == 1, error
  assert not out.exists()


@pytest.mark.parametrize(
  'arguments, complaint',
  [
    (['--predict_to={new}'], 'is the table that is read'),
    (['--predict_to={run}/model/a.csv'], 'is a saved model'),
    (['--predict_to={run}'], 'is a folder'),
    (
      ['--predict_to=a.xlsx'],
      'must end in .csv, .txt, .parquet or .pq, or be -',
    ),
    (['--predict_to=/nowhere/a.csv'], 'create the folder /nowhere first'),
    (['--predict_to=a.csv', '--model={new}'], 'is a file: name the folder'),
    (['--predict_to=a.csv', '--epochs=2'], '--epochs has no effect'),
    (['--predict_to=a.csv', '--index_column=id'], 'is not a column'),
    (['--predict_to=a.csv', '--model=nowhere'], 'expected a model folder'),
  ],
)
def test_predictions_that_cannot_be_written(
  arguments, complaint, finished, capsys
):
  run, _, new = finished
  before = new.read_bytes()
  filled = [a.format(run=run, new=new) for a in arguments]
  assert _tabular(f'--data={new}', f'--model={run}', *filled) == 1
  error = capsys.readouterr().err
  assert complaint in error and error.count('\n') == 1, error
  assert new.read_bytes() == before and not pathlib.Path('a.csv').exists()


def test_a_run_that_is_not_finished_has_no_model(finished, tmp_path, capsys):
  run, _, new = finished
  shutil.copy(run / 'schema.json', tmp_path)
  out = tmp_path / 'a.csv'
  arguments = (f'--data={new}', f'--model={tmp_path}', f'--predict_to={out}')
  assert _tabular(*arguments) == 1
  assert 'is a run that is not finished' in capsys.readouterr().err


def test_census_as_a_table_is_encoded_alike(tmp_path):
  """Equal arrays, tasks and tables, and so equal figures to the last digit."""
  made = sample.make(1500)
  sample.write_text(made.train, tmp_path / 'census-income.data')
  sample.write_text(made.test, tmp_path / 'census-income.test')
  readme = (ROOT / 'experiments/datasets/tables/README.md').read_text()
  (script,) = re.findall(
    r'```bash\n(\{\n.*?> census.csv)\n```', readme, re.DOTALL
  )
  subprocess.run(['sh', '-c', script], cwd=tmp_path, check=True)
  schema = ROOT / 'experiments/flags/census_schema.json'
  one, other = (
    _load(options.Config(**fields)).encode(8)
    for fields in (
      {'data_dir': str(tmp_path)},
      {'data': str(tmp_path / 'census.csv'), 'schema': str(schema)},
    )
  )
  assert one.tasks == other.tasks
  assert one.tables.num_categories == other.tables.num_categories
  assert one.facts['rows'] == other.facts['rows']
  for split in ('train', 'validation', 'test'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(one, split), getattr(other, split)
    )


def test_rows_are_encoded_as_often_as_they_are_asked_for(tmp_path, monkeypatch):
  """Bins for networks, then none for trees; the last time, rows are let go."""
  raw, encode = [], protocol.encode

  def watched(config, parts, *rest):
    raw.append(weakref.ref(parts['train'].rows))
    return encode(config, parts, *rest)

  monkeypatch.setattr(protocol, 'encode', watched)
  table = _table(tmp_path / 'a.csv', 60)
  source = _load(options.Config(data=str(table), targets=('churn',)))
  first, second = source.encode(4), source.encode(0)
  jax.tree.map(
    np.testing.assert_array_equal, first.train.labels, second.train.labels
  )
  assert raw[-1]() is not None
  last = source.encode(4, is_last=True)
  jax.tree.map(np.testing.assert_array_equal, first.train, last.train)
  assert raw[-1]() is None


def test_rows_that_wait_take_little_memory_and_are_encoded_alike():
  rng = np.random.default_rng(0)
  columns = {
    'age': rng.integers(0, 90, 500).astype(float), 'share': rng.random(500),
    'id': np.arange(500.0), 'row': np.arange(500.0),
    'weight': np.ones(500), 'paid': rng.integers(0, 3, 500).astype(float),
  }  # fmt: skip
  inputs = {
    'age': schema.Input('number'), 'share': schema.Input('number'),
    'id': schema.Input('identifier'), 'row': schema.Input('identifier'),
    'weight': schema.Input('ignored'),
  }  # fmt: skip
  whole = schema.Schema(
    inputs, {'paid': schema.Target('count')}, weight='weight'
  )
  part = splits.Part(columns, np.arange(500), {})
  parts = splits.slimmed({'train': part, 'test': part}, whole, 'row')
  train, test = parts['train'].columns, parts['test'].columns
  assert list(train) == list(test) == ['age', 'share', 'row', 'weight', 'paid']
  assert train['age'].codes.nbytes == 500
  assert all(test[name] is columns[name] for name in test)
  assert all(train[name] is columns[name] for name in test if name != 'age')
  numbers = {name: columns[name] for name in ('age', 'share')}
  fitted = tables.fit({}, numbers, num_bins=9)
  assert tables.fit({}, {n: train[n] for n in numbers}, num_bins=9) == fitted
  np.testing.assert_array_equal(
    fitted.encode(train)['numeric'], fitted.encode(columns)['numeric']
  )
  labels = splits.only_labels(parts['train'], whole)
  assert list(labels.columns) == ['weight', 'paid']


@pytest.mark.parametrize('missing', [None, AttributeError, OSError, TypeError])
def test_memory_is_given_back_where_the_c_library_can(missing, monkeypatch):
  """Others lack the function (macOS, musl) or cannot be asked (Windows)."""
  calls = []

  def library(name):
    assert name is None
    if missing:
      raise missing
    return types.SimpleNamespace(malloc_trim=calls.append)

  monkeypatch.setattr(memory.ctypes, 'CDLL', library)
  pool = types.SimpleNamespace(release_unused=lambda: calls.append('pool'))
  arrow = types.SimpleNamespace(default_memory_pool=lambda: pool)
  monkeypatch.setitem(sys.modules, 'pyarrow', arrow)
  memory.give_back()
  assert calls == ['pool', *([] if missing else [0])]


def test_flag_files_of_census_have_the_same_settings():
  """Whatever the defaults of tables become."""
  folder = ROOT / 'experiments' / 'flags'
  names = ('census_sple_uncertainty', 'table_census')
  one, other = (_parsed(f'--flagfile={folder / name}.flags') for name in names)
  for section in (sections.Model, sections.Optimisation):
    for name in fields.of(section):
      assert getattr(one, name) == getattr(other, name), name


def _parsed(*arguments):
  found = []
  launch(lambda _: found.append(options.from_flags(flags.FLAGS)), *arguments)
  return found[0]


def test_defaults_are_those_of_the_library():
  settings = library.Settings()
  defaults = options.TABLE_DEFAULTS
  assert defaults['expert_widths'] == tuple((w,) for w in settings.widths)
  assert defaults['epochs'] == settings.num_epochs
  assert defaults['patience'] == (settings.patience or 0)
  assert defaults['optimizer'] == 'adamw'
  assert defaults['balancer'] == settings.balancer.__name__
  for name in (
    'tower_widths', 'embed_dim', 'num_bins', 'num_crosses', 'cross_rank',
    'dropout', 'learning_rate', 'weight_decay', 'schedule', 'batch_size',
    'num_seeds',
  ):  # fmt: skip
    assert defaults[name] == getattr(settings, name), name
